"""One score as a client sees it."""

import asyncio

from sse_starlette import ServerSentEvent
from unmask_diffusion import ScorePlan, Tally, read_score

from unmask_service.api import events
from unmask_service.api.followed import Followed
from unmask_service.api.gate import ServedModel
from unmask_service.api.schemas import JobStatus
from unmask_service.api.score_schemas import (
    ProgressEvent,
    ScoreAnswer,
    ScoreNumbers,
    ScoreStartEvent,
    ScoreStatus,
    ScoreTimings,
)
from unmask_service.api.service import Service
from unmask_service.broker import LogEntry, Record, Scored, milliseconds_between


class Scoring(Followed[ScoreAnswer]):
    """A score and somebody who follows it."""

    plan_type = ScorePlan
    noun = "score"
    status_type = ScoreStatus
    plan: ScorePlan

    def __init__(self, service: Service, served: ServedModel, record: Record, owned: bool = False) -> None:
        super().__init__(service, served, record, owned)
        self._tally = Tally(self.plan)

    def finished(self, status: JobStatus, answer: ScoreAnswer) -> JobStatus:
        """See `Followed.finished`."""
        return status.model_copy(update={"answer": answer})

    def _start(self) -> ServerSentEvent:
        plan, expected = self.plan, self.job.expected_seconds
        start = ScoreStartEvent(
            id=self.job.id,
            model=self.served.name,
            tokens=plan.scored_tokens,
            sub_tokens=plan.sub_tokens,
            windows=len(plan.windows),
            window=plan.window_tokens,
            overlap=plan.overlap,
            estimator=plan.request.estimator,
            replicates=plan.replicates,
            network_evaluations=plan.network_evaluations,
            eta_ms=None if expected is None else round(1000 * expected),
            seed=plan.seed,
        )
        return events.event("start", 0, start)

    def _note(self, entry: LogEntry) -> None:
        if isinstance(entry, Scored):
            self._tally.note(entry.readout)

    def _tell(self, position: int, entry: LogEntry) -> ServerSentEvent | None:
        if not isinstance(entry, Scored):
            return None
        bound, tokens = self._tally.estimate(), self.plan.scored_tokens
        progress = ProgressEvent(
            network_evaluations=self.plan.network_evaluations,
            network_evaluations_done=self._tally.evaluations,
            replicates=self._tally.replicates,
            nats_per_token=None if bound is None else bound.nats / tokens,
            standard_error_per_token=None if bound is None else bound.standard_error / tokens,
        )
        return events.event("progress", position, progress)

    async def _answer(self) -> ScoreAnswer:
        score = await asyncio.to_thread(read_score, self.served.model, self._tally)
        numbers = ScoreNumbers.of(self.served.name, self.plan, score, self.served.vocabulary.text_of)
        course, since = self.course, self.job.submitted_at
        return ScoreAnswer(
            **vars(numbers),
            id=self.job.id,
            created=int(since),
            timings=ScoreTimings(
                queue_ms=milliseconds_between(since, course.started_at) or 0.0,
                total_ms=milliseconds_between(since, course.ended_at) or 0.0,
            ),
            fingerprint=course.fingerprint,
        )
