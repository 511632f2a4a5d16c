"""The routes of the HTTP contract."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from unmask_diffusion import GenerationRequest, Plan, RequestError, make_plan

from unmask_service.api.bodies import bounded_route
from unmask_service.api.errors import InvalidRequestError, UnknownModelError, quoted
from unmask_service.api.generation import Generation
from unmask_service.api.responses import GenerationStream, whole_answer
from unmask_service.api.schemas import ErrorAnswer, GenerateAnswer, GenerateBody, ModelList, Status
from unmask_service.api.service import Service
from unmask_service.metrics import CONTENT_TYPE

Documented = dict[int | str, dict[str, Any]]

RETRY_AFTER = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
UNAVAILABLE: Documented = {
    503: {"model": ErrorAnswer, "description": "the model is loading, or the server drains", "headers": RETRY_AFTER}
}
REFUSALS: Documented = UNAVAILABLE | {
    400: {"model": ErrorAnswer, "description": "the body is not JSON"},
    404: {"model": ErrorAnswer, "description": "unknown model"},
    413: {"model": ErrorAnswer, "description": "the body is over the limit"},
    422: {"model": ErrorAnswer, "description": "the request can never be served"},
    429: {"model": ErrorAnswer, "description": "the queue is full", "headers": RETRY_AFTER},
    500: {"model": ErrorAnswer, "description": "a fault of the server's own"},
}
STREAM: Documented = {
    200: {
        "model": GenerateAnswer,
        "description": "the answer, or with `stream` its events: start, unmask …, done or error",
    }
}


def generation_routes(service: Service) -> APIRouter:
    """`POST /generate`."""
    router = APIRouter(route_class=bounded_route(service.card.limits.max_body_bytes))

    @router.post("/generate", response_model=None, responses=STREAM | REFUSALS, tags=["generation"])
    async def generate(body: GenerateBody, request: Request) -> Response:
        """Fill in the masked tokens of a canvas: continue a prompt, fill the gap before a suffix, or any holes."""
        generation = await Generation.submit(service, await plan_of(service, body))
        return GenerationStream(generation) if body.stream else await whole_answer(request, generation)

    return router


async def plan_of(service: Service, body: GenerateBody) -> Plan:
    """Check a request against the model and draw its schedules, off the event loop.

    Raises:
        RefusedError: it is not for this model, can never be served, or not now.
    """
    name, most = service.card.id, service.card.limits.max_samples
    if body.model is not None and body.model != name:
        raise UnknownModelError(f"model {quoted(body.model)} is not served here; {name!r} is", param="model")
    if body.n > most:
        raise InvalidRequestError(f"n is {body.n}; this server draws at most {most} samples a request", param="n")
    served = service.gate.pass_through()
    request: GenerationRequest = body.request()
    try:
        return await asyncio.to_thread(make_plan, served.model, request)
    except RequestError as error:
        raise InvalidRequestError(str(error), error.param, error.code) from error


def information_routes(service: Service) -> APIRouter:
    """What is served, how it is doing."""
    router = APIRouter()

    @router.get("/health", tags=["state"])
    async def health() -> Status:
        """The process is up."""
        return Status(status="ok")

    @router.get("/ready", responses=UNAVAILABLE, tags=["state"])
    async def ready() -> Status:
        """The model is loaded and work is accepted."""
        service.gate.pass_through()
        return Status(status="ready")

    @router.get("/v1/models", tags=["models"])
    async def models() -> ModelList:
        """The models that are served, and what a client needs to know of them."""
        return ModelList(data=[service.card])

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}}, tags=["state"])
    async def metrics() -> Response:
        """Prometheus' text format."""
        return Response(service.metrics.exposition(), media_type=CONTENT_TYPE)

    return router
