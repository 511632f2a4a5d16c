"""The API's side over Redis: jobs in, logs out. One blocking read serves all logs that are followed."""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import cast
from uuid import uuid4

from unmask_diffusion import Outline, ScorePlan

from unmask_service.api_keys import NO_QUOTA, Quota
from unmask_service.broker.interface import (
    BrokerAwayError,
    IdempotencyKey,
    JobRecord,
    KeyReusedError,
    QueueFullError,
    QuotaExceededError,
)
from unmask_service.broker.memory import Log
from unmask_service.broker.messages import Failed, Job, LogEntry, cancelled, endpoint_of, lost
from unmask_service.broker.redis.connection import BLOCK_SECONDS, LONGEST_PAUSE_SECONDS, Connections
from unmask_service.broker.redis.format import Keys, decode_entry, decode_job, encode_entry, encode_job, encode_work
from unmask_service.broker.redis.side import RedisSide, Timing, ms, read_on
from unmask_service.forecast import Work
from unmask_service.metrics import Metrics

logger = logging.getLogger("unmask")

FORGET_SECONDS = 10.0  # how long a cancelled job is kept after its client has left: others may be reading
ATTEND_SECONDS = 5.0  # longest interval between two reports of which jobs are followed
ENTRIES_PER_READ = 256  # most entries of each log in one read
WAKE_KEPT_SECONDS = 3600  # expiry of the stream that wakes a process' blocking read


@dataclass
class _Followed:
    """A log that clients follow in this process, as far as it has been read."""

    log: Log = field(default_factory=Log)
    followers: int = 0


class DecodedJobs:
    """Jobs by their id, the least recently used are dropped first: decoding a job draws its schedules again.

    What is stored of a job in Redis never changes. The kept jobs have `most_places` tokens and scheduled sub-tokens in
    all, of some 30 bytes each; a larger job is not kept.
    """

    def __init__(self, most_places: int = 2**20, most_jobs: int = 512) -> None:
        self._most_places, self._most_jobs = most_places, most_jobs
        self._jobs: OrderedDict[str, tuple[Job, int]] = OrderedDict()
        self._places = 0

    def get(self, job_id: str) -> Job | None:
        if job_id not in self._jobs:
            return None
        self._jobs.move_to_end(job_id)
        return self._jobs[job_id][0]

    def put(self, job: Job) -> None:
        plan = job.plan
        places = len(plan.tokens) if isinstance(plan, ScorePlan) else len(plan.canvas) + plan.reveals
        if job.id in self._jobs or places > self._most_places:
            return
        self._jobs[job.id] = job, places
        self._places += places
        while self._places > self._most_places or len(self._jobs) > self._most_jobs:
            _, (_, dropped) = self._jobs.popitem(last=False)
            self._places -= dropped


class RedisApiBroker(RedisSide):
    """The `ApiBroker` over Redis."""

    def __init__(
        self,
        connections: Connections,
        keys: Keys,
        metrics: Metrics,
        timing: Timing,
        model: Outline,
        max_requests: int,
        max_evaluations: int | None = None,
    ) -> None:
        super().__init__(connections, keys, metrics, timing)
        self._model = model
        self._max_requests, self._max_evaluations = max_requests, max_evaluations
        self._followed: dict[str, _Followed] = {}
        self._decoded = DecodedJobs()
        # to be cancelled once Redis is back: their clients have left, or were asked to retry after a lost reply
        self._unwanted: set[str] = set()
        self._began_at = time.monotonic()
        self._wake = keys.wake(uuid4().hex)
        self._woken = "0-0"
        self._anything_to_read = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Connect; in the background read the followed logs and report that they are followed. Raises SettingsError."""
        async with self._connected(self._read, self._attend):
            yield

    async def refuse_if_full(self, quota: Quota = NO_QUOTA, jobs: int = 1) -> None:
        if not self._clock.known:  # the job will be stamped with it
            with self._link.fail_fast():
                await self._read_clock()
        load = await self.load()
        own = sum(work.client == quota.client for work in (*load.running, *load.waiting))
        if quota.requests is not None and own + jobs > quota.requests:
            raise QuotaExceededError.of_requests(quota, own)
        if len(load.running) + len(load.waiting) >= self._max_requests:
            raise QueueFullError.of_requests(self._max_requests)
        if self._max_evaluations is not None and load.evaluations >= self._max_evaluations:
            raise QueueFullError.of_evaluations(self._max_evaluations, load.evaluations)

    async def submit(self, *jobs: Job, key: IdempotencyKey | None = None, quota: Quota = NO_QUOTA) -> str:
        works = [Work.of(job.plan, quota) for job in jobs]
        rows: list[str | int | float] = []
        for job, work in zip(jobs, works, strict=True):
            rows += [job.id, encode_job(job), encode_work(work, job.submitted_at), work.evaluations, work.cost]
        key_name, digest = ("", "") if key is None else (self._keys.idempotency(key.name), key.digest)
        own = [quota.client, "" if quota.requests is None else quota.requests, 1000 * quota.seconds_per_evaluation]
        try:
            with self._link.fail_fast("submit"):
                most = "" if self._max_evaluations is None else self._max_evaluations
                limits = self._max_requests, most
                outcome, value = await self._scripts.submit(*limits, key_name, digest, *own, *rows)
        except (BrokerAwayError, asyncio.CancelledError):
            if key is None:  # with a key, the client's retry finds the job
                self._unwanted.update(job.id for job in jobs)
            raise
        match outcome:
            case b"requests":
                raise QueueFullError.of_requests(self._max_requests)
            case b"evaluations":
                raise QueueFullError.of_evaluations(self._max_evaluations or 0, value)
            case b"quota of requests":
                raise QuotaExceededError.of_requests(quota, value)
            case b"quota of evaluations":
                planned = sum(work.evaluations for work in works)
                raise QuotaExceededError.of_evaluations(quota, planned, value / 1000)
            case b"reused":
                raise KeyReusedError
        return str(value.decode())

    async def id_of(self, key: IdempotencyKey) -> str | None:
        with self._link.fail_fast():
            fields = await self._connections.commands.hmget(self._keys.idempotency(key.name), ["id", "digest"])
        job_id, digest = cast("list[bytes | None]", fields)
        if job_id is not None and digest != key.digest.encode():
            raise KeyReusedError
        return None if job_id is None else job_id.decode()

    async def look_up(self, job_id: str) -> JobRecord | None:
        with self._link.fail_fast():
            facts = await self._scripts.look_up(job_id)
        if not facts:
            return None
        job, state, left, length = facts
        decoded = self._decoded.get(job_id)
        if decoded is None:
            decoded = await asyncio.to_thread(decode_job, job, self._model)
            self._decoded.put(decoded)
        return JobRecord(decoded, state.decode(), int(left), length)

    async def follow(self, job_id: str) -> AsyncIterator[tuple[int, LogEntry]]:
        """Yield (position, entry) as the log grows, up to its end. While Redis is away it waits."""
        followed = self._followed.setdefault(job_id, _Followed())
        followed.followers += 1
        try:
            if followed.followers == 1:
                await self._wake_the_read()
            async for pair in followed.log.follow():
                yield pair
        finally:
            followed.followers -= 1
            if not followed.followers:
                del self._followed[job_id]

    async def cancel(self, job_id: str) -> int | None:
        return await self._cancel(job_id, self._timing.keep)

    async def leave(self, job_id: str) -> int | None:
        """Cancel and forget a job; once Redis is back, if it is away."""
        try:
            return await self._cancel(job_id, FORGET_SECONDS)
        except BrokerAwayError:
            self._unwanted.add(job_id)
            return None

    async def _cancel(self, job_id: str, keep: float) -> int | None:
        with self._link.fail_fast():
            saved = await self._scripts.cancel(job_id, encode_entry(cancelled(self.now())), ms(keep))
        return int(saved) if saved else None

    async def _wake_the_read(self) -> None:
        """Make the blocking read return: there is one more log to read."""
        self._anything_to_read.set()
        with contextlib.suppress(BrokerAwayError), self._link.fail_fast():
            pipeline = self._connections.commands.pipeline(transaction=False)
            pipeline.xadd(self._wake, {"": ""}, maxlen=1, approximate=False)
            pipeline.expire(self._wake, WAKE_KEPT_SECONDS)
            await pipeline.execute()

    async def _read(self) -> None:
        unfinished = {job_id: each.log for job_id, each in self._followed.items() if not each.log.ended}
        if not unfinished:
            self._anything_to_read.clear()
            await self._anything_to_read.wait()
            return
        logs = {self._keys.log(job_id): log for job_id, log in unfinished.items()}
        places = {self._wake: self._woken} | {key: f"{len(log)}-0" for key, log in logs.items()}
        with self._link.round_trip():
            read = await read_on(self._connections.blocking, places, ENTRIES_PER_READ, ms(BLOCK_SECONDS))
        if self._wake in read:
            self._woken = read.pop(self._wake)[-1][0].decode()
        for key, entries in read.items():
            try:
                for _, fields in entries:
                    logs[key].append(decode_entry(fields[b"e"]))
            except Exception:  # this log ends here, no other with it
                logger.exception("cannot read %s", key)
                logs[key].append(Failed(self.now(), "engine", "the generation's log cannot be read"))

    async def _attend(self) -> None:
        """Report which jobs are followed; end unwanted ones, orphans, and those that Redis has forgotten."""
        pause = min(ATTEND_SECONDS, self._timing.orphan / 4)
        await asyncio.sleep(pause)
        unfinished = [job_id for job_id, each in self._followed.items() if not each.log.ended]
        with self._link.round_trip():  # after it, `back_at` is known
            unknown, orphans = await self._scripts.attend(ms(self._timing.orphan), *unfinished)
        for job_id in unknown:
            if (followed := self._followed.get(job_id.decode())) is not None:
                followed.log.append(lost(self.now()))
        # after an outage, every API process must have had time to report before any job counts as an orphan
        if time.monotonic() < max(self._began_at, self._link.back_at) + 2 * pause + LONGEST_PAUSE_SECONDS:
            return
        for job_id in [*self._unwanted]:
            await self._cancel(job_id, FORGET_SECONDS)
            self._unwanted.discard(job_id)
        for job_id in orphans:
            logger.info("cancelling job %s: no client has read it for a long time", job_id.decode())
            if (saved := await self._cancel(job_id.decode(), self._timing.keep)) is not None:
                self._metrics.evaluations_saved.inc(saved)
                self._metrics.count_request(endpoint_of(job_id.decode()), "cancelled")
