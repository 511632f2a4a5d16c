"""API keys: without one nothing is served but what watches the process and pages; keys themselves are never kept."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import ASGIApp, Receive, Scope, Send
from unmask_service.api.application import describe
from unmask_service.api.middleware import is_open, with_middleware
from unmask_service.api.schemas import ErrorAnswer
from unmask_service.api_keys import ApiKey, line_of, new_key, read_api_keys
from unmask_service.metrics import Metrics

from tests.helpers_asgi import Asked, ask
from tests.helpers_server import Server, free_port

# as keys are, and the same each time: they are in the names of tests
ALICE, BOB = f"unmask-key-{'Alice-7' * 6}x", f"unmask-key-{'Bob_42-' * 6}x"
KEYS = read_api_keys(None, f"{line_of('alice', ALICE)},{line_of('bob', BOB)}")

# --- the middleware --------------------------------------------------------------------------------------------------


class Inner:
    """An application that counts who reaches it."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        self.paths.append(scope["path"])
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body", "body": b""})


class Door:
    """Middleware with two keys around `Inner`."""

    def __init__(self, keys: Sequence[ApiKey] = KEYS, **more: Sequence[str]) -> None:
        self.inner = Inner()
        self.metrics = Metrics("toy")
        self.app: ASGIApp = with_middleware(self.inner, self.metrics, keys, **more)

    @property
    def refused(self) -> list[str]:
        """The reasons of the refused requests that were counted."""
        samples = (each for family in self.metrics.registry.collect() for each in family.samples)
        return [each.labels["reason"] for each in samples if each.name == "unmask_requests_total" and each.value == 1]

    def ask(self, *authorization: bytes, path: str = "/generate", method: str = "POST", body: bytes = b"") -> Asked:
        headers = [(b"authorization", value) for value in authorization]
        return ask(self.app, path, method, headers, [body])


def is_unauthorized(asked: Asked, code: str) -> bool:
    error = ErrorAnswer.model_validate(asked.json()).error
    assert (error.type, error.param, error.code) == ("invalid_request_error", "Authorization", code)
    assert asked.headers["www-authenticate"].startswith('Bearer realm="unmask"')
    assert ("invalid_token" in asked.headers["www-authenticate"]) == (code == "invalid_api_key")
    return asked.status == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
@pytest.mark.parametrize("key", [ALICE, BOB])
def test_a_key_lets_in(scheme: str, key: str) -> None:
    door = Door()
    assert door.ask(f"{scheme} {key}".encode()).status == 204
    assert (door.inner.paths, door.refused) == (["/generate"], [])


@pytest.mark.parametrize(
    "authorization",
    [
        (),
        (b"",),
        (b"Bearer",),
        (b"Bearer ",),
        (ALICE.encode(),),
        (f"Basic {ALICE}".encode(),),
        (f"Bearer{ALICE}".encode(),),
        (f"Bearer {ALICE}".encode(), f"Bearer {ALICE}".encode()),
    ],
)
def test_no_key_does_not(authorization: tuple[bytes, ...]) -> None:
    door = Door()
    assert is_unauthorized(door.ask(*authorization), "missing_api_key")
    assert (door.inner.paths, door.refused) == ([], ["missing_api_key"])


@pytest.mark.parametrize(
    "key",
    [
        b"x",
        b"\xff",
        b"x" * 50_000,
        b"alice",
        ALICE.upper().encode(),
        ALICE[:-1].encode(),
        ALICE.encode() + b"x",
        f"{ALICE} {BOB}".encode(),
        f"alice:{ALICE}".encode(),
        KEYS[0].digest.hex().encode(),
    ],
)
def test_a_wrong_key_does_not(key: bytes) -> None:
    door = Door()
    assert is_unauthorized(door.ask(b"Bearer " + key), "invalid_api_key")
    assert (door.inner.paths, door.refused) == ([], ["invalid_api_key"])


@given(st.lists(st.one_of(st.binary(max_size=40), st.binary(max_size=40).map(b"Bearer ".__add__)), max_size=3))
def test_no_header_bytes_open_the_door_or_break_it(values: list[bytes]) -> None:
    door = Door()
    asked = door.ask(*values)
    assert (asked.status, asked.error, door.inner.paths) == (401, None, [])


@pytest.mark.parametrize(
    "path", ["/health", "/ready", "/", "/docs", "/docs/swagger-ui.css", "/openapi.json", "/page/a.js"]
)
def test_who_watches_and_pages_need_no_key(path: str) -> None:
    door = Door()
    assert door.ask(path=path, method="GET").status == 204
    assert door.ask(b"Bearer wrong", path=path, method="GET").status == 204


@pytest.mark.parametrize(
    "path",
    [
        "/generate",
        "/generate/gen-1",
        "/generate/gen-1/events",
        "/v1/models",
        "/v1/models/writer/card",
        "/metrics",
        "/nowhere",
        "",
        "//",
        "/health/",
        "/healthy",
        "//health",
        "/Health",
        "/ready/../metrics",
        "/metrics/health",
        "/page",
        "/docsx",
        "/a\n/",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS", "HEAD", "TRACE", "NONSENSE"])
def test_all_else_does(path: str, method: str) -> None:
    door = Door()
    assert door.ask(path=path, method=method).status == 401
    assert not is_open(path)
    assert not door.inner.paths


def test_without_keys_everybody_comes_in() -> None:
    door = Door(keys=())
    assert door.ask().status == 204
    assert door.ask(b"Bearer wrong").status == 204


def test_what_is_refused_is_not_read_but_let_go_by() -> None:
    """A client that is still sending would not see the answer to a connection that is closed under it."""
    door = Door()
    chunks = [b"x" * 1000] * 20
    asked = ask(door.app, "/generate", "POST", body=chunks)
    assert (asked.status, asked.left) == (401, 0)
    asked = ask(door.app, "/generate", "POST", [(b"expect", b"100-continue")], chunks)
    assert (asked.status, asked.left) == (401, 20), "a client that asked first sends nothing"


def test_pages_of_other_origins_can_ask_for_leave_and_read_the_refusal() -> None:
    door = Door(cors_origins=["https://a.example"])
    origin = (b"origin", b"https://a.example")
    wish = [
        (b"access-control-request-method", b"POST"),
        (b"access-control-request-headers", b"authorization,content-type,x-request-id"),
    ]
    assert ask(door.app, "/generate", "OPTIONS", [origin, *wish]).status == 200, "browsers ask without a key"
    refused = ask(door.app, "/generate", "POST", [origin])
    assert refused.status == 401
    assert refused.headers["access-control-allow-origin"] == "https://a.example"
    assert not door.inner.paths


def test_a_refusal_has_an_id_and_is_no_ones_to_keep() -> None:
    asked = Door().ask()
    assert asked.headers["x-request-id"].startswith("req-")
    assert asked.headers["cache-control"] == "no-store"


def test_the_description_says_where_keys_are_needed() -> None:
    app = FastAPI()

    @app.get("/health")
    def health() -> ErrorAnswer:
        raise NotImplementedError

    @app.post("/generate")
    def generate() -> ErrorAnswer:
        raise NotImplementedError

    describe(app, with_keys=True)
    for _ in range(2):
        document = app.openapi()
        (scheme,) = document["components"]["securitySchemes"].values()
        assert scheme == {"type": "http", "scheme": "bearer"}
        assert document["security"] == [{"api_key": []}]
        paths = document["paths"]
        assert paths["/health"]["get"]["security"] == []
        assert "401" not in paths["/health"]["get"]["responses"]
        assert "security" not in paths["/generate"]["post"]
        assert "401" in paths["/generate"]["post"]["responses"]


# --- a real server ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def operators() -> str:
    """Where `guarded` answers those who run it."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def guarded(bundles: Path, tmp_path_factory: pytest.TempPathFactory, operators: str) -> Iterator[Server]:
    file = tmp_path_factory.mktemp("keys") / "api-keys"
    file.write_text(f"{line_of('alice', ALICE)}\n{line_of('bob', BOB)}\n")
    options = ["--api-keys-file", str(file), "--log-format", "json", "--log-level", "debug"]
    options += ["--metrics-port", operators.rpartition(":")[2]]
    with Server(bundles / "table", *options) as server:
        yield server.until_ready()


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_a_server_serves_who_shows_a_key(guarded: Server) -> None:
    answer = guarded.http.post("/generate", json={"seed": 1}, headers=bearer(ALICE))
    assert answer.status_code == 200, answer.text
    with guarded.http.stream("POST", "/generate", json={"seed": 1, "stream": True}, headers=bearer(BOB)) as response:
        assert response.status_code == 200
        assert "event: done" in response.read().decode()


def test_idempotency_keys_are_each_clients_own(guarded: Server) -> None:
    ids = {
        key: guarded.http.post("/generate", json={}, headers=bearer(key) | {"idempotency-key": "first"}).json()["id"]
        for key in (ALICE, BOB)
    }
    assert ids[ALICE] != ids[BOB]


@pytest.mark.parametrize("headers", [{}, bearer("wrong"), {"x-api-key": ALICE}])
def test_a_server_refuses_who_does_not(guarded: Server, headers: dict[str, str]) -> None:
    asked = [("POST", "/generate"), ("POST", "/plan"), ("GET", "/v1/models"), ("GET", "/metrics"), ("GET", "/nowhere")]
    asked += [("GET", "/generate/gen-1"), ("DELETE", "/generate/gen-1"), ("GET", "/generate/gen-1/events")]
    for method, path in asked:
        response = guarded.http.request(method, path, headers=headers)
        assert response.status_code == 401, f"{method} {path}: {response.text}"
        assert response.headers["www-authenticate"].startswith("Bearer")
        assert ErrorAnswer.model_validate(response.json()).error.code in {"missing_api_key", "invalid_api_key"}


def test_a_servers_pages_and_probes_are_open(guarded: Server) -> None:
    for path in ("/health", "/ready", "/docs", "/openapi.json"):
        assert guarded.status_of(path) == 200, path


def test_a_large_body_without_a_key_gets_its_answer(guarded: Server) -> None:
    """Even where the connection ends with it: a reset would eat the answer."""
    body, close = b" " * (3 << 20), {"connection": "close", "content-type": "application/json"}
    for content in (body, iter([body[: 1 << 20]] * 3)):
        assert httpx.post(guarded.url + "/generate", content=content, headers=close, timeout=60).status_code == 401


def test_a_server_logs_names_and_never_keys(guarded: Server, operators: str) -> None:
    wrong = new_key()
    guarded.http.post("/generate", json={}, headers=bearer(wrong) | {"x-request-id": "with-a-wrong-key"})
    guarded.http.post("/generate", json={"n": 0}, headers=bearer(ALICE) | {"x-request-id": "of-alice"})
    lines = {line.get("request_id"): line for line in map(json.loads, guarded.output().splitlines())}
    assert lines["of-alice"]["client"] == "alice"
    refused = lines["with-a-wrong-key"]
    assert (refused["outcome"], refused["reason"]) == ("rejected", "invalid_api_key")
    assert "client" not in refused
    said = guarded.output() + httpx.get(f"{operators}/metrics").text
    assert not [key for key in (ALICE, BOB, wrong) if key in said or key.removeprefix("unmask-key-") in said]


def test_the_operators_port_needs_no_key_and_tells_names_but_no_keys(guarded: Server, operators: str) -> None:
    assert guarded.http.post("/generate", json={}).status_code == 401
    assert guarded.http.post("/generate", json={}, headers=bearer(ALICE)).status_code == 200
    metrics = httpx.get(f"{operators}/metrics")
    assert metrics.status_code == 200
    assert 'reason="missing_api_key"' in metrics.text
    assert 'client="alice"' in metrics.text
    assert ALICE not in metrics.text
    assert httpx.get(f"{operators}/ready").headers["x-request-id"].startswith("req-")
    for path in ("/generate", "/v1/models", "/docs", "/openapi.json", "/"):
        assert httpx.get(operators + path).status_code == 404, path
    assert guarded.http.get("/metrics", headers=bearer(ALICE)).status_code == 404
