"""One generation as a client sees it."""

import asyncio

from sse_starlette import ServerSentEvent
from unmask_diffusion import Plan, Reveal

from unmask_service.api import events
from unmask_service.api.followed import Followed
from unmask_service.api.gate import ServedModel
from unmask_service.api.schemas import Choice, GenerateAnswer, GenerationStatus, JobStatus, Sampling, Timings, Usage
from unmask_service.api.service import Service
from unmask_service.api.transcript import Transcript, read_log
from unmask_service.broker import LogEntry, Record, Revealed, milliseconds_between


class Generation(Followed[GenerateAnswer]):
    """A generation and somebody who follows it."""

    plan_type = Plan
    noun = "generation"
    status_type = GenerationStatus
    plan: Plan

    def __init__(self, service: Service, served: ServedModel, record: Record, owned: bool = False) -> None:
        super().__init__(service, served, record, owned)
        self._reveals: list[Reveal] = []
        self._transcript = Transcript(served.vocabulary, self.plan)

    def finished(self, status: JobStatus, answer: GenerateAnswer) -> JobStatus:
        """See `Followed.finished`: what `POST /generate` answers is beside the rest."""
        return status.model_copy(update={name: getattr(answer, name) for name in type(answer).model_fields})

    def _start(self) -> ServerSentEvent:
        return events.start_event(self.served, self.job, self.plan, self._transcript)

    def _note(self, entry: LogEntry) -> None:
        if isinstance(entry, Revealed):
            self._reveals.append(entry.reveal)

    def _tell(self, position: int, entry: LogEntry) -> ServerSentEvent | None:
        if not isinstance(entry, Revealed):
            return None
        return events.unmask_event(position, self.job, self.plan, entry, self._transcript)

    async def _answer(self) -> GenerateAnswer:
        plan, course, since = self.plan, self.course, self.job.submitted_at
        samples = await asyncio.to_thread(read_log, self.served.model, plan, self._reveals)
        choices = [
            Choice(index=each.index, text=each.text, token_ids=list(each.token_ids), finish_reason=each.finish_reason)
            for each in samples
        ]
        given, returned = len(plan.given), sum(len(choice.token_ids) for choice in choices)
        return GenerateAnswer(
            id=self.job.id,
            model=self.served.name,
            created=int(since),
            choices=choices,
            usage=Usage(prompt_tokens=given, completion_tokens=returned, total_tokens=given + returned),
            sampling=Sampling(
                seed=plan.seed,
                sub_tokens=plan.sub_tokens,
                network_evaluations=plan.network_evaluations,
                rounds=course.rounds,
                idle_steps=plan.idle_steps,
                steps=plan.request.sampler.steps,
            ),
            timings=Timings(
                queue_ms=milliseconds_between(since, course.started_at) or 0.0,
                first_unmask_ms=milliseconds_between(since, course.first_unmask_at),
                total_ms=milliseconds_between(since, course.ended_at) or 0.0,
            ),
            fingerprint=course.fingerprint,
        )
