"""Load: a closed loop of clients that each wait for their answer, or an open loop of arrivals that wait for nobody."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

from unmask_service.load.client import LoadClient, Record
from unmask_service.load.workload import Mix, arrivals

# a client of the closed loop that was refused comes again when it is told to, but so late at most
LONGEST_PAUSE = 1.0
PAUSE = 0.05


@dataclass(frozen=True)
class Load:
    """How much is asked, and for how long. Either `concurrency` or `request_rate` is given.

    Attributes:
        concurrency: clients of a closed loop.
        request_rate: arrivals a second of an open loop, a Poisson process.
        requests: so many are sent; None: no bound.
        seconds: so long requests are sent; None: no bound.
        abandon: what is on its way when the seconds are over is left; else it is waited for.
    """

    concurrency: int | None = None
    request_rate: float | None = None
    requests: int | None = None
    seconds: float | None = None
    abandon: bool = False

    @property
    def label(self) -> str:
        """In words."""
        if self.request_rate is not None:
            return f"{self.request_rate:g} requests a second"
        return f"{self.concurrency} at a time"


class LoadRun:
    """One load test. What it has measured so far can be read at any time.

    Attributes:
        records: of the requests that have come to an end.
        running: requests on their way; `peak` is the most there were.
        lag: the most seconds by which an arrival was sent late, because this process had no time.
        cpu_seconds: of this process.
    """

    def __init__(self, client: LoadClient, mix: Mix, load: Load, first: int = 0) -> None:
        self.client = client
        self.mix = mix
        self.load = load
        self.records: list[Record] = []
        self.running = self.peak = 0
        self.lag = 0.0
        self.begun = time.perf_counter()
        self._ended: float | None = None
        self._cpu_begun, self.cpu_seconds = time.process_time(), 0.0
        stop = None if load.requests is None else first + load.requests
        self._numbers: Iterator[int] = itertools.takewhile(lambda n: stop is None or n < stop, itertools.count(first))

    @property
    def seconds(self) -> float:
        """From the beginning to the last byte of the last answer, or to now."""
        return (self._ended or time.perf_counter()) - self.begun

    @property
    def share(self) -> float:
        """How much of it is done, from 0 to 1."""
        requests, seconds = self.load.requests, self.load.seconds
        done = (len(self.records) / requests if requests else 0.0, self.seconds / seconds if seconds else 0.0)
        return min(1.0, max(done))

    async def run(self) -> None:
        """Send everything and wait for the ends. Cancelled, it keeps what it has."""
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
            record = await self._ask(number)
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
                requests.create_task(self._ask(number))

    def _may_send(self, at: float) -> bool:
        return self.load.seconds is None or at < self.load.seconds

    async def _ask(self, number: int) -> Record:
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            record = await self.client.ask(self.mix.call(number))
            self.records.append(record)
            return record
        finally:
            self.running -= 1
