"""The routes of the HTTP contract, and answers that take as long as their job: they notice when the client leaves."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Protocol

import anyio
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Receive, Scope, Send

from unmask_service.api.admission import admit, key_of, what_it_would_cost
from unmask_service.api.bodies import read_body
from unmask_service.api.errors import RefusedError, invalid, quoted
from unmask_service.api.followers import AnyFollower
from unmask_service.api.png_answers import painter_of, png_answer
from unmask_service.api.schemas import (
    ErrorAnswer,
    GenerateAnswer,
    GenerateBody,
    GenerationStatus,
    JobStatus,
    ModelCard,
    ModelList,
    PlanAnswer,
    Status,
)
from unmask_service.api.score_schemas import ScoreAnswer, ScoreBody, ScoreStatus
from unmask_service.api.service import Models, Service, State, exposition
from unmask_service.broker import IdempotencyKey
from unmask_service.metrics import CONTENT_TYPE
from unmask_service.traces import span

Documented = dict[int | str, dict[str, Any]]

MOST_EVENTS = 2**53  # no log is longer
# the contract says: a comment at least every 15 s of silence
PING_SECONDS = 10
# a client that reads nothing for so long has disconnected
SEND_TIMEOUT_SECONDS = 60
# nobody sees it: the client has disconnected (the number is nginx's)
CLIENT_CLOSED_REQUEST = 499

RETRY_AFTER = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
_NOT_NOW = {"model": ErrorAnswer, "description": "not now; the code says why", "headers": RETRY_AFTER}
UNAVAILABLE: Documented = {503: _NOT_NOW}
REFUSALS: Documented = UNAVAILABLE | {
    400: {"model": ErrorAnswer, "description": "the body is not JSON"},
    404: {"model": ErrorAnswer, "description": "unknown model"},
    413: {"model": ErrorAnswer, "description": "the body is over the limit"},
    422: {"model": ErrorAnswer, "description": "the request can never be served"},
    429: {"model": ErrorAnswer, "description": "the queue is full", "headers": RETRY_AFTER},
    500: {"model": ErrorAnswer, "description": "a fault of the server"},
}
UNKNOWN: Documented = UNAVAILABLE | {
    404: {"model": ErrorAnswer, "description": "it does not exist, or does not exist any more"},
    422: {"model": ErrorAnswer, "description": "an impossible value"},
}
EVENTS: Documented = {
    200: {"content": {"text/event-stream": {}}, "description": "the events: start … done or error"},
    204: {"description": "there is nothing behind that event: a browser's EventSource stops here"},
}
CARD: Documented = {
    200: {"content": {"text/markdown": {}}, "description": "the card, at most its first 256 KiB"},
    404: {"model": ErrorAnswer, "description": "the model is not served here, or has no card"},
}
MODEL: Documented = {404: {"model": ErrorAnswer, "description": "the model is not served here"}}
_EVENT_ID = re.compile(r"[0-9]{1,16}")


def service_routes(models: Models) -> APIRouter:
    """The routes that take generations, plans and scores, and the list of models."""
    router = APIRouter()
    limit, parsers = models.max_body_bytes, models.shared.parsers

    @router.post(
        "/generate",
        response_model=None,
        responses=_accepted(GenerateAnswer, GenerationStatus, "unmask") | REFUSALS,
        tags=["generation"],
        summary="Generate tokens",
    )
    async def generate(
        request: Request,
        idempotency_key: Annotated[str | None, Header(description="the same key gives the same generation")] = None,
    ) -> Response:
        """Fill in the masked tokens of a canvas: continue a prompt, fill the gap before a suffix, or any holes."""
        return await answer(request, await read_body(request, GenerateBody, limit, parsers), idempotency_key)

    @router.post("/plan", responses=REFUSALS, tags=["generation"], summary="Cost of a generation")
    async def plan(request: Request) -> PlanAnswer:
        """What a request would cost, without running it; `stream` and `detach` change nothing."""
        body = await read_body(request, GenerateBody, limit, parsers)
        return await what_it_would_cost(service_of(models, request, body.model), body)

    @router.post(
        "/score",
        response_model=None,
        responses=_accepted(ScoreAnswer, ScoreStatus, "progress") | REFUSALS,
        tags=["score"],
        summary="Score a text",
    )
    async def score(
        request: Request,
        idempotency_key: Annotated[str | None, Header(description="the same key gives the same score")] = None,
    ) -> Response:
        """Bound the likelihood of a text, given what comes before it, after it or within it."""
        return await answer(request, await read_body(request, ScoreBody, limit, parsers), idempotency_key)

    async def answer(request: Request, body: GenerateBody | ScoreBody, idempotency_key: str | None) -> Response:
        """Queue a job; answer in the form that the body requests."""
        service, key = await door(models, request, body.model, body, idempotency_key)
        form: Callable[[Any], Response] = json_answer
        if isinstance(body, GenerateBody) and (painter := painter_of(request, service, body)) is not None:
            form = partial(png_answer, painter=painter, body=body)
        follower = await admit(service, body, key)
        if body.stream:
            return EventStream(follower, follower.events())
        if body.detach:
            # relative: a proxy may serve us under a path of its own, which browsers and clients know and we do not
            headers = {"Location": f"{request.url.path.rpartition('/')[2]}/{follower.job.id}"}
            return JSONResponse((await follower.status()).model_dump(), HTTPStatus.ACCEPTED, headers)
        return await whole_answer(request, follower, form)

    @router.get("/v1/models", tags=["models"], summary="List models")
    async def list_models() -> ModelList:
        """The models that are served, the default one first, and what a client needs to know of them."""
        return ModelList(data=[service.card for service in models.services.values()])

    @router.get(
        "/v1/models/{model_id:path}/card",
        tags=["models"],
        responses=CARD,
        response_class=Response,
        summary="Model card",
    )
    async def card(model_id: str) -> Response:
        """The model's README.md."""
        service = models.of(model_id, "model_id")
        if not service.readme:
            raise RefusedError("card_not_found", f"model {service.card.id!r} has no card: its bundle has no README.md")
        return Response(service.readme, media_type="text/markdown")

    @router.get("/v1/models/{model_id:path}", tags=["models"], responses=MODEL, summary="A model")
    async def model(model_id: str) -> ModelCard:
        """What a client needs to know of one model."""
        return models.of(model_id, "model_id").card

    return router


def service_of(models: Models, request: Request, name: str | None) -> Service:
    """The service of the model that a request names; refusals are counted for it. Raises RefusedError."""
    service = models.of(name)
    request.state.metrics = service.metrics
    return service


async def door(
    models: Models, request: Request, model: str | None, body: BaseModel, idempotency_key: str | None
) -> tuple[Service, IdempotencyKey | None]:
    """The service of the model that a request names, and the idempotency key of its body.

    Raises RefusedError: the model is not served, or the key is invalid; KeyReusedError: the key belongs to a request
    for another model.
    """
    service, key = service_of(models, request, model), key_of(idempotency_key, body)
    if key is not None:
        await models.refuse_reused(key, service)
    return service, key


def following_routes(models: Models, kind: type[AnyFollower], path: str) -> APIRouter:
    """The routes for generations, or scores, that were queued before."""
    router = APIRouter(prefix=f"/{path}/{{job_id}}", responses=UNKNOWN, tags=[kind.noun])

    @router.get("", response_model=kind.status_type, summary=f"Status of a {kind.noun}")
    async def status(job_id: str) -> Response:
        """Where it is, or its answer."""
        text = await (await kind.find(models, job_id)).status_json()
        return Response(text, media_type="application/json")

    @router.delete("", response_model=kind.status_type, summary=f"Cancel a {kind.noun}")
    async def cancel(job_id: str) -> JobStatus:
        """Cancel it if it has not ended. Its events can be read for a while."""
        return await (await kind.find(models, job_id)).cancel()

    @router.get("/events", response_model=None, responses=EVENTS, summary=f"Events of a {kind.noun}")
    async def events(
        job_id: str,
        after: Annotated[int | None, Query(ge=0, le=MOST_EVENTS, description="the id of the last event seen")] = None,
        last_event_id: Annotated[str | None, Header(description="the same, as browsers send it")] = None,
    ) -> Response:
        """Its events, from the start or from behind the last one that was seen."""
        if after is None and last_event_id:  # the URL wins
            if not (_EVENT_ID.fullmatch(last_event_id) and int(last_event_id) <= MOST_EVENTS):
                message = f"Last-Event-ID: must be the id of an event, a whole number up to {MOST_EVENTS}"
                raise invalid(message, "Last-Event-ID")
            after = int(last_event_id)
        follower = await kind.find(models, job_id)
        if follower.record.ended and after is not None and after >= follower.record.log_length:
            return Response(status_code=HTTPStatus.NO_CONTENT)
        return EventStream(follower, follower.events(after))

    return router


def state_routes(states: Sequence[State], with_metrics: bool = True) -> APIRouter:
    """The routes that say whether the process is up and whether it is ready, and the one that Prometheus reads."""
    router = APIRouter(tags=["state"])

    @router.head("/health", include_in_schema=False)
    @router.get("/health")
    async def health() -> Status:
        """The process is up."""
        return Status(status="ok")

    @router.head("/ready", include_in_schema=False)
    @router.get("/ready", responses=UNAVAILABLE | MODEL)
    async def ready(model: Annotated[str | None, Query(description="one model; left out: all")] = None) -> Status:
        """Every model, or the one that is named, is loaded, an engine of it is alive, and work is accepted."""
        if not (named := [state for state in states if model in (None, state.model)]):
            raise RefusedError("model_not_found", f"model {quoted(model or '')} is not served here", "model")
        for state in named:
            await state.check()
        return Status(status="ready")

    if with_metrics:

        @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
        async def metrics() -> Response:
            """The metrics in Prometheus' text format."""
            return Response(await exposition(states), media_type=CONTENT_TYPE)

    return router


def _accepted(answer: type[BaseModel], status: type[BaseModel], event: str) -> Documented:
    stream = f"the answer, or with `stream` its events: start, {event} …, done or error"
    return {
        200: {"model": answer, "description": stream},
        202: {"model": status, "description": "`detach` without `stream`"},
    }


class Reply(Protocol):
    """A client that waits for one job, or for the jobs of a call."""

    @property
    def service(self) -> Service: ...

    async def answer(self) -> BaseModel:
        """The answer, once every job has ended. Raises JobError."""

    async def leave(self) -> None:
        """The client has its answer or has disconnected."""


class EventStream(EventSourceResponse):
    """A reply as Server-Sent Events. However the response ends, the client leaves its jobs."""

    def __init__(self, reply: Reply, events: AsyncIterator[ServerSentEvent], ping: int | None = None) -> None:
        super().__init__(
            events,
            ping=PING_SECONDS if ping is None else ping,
            ping_message_factory=lambda: ServerSentEvent(comment="ping", sep="\n"),
            send_timeout=SEND_TIMEOUT_SECONDS,
            sep="\n",
        )
        self._reply = reply

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; if the process must end before they do, end the response as if there were no more.

        A client that returns gets the rest from another process or from the next one.
        """
        service = self._reply.service
        async with span("stream", scope["path"], service.card.id):
            await self._send(service, scope, receive, send)

    async def _send(self, service: Service, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(super().__call__(scope, receive, send))
        cutting = asyncio.create_task(service.shared.cut.wait())
        try:
            with service.answering():
                try:
                    await asyncio.wait({sending, cutting}, return_when=asyncio.FIRST_COMPLETED)
                    if sending.done():
                        sending.result()
                        return
                finally:
                    cutting.cancel()
                    sending.cancel()
                    await asyncio.wait({sending})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await _leave(self._reply)


def json_answer(answer: BaseModel) -> Response:
    """An answer as JSON."""
    return Response(answer.model_dump_json(), HTTPStatus.OK, media_type="application/json")


async def whole_answer(request: Request, reply: Reply, form: Callable[[Any], Response] = json_answer) -> Response:
    """The answer at the end, unless the client goes away before."""
    async with span("answer", request.url.path, reply.service.card.id):
        return await _whole_answer(request, reply, form)


async def _whole_answer(request: Request, reply: Reply, form: Callable[[Any], Response]) -> Response:
    answering = asyncio.create_task(reply.answer())
    leaving = asyncio.create_task(_client_gone(request))
    try:
        with reply.service.answering():
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        return form(answering.result())
    finally:
        answering.cancel()
        leaving.cancel()
        await _leave(reply)


async def _client_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _leave(reply: Reply) -> None:
    with anyio.CancelScope(shield=True):
        await reply.leave()
