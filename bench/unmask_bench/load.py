"""The load: a seeded mix of requests, sent by a closed loop (clients wait) or an open loop (Poisson arrivals)."""

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unmask_bench import LoadError
from unmask_bench.client import Call, LoadClient, Record

# purposes in Philox's counter, so that requests and arrivals do not share random numbers
_REQUESTS, _ARRIVALS = 0, 1
# drawn seeds stay below 2^53, as the server's: JSON readers may keep numbers as doubles
_SEED_LIMIT = 2**53
# a stream that its client abandons is abandoned after at most this many unmask events
_MOST_EVENTS_BEFORE_LEAVING = 32
# a client of the closed loop that was refused waits as long as Retry-After says, but at most this long, in seconds
LONGEST_PAUSE = 1.0
PAUSE = 0.05

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Range:
    """Whole numbers from `low` to `high`, both included."""

    low: int
    high: int

    @classmethod
    def parse(cls, text: str, option: str) -> "Range":
        """Read "64" or "16:128"; raises LoadError for anything else and for numbers below 1."""
        low, _, high = text.partition(":")
        try:
            found = cls(int(low), int(high or low))
        except ValueError:
            raise LoadError(f"{option}: {text!r} is neither a number nor a range such as 16:128") from None
        if not 1 <= found.low <= found.high:
            raise LoadError(f"{option}: {text!r} must be positive, the smaller number first")
        return found

    def draw(self, chance: np.random.Generator) -> int:
        return int(chance.integers(self.low, self.high + 1))

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}:{self.high}"


@dataclass(frozen=True)
class Mix:
    """Kinds of requests, drawn independently of each other for every request."""

    seed: int = 0  # of all draws: request `number` depends on the seed and the number alone
    common: Fields = field(default_factory=dict)  # fields of every body
    variants: tuple[Fields, ...] = ({},)  # sets of fields, one of which goes into each body: prompts, for example
    samplers: tuple[Fields, ...] = ({},)  # values of the field `sampler`; {} leaves it out
    max_tokens: Range | None = None  # None leaves the field out
    n: Range = Range(1, 1)
    stream_share: float = 1.0  # share of requests that stream
    leave_share: float = 0.0  # share of streams whose client disconnects before the end

    def call(self, number: int) -> Call:
        """Request `number`, from 0. Every choice is drawn, needed or not, so that one does not shift the others."""
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
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, number, purpose]))


@dataclass(frozen=True)
class Load:
    """How much is sent, and for how long. Either `concurrency` or `request_rate` is given."""

    concurrency: int | None = None  # clients of a closed loop
    request_rate: float | None = None  # arrivals a second of an open loop
    requests: int | None = None  # number of requests; None: no bound
    seconds: float | None = None  # time in which requests are sent; None: no bound
    abandon: bool = False  # after `seconds`, running requests are cancelled instead of awaited

    @property
    def label(self) -> str:
        if self.request_rate is not None:
            return f"{self.request_rate:g} requests a second"
        return f"{self.concurrency} at a time"


class LoadRun:
    """One load test. What it has measured so far can be read at any time."""

    def __init__(self, client: LoadClient, mix: Mix, load: Load, first: int = 0) -> None:
        self.client = client
        self.mix = mix
        self.load = load
        self.records: list[Record] = []  # of the requests that have ended
        self.running = self.peak = 0  # requests in flight, now and at most
        self.lag = 0.0  # the most seconds by which an arrival was sent late, because this process had no time
        self.begun = time.perf_counter()
        self._ended: float | None = None
        self._cpu_begun, self.cpu_seconds = time.process_time(), 0.0
        stop = None if load.requests is None else first + load.requests
        self._numbers: Iterator[int] = itertools.takewhile(lambda n: stop is None or n < stop, itertools.count(first))

    @property
    def seconds(self) -> float:
        """Time from the beginning to the last byte of the last answer, or to now."""
        return (self._ended or time.perf_counter()) - self.begun

    @property
    def share(self) -> float:
        """Share of the test that is done, from 0 to 1."""
        requests, seconds = self.load.requests, self.load.seconds
        done = (len(self.records) / requests if requests else 0.0, self.seconds / seconds if seconds else 0.0)
        return min(1.0, max(done))

    async def run(self) -> None:
        """Send all requests and wait for their ends. The records survive a cancellation."""
        self.begun, self._cpu_begun = time.perf_counter(), time.process_time()
        rate, patience = self.load.request_rate, self.load.seconds if self.load.abandon else None
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await (self._closed_loop() if rate is None else self._open_loop(rate))
        finally:
            self._ended = time.perf_counter()
            self.cpu_seconds = time.process_time() - self._cpu_begun

    async def _closed_loop(self) -> None:
        async with asyncio.TaskGroup() as clients:
            for _ in range(self.load.concurrency or 1):
                clients.create_task(self._client())

    async def _client(self) -> None:
        while self._may_send(time.perf_counter() - self.begun) and (number := next(self._numbers, None)) is not None:
            record = await self._send(number)
            if record.answer is None:
                await asyncio.sleep(min(record.retry_after or PAUSE, LONGEST_PAUSE))

    async def _open_loop(self, rate: float) -> None:
        async with asyncio.TaskGroup() as requests:
            for number, at in zip(self._numbers, arrivals(rate, self.mix.seed), strict=False):
                if not self._may_send(at):
                    break
                wait = at - (time.perf_counter() - self.begun)
                self.lag = max(self.lag, -wait)
                await asyncio.sleep(max(0.0, wait))
                requests.create_task(self._send(number))

    def _may_send(self, at: float) -> bool:
        return self.load.seconds is None or at < self.load.seconds

    async def _send(self, number: int) -> Record:
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            record = await self.client.send(self.mix.call(number))
            self.records.append(record)
            return record
        finally:
            self.running -= 1
