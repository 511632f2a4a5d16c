"""From a body to a place in the queue: check, plan, forecast, queue, or refuse."""

import asyncio
import contextlib
import dataclasses
import hashlib
import math
import re
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from uuid import uuid4

from pydantic import BaseModel
from unmask_diffusion import (
    GenerationRequest,
    Outline,
    Plan,
    RequestError,
    ScorePlan,
    ScoreRequest,
    cut,
    make_plan,
    make_score_plan,
)

from unmask_service.api.errors import RefusedError, invalid
from unmask_service.api.followers import AnyFollower, Generation, Scoring, milliseconds
from unmask_service.api.picture_requests import read_picture, read_scored_picture
from unmask_service.api.schemas import GenerateBody, PlanAnswer, QueueState
from unmask_service.api.score_schemas import ScoreBody
from unmask_service.api.service import ServedModel, Service
from unmask_service.api_keys import current_quota
from unmask_service.broker import (
    IdempotencyKey,
    Job,
    JobRecord,
    PictureForm,
    QueueFullError,
    QuotaExceededError,
    endpoint_of,
)
from unmask_service.forecast import (
    Outlook,
    Work,
    most_groups_in_time,
    outlook,
    rows_of_plan,
    seconds_of_work,
    seconds_until_an_end,
)
from unmask_service.logs import context_field
from unmask_service.machine import return_freed_memory
from unmask_service.traces import span, trace_context

AnyRequest = GenerationRequest | ScoreRequest
AnyBody = GenerateBody | ScoreBody

# the share of a deadline that is planned; the rest is for what a forecast cannot know
PLANNED_SHARE = 0.8
# of texts with more characters only one is split into tokens at a time
LARGE_TEXT = 64 << 10
# so many characters of it at a time are split to count the tokens, with an error of at most so many tokens
SLICE, SLICE_ERROR = 16 << 10, 16

_KEY = re.compile(r"[!-~]{1,255}")


async def admit(service: Service, body: AnyBody, key: IdempotencyKey | None = None) -> AnyFollower:
    """Plan a request and queue it, or find the job that its key stands for. Raises as `admit_call` does."""
    (follower,) = await admit_call(service, _kind(body).id_prefix, [body], key)
    return follower


async def admit_call(
    service: Service, prefix: str, bodies: Sequence[AnyBody], key: IdempotencyKey | None = None
) -> list[AnyFollower]:
    """Plan the requests of one call and queue them, all or none, or find the jobs that its key stands for.

    They count against the quota of the API key that the call came with.

    `prefix` begins the ids of the jobs: it is a key of the broker's `ENDPOINTS`.

    Raises RefusedError: a request can never be served, or cannot be served now; BrokerError: the key stands for
    another call, or the broker cannot be reached.
    """
    for body in bodies:
        served = check(service, body)
    quota = current_quota.get()
    if len(bodies) > 1 and len(bodies) > (most := service.card.limits.max_requests):
        raise invalid(f"prompt: this call needs {len(bodies)} places in the queue, which has {most}", "prompt")
    if len(bodies) > 1 and quota.requests is not None and len(bodies) > quota.requests:
        message = f"the quota of this API key (requests) has {quota.requests}"
        raise invalid(f"prompt: this call needs {len(bodies)} places in the queue; {message}", "prompt")
    ids = job_ids(f"{prefix}-{uuid4().hex}", len(bodies))
    try:
        async with (
            span("admission", endpoint_of(ids[0]), service.card.id, parent_of_more=False),
            _turn(service, bodies),
            service.shared.planning,
        ):
            if key is not None and (known := await service.broker.id_of(key)) is not None:
                with contextlib.suppress(RefusedError):  # the job has just been forgotten
                    return await _known(service, known, bodies)
            await service.broker.refuse_if_full(quota, len(bodies))
            jobs: list[Job] = []
            for job_id, body in zip(ids, bodies, strict=True):
                with_digits, form = await read_pictures(service, served, body)
                before = [Work.of(job.plan, quota) for job in jobs]
                plan, seconds = await plan_and_forecast(service, served, with_digits, before)
                job = Job(
                    id=job_id,
                    plan=plan,
                    submitted_at=service.broker.now(),
                    expected_seconds=seconds,
                    detached=body.detach or key is not None,  # a client that sends a key may retry
                    request_id=context_field("request_id"),
                    trace_id=context_field("trace_id"),
                    trace_context=trace_context(),
                    picture=form,
                    candidates=body.candidates if isinstance(body, GenerateBody) else 0,
                )
                jobs.append(job)
            served = service.gate.pass_through()  # the server may have begun to drain
            answering = await service.broker.submit(*jobs, key=key, quota=quota)
            if answering != ids[0]:
                return await _known(service, answering, bodies)
            service.metrics.count_accepted(quota.client, len(jobs), sum(job.plan.network_evaluations for job in jobs))
            return [
                _kind(body)(
                    service, served, JobRecord(job, "waiting", job.plan.network_evaluations, log_length=0), owned=True
                )
                for job, body in zip(jobs, bodies, strict=True)
            ]
    except QueueFullError as error:
        load = await service.broker.load()
        wait = 0.0 if load.capacity is None else seconds_of_work(load, load.capacity)
        raise RefusedError("queue_full", str(error), retry_after=wait) from error
    except QuotaExceededError as error:
        wait = error.seconds or 0.0
        if error.seconds is None and (load := await service.broker.load()).capacity is not None:
            wait = seconds_until_an_end(load, load.capacity, quota.client)
        service.metrics.count_over_quota(quota.client, len(bodies))
        raise RefusedError("rate_limit_exceeded", str(error), retry_after=wait) from error


def job_ids(call: str, jobs: int) -> list[str]:
    """The ids of the jobs of a call: its own id, or with several jobs that and their numbers."""
    return [call] if jobs == 1 else [f"{call}-{number}" for number in range(jobs)]


def call_of(first: str, jobs: int) -> str:
    """The id of a call, from that of its first job."""
    return first if jobs == 1 else first.removesuffix("-0")


async def _known(service: Service, first: str, bodies: Sequence[AnyBody]) -> list[AnyFollower]:
    """Follow the jobs of a call that was queued before. Raises RefusedError: they are not known any more."""
    ids = job_ids(call_of(first, len(bodies)), len(bodies))
    return [await _kind(body).known(service, job_id) for job_id, body in zip(ids, bodies, strict=True)]


def _kind(body: AnyBody) -> type[AnyFollower]:
    return Generation if isinstance(body, GenerateBody) else Scoring


async def what_it_would_cost(service: Service, body: GenerateBody) -> PlanAnswer:
    """Plan a request and forget it. Raises RefusedError as `admit` does, and BrokerAwayError."""
    served = check(service, body)
    async with _turn(service, [body]), service.shared.planning:
        with_digits, _ = await read_pictures(service, served, body)
        plan, seconds = await plan_and_forecast(service, served, with_digits)
    assert isinstance(plan, Plan)  # noqa: S101 — for the type checker
    load = await service.broker.load()
    return PlanAnswer(
        model=served.name,
        length=plan.length,
        samples=len(plan.schedules),
        masked=plan.sub_tokens,
        network_evaluations=plan.network_evaluations,
        upper_bound=plan.request.sampler.by_bound or None,
        evaluations_per_sample=[len(schedule.steps) for schedule in plan.schedules],
        idle_steps=plan.idle_steps,
        steps=plan.request.sampler.steps,
        seed=plan.seed,
        eta_ms=milliseconds(seconds),
        queue=QueueState(running=len(load.running), waiting=len(load.waiting), network_evaluations=load.evaluations),
    )


def check(service: Service, body: AnyBody) -> ServedModel:
    """The model, ready. Raises RefusedError: it is not ready, or the body requests too many samples."""
    served = service.gate.pass_through()
    most = service.card.limits.max_samples
    if isinstance(body, GenerateBody) and body.n > most:
        raise invalid(f"n is {body.n}; this server draws at most {most} samples a request", "n")
    return served


async def read_pictures(service: Service, served: ServedModel, body: AnyBody) -> tuple[AnyBody, PictureForm | None]:
    """A body whose image has become digits, and how its pictures are answered. Raises RefusedError."""
    if isinstance(body, ScoreBody):
        if body.image is None:
            return body, None
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(service.shared.planners, read_scored_picture, served.model, body), None
    return await asyncio.get_running_loop().run_in_executor(service.shared.planners, read_picture, served.model, body)


async def plan_and_forecast(
    service: Service, served: ServedModel, body: AnyBody, before: Sequence[Work] = ()
) -> tuple[Plan | ScorePlan, float | None]:
    """Plan a request so that it keeps its deadline. Also the seconds until its end; None: no engine is known.

    `before` is the work of the same call that will be queued before it.

    Raises RefusedError: the request can never be served, its deadline is too short, or no engine is known.
    """
    plan = await asyncio.get_running_loop().run_in_executor(service.shared.planners, plan_of, served.model, body)
    load = await service.broker.load()
    load = dataclasses.replace(load, waiting=(*load.waiting, *before))
    deadline_ms = body.deadline_ms if isinstance(body, GenerateBody) else None
    if load.capacity is None:
        if deadline_ms is not None:
            raise RefusedError("no_worker", "no engine has reported its speed yet: no deadline can be promised")
        return plan, None
    ahead = outlook(load, load.capacity, Work.of(plan, current_quota.get()))
    if deadline_ms is not None and isinstance(plan, Plan):
        whole, plan = plan, plan_in_time(plan, ahead, deadline_ms)
        if plan.network_evaluations < whole.network_evaluations:
            ahead = dataclasses.replace(ahead, speed=1.0)  # the plan was cut without counting on speculation
    return plan, ahead.seconds_of(Work.of(plan))


def plan_of(model: Outline, body: AnyBody) -> Plan | ScorePlan:
    """Check a request against a model and draw its schedules. Raises RefusedError: it can never be served."""
    request, tokens = body.request(), body.default_max_tokens if isinstance(body, GenerateBody) else 0
    try:
        if not is_large(body):
            return _plan(model, request, tokens)
        try:
            _plan(model, _of_as_many_ids(model, request), tokens)
            return _plan(model, request, tokens)
        finally:
            return_freed_memory()
    except RequestError as error:
        raise RefusedError(error.code, str(error), error.param) from error


def is_large(body: AnyRequest) -> bool:
    """Whether it takes much memory to split the texts of a body into tokens."""
    return sum(len(text) for text in _texts(body).values()) > LARGE_TEXT


def _turn(service: Service, bodies: Sequence[AnyBody]) -> AbstractAsyncContextManager[None]:
    """Large texts wait for each other."""
    return service.shared.large_text if any(map(is_large, bodies)) else contextlib.nullcontext()


def _plan(model: Outline, request: AnyRequest, max_tokens: int) -> Plan | ScorePlan:
    if isinstance(request, GenerationRequest):
        return make_plan(model, request, max_tokens)
    return make_score_plan(model, request)


def _texts(request: AnyRequest) -> dict[str, str]:
    values = {name: getattr(request, name, None) for name in ("prompt", "input", "suffix")}
    return {name: value for name, value in values.items() if isinstance(value, str)}


def _of_as_many_ids(model: Outline, request: AnyRequest) -> AnyRequest:
    """A request with as many ids as its texts have tokens at least, counted in little memory."""
    if model.tokenizer is None:
        return request
    most = math.inf
    if isinstance(request, GenerationRequest):  # a longer text is refused before it is split
        most = model.denoiser.length * max(map(len, model.tokenizer.get_vocab()))
    ids: dict[str, list[int]] = {}
    for name, text in _texts(request).items():
        if len(text) > most:
            return request
        tokens = 0
        for start in range(0, len(text), SLICE):
            piece = text[start : start + SLICE]
            (encoding,) = model.tokenizer.encode_batch_fast([piece], add_special_tokens=False)
            tokens += max(0, len(encoding.ids) - SLICE_ERROR)
        ids[name] = [0] * tokens
    if isinstance(request, ScoreRequest) and "input" in ids:  # what is given costs nothing
        ids |= {"input": [0] * max(1, len(ids["input"]) - len(set(request.given))), "given": []}
    return request.model_copy(update=ids)


def plan_in_time(plan: Plan, ahead: Outlook, deadline_ms: int) -> Plan:
    """The plan cut into as many groups, of those that it has, as are expected to end in time.

    Raises RefusedError: not even one group, or one a block, ends in time; the message has the shortest deadline.
    """
    if not plan.network_evaluations:
        return plan

    def rows(groups: int) -> float:
        return len(plan.schedules) * rows_of_plan(plan, groups)

    seconds, most = PLANNED_SHARE * deadline_ms / 1000, len(plan.schedules[0].steps)
    if ahead.seconds_of(Work.of(plan)) <= seconds:
        return cut(plan, most)
    groups = most_groups_in_time(ahead, rows, most, seconds, plan.blocks)
    if not groups:
        shortest = math.ceil(1000 * ahead.seconds(plan.blocks, rows(plan.blocks)) / PLANNED_SHARE)
        message = f"deadline_ms is {deadline_ms}; now the shortest possible for this request is {shortest}"
        raise RefusedError("deadline_too_short", message, "deadline_ms")
    return cut(plan, groups)


def key_of(header: str | None, body: BaseModel) -> IdempotencyKey | None:
    """The idempotency key of a request, with a digest of its body. Each API key has its own.

    Raises RefusedError: the key is empty, too long, or has other than visible ASCII characters.
    """
    if header is None:
        return None
    if not _KEY.fullmatch(header):
        message = "Idempotency-Key: must be 1 to 255 visible ASCII characters without spaces"
        raise invalid(message, "Idempotency-Key")
    digest = hashlib.sha256(body.model_dump_json().encode()).hexdigest()
    return IdempotencyKey(f"{context_field('client') or ''}:{header}", digest)
