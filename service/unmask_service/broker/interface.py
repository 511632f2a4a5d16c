"""How plans reach engines and logs reach clients; in memory or over Redis, one interface."""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from unmask_service.broker.messages import Job, LogEntry


class QueueFullError(Exception):
    """No place for another request.

    Attributes:
        retry_after_seconds: when the work that is queued now should be done, by the measured rate.
    """

    def __init__(self, limit: int, retry_after_seconds: float) -> None:
        super().__init__(f"the queue is full: {limit} requests are waiting or running")
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True)
class Load:
    """The work at hand.

    Attributes:
        running: jobs that an engine has claimed.
        waiting: jobs that none has claimed.
        evaluations: network evaluations that all of them still need.
        evaluations_per_second: as measured of late; None before the first.
    """

    running: int
    waiting: int
    evaluations: int
    evaluations_per_second: float | None


class Broker(Protocol):
    """Jobs in, log entries out. A log's positions count from 1; the entry at position p is the p-th."""

    async def submit(self, job: Job) -> None:
        """Queue a job.

        Raises:
            QueueFullError: too many requests wait or run.
        """

    def follow(self, job_id: str, after: int = 0) -> AsyncIterator[tuple[int, LogEntry]]:
        """Yield (position, entry) of a job's log as it grows, up to its `Finished` or `Failed` entry."""

    async def leave(self, job_id: str) -> None:
        """The client has gone, with its answer or without: forget the job; what is left of it is not evaluated."""

    async def claim(self) -> Job:
        """Take the job that has waited longest; wait for one where there is none."""

    def claim_now(self) -> Job | None:
        """Take the job that has waited longest, if there is one."""

    def left(self, job_ids: Iterable[str]) -> set[str]:
        """Those of the claimed jobs whose clients have gone."""

    async def append(self, entries: Sequence[tuple[str, LogEntry]]) -> None:
        """Append entries to the logs of their jobs."""

    def load(self) -> Load:
        """The work at hand."""
