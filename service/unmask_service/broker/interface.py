"""How plans reach engines and logs reach clients; in memory or over Redis, one interface."""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Protocol

from unmask_service.broker.messages import Job, LogEntry
from unmask_service.forecast import Capacity, Load


class QueueFullError(Exception):
    """No place for another request; the message names the limit."""


class Broker(Protocol):
    """Jobs in, log entries out. A log's positions count from 1; the entry at position p is the p-th."""

    async def refuse_if_full(self) -> None:
        """Say whether another request has a place, before anything is spent on it.

        Raises:
            QueueFullError: it has none.
        """

    async def submit(self, job: Job) -> None:
        """Queue a job.

        Raises:
            QueueFullError: too many requests, or network evaluations, wait or run.
        """

    def follow(self, job_id: str, after: int = 0) -> AsyncIterator[tuple[int, LogEntry]]:
        """Yield (position, entry) of a job's log as it grows, up to its `Finished` or `Failed` entry."""

    async def leave(self, job_id: str) -> int:
        """The client has gone, with its answer or without: forget the job; what is left of it is not evaluated.

        Returns:
            The network evaluations of a job that no engine had claimed; those of one that was, its engine counts.
        """

    async def claim(self) -> Job:
        """Take the job that has waited longest; wait for one where there is none."""

    async def claim_now(self) -> Job | None:
        """Take the job that has waited longest, if there is one."""

    async def left(self, job_ids: Iterable[str]) -> set[str]:
        """Those of the claimed jobs whose clients have gone."""

    async def append(self, entries: Sequence[tuple[str, LogEntry]]) -> None:
        """Append entries to the logs of their jobs."""

    async def report(self, capacity: Capacity) -> None:
        """An engine says what it does in a tick."""

    async def load(self) -> Load:
        """The work at hand."""
