"""The engine's side over Redis: leases on jobs, and logs to which each entry is appended exactly once."""

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast
from uuid import uuid4

from redis.exceptions import RedisError
from unmask_diffusion import Outline

from unmask_service.broker.interface import MOST_ATTEMPTS, BrokerAwayError, Claim, Departure
from unmask_service.broker.messages import Failed, Finished, LogEntry, endpoint_of, evaluations_off, poisoned, state_at
from unmask_service.broker.redis.connection import BLOCK_SECONDS, Connections
from unmask_service.broker.redis.format import Keys, decode_entry, decode_job, encode_capacity, encode_entry
from unmask_service.broker.redis.side import Entry, RedisSide, Timing, ms, position, read_on
from unmask_service.forecast import Capacity
from unmask_service.metrics import Metrics

logger = logging.getLogger("unmask")

RENEWALS = 3  # renewals in the time of one lease
TAKEN_OVER: Departure = "taken over"
CANCELLED: Departure = "cancelled"
IDS_PER_READ = 64  # most ids of new jobs in one read of the queue


@dataclass
class _Held:
    """A job that this worker has claimed."""

    token: int  # fencing token: Redis takes entries under the newest one only
    log: list[str]  # all of it, encoded: should Redis lose its end, it is written again
    evaluations_left: int  # after the last entry
    state: str = ""  # after the last entry; empty until the job ends

    def add(self, entries: Sequence[LogEntry]) -> int:
        """Append entries; return the position of the first."""
        first = len(self.log) + 1
        self.log += map(encode_entry, entries)
        self.evaluations_left -= sum(map(evaluations_off, entries))
        if isinstance(entries[-1], Finished | Failed):
            self.state = state_at(entries[-1])
        return first


class RedisEngineBroker(RedisSide):
    """The `EngineBroker` over Redis."""

    def __init__(self, connections: Connections, keys: Keys, metrics: Metrics, timing: Timing, model: Outline) -> None:
        super().__init__(connections, keys, metrics, timing)
        self._model = model
        self._worker = f"worker-{uuid4().hex}"
        self._held: dict[str, _Held] = {}
        self._departed: dict[str, Departure] = {}
        self._capacity: Capacity | None = None
        self._arrived = asyncio.Event()
        self._arrived.set()
        self._last_seen = "0-0"
        self._renewed_at = time.monotonic()
        self._renewal_seconds = timing.lease / RENEWALS
        metrics.lease_age_seconds.set_function(lambda: time.monotonic() - self._renewed_at)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Connect; renew leases and watch the queue in the background; at the end release all. Raises SettingsError."""
        async with self._connected(self._watch, self._heartbeat, at_the_end=self._retire):
            yield

    async def claim(self) -> Claim:
        while (claim := await self.claim_now()) is None:
            await self._arrived.wait()
        return claim

    async def claim_now(self) -> Claim | None:
        """Claim a job if there is one. It sends a command only after something may have arrived."""
        if not self._clock.known:  # log entries will be stamped with it
            await self._link.retry("claim", self._read_clock)
        while self._arrived.is_set():
            self._arrived.clear()
            reply = await self._link.retry("claim", lambda: self._scripts.claim(self._worker, self._takeover_ms()))
            if len(reply) == 1:
                self._last_seen = max(self._last_seen, reply[0].decode(), key=position)
                return None
            self._arrived.set()
            job_id, token, attempts, left, job = reply
            claim = await self._open(job_id.decode(), token, attempts, int(left), job)
            if claim is not None:
                return claim
        return None

    async def departed(self, job_ids: Iterable[str]) -> Mapping[str, Departure]:
        """Which of these jobs the last renewal or append found lost."""
        return {job_id: self._departed.pop(job_id) for job_id in [*job_ids] if job_id in self._departed}

    async def append(self, entries: Sequence[tuple[str, LogEntry]]) -> Mapping[str, Departure]:
        """Append entries to logs. While Redis is away it waits."""
        new: defaultdict[str, list[LogEntry]] = defaultdict(list)
        for job_id, entry in entries:
            new[job_id].append(entry)
        first = {job_id: self._held[job_id].add(more) for job_id, more in new.items() if job_id in self._held}
        unknown: dict[str, Departure] = {job_id: CANCELLED for job_id in new if job_id not in first}
        while first:
            first = await self._write({job_id: each for job_id, each in first.items() if job_id in self._held})
        departed = unknown | dict(await self.departed(new))
        self._metrics.late_writes_refused.inc(sum(why == TAKEN_OVER for why in departed.values()))
        return departed

    async def release(self, blameless: bool) -> None:
        """Hand back all jobs. If Redis does not carry it out, their leases run out."""
        arguments = [self._worker, ms(self._timing.lease), int(blameless), *self._tokens(self._held)]
        self._held.clear()
        try:
            with self._link.round_trip():
                await self._scripts.release(*arguments)
        except (BrokerAwayError, RedisError) as error:
            logger.warning("cannot hand back jobs, so others wait for their leases to run out: %s", error)
        self._arrived.set()

    async def report(self, capacity: Capacity) -> None:
        """Publish the capacity with the next renewal; the first one at once."""
        first, self._capacity = self._capacity is None, capacity
        if first:
            with contextlib.suppress(BrokerAwayError):
                await self._renew(capacity)

    async def _open(self, job_id: str, token: int, attempts: int, left: int, job: bytes) -> Claim | None:
        """Read the log of a claimed job. A job that no worker survived is ended before anything of it is decoded."""
        stream = self._keys.log(job_id)
        stored = await self._link.retry("claim", lambda: self._connections.commands.xrange(stream))
        log = [fields[b"e"] for _, fields in cast("list[Entry]", stored)]
        self._held[job_id] = _Held(token, [entry.decode() for entry in log], left)
        self._departed.pop(job_id, None)
        failure = poisoned(self.now())
        if attempts <= MOST_ATTEMPTS:
            try:
                decoded = await asyncio.to_thread(decode_job, job, self._model)
                return Claim(decoded, tuple(map(decode_entry, log)), attempts)
            except Exception:
                logger.exception("cannot read job %s", job_id)
                failure = Failed(self.now(), "engine", "the generation could not be read")
        logger.error("giving up job %s: %s", job_id, failure.message)
        if not await self.append([(job_id, failure)]):
            self._metrics.count_request(endpoint_of(job_id), "failed", failure.reason)
        return None

    async def _write(self, first: Mapping[str, int]) -> dict[str, int]:
        """Write each log from a position to its end; return an earlier one where Redis has lost the end."""
        arguments: list[str | int] = [ms(self._timing.keep)]
        for job_id, start in first.items():
            held = self._held[job_id]
            entries = held.log[start - 1 :]
            arguments += [job_id, held.token, start, held.evaluations_left, held.state, len(entries), *entries]
        results = await self._link.retry("append", lambda: self._scripts.append(*arguments))
        missing: dict[str, int] = {}
        for job_id, result in zip(first, results, strict=True):
            if isinstance(result, int):
                missing[job_id] = result + 1
            elif result != b"ok":
                self._lose(job_id, result)
            elif job_id in self._held and self._held[job_id].state:
                del self._held[job_id]
        return missing

    def _lose(self, job_id: str, why: bytes) -> None:
        """Hold a job no longer; `append` and `departed` report it to the engine."""
        if self._held.pop(job_id, None) is not None:
            self._departed[job_id] = TAKEN_OVER if why == TAKEN_OVER.encode() else CANCELLED

    async def _watch(self) -> None:
        """Wait for a new job; return in time to see whether a worker is silent."""
        block = ms(min(BLOCK_SECONDS, self._renewal_seconds))
        with self._link.round_trip():
            read = await read_on(self._connections.blocking, {self._keys.jobs: self._last_seen}, IDS_PER_READ, block)
        for entries in read.values():
            self._last_seen = max(self._last_seen, entries[-1][0].decode(), key=position)
        self._arrived.set()

    async def _heartbeat(self) -> None:
        if self._capacity is not None:
            await self._renew(self._capacity)
        await asyncio.sleep(self._renewal_seconds)

    async def _renew(self, capacity: Capacity) -> None:
        renewed = {**self._held}
        arguments = [self._worker, ms(self._timing.lease), encode_capacity(capacity), *self._tokens(renewed)]
        with self._link.round_trip("renew"):
            results = await self._scripts.renew(*arguments)
        self._renewed_at = time.monotonic()
        for (job_id, held), result in zip(renewed.items(), results, strict=True):
            if result != b"ok" and self._held.get(job_id) is held:  # not one that was claimed anew meanwhile
                self._lose(job_id, result)

    async def _retire(self) -> None:
        await self.release(blameless=True)
        with self._link.round_trip():
            await self._scripts.retire(self._worker)

    def _tokens(self, job_ids: Iterable[str]) -> list[str | int]:
        return [each for job_id in job_ids for each in (job_id, self._held[job_id].token)]

    def _takeover_ms(self) -> int:
        """The silence after which a job is taken over; after an outage none is for a lease, so that all can renew."""
        grace = time.monotonic() < self._link.back_at + self._timing.lease
        return 2**53 if grace else ms(self._timing.lease)
