"""One generation as the API sees it: submitted, followed through its log, and left behind whatever happens."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from typing import Self
from uuid import uuid4

from sse_starlette import ServerSentEvent
from unmask_diffusion import Plan, Reveal

from unmask_service.api import events
from unmask_service.api.errors import GenerationError, error_of
from unmask_service.api.schemas import Choice, GenerateAnswer, Sampling, Timings, Usage
from unmask_service.api.service import ServedModel, Service
from unmask_service.api.transcript import Transcript, read_log
from unmask_service.broker import Failed, Finished, Job, LogEntry, Revealed, Started
from unmask_service.metrics import Outcome

logger = logging.getLogger("unmask.requests")


class Generation:
    """A job of this process' clients.

    Attributes:
        job: what was submitted.
        status: how it ended; "cancelled" unless its log ended first.
    """

    def __init__(self, service: Service, served: ServedModel, job: Job) -> None:
        self.service = service
        self.served = served
        self.job = job
        self.status: Outcome = "cancelled"
        self.reason = ""
        self._started: float | None = None
        self._first_unmask: float | None = None
        self._finished: float | None = None
        self._rounds = 0

    @classmethod
    async def submit(cls, service: Service, plan: Plan, expected_seconds: float | None) -> Self:
        """Queue a plan.

        Raises:
            QueueFullError: no place is left.
            UnavailableError: the server has begun to drain while the plan was made.
        """
        served = service.gate.pass_through()
        generation = cls(service, served, Job(f"gen-{uuid4().hex}", plan, time.time(), expected_seconds))
        await service.broker.submit(generation.job)
        service.unanswered.add(generation)
        return generation

    async def answer(self) -> GenerateAnswer:
        """Follow the log to its end; the answer is its last state.

        Raises:
            GenerationError: the log ends with a failure.
        """
        return await self._answer_of([entry.reveal async for _, entry in self._follow() if isinstance(entry, Revealed)])

    async def events(self) -> AsyncIterator[ServerSentEvent]:
        """Tell the log as it grows, an event an entry. Failures become an event too."""
        position = 0
        reveals: list[Reveal] = []
        transcript = Transcript(self.served.vocabulary, self.job.plan)
        try:
            yield events.start_event(self.served, self.job, transcript)
            async for position, entry in self._follow():
                if isinstance(entry, Revealed):
                    reveals.append(entry.reveal)
                    yield events.unmask_event(position, self.job.plan, entry.reveal, transcript)
            yield events.done_event(position, await self._answer_of(reveals))
        except GenerationError as error:
            yield events.error_event(position + 1, error)
        except Exception as error:
            logger.exception("generation %s could not be told", self.job.id)
            self.status, self.reason = "failed", "internal_error"
            yield events.error_event(position + 1, error)

    async def leave(self) -> None:
        """The client has its answer, or has gone: whatever is left of the work is not done."""
        saved = await self.service.broker.leave(self.job.id)
        self.service.unanswered.discard(self)
        self.service.metrics.evaluations_saved.inc(saved)
        self.service.metrics.count_request(self.status, self.reason)
        self._log()

    async def _follow(self) -> AsyncIterator[tuple[int, LogEntry]]:
        async for position, entry in self.service.broker.follow(self.job.id):
            self._note(entry)
            yield position, entry

    def _note(self, entry: LogEntry) -> None:
        """Keep the times, and how it ended.

        Raises:
            GenerationError: it failed.
        """
        metrics, elapsed = self.service.metrics, max(0.0, entry.at - self.job.submitted_at)
        match entry:
            case Started():
                self._started = elapsed
                metrics.queue_seconds.observe(elapsed)
            case Revealed():
                self._rounds += entry.lane == 0
                if self._first_unmask is None:
                    self._first_unmask = elapsed
                    metrics.first_unmask_seconds.observe(elapsed)
            case Finished():
                self._finished = elapsed
                self.status = "finished"
                metrics.request_seconds.observe(elapsed)
                metrics.idle_steps.inc(self.job.plan.idle_steps)
                metrics.tokens.inc(self.job.plan.canvas.count(None) * len(self.job.plan.schedules))
            case Failed():
                error = error_of(entry)
                self.status, self.reason = "failed", error.code
                raise error

    async def _answer_of(self, reveals: Sequence[Reveal]) -> GenerateAnswer:
        plan = self.job.plan
        samples = await asyncio.to_thread(read_log, self.served.model, plan, reveals)
        choices = [
            Choice(index=each.index, text=each.text, token_ids=list(each.token_ids), finish_reason=each.finish_reason)
            for each in samples
        ]
        given, returned = len(plan.given), sum(len(choice.token_ids) for choice in choices)
        return GenerateAnswer(
            id=self.job.id,
            model=self.served.name,
            created=int(self.job.submitted_at),
            choices=choices,
            usage=Usage(prompt_tokens=given, completion_tokens=returned, total_tokens=given + returned),
            sampling=Sampling(
                seed=plan.seed,
                sub_tokens=plan.sub_tokens,
                network_evaluations=plan.network_evaluations,
                rounds=self._rounds,
                idle_steps=plan.idle_steps,
                steps=plan.request.sampler.steps,
            ),
            timings=Timings(
                queue_ms=_milliseconds(self._started) or 0.0,
                first_unmask_ms=_milliseconds(self._first_unmask),
                total_ms=_milliseconds(self._finished) or 0.0,
            ),
            fingerprint=self.served.fingerprint,
        )

    def _log(self) -> None:
        """One line a request; never what was given or generated."""
        plan = self.job.plan
        facts = {
            "id": self.job.id,
            "outcome": self.status,
            "reason": self.reason or None,
            "samples": len(plan.schedules),
            "length": plan.length,
            "sub_tokens": plan.sub_tokens,
            "network_evaluations": plan.network_evaluations,
            "rounds": self._rounds,
            "queue_ms": _milliseconds(self._started),
            "first_unmask_ms": _milliseconds(self._first_unmask),
            "total_ms": _milliseconds(self._finished),
            "eta_ms": _milliseconds(self.job.expected_seconds),
        }
        logger.info(" ".join(f"{name}={value}" for name, value in facts.items() if value is not None))


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
