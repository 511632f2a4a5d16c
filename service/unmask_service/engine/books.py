"""What becomes of generations, in the metrics and in the log of requests."""

import logging
from collections.abc import Sequence

from unmask_diffusion import Round

from unmask_service.broker import (
    Course,
    Departure,
    Failed,
    Finished,
    Job,
    LogEntry,
    Revealed,
    Scored,
    Started,
    evaluations_in,
)
from unmask_service.engine.tasks import Task
from unmask_service.engine.turn import Place, noise_spread
from unmask_service.forecast import Tick
from unmask_service.metrics import Metrics, Outcome
from unmask_service.request_log import log_request

logger = logging.getLogger("unmask")


class Books:
    """Kept by an engine."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics

    def published(self, task: Task, entry: LogEntry) -> None:
        """An entry is in its log."""
        course, submitted_at = task.course, task.job.submitted_at
        if isinstance(entry, Started) and course.started_at is None:
            self.metrics.queue_seconds.observe(max(0.0, entry.at - submitted_at))
        if isinstance(entry, Revealed):
            self.metrics.count_reveal(entry.at, course.last_unmask_at, submitted_at, len(entry.reveal.sub_tokens))
        if isinstance(entry, Scored):
            self.metrics.evaluations.inc(entry.readout.evaluations)
        course.note(entry)
        if isinstance(entry, Finished):
            self.metrics.count_plan(task.plan, max(0.0, entry.at - submitted_at))
            self._ended(task, "finished")
        if isinstance(entry, Failed):
            self._ended(task, "failed", entry.reason)

    def refused(self, entry: LogEntry) -> None:
        """An entry came too late: the generation had departed."""
        self.metrics.evaluations.inc(evaluations_in(entry))

    def given_up(self, job: Job, failure: Failed) -> None:
        """A generation has ended before it could begin."""
        self.metrics.count_request("failed", failure.reason)
        log_request(job, Course(), "failed", failure.reason, self.metrics.model)

    def departed(self, task: Task, why: Departure) -> None:
        """A generation is no longer this engine's."""
        if why == "cancelled":
            self.metrics.evaluations_saved.inc(task.evaluations_left)
            self._ended(task, "cancelled")
        else:
            logger.warning("generation %s has been taken over by another worker", task.job.id)

    def begun(self, task: Task, fingerprint: str) -> None:
        """A generation is this engine's; perhaps after others."""
        if not task.course.engines:
            return
        self.metrics.takeovers.inc()
        job_id, left = task.job.id, task.evaluations_left
        logger.info("generation %s is gone on with; %d of its network evaluations are left", job_id, left)
        if set(task.course.engines) != {fingerprint}:
            logger.warning("generation %s was begun on another kind of machine: its tokens may differ", job_id)

    def ticked(self, turn: Sequence[Place], rounds: Sequence[Round], happened: Tick) -> None:
        """A tick has come to its end."""
        self.metrics.count_rounds((done.lanes, len(done.outcomes)) for done in rounds)
        self.metrics.count_tick(happened, noise_spread(turn))

    def _ended(self, task: Task, outcome: Outcome, reason: str = "") -> None:
        self.metrics.count_request(outcome, reason)
        log_request(task.job, task.course, outcome, reason, self.metrics.model)
