"""The HTTP application: its routes, its errors, its middleware, and its OpenAPI description."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.types import ASGIApp

from unmask_service.api.errors import install_error_answers
from unmask_service.api.followers import Generation, Scoring
from unmask_service.api.log_pictures import log_picture_routes
from unmask_service.api.middleware import is_open, with_middleware
from unmask_service.api.openai_bodies import ChatBody, CompletionBody
from unmask_service.api.openai_images import ImagesBody, openai_image_routes
from unmask_service.api.openai_routes import openai_routes
from unmask_service.api.pages import documentation_routes, mount_playground
from unmask_service.api.routes import following_routes, service_routes, state_routes
from unmask_service.api.schemas import ErrorAnswer, GenerateAnswer, GenerateBody, ImageEvent, StartEvent, UnmaskEvent
from unmask_service.api.score_schemas import ProgressEvent, ScoreAnswer, ScoreBody, ScoreStartEvent
from unmask_service.api.service import Models, State
from unmask_service.api.tokenizer_routes import DetokenizeBody, TokenizeBody, tokenizer_routes
from unmask_service.api_keys import ApiKey

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig

DESCRIPTION = (
    "An inference server for masked diffusion language models. A generation is a plan and a log: its cost is known "
    "before the first network evaluation, and the same request with the same seed gives the same tokens."
)
# FastAPI does not see the bodies (`read_body` reads them), nor the events of a stream
BODIES: dict[str, type[BaseModel]] = {"/generate": GenerateBody, "/plan": GenerateBody, "/score": ScoreBody}
BODIES |= {
    "/v1/completions": CompletionBody,
    "/v1/chat/completions": ChatBody,
    "/v1/images/generations": ImagesBody,
    "/tokenize": TokenizeBody,
    "/detokenize": DetokenizeBody,
}
# FastAPI makes a span for each request where traces are on; nothing of what it could measure and log beside it
TELEMETRY: "TelemetryConfig" = {
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
    "exclude": lambda scope: is_open(scope["path"]) or scope["path"] == "/metrics",
}
EVENTS: dict[str, dict[str, type[BaseModel]]] = {
    "/generate": {
        "start": StartEvent,
        "unmask": UnmaskEvent,
        "image": ImageEvent,
        "done": GenerateAnswer,
        "error": ErrorAnswer,
    },
    "/score": {"start": ScoreStartEvent, "progress": ProgressEvent, "done": ScoreAnswer, "error": ErrorAnswer},
}


def create_app(
    models: Models, keys: Sequence[ApiKey] = (), cors_origins: Sequence[str] = (), with_metrics: bool = True
) -> ASGIApp:
    """The HTTP application that serves these models; without `keys` no API key is needed."""
    app = FastAPI(
        title="Unmask",
        version=version("unmask"),
        description=DESCRIPTION,
        servers=[{"url": "."}],  # where the description is, under whatever path a proxy serves it
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        telemetry=TELEMETRY,
    )
    app.include_router(service_routes(models))
    app.include_router(following_routes(models, Generation, "generate"))
    app.include_router(log_picture_routes(models))
    app.include_router(following_routes(models, Scoring, "score"))
    app.include_router(openai_routes(models))
    app.include_router(openai_image_routes(models))
    app.include_router(tokenizer_routes(models))
    app.include_router(state_routes(models.states, with_metrics))
    app.include_router(documentation_routes("Unmask"))
    mount_playground(app)
    metrics = models.default.metrics  # for what is refused before its model is known
    install_error_answers(app, metrics)
    describe(app, with_keys=bool(keys))
    return with_middleware(app, metrics, keys, cors_origins)


def create_state_app(states: Sequence[State]) -> ASGIApp:
    """The application for operators, on a port of its own: `/metrics`, `/health` and `/ready`."""
    app = FastAPI(
        title="Unmask",
        version=version("unmask"),
        openapi_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False},
    )
    app.include_router(state_routes(states))
    install_error_answers(app, states[0].metrics)
    return with_middleware(app, states[0].metrics)


def describe(app: FastAPI, with_keys: bool) -> None:
    """Add bodies, events and API keys to the OpenAPI description of `app`, for the paths that it has."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        document = described()
        paths = document["paths"]
        for path in BODIES.keys() & paths.keys():
            content = {"application/json": {"schema": _schema(document, BODIES[path], "validation")}}
            paths[path]["post"]["requestBody"] = {"required": True, "content": content}
        for path in EVENTS.keys() & paths.keys():
            events = [_event(name, _schema(document, model, "serialization")) for name, model in EVENTS[path].items()]
            # OpenAPI 3.1 has no word for a sequence of events; tools take this schema for that of each event
            content = paths[path]["post"]["responses"]["200"].setdefault("content", {})
            content["text/event-stream"] = {"schema": {"anyOf": events}}
        if with_keys:
            document["components"]["securitySchemes"] = {"api_key": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{"api_key": []}]
            content = {"application/json": {"schema": _schema(document, ErrorAnswer, "serialization")}}
            for path, operations in paths.items():
                for operation in operations.values():
                    if is_open(path):
                        operation["security"] = []
                    else:
                        operation["responses"]["401"] = {"description": "no API key is known", "content": content}
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _schema(document: dict[str, Any], model: type[BaseModel], mode: Any) -> dict[str, str]:  # noqa: ANN401 — a literal
    """A reference to the schema of a model, which is added to the document."""
    _, found = models_json_schema([(model, mode)], ref_template="#/components/schemas/{model}")
    document["components"]["schemas"] |= found["$defs"]
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _event(name: str, data: dict[str, str]) -> dict[str, Any]:
    """One kind of event: its `data` is a line of JSON."""
    properties = {
        "id": {"type": "string", "description": "increasing within the stream"},
        "event": {"const": name},
        "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": data},
    }
    return {"type": "object", "title": name, "required": list(properties), "properties": properties}
