"""The description at /openapi.json is what the server does, found out by schemathesis."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.specs.openapi.schemas import OpenApiSchema

from tests.helpers_server import Server

load_all_checks()
# a request that its schema allows may still be too long for the model that is served
EXCLUDED: Any = [CHECKS.get_one("positive_data_acceptance")]


@pytest.fixture(scope="session")
def description(table: Server) -> OpenApiSchema:
    return schemathesis.openapi.from_url(f"{table.url}/openapi.json")


schema = schemathesis.pytest.from_fixture("description")


@schema.parametrize()
@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_server_keeps_to_its_description(case: schemathesis.Case[Any]) -> None:
    case.call_and_validate(excluded_checks=EXCLUDED)
