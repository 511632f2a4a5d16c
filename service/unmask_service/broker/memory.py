"""The broker of `unmask serve`: API and engine share one process and one event loop."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field

from unmask_service.broker.interface import QueueFullError
from unmask_service.broker.messages import Failed, Finished, Job, LogEntry, Revealed
from unmask_service.forecast import Capacity, Load, Work

# logs are kept until they are read: of so many times the requests that may wait or run
KEPT_LOGS = 4


@dataclass
class _Generation:
    job: Job
    work: Work
    evaluations_left: int
    log: list[LogEntry] = field(default_factory=list)
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    claimed: bool = False
    ended: bool = False


class MemoryBroker:
    """Satisfies `Broker`. Every method runs on the event loop and none waits half-way, so no locks are needed."""

    def __init__(self, max_requests: int, max_evaluations: int | None = None) -> None:
        self.max_requests = max_requests
        self.max_evaluations = max_evaluations
        self._generations: dict[str, _Generation] = {}
        self._waiting: deque[str] = deque()
        self._arrived = asyncio.Event()
        self._capacity: Capacity | None = None

    async def refuse_if_full(self) -> None:
        """See `Broker.refuse_if_full`."""
        self._refuse_if_full(1)

    async def submit(self, job: Job) -> None:
        """See `Broker.submit`."""
        work = Work.of(job.plan)
        self._refuse_if_full(work.evaluations)
        self._generations[job.id] = _Generation(job, work, work.evaluations)
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

    async def leave(self, job_id: str) -> int:
        """See `Broker.leave`."""
        generation = self._generations.pop(job_id, None)
        if generation is None or generation.claimed:
            return 0
        self._waiting.remove(job_id)
        return generation.evaluations_left

    async def claim(self) -> Job:
        """See `Broker.claim`."""
        while (job := await self.claim_now()) is None:
            self._arrived.clear()
            await self._arrived.wait()
        return job

    async def claim_now(self) -> Job | None:
        """See `Broker.claim_now`."""
        if not self._waiting:
            return None
        generation = self._generations[self._waiting.popleft()]
        generation.claimed = True
        return generation.job

    async def left(self, job_ids: Iterable[str]) -> set[str]:
        """See `Broker.left`."""
        return {job_id for job_id in job_ids if job_id not in self._generations}

    async def append(self, entries: Sequence[tuple[str, LogEntry]]) -> None:
        """See `Broker.append`. Entries of jobs that have been left are dropped, as are those that follow an end."""
        for job_id, entry in entries:
            generation = self._generations.get(job_id)
            if generation is None or generation.ended:
                continue
            generation.log.append(entry)
            generation.grown.set()
            generation.evaluations_left -= isinstance(entry, Revealed)
            generation.ended = isinstance(entry, Finished | Failed)

    async def report(self, capacity: Capacity) -> None:
        """See `Broker.report`."""
        self._capacity = capacity

    async def load(self) -> Load:
        """See `Broker.load`."""
        unfinished = self._unfinished()
        running, waiting = (
            tuple(each.work.left(each.evaluations_left) for each in unfinished if each.claimed is claimed)
            for claimed in (True, False)
        )
        return Load(running, waiting, self._capacity)

    def _unfinished(self) -> list[_Generation]:
        return [each for each in self._generations.values() if not each.ended]

    def _refuse_if_full(self, evaluations: int) -> None:
        """One request is let in whatever its work, where there is no other."""
        unfinished = self._unfinished()
        if len(unfinished) >= self.max_requests:
            raise QueueFullError(f"the queue is full: {self.max_requests} requests are waiting or running")
        if len(self._generations) >= KEPT_LOGS * self.max_requests:
            raise QueueFullError(f"the queue is full: {len(self._generations)} answers have not been read yet")
        at_hand = sum(each.evaluations_left for each in unfinished)
        if self.max_evaluations is not None and at_hand and at_hand + evaluations > self.max_evaluations:
            raise QueueFullError(
                f"the queue is full: of {self.max_evaluations} network evaluations {at_hand} are planned by others"
            )
