"""What both sides of the broker over Redis share: its scripts, typed reads, background work, the load."""

import asyncio
import contextlib
import hashlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from operator import itemgetter
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from unmask_service.broker.interface import BrokerAwayError
from unmask_service.broker.redis.connection import Connections, Link, check
from unmask_service.broker.redis.format import Keys, decode_capacity, decode_work
from unmask_service.forecast import Load, Work, mean_capacity
from unmask_service.metrics import Metrics

Entry = tuple[bytes, dict[bytes, bytes]]  # of a stream: id, fields

SCRIPTS = files(__package__) / "scripts"
PRELUDE = (SCRIPTS / "prelude.lua").read_text()

CLOCK_SECONDS = 5.0  # interval between two readings of Redis' clock
DRIFT = 1e-4  # by which two clocks may run apart, seconds per second
CONTRADICTION_SECONDS = 0.001  # estimates that differ by so much more than their errors: a clock was set


@dataclass(frozen=True)
class Timing:
    """Timeouts in seconds."""

    lease: float = 10.0  # a worker that is silent for so long loses its jobs
    orphan: float = 600.0  # a job that no client follows or looks up for so long is cancelled
    keep: float = 600.0  # a job that has ended can be read for so long


class Script:
    """A Lua script: one transaction. `await script(arguments)` returns its reply."""

    def __init__(self, client: Redis, jobs: str, name: str) -> None:
        self._client, self._jobs = client, jobs
        self._text = PRELUDE + (SCRIPTS / f"{name}.lua").read_text()
        self._digest = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, *arguments: str | float) -> Any:  # noqa: ANN401 — each script documents its reply
        try:
            return await self._client.evalsha(self._digest, 1, self._jobs, *arguments)
        except NoScriptError:  # load and run it in one packet, so that a flush hardly ever comes in between
            pipeline = self._client.pipeline(transaction=False)
            pipeline.script_load(self._text)
            pipeline.evalsha(self._digest, 1, self._jobs, *arguments)
            _, reply = await pipeline.execute(raise_on_error=False)
            if isinstance(reply, Exception):
                raise reply from None
            return reply


class Scripts:
    """All scripts, for one model."""

    def __init__(self, client: Redis, jobs: str) -> None:
        self.submit = Script(client, jobs, "submit")
        self.claim = Script(client, jobs, "claim")
        self.append = Script(client, jobs, "append")
        self.cancel = Script(client, jobs, "cancel")
        self.renew = Script(client, jobs, "renew")
        self.release = Script(client, jobs, "release")
        self.retire = Script(client, jobs, "retire")
        self.look_up = Script(client, jobs, "look_up")
        self.attend = Script(client, jobs, "attend")
        self.load = Script(client, jobs, "load")


class RedisClock:
    """Redis' clock, estimated from its answers to TIME. The wall clocks of other machines may be hours apart.

    The answer was true at some moment between question and reply, so half the round trip bounds the error. The best
    estimate is kept until a better one comes, or one that contradicts it because a clock was set.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._monotonic = monotonic
        self._offset = wall() - monotonic()  # from the monotonic clock to Unix time; a guess until Redis answers
        self._error = math.inf  # bound in seconds when it was estimated
        self._estimated_at = monotonic()

    @property
    def known(self) -> bool:
        return self._error < math.inf

    def now(self) -> float:
        return self._monotonic() + self._offset

    async def read(self, client: Redis) -> None:
        sent = self._monotonic()
        seconds, microseconds = await client.time()
        self.note(seconds + microseconds / 1e6, sent, self._monotonic())

    def note(self, time_there: float, sent: float, received: float) -> None:
        """Use one answer; `sent` and `received` are times by the monotonic clock."""
        offset, error = time_there - (sent + received) / 2, (received - sent) / 2
        known_error = self._error + DRIFT * (received - self._estimated_at)
        if error <= known_error or abs(offset - self._offset) > error + known_error + CONTRADICTION_SECONDS:
            self._offset, self._error, self._estimated_at = offset, error, received


class RedisSide:
    """One side of a broker over Redis, for one model."""

    def __init__(self, connections: Connections, keys: Keys, metrics: Metrics, timing: Timing) -> None:
        self._connections, self._keys, self._metrics, self._timing = connections, keys, metrics, timing
        self._link = Link(metrics)
        self._scripts = Scripts(connections.commands, keys.jobs)
        self._clock = RedisClock()

    @contextlib.asynccontextmanager
    async def _connected(
        self, *work: Callable[[], Awaitable[None]], at_the_end: Callable[[], Awaitable[None]] | None = None
    ) -> AsyncIterator[None]:
        """Repeat some work in the background; at the end do something else, if Redis answers.

        Raises SettingsError: Redis does not accept this process.
        """
        await check(self._connections.commands)
        tasks = [asyncio.create_task(self._link.repeat(each)) for each in (*work, self._keep_time)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if at_the_end is not None:
                with contextlib.suppress(BrokerAwayError):
                    await at_the_end()
            await self._connections.close()

    def now(self) -> float:
        return self._clock.now()

    async def _read_clock(self) -> None:
        await self._clock.read(self._connections.commands)

    async def _keep_time(self) -> None:
        with self._link.round_trip():
            await self._read_clock()
        await asyncio.sleep(CLOCK_SECONDS)

    async def load(self) -> Load:
        with self._link.fail_fast("load"):
            works, left, claimed, capacities, turns, last = await self._scripts.load(ms(self._timing.lease))
        evaluations_left, owned = dict(_pairs(left)), set(claimed)
        unfinished: dict[bool, list[Work]] = {True: [], False: []}  # by whether an engine has claimed the job
        for _, work, job_id in sorted(((*decode_work(work), id_) for id_, work in _pairs(works)), key=itemgetter(0)):
            unfinished[job_id in owned].append(work.left(int(evaluations_left[job_id])))
        capacity = mean_capacity([decode_capacity(each) for each in capacities])
        ahead = {client.decode(): float(turn) - float(last or 0) for client, turn in _pairs(turns)}
        ahead = {client: by for client, by in ahead.items() if by > 0}
        return Load(tuple(unfinished[True]), tuple(unfinished[False]), capacity, max(1, len(capacities)), ahead)


def ms(seconds: float) -> int:
    """Whole milliseconds, at least one."""
    return max(1, math.ceil(1000 * seconds))


async def read_on(client: Redis, places: Mapping[str, str], count: int, milliseconds: int) -> dict[str, list[Entry]]:
    """Wait for entries behind these places (stream → last known id); nothing after so many milliseconds.

    `count` bounds the entries of each stream. The client must allow answers to take that long.
    """
    streams: Any = {**places}
    read: Any = await client.xread(streams, count=count, block=milliseconds)
    return {stream.decode(): entries for stream, entries in read or ()}


def position(entry_id: str) -> tuple[int, int]:
    """The id of a stream's entry in a form that can be compared."""
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number)


def _pairs(flat: list[bytes]) -> list[tuple[bytes, bytes]]:
    """The fields of a hash from a script's reply: name, value, name, value, and so on."""
    return list(zip(flat[::2], flat[1::2], strict=True))
