"""The routes of the HTTP contract."""

from typing import Any

from fastapi import APIRouter, Request, Response

from unmask_service.api.admission import admit
from unmask_service.api.bodies import bounded_route
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
        generation = await admit(service, body)
        return GenerationStream(generation) if body.stream else await whole_answer(request, generation)

    return router


def information_routes(service: Service) -> APIRouter:
    """What is served, how it is doing."""
    router = APIRouter()

    @router.head("/health", include_in_schema=False)
    @router.get("/health", tags=["state"])
    async def health() -> Status:
        """The process is up."""
        return Status(status="ok")

    @router.head("/ready", include_in_schema=False)
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
        service.metrics.show(await service.broker.load())
        return Response(service.metrics.exposition(), media_type=CONTENT_TYPE)

    return router
