"""HTTP: schemas, routes, events, errors. This package knows nothing of tensors."""

from unmask_service.api.application import create_app, create_state_app
from unmask_service.api.picture_requests import digits_of
from unmask_service.api.prefix import PrefixMiddleware
from unmask_service.api.schemas import MAX_CANDIDATES, MAX_DEADLINE_MS, ImageInput, Limits, ModelCard
from unmask_service.api.score_schemas import ScoreNumbers
from unmask_service.api.service import Gate, Models, ServedModel, Service, Shared, State, Vocabulary

__all__ = [
    "MAX_CANDIDATES",
    "MAX_DEADLINE_MS",
    "Gate",
    "ImageInput",
    "Limits",
    "ModelCard",
    "Models",
    "PrefixMiddleware",
    "ScoreNumbers",
    "ServedModel",
    "Service",
    "Shared",
    "State",
    "Vocabulary",
    "create_app",
    "create_state_app",
    "digits_of",
]
