"""What is asked: requests and arrival times, each a pure function of a seed and a number, so that a load repeats."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unmask_service.load.errors import LoadError

# purposes of Philox's counter, so that requests and arrivals do not share numbers
_REQUESTS, _ARRIVALS = 0, 1
# drawn seeds stay below 2^53, as the server's: JSON readers may keep numbers as doubles
_SEED_LIMIT = 2**53
# of a stream that its client leaves: unmask events that are read first, at most
_MOST_EVENTS_BEFORE_LEAVING = 32

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Range:
    """Whole numbers from `low` to `high`, both included."""

    low: int
    high: int

    @classmethod
    def parse(cls, text: str, option: str) -> "Range":
        """Read "64" or "16:128".

        Raises:
            LoadError: it is neither, or holds no number above 0.
        """
        low, _, high = text.partition(":")
        try:
            found = cls(int(low), int(high or low))
        except ValueError:
            raise LoadError(f"{option}: {text!r} is neither a number nor a range such as 16:128") from None
        if not 1 <= found.low <= found.high:
            raise LoadError(f"{option}: {text!r} must be positive, the smaller number first")
        return found

    def draw(self, chance: np.random.Generator) -> int:
        """One of them, each as likely."""
        return int(chance.integers(self.low, self.high + 1))

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}:{self.high}"


@dataclass(frozen=True)
class Call:
    """One request to be sent.

    Attributes:
        body: of `POST /generate`, JSON.
        streamed: whether it asks for events.
        leave_after: unmask events after which its client goes away; None: it stays.
    """

    body: bytes
    streamed: bool
    leave_after: int | None = None


@dataclass(frozen=True)
class Mix:
    """Kinds of requests, drawn independently of each other for every request.

    Attributes:
        seed: of all that is drawn; request `number` depends on it and on the number alone.
        common: fields that every body has.
        variants: fields of which one set goes into each body, for example prompts.
        samplers: values of the field `sampler`; {} leaves it out.
        max_tokens: range of the field; None leaves it out.
        n: range of the field.
        stream_share: the part of the requests that ask for events.
        leave_share: the part of those whose client goes away before the end.
    """

    seed: int = 0
    common: Fields = field(default_factory=dict)
    variants: tuple[Fields, ...] = ({},)
    samplers: tuple[Fields, ...] = ({},)
    max_tokens: Range | None = None
    n: Range = Range(1, 1)
    stream_share: float = 1.0
    leave_share: float = 0.0

    def call(self, number: int) -> Call:
        """Request `number`, from 0. Every kind of choice is drawn, needed or not: one does not move the others."""
        chance = _numbers(self.seed, number, _REQUESTS)
        seed, n = int(chance.integers(_SEED_LIMIT)), self.n.draw(chance)
        variant = self.variants[chance.integers(len(self.variants))]
        sampler = self.samplers[chance.integers(len(self.samplers))]
        streamed, leaves = bool(chance.random() < self.stream_share), bool(chance.random() < self.leave_share)
        events = int(chance.integers(1, _MOST_EVENTS_BEFORE_LEAVING + 1))
        drawn = {"seed": seed, "n": n, "stream": streamed}
        drawn |= {"max_tokens": self.max_tokens.draw(chance)} if self.max_tokens else {}
        body = {**drawn, **({"sampler": sampler} if sampler else {}), **self.common, **variant}
        return Call(json.dumps(body).encode(), streamed, events if streamed and leaves else None)


def arrivals(rate: float, seed: int) -> Iterator[float]:
    """Seconds at which requests arrive: a Poisson process of `rate` a second."""
    chance = _numbers(seed, 0, _ARRIVALS)
    now = 0.0
    while True:
        now += float(chance.exponential(1 / rate))
        yield now


def _numbers(seed: int, number: int, purpose: int) -> np.random.Generator:
    """Philox keyed by the seed; the counter's upper words say what the numbers are for."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, number, purpose]))
