"""From a body to a place in the queue: what can never run, or not now, is refused; what may is planned and forecast."""

import asyncio
import contextlib
import dataclasses
import math
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import uuid4

from unmask_diffusion import Outline, Plan, RequestError, ScorePlan, cut, make_plan, make_score_plan

from unmask_service.api.errors import (
    InvalidRequestError,
    JobNotFoundError,
    OverloadedError,
    UnavailableError,
    UnknownModelError,
    quoted,
)
from unmask_service.api.gate import ServedModel
from unmask_service.api.generation import Generation
from unmask_service.api.schemas import GenerateBody, PlanAnswer, QueueState
from unmask_service.api.score_schemas import ScoreBody
from unmask_service.api.scoring import Scoring
from unmask_service.api.service import Service
from unmask_service.broker import IdempotencyKey, Job, QueueFullError
from unmask_service.forecast import Outlook, Work, most_groups_in_time, outlook, rows_of, seconds_of_work
from unmask_service.logs import context_field

Kind = TypeVar("Kind", Generation, Scoring)
Request = TypeVar("Request")
Made = TypeVar("Made")

# of a deadline's time; the rest is for what a forecast cannot know
PLANNED_SHARE = 0.8


async def admit(service: Service, body: GenerateBody, key: IdempotencyKey | None = None) -> Generation:
    """Plan a generation and queue it; or find the one that its key stands for.

    Raises:
        RefusedError: it is not for this model, can never be served, or not now.
        BrokerError: the key stands for another request, or the broker is away.
    """
    served = served_model(service, body.model)
    check_samples(service, body)

    async def make() -> Job:
        plan, seconds = await forecast(service, await plan_of(served, body), body.deadline_ms)
        return job_of("gen", body, plan, seconds, keyed=key is not None)

    return await _queue(service, Generation, key, make)


async def admit_score(service: Service, body: ScoreBody, key: IdempotencyKey | None = None) -> Scoring:
    """Plan a score and queue it; or find the one that its key stands for. Raises what `admit` does."""
    served = served_model(service, body.model)

    async def make() -> Job:
        plan = await off_the_loop(make_score_plan, served, body.request())
        return job_of("score", body, plan, await expected_seconds(service, plan), keyed=key is not None)

    return await _queue(service, Scoring, key, make)


async def _queue(
    service: Service, kind: type[Kind], key: IdempotencyKey | None, make: Callable[[], Awaitable[Job]]
) -> Kind:
    """Queue the job that is made, unless its key stands for one, or the queue is full."""
    try:
        async with service.planning:
            if key is not None and (known := await service.broker.id_of(key)) is not None:
                with contextlib.suppress(JobNotFoundError):  # it has just been forgotten
                    return await kind.known(service, known)
            await service.broker.refuse_if_full()
            return await kind.submit(service, await make(), key)
    except QueueFullError as error:
        load = await service.broker.load()
        seconds = 0.0 if load.capacity is None else seconds_of_work(load, load.capacity)
        raise OverloadedError(str(error), retry_after=seconds) from error


def job_of(
    prefix: str, body: GenerateBody | ScoreBody, plan: Plan | ScorePlan, expected_seconds: float | None, keyed: bool
) -> Job:
    """A job of its own for a plan. Who sends a key means to ask again: such a job is detached too."""
    return Job(
        id=f"{prefix}-{uuid4().hex}",
        plan=plan,
        submitted_at=time.time(),
        expected_seconds=expected_seconds,
        detached=body.detach or keyed,
        request_id=context_field("request_id"),
        trace_id=context_field("trace_id"),
        candidates=body.candidates if isinstance(body, GenerateBody) else 0,
    )


async def what_it_would_cost(service: Service, body: GenerateBody) -> PlanAnswer:
    """Plan a request and forget it.

    Raises:
        RefusedError: it is not for this model, or can never be served.
        BrokerAwayError: the work at hand is not known.
    """
    served = served_model(service, body.model)
    check_samples(service, body)
    async with service.planning:
        plan, seconds = await forecast(service, await plan_of(served, body), body.deadline_ms)
    load = await service.broker.load()
    return PlanAnswer(
        model=served.name,
        length=plan.length,
        samples=len(plan.schedules),
        masked=plan.sub_tokens,
        network_evaluations=plan.network_evaluations,
        evaluations_per_sample=[len(schedule.steps) for schedule in plan.schedules],
        idle_steps=plan.idle_steps,
        steps=plan.request.sampler.steps,
        seed=plan.seed,
        eta_ms=None if seconds is None else round(1000 * seconds),
        queue=QueueState(running=len(load.running), waiting=len(load.waiting), network_evaluations=load.evaluations),
    )


def served_model(service: Service, name: str | None) -> ServedModel:
    """The model that a body is for.

    Raises:
        RefusedError: it is not served here, or nothing is now.
    """
    if name is not None and name != service.card.id:
        raise UnknownModelError(f"model {quoted(name)} is not served here; {service.card.id!r} is", param="model")
    return service.gate.pass_through()


def check_samples(service: Service, body: GenerateBody) -> None:
    """Hold a body to the samples that this server draws.

    Raises:
        InvalidRequestError: it asks for more.
    """
    most = service.card.limits.max_samples
    if body.n > most:
        raise InvalidRequestError(f"n is {body.n}; this server draws at most {most} samples a request", param="n")


async def plan_of(served: ServedModel, body: GenerateBody) -> Plan:
    """Check a request against the model and draw its schedules.

    Raises:
        InvalidRequestError: it can never be served.
    """
    return await off_the_loop(make_plan, served, body.request())


async def off_the_loop(make: Callable[[Outline, Request], Made], served: ServedModel, request: Request) -> Made:
    """Make a plan in a thread.

    Raises:
        InvalidRequestError: it can never be served.
    """
    try:
        return await asyncio.to_thread(make, served.model, request)
    except RequestError as error:
        raise InvalidRequestError(str(error), error.param, error.code) from error


async def expected_seconds(service: Service, plan: ScorePlan) -> float | None:
    """How many seconds a score should take at most; None: nobody knows."""
    load, work = await service.broker.load(), Work.of(plan)
    return None if load.capacity is None else outlook(load, load.capacity, work).seconds_of(work)


async def forecast(service: Service, plan: Plan, deadline_ms: int | None) -> tuple[Plan, float | None]:
    """Cut a plan so that it keeps its deadline, and say how many seconds it should take; None: nobody knows.

    Raises:
        InvalidRequestError: the deadline is too short.
        UnavailableError: nobody knows whether it can be kept.
    """
    load = await service.broker.load()
    if load.capacity is None:
        if deadline_ms is not None:
            raise UnavailableError("no engine has said yet how fast it is: no deadline can be promised", "no_worker")
        return plan, None
    ahead = outlook(load, load.capacity, Work.of(plan))
    if deadline_ms is not None:
        whole, plan = plan, plan_in_time(plan, ahead, deadline_ms)
        if plan.network_evaluations < whole.network_evaluations:
            ahead = dataclasses.replace(ahead, speed=1.0)  # as it was cut: guesses were not counted on
    return plan, ahead.seconds_of(Work.of(plan))


def plan_in_time(plan: Plan, ahead: Outlook, deadline_ms: int) -> Plan:
    """The plan in as many groups as are expected to end in time, at most as many as it has.

    Raises:
        InvalidRequestError: not even one group is; the message names the shortest deadline.
    """
    if not plan.network_evaluations:
        return plan
    samples, holes = len(plan.schedules), plan.canvas.count(None)
    digits = plan.sub_tokens // (samples * holes)

    def rows(groups: int) -> float:
        return samples * rows_of(holes, digits, groups)

    seconds, most = PLANNED_SHARE * deadline_ms / 1000, len(plan.schedules[0].steps)
    if ahead.seconds_of(Work.of(plan)) <= seconds:
        return cut(plan, most)
    groups = most_groups_in_time(ahead, rows, most, seconds)
    if not groups:
        shortest = math.ceil(1000 * ahead.seconds(1, rows(1)) / PLANNED_SHARE)
        raise InvalidRequestError(
            f"deadline_ms is {deadline_ms}; now the shortest possible for this request is {shortest}",
            param="deadline_ms",
            code="deadline_too_short",
        )
    return cut(plan, groups)
