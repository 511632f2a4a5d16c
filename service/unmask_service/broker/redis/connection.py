"""Connections to Redis that cannot hang, and one error for everything that keeps Redis from answering."""

import asyncio
import contextlib
import logging
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from unmask_service.broker.interface import BrokerAwayError
from unmask_service.metrics import Metrics
from unmask_service.settings import SettingsError

logger = logging.getLogger("unmask")

Reply = TypeVar("Reply")

BLOCK_SECONDS = 1.0  # a blocking read returns after this time at the latest, with nothing
ANSWER_SECONDS = 5.0  # timeout of an answer; for blocking reads it counts from the end of the block
HEALTH_CHECK_SECONDS = 15  # a connection that was idle for so long is checked before it is used
CONNECTIONS, BLOCKING_CONNECTIONS = 16, 4  # sizes of the two pools
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 2.0  # pause before a retry, doubled each time
TRY_SECONDS = 1.0  # while Redis is known to be away, one request per interval tries it all the same

AWAY_MESSAGE = "the queue cannot be reached now: Redis is away"
# Errors that pass, or that an operator must mend, while nothing in the queue is lost: retries will succeed then.
AWAY = (
    OSError,
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.InvalidResponse,
    exceptions.ReadOnlyError,
    exceptions.OutOfMemoryError,
    exceptions.NoScriptError,
    exceptions.NoPermissionError,
    exceptions.ClusterError,  # CLUSTERDOWN, MASTERDOWN
    exceptions.TryAgainError,
    exceptions.AskError,  # and MOVED
)
# The same as codes: within scripts (Redis 6.2 wraps them), and those for which redis-py has no class.
AWAY_CODES = ("OOM", "READONLY", "NOREPLICAS", "MISCONF", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY")
DENIED = "The user executing the script can't"  # NOPERM within a script, which Redis 6.2 sends without a code
# Errors at start-up that no retry can mend.
REFUSED = (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError)


@dataclass(frozen=True)
class Connections:
    """Two pools of connections."""

    commands: Redis  # for commands that are answered at once
    blocking: Redis  # for reads that wait

    async def close(self) -> None:
        await self.commands.aclose()
        await self.blocking.aclose()


def connect(url: str) -> Connections:
    """Clients for an address such as `redis://host:6379/0`, `rediss://user:password@host`; they connect when used.

    Raises SettingsError: the address is not valid. The message does not repeat it: it may hold a password.
    """

    def client(seconds: float, connections: int) -> Redis:
        pool = BlockingConnectionPool.from_url(
            url,
            protocol=2,
            socket_timeout=seconds,
            socket_connect_timeout=ANSWER_SECONDS,
            health_check_interval=HEALTH_CHECK_SECONDS,
            # retry on a connection that Redis has closed meanwhile, not on one that is silent
            retry=Retry(NoBackoff(), 1, supported_errors=(exceptions.ConnectionError,)),
            max_connections=connections,
            timeout=ANSWER_SECONDS,
        )
        return Redis.from_pool(pool)

    try:
        commands = client(ANSWER_SECONDS, CONNECTIONS)
        blocking = client(BLOCK_SECONDS + ANSWER_SECONDS, BLOCKING_CONNECTIONS)
    except (ValueError, TypeError) as error:
        raise SettingsError(
            "--redis-url (UNMASK_REDIS_URL): must be redis://, rediss:// or unix://, such as redis://localhost:6379/0"
        ) from error
    return Connections(commands, blocking)


async def check(client: Redis) -> None:
    """Check that Redis accepts this process. A Redis that is away is not an error: it may come back.

    Raises SettingsError: Redis refuses the user, the database or an option.
    """
    try:
        await client.ping()
    except REFUSED as error:
        raise SettingsError(f"--redis-url (UNMASK_REDIS_URL): Redis does not let this process in: {error}") from error
    except AWAY as error:
        logger.warning("Redis is away: %s; waiting for it", error)
    except (exceptions.RedisError, TypeError) as error:  # no such database, an unknown option
        raise SettingsError(f"--redis-url (UNMASK_REDIS_URL): {error}") from error


class Link:
    """Whether Redis answers: metrics, log lines when that changes, and retries."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.up = True  # whether Redis has answered the last command
        self.back_at = -float("inf")  # when it last came back, by the monotonic clock
        self._tried_at = -float("inf")

    @contextlib.contextmanager
    def round_trip(self, operation: str | None = None) -> Iterator[None]:
        """Wrap a command; with a name, its time is measured.

        Raises BrokerAwayError: Redis did not answer, or accepts no writes.
        """
        begun, cancelled_before = time.perf_counter(), _cancellations()
        try:
            yield
        except (*AWAY, exceptions.RedisError) as error:
            if not is_away(error):
                raise
            self._note(up=False, why=error)
            raise BrokerAwayError(AWAY_MESSAGE) from error
        if _cancellations() > cancelled_before:  # it came together with an answer, and redis-py 8.1 swallowed it
            raise asyncio.CancelledError
        self._note(up=True)
        if operation is not None:
            self._metrics.count_round_trip(operation, time.perf_counter() - begun)

    @contextlib.contextmanager
    def fail_fast(self, operation: str | None = None) -> Iterator[None]:
        """As `round_trip`, for clients' requests: they fail at once while Redis is known to be away.

        One request per interval tries Redis all the same.
        """
        now = time.monotonic()
        if not self.up and now < self._tried_at + TRY_SECONDS:
            raise BrokerAwayError(AWAY_MESSAGE)
        self._tried_at = now
        with self.round_trip(operation):
            yield

    async def retry(self, operation: str, command: Callable[[], Awaitable[Reply]]) -> Reply:
        """Send a command until it is answered. It must be idempotent."""
        failures = 0
        while True:
            with contextlib.suppress(BrokerAwayError), self.round_trip(operation):
                return await command()
            failures += 1
            await _pause(failures)

    async def repeat(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do background work for ever, with pauses while Redis is away. Other errors are logged."""
        failures = 0
        while True:
            try:
                await work()
                failures = 0
            except Exception as error:
                if not isinstance(error, BrokerAwayError):
                    logger.exception("background work has failed; retrying")
                failures += 1
                await _pause(failures)

    def _note(self, up: bool, why: Exception | None = None) -> None:
        self._metrics.broker_up.set(up)
        if up and not self.up:
            self.back_at = time.monotonic()
            logger.info("Redis is back")
        if not up and self.up:
            logger.warning("Redis is away: %s", why)
        self.up = up


def is_away(error: Exception) -> bool:
    """Whether an error says that Redis does not answer now, or accepts no writes."""
    words = re.split(r"[\s:]+", str(error))
    coded = any(code in words or f"-{code}" in words for code in AWAY_CODES)
    return isinstance(error, AWAY) or coded or DENIED in str(error)


async def _pause(failures: int) -> None:
    seconds = min(FIRST_PAUSE_SECONDS * 2 ** min(failures - 1, 10), LONGEST_PAUSE_SECONDS)
    await asyncio.sleep(seconds * random.uniform(0.5, 1))


def _cancellations() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()
