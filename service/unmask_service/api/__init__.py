"""HTTP: schemas, routes, events, errors. Knows nothing of tensors."""

from importlib.metadata import version

from fastapi import FastAPI
from starlette.types import Lifespan

from unmask_service.api.error_answers import install_error_answers
from unmask_service.api.openapi import describe_events
from unmask_service.api.routes import generation_routes, information_routes
from unmask_service.api.schemas import Limits, ModelCard
from unmask_service.api.service import Gate, ServedModel, Service
from unmask_service.api.transcript import Vocabulary

__all__ = ["Gate", "Limits", "ModelCard", "ServedModel", "Service", "Vocabulary", "create_app"]

DESCRIPTION = (
    "An inference server for masked diffusion language models. A generation is a plan and a log: its cost is known "
    "before the first network evaluation, and the same request with the same seed gives the same tokens."
)


def create_app(service: Service, lifespan: Lifespan[FastAPI] | None = None) -> FastAPI:
    """The HTTP application of a service."""
    app = FastAPI(
        title="Unmask",
        version=version("unmask"),
        description=DESCRIPTION,
        lifespan=lifespan,
        strict_content_type=False,  # a body that names no type is read as JSON; another type is refused
        redirect_slashes=False,
    )
    app.include_router(generation_routes(service))
    app.include_router(information_routes(service))
    install_error_answers(app, service.metrics)
    describe_events(app)
    return app
