"""The description at /openapi.json is what the server does, found out by schemathesis."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.specs.openapi.schemas import OpenApiSchema

from tests.helpers_server import Server

load_all_checks()
# a request that its schema allows may still be too long for the model that is served
EXCLUDED: Any = [CHECKS.get_one("positive_data_acceptance")]

JOBS = ("/generate/{job_id}", "/score/{job_id}")
PICTURES = ("film.png", "image.png", "sheet.png")
POSTS = (
    "/detokenize",
    "/generate",
    "/plan",
    "/score",
    "/tokenize",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/images/generations",
)
FORMS = ("/v1/images/edits", "/v1/images/variations")
CARDS = ("/v1/models", "/v1/models/{model_id}", "/v1/models/{model_id}/card")
OPERATIONS = [
    *[("GET", path) for path in ("/health", "/ready", "/metrics", "/tokenizer_info", *CARDS)],
    *[(method, path) for path in JOBS for method in ("GET", "DELETE")],
    *[("GET", f"{path}/events") for path in JOBS],
    *[("GET", f"/generate/{{job_id}}/{picture}") for picture in PICTURES],
    *[("POST", path) for path in POSTS + FORMS],
]


@pytest.fixture(scope="module")
def description(table: Server) -> OpenApiSchema:
    return schemathesis.openapi.from_url(f"{table.url}/openapi.json")


def test_these_are_all_operations(description: OpenApiSchema) -> None:
    found = [(method.upper(), path) for path in description for method in description[path]]
    assert sorted(found) == sorted(OPERATIONS)


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [(*operation, GenerationMode.POSITIVE) for operation in OPERATIONS]
    + [("POST", path, GenerationMode.NEGATIVE) for path in POSTS],
)
def test_the_server_keeps_to_its_description(
    description: OpenApiSchema, method: str, path: str, mode: GenerationMode
) -> None:
    examples = 80 if method == "POST" else 5

    @settings(max_examples=examples, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=description[path][method].as_strategy(generation_mode=mode))
    def keeps_to_it(case: Case[Any]) -> None:
        case.call_and_validate(excluded_checks=EXCLUDED)

    keeps_to_it()
