"""One log line for each request, at its end: its parameters, times and outcome."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from unmask_diffusion import ScorePlan

from unmask_service.broker import Job, JobProgress, milliseconds_between

logger = logging.getLogger("unmask.requests")


@dataclass(frozen=True, kw_only=True)
class RequestFacts:
    """The fields of a request's line; fields that are None are left out."""

    outcome: str  # finished, failed, cancelled or rejected
    reason: str | None = None  # the error's code
    model: str | None = None  # its name
    id: str | None = None  # of the generation
    request_id: str | None = None  # of the HTTP request that submitted it
    trace_id: str | None = None  # of the trace that the request is part of
    sampler: str | None = None  # its name
    steps: int | None = None  # of the schedules, as requested; None: exact
    estimator: str | None = None  # of a score
    seed: int | None = None
    samples: int | None = None  # of a score: planned passes
    length: int | None = None  # of the canvas, in tokens
    sub_tokens: int | None = None  # to unmask in all samples; of a score: to score
    network_evaluations: int | None = None  # planned for all samples
    idle_steps: int | None = None  # skipped in all samples
    rounds: int | None = None  # of all samples
    queue_ms: float | None = None  # from submission to an engine
    first_unmask_ms: float | None = None  # from submission to the first reveal
    total_ms: float | None = None  # from submission to the end
    eta_ms: float | None = None  # the forecast of total_ms
    # the given token ids, None for holes; of a score, all its tokens. Log handlers drop it without `log_prompts`.
    canvas: Sequence[int | None] | None = None


def log_request(job: Job, progress: JobProgress, outcome: str, reason: str = "", model: str | None = None) -> None:
    """Log the end of a generation or a score."""
    _write(facts_of(job, progress, outcome, reason, model))


def log_rejection(reason: str, model: str | None = None) -> None:
    """Log a request that was refused before it became a job."""
    _write(RequestFacts(outcome="rejected", reason=reason, model=model))


def _write(facts: RequestFacts) -> None:
    logger.info("request", extra={name: value for name, value in vars(facts).items() if value is not None})


def facts_of(job: Job, progress: JobProgress, outcome: str, reason: str = "", model: str | None = None) -> RequestFacts:
    """The fields of a generation's or a score's line."""
    facts = RequestFacts(
        outcome=outcome,
        reason=reason or None,
        model=model,
        id=job.id,
        request_id=job.request_id,
        trace_id=job.trace_id,
        seed=job.plan.seed,
        length=job.plan.length,
        sub_tokens=job.plan.sub_tokens,
        network_evaluations=job.plan.network_evaluations,
        rounds=progress.rounds,
        queue_ms=milliseconds_between(job.submitted_at, progress.started_at),
        first_unmask_ms=milliseconds_between(job.submitted_at, progress.first_unmask_at),
        total_ms=milliseconds_between(job.submitted_at, progress.ended_at),
        eta_ms=None if job.expected_seconds is None else round(1000 * job.expected_seconds, 3),
    )
    plan = job.plan
    if isinstance(plan, ScorePlan):
        return replace(facts, estimator=plan.request.estimator, samples=plan.passes, canvas=plan.tokens)
    return replace(
        facts,
        sampler=plan.request.sampler.name,
        steps=plan.request.sampler.steps,
        samples=len(plan.schedules),
        idle_steps=plan.idle_steps,
        canvas=plan.canvas,
    )
