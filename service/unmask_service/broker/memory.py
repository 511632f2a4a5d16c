"""The broker of `unmask serve`: API and engine share one process and one event loop."""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field

from unmask_service.broker.interface import Load, QueueFullError
from unmask_service.broker.messages import Failed, Finished, Job, LogEntry, Revealed, Started

RATE_WINDOW_SECONDS = 10.0


@dataclass
class _Generation:
    job: Job
    evaluations_left: int
    log: list[LogEntry] = field(default_factory=list)
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    ended: bool = False


class MemoryBroker:
    """Satisfies `Broker`. Every method runs on the event loop, so no locks are needed."""

    def __init__(self, max_requests: int) -> None:
        self.max_requests = max_requests
        self._generations: dict[str, _Generation] = {}
        self._waiting: deque[str] = deque()
        self._arrived = asyncio.Event()
        self._recent: deque[tuple[float, int]] = deque()

    async def submit(self, job: Job) -> None:
        """See `Broker.submit`."""
        if sum(not g.ended for g in self._generations.values()) >= self.max_requests:
            raise QueueFullError(self.max_requests, self._seconds_of_work())
        self._generations[job.id] = _Generation(job, job.plan.network_evaluations)
        self._waiting.append(job.id)
        self._arrived.set()

    async def follow(self, job_id: str, after: int = 0) -> AsyncIterator[tuple[int, LogEntry]]:
        """See `Broker.follow`."""
        generation = self._generations[job_id]
        position = after
        while True:
            while position < len(generation.log):
                entry = generation.log[position]
                position += 1
                yield position, entry
                if isinstance(entry, Finished | Failed):
                    return
            generation.grown.clear()
            await generation.grown.wait()

    async def leave(self, job_id: str) -> None:
        """See `Broker.leave`."""
        self._generations.pop(job_id, None)
        if job_id in self._waiting:
            self._waiting.remove(job_id)

    async def claim(self) -> Job:
        """See `Broker.claim`."""
        while (job := self.claim_now()) is None:
            self._arrived.clear()
            await self._arrived.wait()
        return job

    def claim_now(self) -> Job | None:
        """See `Broker.claim_now`."""
        return self._generations[self._waiting.popleft()].job if self._waiting else None

    def left(self, job_ids: Iterable[str]) -> set[str]:
        """See `Broker.left`."""
        return {job_id for job_id in job_ids if job_id not in self._generations}

    async def append(self, entries: Sequence[tuple[str, LogEntry]]) -> None:
        """See `Broker.append`. Entries of jobs that have been left are dropped."""
        for job_id, entry in entries:
            generation = self._generations.get(job_id)
            if generation is None:
                continue
            generation.log.append(entry)
            generation.grown.set()
            generation.evaluations_left -= isinstance(entry, Revealed)
            generation.ended |= isinstance(entry, Finished | Failed)
        self._count(sum(isinstance(entry, Revealed) for _, entry in entries))

    def load(self) -> Load:
        """See `Broker.load`."""
        unfinished = [g for g in self._generations.values() if not g.ended]
        running = sum(any(isinstance(entry, Started) for entry in g.log[:1]) for g in unfinished)
        return Load(
            running=running,
            waiting=len(unfinished) - running,
            evaluations=sum(g.evaluations_left for g in unfinished),
            evaluations_per_second=self._rate(),
        )

    def _count(self, evaluations: int) -> None:
        now = time.monotonic()
        self._recent.append((now, evaluations))
        while self._recent[0][0] < now - RATE_WINDOW_SECONDS:
            self._recent.popleft()

    def _rate(self) -> float | None:
        """Evaluations a second between the first and the last append of the window."""
        if len(self._recent) < 2:
            return None
        seconds = self._recent[-1][0] - self._recent[0][0]
        return (sum(n for _, n in self._recent) - self._recent[0][1]) / seconds if seconds > 0 else None

    def _seconds_of_work(self) -> float:
        load = self.load()
        return math.ceil(load.evaluations / load.evaluations_per_second) if load.evaluations_per_second else 1.0
