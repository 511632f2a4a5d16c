"""One line a request: what it was, how long it took, how it ended."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from unmask_diffusion import ScorePlan

from unmask_service.broker import Course, Job, milliseconds_between

logger = logging.getLogger("unmask.requests")


@dataclass(frozen=True, kw_only=True)
class RequestFacts:
    """What there is to say of a request at its end; what is None is not said.

    Attributes:
        outcome: finished, failed, cancelled or rejected.
        reason: the error's code.
        model: its name.
        id: of the generation.
        request_id: of the HTTP request that it came with.
        trace_id: of the trace that the request is part of.
        sampler: its name.
        steps: of the schedules, as requested; None: exact.
        estimator: of a score.
        seed: the same again gives the same tokens.
        samples: how many; of a score, passes planned.
        length: of the canvas, in tokens.
        sub_tokens: to unmask, all samples; of a score, to score.
        network_evaluations: planned, all samples.
        idle_steps: skipped, all samples.
        rounds: evaluations of samples one after the other, all samples.
        queue_ms: from submission to an engine.
        first_unmask_ms: from submission to the first reveal.
        total_ms: from submission to the end.
        eta_ms: the same as forecast.
        canvas: the token ids that were given, None for holes; of a score, all its tokens. Log handlers drop it
            unless `log_prompts` is set.
    """

    outcome: str
    reason: str | None = None
    model: str | None = None
    id: str | None = None
    request_id: str | None = None
    trace_id: str | None = None
    sampler: str | None = None
    steps: int | None = None
    estimator: str | None = None
    seed: int | None = None
    samples: int | None = None
    length: int | None = None
    sub_tokens: int | None = None
    network_evaluations: int | None = None
    idle_steps: int | None = None
    rounds: int | None = None
    queue_ms: float | None = None
    first_unmask_ms: float | None = None
    total_ms: float | None = None
    eta_ms: float | None = None
    canvas: Sequence[int | None] | None = None


def log_request(job: Job, course: Course, outcome: str, reason: str = "", model: str | None = None) -> None:
    """A generation's log has come to its end."""
    write(facts_of(job, course, outcome, reason, model))


def log_rejection(reason: str, model: str | None = None) -> None:
    """A request was refused before it became a generation."""
    write(RequestFacts(outcome="rejected", reason=reason, model=model))


def write(facts: RequestFacts) -> None:
    """Write one line."""
    logger.info("request", extra={name: value for name, value in vars(facts).items() if value is not None})


def facts_of(job: Job, course: Course, outcome: str, reason: str = "", model: str | None = None) -> RequestFacts:
    """What there is to say of a generation or a score."""
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
        rounds=course.rounds,
        queue_ms=milliseconds_between(job.submitted_at, course.started_at),
        first_unmask_ms=milliseconds_between(job.submitted_at, course.first_unmask_at),
        total_ms=milliseconds_between(job.submitted_at, course.ended_at),
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
