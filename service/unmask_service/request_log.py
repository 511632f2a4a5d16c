"""One log line for each request, at its end: its parameters, times and outcome."""

import logging
from typing import Any

from unmask_diffusion import ScorePlan

from unmask_service.broker import Job, JobProgress, milliseconds_between

logger = logging.getLogger("unmask.requests")


def log_request(job: Job, progress: JobProgress, outcome: str, reason: str = "", model: str | None = None) -> None:
    """Log the end of a generation or a score."""
    logger.info("request", extra=facts_of(job, progress, outcome, reason, model))


def log_rejection(reason: str, model: str) -> None:
    """Log a request that was refused before it became a job."""
    logger.info("request", extra={"outcome": "rejected", "reason": reason, "model": model})


def facts_of(
    job: Job, progress: JobProgress, outcome: str, reason: str = "", model: str | None = None
) -> dict[str, Any]:
    """The fields of a generation's or a score's line; those without a value are left out."""
    plan = job.plan
    facts: dict[str, Any] = {
        "outcome": outcome,  # finished, failed or cancelled
        "reason": reason or None,  # the error's code
        "model": model,
        "id": job.id,
        "request_id": job.request_id,
        "trace_id": job.trace_id,
        "seed": plan.seed,
        "length": plan.length,
        "sub_tokens": plan.sub_tokens,  # to unmask in all samples; of a score: to score
        "network_evaluations": plan.network_evaluations,  # planned, for all samples
        "rounds": progress.rounds,
        # milliseconds from submission: to the start by an engine, to the first reveal, to the end, and as forecast
        "queue_ms": milliseconds_between(job.submitted_at, progress.started_at),
        "first_unmask_ms": milliseconds_between(job.submitted_at, progress.first_unmask_at),
        "total_ms": milliseconds_between(job.submitted_at, progress.ended_at),
        "eta_ms": None if job.expected_seconds is None else round(1000 * job.expected_seconds, 3),
    }
    # `canvas` holds the given token ids, None for holes; of a score, all its tokens. Log handlers drop it without
    # `log_prompts`.
    if isinstance(plan, ScorePlan):
        facts |= {"estimator": plan.request.estimator, "samples": plan.passes, "canvas": plan.tokens}
    else:
        sampler = plan.request.sampler
        facts |= {"sampler": sampler.name, "steps": sampler.steps, "samples": len(plan.schedules)}
        facts |= {"idle_steps": plan.idle_steps, "canvas": plan.canvas}
    return {name: value for name, value in facts.items() if value is not None}
