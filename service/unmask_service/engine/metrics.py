"""What an engine counts, logs and traces of the requests that it runs."""

import logging
from collections.abc import Sequence

from unmask_diffusion import Outcome, Plan

from unmask_service.broker import (
    Departure,
    Failed,
    Finished,
    Job,
    JobProgress,
    LogEntry,
    Revealed,
    Scored,
    Started,
    endpoint_of,
)
from unmask_service.engine.tasks import Place, Task, noise_spread
from unmask_service.engine.traces import TaskSpans
from unmask_service.forecast import Tick
from unmask_service.logs import log_request
from unmask_service.metrics import Metrics
from unmask_service.metrics import Outcome as End

logger = logging.getLogger("unmask")


class EngineMetrics:
    """The metrics of an engine, and its lines in the log."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self._spans = TaskSpans(metrics.model)

    def started(self, task: Task, fingerprint: str) -> None:
        """Count a task that this engine has claimed, perhaps from another engine."""
        if not task.progress.engines:
            return
        self.metrics.takeovers.inc()
        job_id, left = task.job.id, task.evaluations_left
        logger.info("resuming request %s: %d of its network evaluations are left", job_id, left)
        if set(task.progress.engines) != {fingerprint}:
            logger.warning("request %s was started on another kind of machine: its tokens may differ", job_id)

    def published(self, task: Task, entry: LogEntry) -> None:
        progress, submitted_at = task.progress, task.job.submitted_at
        if isinstance(entry, Started):
            self._spans.begin(task, entry)
        if isinstance(entry, Started) and progress.started_at is None:
            self.metrics.queue_seconds.observe(max(0.0, entry.at - submitted_at))
        if isinstance(entry, Revealed):
            self.metrics.evaluations_saved.inc(entry.saved)
            self.metrics.count_reveal(entry.at, progress.last_unmask_at, submitted_at, len(entry.reveal.sub_tokens))
        if isinstance(entry, Scored):
            self.metrics.evaluations.inc(entry.readout.evaluations)
        progress.note(entry)
        self._spans.note(task, entry)
        if isinstance(entry, Finished):
            self.metrics.count_plan(task.plan, max(0.0, entry.at - submitted_at))
            if task.job.picture is not None and isinstance(task.plan, Plan):
                self.metrics.images.inc(len(task.plan.schedules))
            self._ended(task, "finished")
        if isinstance(entry, Failed):
            self._ended(task, "failed", entry.reason)

    def failed_to_start(self, job: Job, failure: Failed) -> None:
        self.metrics.count_request(endpoint_of(job.id), "failed", failure.reason)
        log_request(job, JobProgress(), "failed", failure.reason, self.metrics.model)

    def departed(self, task: Task, why: Departure) -> None:
        if why == "cancelled":
            self.metrics.evaluations_saved.inc(task.evaluations_left)
            self._ended(task, "cancelled")
        else:
            logger.warning("request %s has been taken over by another worker", task.job.id)
            self._spans.end(task, "taken over")

    def stopped(self) -> None:
        """The engine runs no longer."""
        self._spans.end_all()

    def ticked(self, places: Sequence[Place], outcomes: Sequence[Outcome], tick: Tick) -> None:
        drawn = [done for (task, _), done in zip(places, outcomes, strict=True) if not task.bulk]
        self.metrics.count_rounds((done.states, len(done.entries)) for done in drawn)
        self.metrics.count_tick(tick, noise_spread(places))

    def _ended(self, task: Task, end: End, reason: str = "") -> None:
        self.metrics.count_request(endpoint_of(task.job.id), end, reason)
        log_request(task.job, task.progress, end, reason, self.metrics.model)
        self._spans.end(task, end, reason, task.progress.ended_at)
