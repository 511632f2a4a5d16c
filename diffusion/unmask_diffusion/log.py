"""What the log of a request says: reveals of samples, readouts of passes, and errors."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

# nats are counted in whole units of 2^-40, so that sums do not depend on how they are grouped
UNITS_A_NAT = 2**40

# (token id, log-probability in nats), the most probable first, of equals the smaller id
Likeliest = tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Reveal:
    """One step of one sample: the digits that it revealed."""

    sample: int  # index of the sample in its request
    step: int  # of the sample's schedule, from 0
    sub_tokens: tuple[tuple[int, int, int], ...]  # (position, j, digit) of every sub-token revealed
    masked: tuple[tuple[int, int], ...] = ()  # (position, j) of every sub-token that is masked again then
    # Where the request asks for log-probabilities; a draft has none, and is right without. They are those of
    # `log_probabilities`: of every sub-token in the order above, and (position, likeliest classes) of the positions of
    # which nothing was drawn before.
    log_probabilities: tuple[float, ...] = field(default=(), compare=False)
    likeliest: tuple[tuple[int, Likeliest], ...] = field(default=(), compare=False)

    @property
    def rows(self) -> int:
        """Number of positions, whose logits were drawn from."""
        return len({position for position, _, _ in self.sub_tokens})

    def write(self, canvas: Tensor) -> None:
        """Write the digits into a canvas [L, l], in place, and mask what is masked again."""
        positions, js, values = (list(each) for each in zip(*self.sub_tokens, strict=True))
        mask = canvas[positions[0], js[0]].clone()  # what is to be revealed is masked
        canvas[positions, js] = torch.tensor(values)
        if self.masked:
            positions, js = (list(each) for each in zip(*self.masked, strict=True))
            canvas[positions, js] = mask


@dataclass(frozen=True)
class LogProbabilities:
    """What the log of a sample says of the probabilities of its tokens, in nats."""

    of_sub_tokens: dict[tuple[int, int], float]  # (position, j) → of the digit that was revealed there
    likeliest: dict[int, Likeliest]  # by position, before anything of it was drawn

    @classmethod
    def of(cls, log: Iterable[Reveal]) -> Self:
        """Collect them from the reveals of one sample."""
        found = cls({}, {})
        for reveal in log:
            found.note(reveal)
        return found

    def note(self, reveal: "Reveal") -> None:
        """Take in a reveal."""
        for (position, j, _), value in zip(reveal.sub_tokens, reveal.log_probabilities, strict=True):
            self.of_sub_tokens[position, j] = value
        self.likeliest.update(reveal.likeliest)

    def of_token(self, position: int, digits: int) -> "TokenLogProbabilities":
        """Those of the token at a position, which has so many digits."""
        values = tuple(self.of_sub_tokens.get((position, j)) for j in range(digits))
        return TokenLogProbabilities(values, self.likeliest.get(position, ()))

    @property
    def total(self) -> float:
        """Log-probability of all that was revealed, along its order."""
        return math.fsum(self.of_sub_tokens.values())


@dataclass(frozen=True)
class TokenLogProbabilities:
    """Log-probabilities of one token of an answer, in nats."""

    sub_tokens: tuple[float | None, ...]  # of each digit, when it was revealed; None: it was given
    likeliest: Likeliest  # classes, before any digit of it was drawn; empty: it was given, or none are asked for

    @property
    def total(self) -> float | None:
        """Their sum; None for a given token."""
        drawn = [value for value in self.sub_tokens if value is not None]
        return math.fsum(drawn) if drawn else None


@dataclass(frozen=True, slots=True)
class Readout:
    """Consecutive evaluations of one pass: weighted sums of -log p, in units of 2^-40 nats."""

    index: int  # of the pass
    evaluations: int  # number of evaluations
    units: int  # the bound, all sub-tokens
    by_token: tuple[tuple[int, int], ...] = ()  # (position in the plan's tokens, units); only where requested
    joint_units: int = 0  # the published integrand; only where requested
    # (position in the plan's tokens, the likeliest classes there with their units); only where requested
    likeliest: tuple[tuple[int, tuple[tuple[int, int], ...]], ...] = ()

    def __add__(self, later: "Readout") -> "Readout":
        """The sum of two readouts of the same pass."""
        by_token = Counter(dict(self.by_token))
        by_token.update(dict(later.by_token))
        return Readout(
            self.index,
            self.evaluations + later.evaluations,
            self.units + later.units,
            tuple(sorted(by_token.items())),
            self.joint_units + later.joint_units,
            self.likeliest + later.likeliest,
        )


@dataclass(frozen=True)
class SampleError:
    """Why a sample or a pass cannot continue; other work is not affected."""

    sample: int  # index of the sample in its request, or of the pass in its plan
    message: str  # for the client
    impossible: bool  # the given tokens have probability zero under the model (else: the model gave invalid logits)


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a token that is intermediate after a reveal (some digits revealed, some masked) may become."""

    position: int  # in the canvas
    classes_left: int  # classes that agree with every revealed digit, by the codes alone, whatever their probability
    # (token id, probability), the most probable first, of equals the smaller id. Classes of probability 0 are left out.
    # The probabilities are the model's own (temperature 1, no top_k, no top_p), from the joint logits that the reveal
    # was drawn from: they do not know what was revealed at other positions together with it. Over all classes left they
    # sum to 1.
    likeliest: tuple[tuple[int, float], ...]


LogEntry = Reveal | Readout | SampleError
