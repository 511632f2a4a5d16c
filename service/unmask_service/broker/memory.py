"""The broker of `unmask serve`: API and engine share one process and one event loop."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from unmask_diffusion import Plan, ScorePlan

from unmask_service.api_keys import NO_QUOTA, Quota
from unmask_service.broker.fair_queue import FairQueue
from unmask_service.broker.interface import (
    MOST_ATTEMPTS,
    Claim,
    Departure,
    IdempotencyKey,
    JobRecord,
    KeyReusedError,
    QueueFullError,
    QuotaExceededError,
)
from unmask_service.broker.messages import (
    Failed,
    Finished,
    Job,
    LogEntry,
    State,
    cancelled,
    evaluations_off,
    lost,
    poisoned,
    state_at,
)
from unmask_service.forecast import Capacity, Load, Work

NoteEnd = Callable[[Job, Failed, int], None]  # for the end of a job: its failure, and the evaluations left

KEPT_LOGS = 4  # jobs that are kept, the ended ones included, as a multiple of the requests that may wait or run
SWEEP_SECONDS = 1.0  # interval between two searches for orphans and expired jobs
MAX_PLAN_BYTES = 256 << 20  # default bound of the memory that plans take
ENTRIES_PER_TURN = 16  # a reader gives the event loop to others after so many entries that are there already


class Log:
    """A job's log in this process. Any number of readers follow it at their own pace, on one event loop."""

    def __init__(self) -> None:
        self.entries: list[LogEntry] = []
        self._grown = asyncio.Event()

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def ended(self) -> bool:
        return bool(self.entries) and isinstance(self.entries[-1], Finished | Failed)

    def append(self, entry: LogEntry) -> None:  # a log that has ended stays as it is
        if not self.ended:
            self.entries.append(entry)
            self._grown.set()

    async def follow(self) -> AsyncIterator[tuple[int, LogEntry]]:
        position = 0
        while True:
            while position < len(self.entries):
                position += 1
                yield position, self.entries[position - 1]
                if position % ENTRIES_PER_TURN == 0:
                    await asyncio.sleep(0)
            if self.ended:
                return
            self._grown.clear()
            await self._grown.wait()


@dataclass
class _KeptJob:
    job: Job
    work: Work
    plan_bytes: int
    quota: Quota
    key: IdempotencyKey | None
    evaluations_left: int
    attended_at: float  # last followed or looked up
    log: Log = field(default_factory=Log)
    followers: int = 0
    claimed: bool = False
    attempts: int = 0
    left_at_claim: int | None = None
    ended_at: float | None = None

    @property
    def state(self) -> State:
        return state_at(self.log.entries[-1]) if self.log.ended else "running" if self.claimed else "waiting"

    @property
    def may_be_forgotten(self) -> bool:
        """Whether it can make room for another: its client reads no more, but might return."""
        return self.log.ended and self.job.detached and not self.followers


class MemoryBroker:
    """`ApiBroker` and `EngineBroker` in one. No method waits half-way, so no locks are needed."""

    def __init__(
        self,
        max_requests: int,
        max_evaluations: int | None = None,
        orphan_seconds: float = 600.0,
        keep_seconds: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
        note_end: NoteEnd = lambda _job, _failure, _left: None,  # called where neither engine nor client sees the end
        wall_clock: Callable[[], float] = time.time,
        max_plan_bytes: int = MAX_PLAN_BYTES,
    ) -> None:
        self.max_requests, self.max_evaluations, self.max_plan_bytes = max_requests, max_evaluations, max_plan_bytes
        self._orphan_seconds, self._keep_seconds = orphan_seconds, keep_seconds
        self._clock, self._wall_clock, self._note_end = clock, wall_clock, note_end
        self._wall_offset = wall_clock() - clock()
        self._swept_at = clock()
        self._jobs: dict[str, _KeptJob] = {}
        self._keys: dict[str, tuple[str, str]] = {}
        self._handed_back: deque[str] = deque()  # jobs that wait for another engine, before all others
        self._waiting = FairQueue()
        self._whole_at: dict[str, float] = {}  # when a client's quota of evaluations is whole again
        self._arrived = asyncio.Event()
        self._capacity: Capacity | None = None

    def now(self) -> float:
        """Unix time by the monotonic clock: durations stay right when the machine's wall clock is set."""
        return self._wall_offset + self._clock()

    async def refuse_if_full(self, quota: Quota = NO_QUOTA, jobs: int = 1) -> None:
        if not self._unfinished():  # no duration is being measured: follow the wall clock
            self._wall_offset = self._wall_clock() - self._clock()
        self._refuse_over_quota(quota, jobs)
        self._refuse_if_full(evaluations=1, memory=1)

    async def submit(self, *jobs: Job, key: IdempotencyKey | None = None, quota: Quota = NO_QUOTA) -> str:
        if key is not None and (known := await self.id_of(key)) is not None:
            return known
        works, memory = [Work.of(job.plan, quota) for job in jobs], [plan_bytes(job.plan) for job in jobs]
        evaluations = sum(work.evaluations for work in works)
        self._refuse_over_quota(quota, len(jobs), evaluations)
        self._refuse_if_full(evaluations, sum(memory), len(jobs))
        self._spend(quota, evaluations)
        for place, (job, work, of_plan) in enumerate(zip(jobs, works, memory, strict=True)):
            own_key = None if place else key
            self._jobs[job.id] = _KeptJob(job, work, of_plan, quota, own_key, work.evaluations, self._clock())
            self._waiting.put(job.id, quota.client, work.cost)
        if key is not None:
            self._keys[key.name] = key.digest, jobs[0].id
        self._arrived.set()
        return jobs[0].id

    async def id_of(self, key: IdempotencyKey) -> str | None:
        self._sweep()
        digest, job_id = self._keys.get(key.name, (key.digest, None))
        if digest != key.digest:
            raise KeyReusedError
        return job_id

    async def look_up(self, job_id: str) -> JobRecord | None:
        self._sweep()
        kept = self._jobs.get(job_id)
        if kept is None:
            return None
        kept.attended_at = self._clock()
        return JobRecord(kept.job, kept.state, kept.evaluations_left, len(kept.log))

    async def follow(self, job_id: str) -> AsyncIterator[tuple[int, LogEntry]]:
        kept = self._jobs.get(job_id)
        if kept is None:
            yield 1, lost(self.now())
            return
        kept.followers += 1
        try:
            async for pair in kept.log.follow():
                yield pair
        finally:
            kept.followers -= 1
            kept.attended_at = self._clock()

    async def cancel(self, job_id: str) -> int | None:
        kept = self._jobs.get(job_id)
        return None if kept is None else self._cancel(kept)

    async def leave(self, job_id: str) -> int | None:
        saved = await self.cancel(job_id)
        if job_id in self._jobs:
            self._forget(job_id)
        return saved

    async def claim(self) -> Claim:
        while (claim := await self.claim_now()) is None:
            self._arrived.clear()
            await self._arrived.wait()
        return claim

    async def claim_now(self) -> Claim | None:
        self._sweep()
        while job_id := self._handed_back.popleft() if self._handed_back else self._waiting.take():
            kept = self._jobs[job_id]
            if kept.evaluations_left != kept.left_at_claim:
                kept.attempts = 0
            if kept.attempts == MOST_ATTEMPTS:
                failure = poisoned(self.now())
                self._append(kept, failure)
                self._note_end(kept.job, failure, kept.evaluations_left)
                continue
            kept.claimed = True
            kept.attempts += 1
            kept.left_at_claim = kept.evaluations_left
            return Claim(kept.job, tuple(kept.log.entries), kept.attempts)
        return None

    async def departed(self, job_ids: Iterable[str]) -> Mapping[str, Departure]:
        self._sweep()
        return {job_id: "cancelled" for job_id in job_ids if not self._is_claimed(job_id)}

    async def append(self, entries: Sequence[tuple[str, LogEntry]]) -> Mapping[str, Departure]:
        departed = await self.departed({job_id for job_id, _ in entries})
        for job_id, entry in entries:
            if job_id not in departed:
                self._append(self._jobs[job_id], entry)
        return departed

    async def release(self, blameless: bool) -> None:
        for job_id in reversed([*filter(self._is_claimed, self._jobs)]):
            kept = self._jobs[job_id]
            kept.claimed = False
            kept.attempts -= blameless
            self._handed_back.appendleft(job_id)
        self._arrived.set()

    async def report(self, capacity: Capacity) -> None:
        self._capacity = capacity

    async def load(self) -> Load:
        self._sweep()
        works: dict[bool, list[Work]] = {True: [], False: []}
        for each in self._unfinished():
            works[each.claimed].append(each.work.left(each.evaluations_left))
        return Load(tuple(works[True]), tuple(works[False]), self._capacity, ahead=self._waiting.ahead)

    def _is_claimed(self, job_id: str) -> bool:
        return (kept := self._jobs.get(job_id)) is not None and kept.claimed and not kept.log.ended

    def _append(self, kept: _KeptJob, entry: LogEntry) -> None:
        kept.log.append(entry)
        kept.evaluations_left -= evaluations_off(entry)
        if kept.log.ended and kept.ended_at is None:
            kept.ended_at = self._clock()
            self._spend(kept.quota, -kept.evaluations_left)

    def _cancel(self, kept: _KeptJob) -> int | None:
        if kept.log.ended:
            return None
        if kept.job.id in self._handed_back:
            self._handed_back.remove(kept.job.id)
        elif not kept.claimed:
            self._waiting.remove(kept.job.id, kept.quota.client)
        self._append(kept, cancelled(self.now()))
        return None if kept.claimed else kept.evaluations_left

    def _forget(self, job_id: str) -> None:
        kept = self._jobs.pop(job_id)
        if kept.key is not None:
            del self._keys[kept.key.name]

    def _sweep(self) -> None:
        """Cancel orphans and forget jobs that have expired."""
        now = self._clock()
        if now < self._swept_at + SWEEP_SECONDS:
            return
        self._swept_at = now
        for job_id, each in [*self._jobs.items()]:
            if each.followers:
                continue
            if each.ended_at is None and now > each.attended_at + self._orphan_seconds:
                if (saved := self._cancel(each)) is not None:
                    self._note_end(each.job, cancelled(self.now()), saved)
            elif each.ended_at is not None and now > each.ended_at + self._keep_seconds:
                self._forget(job_id)

    def _unfinished(self) -> list[_KeptJob]:
        return [each for each in self._jobs.values() if not each.log.ended]

    def _refuse_over_quota(self, quota: Quota, jobs: int, evaluations: int = 0) -> None:
        """Raise `QuotaExceededError` where a client's call has no room in its quota.

        Evaluations are a leaky bucket that holds a minute's; a call that plans more than that needs it empty.
        """
        if quota.requests is not None:
            own = sum(each.quota.client == quota.client for each in self._unfinished())
            if own + jobs > quota.requests:
                raise QuotaExceededError.of_requests(quota, own)
        if evaluations and (each := quota.seconds_per_evaluation):
            owed = max(0.0, self._whole_at.get(quota.client, 0.0) - self._clock())
            wait = owed + min(evaluations * each, 60.0) - 60.0
            if wait > 0:
                raise QuotaExceededError.of_evaluations(quota, evaluations, wait)

    def _spend(self, quota: Quota, evaluations: int) -> None:
        """Count evaluations against a client's quota, or give them back where they are negative."""
        now, spent = self._clock(), evaluations * quota.seconds_per_evaluation
        self._whole_at[quota.client] = max(now, max(now, self._whole_at.get(quota.client, now)) + spent)

    def _refuse_if_full(self, evaluations: int, memory: int, jobs: int = 1) -> None:
        """Make room for a call with so much work and plans so large, or raise `QueueFullError`.

        One call is accepted whatever its work and its plans if there is no other.
        """
        unfinished = self._unfinished()
        if len(unfinished) + jobs > self.max_requests:
            raise QueueFullError.of_requests(self.max_requests)
        while len(self._jobs) + jobs > KEPT_LOGS * self.max_requests:
            if not self._forget_oldest():
                raise QueueFullError(f"the queue is full: {len(self._jobs)} answers have not been read yet")
        planned = sum(each.evaluations_left for each in unfinished)
        if self.max_evaluations is not None and planned and planned + evaluations > self.max_evaluations:
            raise QueueFullError.of_evaluations(self.max_evaluations, planned)
        most = self.max_plan_bytes
        stays = sum(each.plan_bytes for each in self._jobs.values() if not each.may_be_forgotten)
        if stays and stays + memory > most:
            raise QueueFullError(f"the queue is full: plans of other requests take {stays} of at most {most} bytes")
        while sum(each.plan_bytes for each in self._jobs.values()) + memory > most and self._forget_oldest():
            pass

    def _forget_oldest(self) -> bool:
        """Forget the oldest job that may be forgotten; say whether there was one."""
        oldest = next((job_id for job_id, each in self._jobs.items() if each.may_be_forgotten), None)
        if oldest is not None:
            self._forget(oldest)
        return oldest is not None


def plan_bytes(plan: Plan | ScorePlan) -> int:
    """Memory that a plan, and log-probabilities in its log, take at most, in bytes, estimated from its sizes."""
    if isinstance(plan, ScorePlan):
        return 1000 + 100 * len(plan.tokens)
    given = 40 * len(plan.canvas) + 200 * len(plan.digits)
    given += sum(200 + 100 * len(members) for members in plan.sets.values()) + 200 * len(plan.request.logit_bias or ())
    repeats = plan.reveals - plan.sub_tokens  # in the plan and in the log, masked and revealed
    schedules = 200 * len(plan.schedules) + 16 * (plan.sub_tokens + plan.network_evaluations) + 320 * repeats
    log = 0
    if plan.request.logprobs is not None:
        tokens = len(plan.schedules) * plan.canvas.count(None)
        log = 40 * plan.sub_tokens + (100 + 120 * plan.request.logprobs) * tokens
    return 5000 + given + schedules + log
