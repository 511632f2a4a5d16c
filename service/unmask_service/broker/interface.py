"""The broker takes jobs to engines and logs to clients; in memory or over Redis, behind one interface.

An *attached* job is cancelled and forgotten when the client that sent it disconnects. A *detached* job continues, and
its answer is kept for clients that return. Positions in a log count from 1.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from unmask_service.api_keys import NO_QUOTA, Quota
from unmask_service.broker.messages import Job, LogEntry, State
from unmask_service.forecast import Capacity, Load

MOST_ATTEMPTS = 3  # a job fails after so many engines in a row have claimed it and failed without a reveal

# Why a claimed job is no longer this engine's.
Departure = Literal["cancelled", "taken over"]


class BrokerError(Exception):
    """The broker refuses a request, or cannot take it; the message is for the client."""


class QueueFullError(BrokerError):
    """The queue has no room for another request; the message names the limit."""

    @classmethod
    def of_requests(cls, most: int) -> "QueueFullError":
        return cls(f"the queue is full: {most} requests are waiting or running")

    @classmethod
    def of_evaluations(cls, most: int, planned: int) -> "QueueFullError":
        return cls(f"the queue is full: other requests have planned {planned} of at most {most} network evaluations")


class QuotaExceededError(BrokerError):
    """The client's own quota has no room for a call; the message names the limit and its value."""

    def __init__(self, message: str, seconds: float | None = None) -> None:
        super().__init__(message)
        self.seconds = seconds  # until the same call has room; None: until a request of the client ends

    @classmethod
    def of_requests(cls, quota: Quota, open_now: int) -> "QuotaExceededError":
        limit = f"at most {quota.requests} requests of {quota.client!r} may wait or run (requests)"
        return cls(f"the quota of this API key is used up: {limit}, and {open_now} do")

    @classmethod
    def of_evaluations(cls, quota: Quota, evaluations: int, seconds: float) -> "QuotaExceededError":
        limit = f"{quota.client!r} may plan {quota.evaluations_per_minute} network evaluations a minute"
        message = f"the quota of this API key is used up: {limit} (evaluations_per_minute); this call plans"
        return cls(f"{message} {evaluations}, for which there is room in {seconds:.1f} s", seconds)


class KeyReusedError(BrokerError):
    """The idempotency key belongs to another request."""

    def __init__(self) -> None:
        super().__init__("this key was sent with another request")


class BrokerAwayError(BrokerError):
    """The broker cannot be reached now."""


@dataclass(frozen=True)
class IdempotencyKey:
    """A client's name for its request: the same key always leads to the same job."""

    name: str
    digest: str  # of the whole request


@dataclass(frozen=True)
class JobRecord:
    """What the broker knows of a job."""

    job: Job
    state: State
    evaluations_left: int  # network evaluations planned and not done
    log_length: int

    @property
    def ended(self) -> bool:
        return self.state not in ("waiting", "running")


@dataclass(frozen=True)
class Claim:
    """A job for an engine to begin, or to resume."""

    job: Job
    log: tuple[LogEntry, ...] = ()  # written by earlier engines
    attempts: int = 1  # engines that claimed it since the last reveal, this one included; at most `MOST_ATTEMPTS`


class Broker(Protocol):
    """What API processes and engines share."""

    def now(self) -> float:
        """Unix time in seconds, by the clock that all processes of this queue share."""

    async def load(self) -> Load:
        """The work in the queue."""


class ApiBroker(Broker, Protocol):
    """The broker for those who talk to clients. Every method but `now` may raise `BrokerAwayError`."""

    async def refuse_if_full(self, quota: Quota = NO_QUOTA, jobs: int = 1) -> None:
        """Refuse a call of so many jobs that `submit` would certainly refuse; before anything is spent on it.

        Raises QueueFullError and QuotaExceededError.
        """

    async def submit(self, *jobs: Job, key: IdempotencyKey | None = None, quota: Quota = NO_QUOTA) -> str:
        """Queue the jobs of one call, all or none, as their client's under its quota.

        Planned evaluations count against the quota; those that are left when a job ends are given back.

        Returns the id of the first job of the call that will answer: this one, or the one that the key belongs to.
        Raises QueueFullError: too much is waiting or running; QuotaExceededError: of this client; KeyReusedError: the
        key belongs to another request.
        """

    async def id_of(self, key: IdempotencyKey) -> str | None:
        """The id of the job that a key belongs to. Raises `KeyReusedError` if it belongs to another request."""

    async def look_up(self, job_id: str) -> JobRecord | None:
        """What is known of a job; None if it is unknown or expired. A look-up keeps it from becoming an orphan."""

    def follow(self, job_id: str) -> AsyncIterator[tuple[int, LogEntry]]:
        """Yield (position, entry) of a job's log as it grows, up to its `Finished` or `Failed` entry."""

    async def cancel(self, job_id: str) -> int | None:
        """End a job, if it has not ended, with a `Failed` entry.

        Returns the network evaluations saved if no engine had claimed it; otherwise None: an engine counts them.
        """

    async def leave(self, job_id: str) -> int | None:
        """Cancel and forget an attached job: its client has its answer or has left. Returns what `cancel` does."""


class EngineBroker(Broker, Protocol):
    """The broker for engines."""

    async def claim(self) -> Claim:
        """Claim the next job by fair queueing between clients (`FairQueue`); wait if there is none.

        Jobs that were handed back go first. The jobs of one client are claimed in the order of their arrival.
        """

    async def claim_now(self) -> Claim | None:
        """Claim the next job, if there is one."""

    async def departed(self, job_ids: Iterable[str]) -> Mapping[str, Departure]:
        """Which of these claimed jobs are no longer this engine's, and why."""

    async def append(self, entries: Sequence[tuple[str, LogEntry]]) -> Mapping[str, Departure]:
        """Append entries to the logs of claimed jobs, each exactly once, whatever fails on the way.

        Returns the jobs that have departed; their entries are dropped.
        """

    async def release(self, blameless: bool) -> None:
        """Hand back all claimed jobs that have not ended; another engine resumes them.

        It does not fail if the broker does: it is called after failures. `blameless`: no job caused the release, so
        none is charged an attempt.
        """

    async def report(self, capacity: Capacity) -> None:
        """Publish what this engine does in a tick."""
