"""A job as a client sees it: followed through its log, from anywhere in it, on any API process."""

import logging
from collections.abc import AsyncIterator
from typing import Any, ClassVar, Generic, Self, TypeVar

from pydantic import BaseModel
from sse_starlette import ServerSentEvent

from unmask_service.api import events
from unmask_service.api.errors import GenerationError, JobNotFoundError, error_of
from unmask_service.api.gate import ServedModel
from unmask_service.api.schemas import JobStatus
from unmask_service.api.service import Service
from unmask_service.broker import Course, Failed, IdempotencyKey, Job, LogEntry, Record, Revealed, Scored
from unmask_service.request_log import log_request

logger = logging.getLogger("unmask")

Answer = TypeVar("Answer", bound=BaseModel)


class Followed(Generic[Answer]):
    """A job and somebody who follows it. Subclasses say what its log means.

    Attributes:
        plan_type: of the jobs that this is about.
        noun: what clients call one.
        status_type: what they are told of where it is.
        record: what was known of it when it was asked for.
        job: what was submitted.
        plan: the job's.
        owned: this follower is the client that asked for it, and if it is attached, it ends with its leaving.
        course: what its log has told so far.
    """

    plan_type: ClassVar[type]
    noun: ClassVar[str]
    status_type: ClassVar[type[JobStatus]]
    plan: Any  # of `plan_type`: subclasses say so to the type checker

    def __init__(self, service: Service, served: ServedModel, record: Record, owned: bool = False) -> None:
        self.service = service
        self.served = served
        self.record = record
        self.job = record.job
        self.plan = record.job.plan
        self.owned = owned
        self.course = Course()

    @classmethod
    async def submit(cls, service: Service, job: Job, key: IdempotencyKey | None = None) -> Self:
        """Queue a job; or follow the one that its key stands for.

        Raises:
            QueueFullError: no place is left.
            KeyReusedError: the key stands for another request.
            UnavailableError: the server has begun to drain while the plan was made.
        """
        served = service.gate.pass_through()
        answering = await service.broker.submit(job, key)
        if answering != job.id:
            return await cls.known(service, answering)
        return cls(service, served, Record(job, "waiting", job.plan.network_evaluations, log_length=0), owned=True)

    @classmethod
    async def known(cls, service: Service, job_id: str) -> Self:
        """Follow a job that somebody has asked for before; its schedules may have to be drawn again.

        Raises:
            UnavailableError: the model has not been loaded yet.
            JobNotFoundError: it is not known, or no more.
        """
        served = service.gate.look_in()
        record = await service.broker.look_up(job_id)
        if record is None or not isinstance(record.job.plan, cls.plan_type):
            raise JobNotFoundError(cls.noun, job_id)
        return cls(service, served, record)

    async def answer(self) -> Answer:
        """Follow the log to its end; the answer is its last state.

        Raises:
            GenerationError: the log ends with a failure.
        """
        async for _, entry in self._follow():
            self._note(entry)
        return await self._answer()

    async def events(self, after: int | None = None) -> AsyncIterator[ServerSentEvent]:
        """Tell the log as it grows, from behind a position, an event an entry. Failures become an event too."""
        position, told = 0, -1 if after is None else after
        try:
            start = self._start()
            if told < position:
                yield start
            async for position, entry in self._follow():
                self._note(entry)
                event = self._tell(position, entry)
                if event is not None and told < position:
                    yield event
            yield events.done_event(position, await self._answer())
        except GenerationError as error:
            yield events.error_event(position + 1, error)
        except Exception as error:
            logger.exception("%s %s could not be told", self.noun, self.job.id)
            yield events.error_event(position + 1, error)

    def finished(self, status: JobStatus, answer: Answer) -> JobStatus:
        """The status, of its type, of a job that has its answer."""
        raise NotImplementedError

    async def leave(self) -> None:
        """The follower has the answer, or has gone. What only it wanted is not done."""
        if self.owned and not self.job.detached:
            count_saved(self.service, self.job, await self.service.broker.leave(self.job.id))

    def _start(self) -> ServerSentEvent:
        """The event before the first."""
        raise NotImplementedError

    def _note(self, entry: LogEntry) -> None:
        """Take in an entry, for the answer."""
        raise NotImplementedError

    def _tell(self, position: int, entry: LogEntry) -> ServerSentEvent | None:
        """The event that an entry becomes, if it becomes one. Every entry is shown, told or not."""
        raise NotImplementedError

    async def _answer(self) -> Answer:
        """The answer, from a whole log."""
        raise NotImplementedError

    async def _follow(self) -> AsyncIterator[tuple[int, LogEntry]]:
        """Follow the log.

        Raises:
            GenerationError: it ends with a failure.
        """
        begun = self.service.broker.now()
        async for position, entry in self.service.broker.follow(self.job.id):
            self.course.note(entry)
            if isinstance(entry, Failed):
                raise error_of(entry)
            if isinstance(entry, Revealed | Scored) and entry.at > begun:
                self.service.metrics.log_lag_seconds.observe(max(0.0, self.service.broker.now() - entry.at))
            yield position, entry


AnyFollowed = Followed[Any]


def count_saved(service: Service, job: Job, saved: int | None) -> None:
    """A job was cancelled before any engine had taken it; those of others, the engines count."""
    if saved is not None:
        service.metrics.evaluations_saved.inc(saved)
        service.metrics.count_request("cancelled")
        log_request(job, Course(), "cancelled", model=service.card.id)
