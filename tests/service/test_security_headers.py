"""What browsers are told of our answers, what other origins may do, and that no answer says what runs here."""

import base64
import hashlib
import re
from importlib.metadata import version
from urllib.parse import urljoin

import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send
from unmask_service.api.middleware import SECURITY_HEADERS, HeadersMiddleware, with_middleware
from unmask_service.api.pages import documentation_routes
from unmask_service.metrics import Metrics

from tests.helpers_asgi import Asked, ask
from tests.helpers_server import Server

METRICS = Metrics("toy")

ORIGIN = "https://a.example"


def small_app() -> FastAPI:
    app = FastAPI(docs_url=None, redoc_url=None, redirect_slashes=False)
    app.include_router(documentation_routes("Small"))

    @app.get("/stream")
    def stream() -> StreamingResponse:
        return StreamingResponse(iter([b"one"]), headers={"Cache-Control": "no-cache"})

    @app.post("/fault")
    def fault() -> None:
        raise RuntimeError("inside")

    return app


def get(path: str, *headers: tuple[bytes, bytes]) -> Asked:
    return ask(with_middleware(small_app(), METRICS), path, headers=headers)


@pytest.mark.parametrize("path", ["/openapi.json", "/stream", "/nowhere", "/fault"])
def test_every_answer_has_the_headers(path: str) -> None:
    method = "POST" if path == "/fault" else "GET"
    asked = ask(with_middleware(small_app(), METRICS), path, method)
    expected = SECURITY_HEADERS | ({"Cache-Control": "no-cache"} if path == "/stream" else {})
    assert {name: asked.headers.getlist(name) for name in SECURITY_HEADERS} == {n: [v] for n, v in expected.items()}


@given(st.dictionaries(st.sampled_from(sorted(SECURITY_HEADERS)), st.binary(max_size=20)))
def test_an_answers_own_headers_win(own: dict[str, bytes]) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        pairs = [(name.lower().encode(), value) for name, value in own.items()]
        await send({"type": "http.response.start", "status": 200, "headers": pairs})
        await send({"type": "http.response.body", "body": b""})

    asked = ask(HeadersMiddleware(app))
    for name, value in SECURITY_HEADERS.items():
        assert asked.headers.getlist(name) == [own.get(name, value.encode()).decode("latin-1")]


# --- /docs -----------------------------------------------------------------------------------------------------------


def policy(asked: Asked) -> dict[str, list[str]]:
    words = [rule.split() for rule in asked.headers["content-security-policy"].split(";")]
    return {name: values for name, *values in words}


def test_the_page_runs_its_own_scripts_and_no_others() -> None:
    page = get("/docs")
    (inline,) = re.findall(r"<script>(.*?)</script>", page.body.decode(), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
    allowed = policy(page)
    assert sorted(allowed["script-src"]) == sorted(["'self'", f"'sha256-{digest}'"])
    assert allowed["default-src"] == ["'none'"]
    assert allowed["frame-ancestors"] == ["'none'"]
    everything = [value for values in allowed.values() for value in values]
    assert not [value for value in everything if "http" in value or "*" in value], "no other host has a part in it"


def test_all_that_the_page_loads_is_ours_and_there() -> None:
    page = get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    loaded = re.findall(r'(?:src|href)="([^"]*)"', page.body.decode())
    assert len(loaded) == 3
    kinds = {}
    for reference in loaded:
        assert urljoin("https://h.example/behind/docs", reference).startswith("https://h.example/behind/docs/")
        asset = get(urljoin("/docs", reference))
        assert (asset.status, asset.error) == (200, None)
        assert asset.headers["x-content-type-options"] == "nosniff"
        kinds[asset.headers["content-type"].partition(";")[0]] = len(asset.body)
    assert kinds.keys() == {"text/javascript", "text/css", "image/png"}
    assert min(kinds.values()) > 100


@pytest.mark.parametrize(
    "path", ["/docs/", "/docs/main.py", "/docs/../main.py", "/docs/\x00", "/docs//etc/passwd", "/redoc"]
)
def test_there_is_nothing_else_beside_the_page(path: str) -> None:
    asked = get(path)
    assert (asked.status, asked.error) == (404, None)


# --- other origins ---------------------------------------------------------------------------------------------------


def preflight(origins: list[str], origin: str, method: str = "POST", names: str = "content-type") -> Asked:
    headers = [
        (b"origin", origin.encode()),
        (b"access-control-request-method", method.encode()),
        (b"access-control-request-headers", names.encode()),
    ]
    return ask(with_middleware(small_app(), METRICS, cors_origins=origins), "/stream", "OPTIONS", headers)


def cors_headers(asked: Asked) -> dict[str, str]:
    return {name: value for name, value in asked.headers.items() if name.startswith("access-control")}


def test_other_origins_may_nothing_by_default() -> None:
    assert not cors_headers(get("/stream", (b"origin", ORIGIN.encode())))
    asked = preflight([], ORIGIN)
    assert asked.status == 405
    assert not cors_headers(asked)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_listed_origin_may_what_the_api_needs(method: str) -> None:
    names = "authorization,content-type,idempotency-key,last-event-id,traceparent,x-request-id"
    asked = preflight(["https://b.example", ORIGIN], ORIGIN, method, names)
    assert asked.status == 200
    assert asked.headers["access-control-allow-origin"] == ORIGIN
    answer = ask(
        with_middleware(small_app(), METRICS, cors_origins=[ORIGIN]), "/stream", headers=[(b"origin", ORIGIN.encode())]
    )
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    exposed = answer.headers["access-control-expose-headers"].lower().split(", ")
    assert {"x-request-id", "retry-after", "location"} <= set(exposed)
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    "names", ["x-stainless-lang,x-stainless-retry-count", "tracestate,baggage", "user-agent", "x-b3"]
)
def test_a_listed_origin_may_send_what_client_libraries_add(names: str) -> None:
    asked = preflight([ORIGIN], ORIGIN, names=names)
    assert asked.status == 200
    assert set(names.split(",")) <= set(asked.headers["access-control-allow-headers"].replace(" ", "").split(","))
    assert preflight(["https://c.example"], ORIGIN, names=names).status == 400


@pytest.mark.parametrize(
    ("origins", "status", "allowed"), [([ORIGIN], 200, "true"), (["https://c.example"], 400, None)]
)
def test_a_listed_origin_may_reach_a_private_network(origins: list[str], status: int, allowed: str | None) -> None:
    headers = [
        (b"origin", ORIGIN.encode()),
        (b"access-control-request-method", b"POST"),
        (b"access-control-request-private-network", b"true"),
    ]
    asked = ask(with_middleware(small_app(), METRICS, cors_origins=origins), "/stream", "OPTIONS", headers)
    assert (asked.status, asked.headers.get("access-control-allow-origin")) == (status, ORIGIN if allowed else None)
    if allowed:
        assert asked.headers["access-control-allow-private-network"] == allowed


@pytest.mark.parametrize("origin", ["https://c.example", "http://a.example", "https://a.example:8443", "null", ""])
def test_another_may_not(origin: str) -> None:
    asked = preflight([ORIGIN], origin)
    assert asked.status in {400, 405}
    assert "access-control-allow-origin" not in asked.headers
    answer = ask(
        with_middleware(small_app(), METRICS, cors_origins=[ORIGIN]), "/stream", headers=[(b"origin", origin.encode())]
    )
    assert "access-control-allow-origin" not in answer.headers


def test_all_may_where_all_are_listed() -> None:
    asked = preflight(["*"], "https://anything.example")
    assert asked.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("path", ["/nowhere", "/fault"])
def test_a_listed_origin_can_read_errors(path: str) -> None:
    method = "POST" if path == "/fault" else "GET"
    asked = ask(
        with_middleware(small_app(), METRICS, cors_origins=[ORIGIN]), path, method, [(b"origin", ORIGIN.encode())]
    )
    assert asked.headers["access-control-allow-origin"] == ORIGIN


# --- a real server ---------------------------------------------------------------------------------------------------


def test_a_servers_answers_have_the_headers(writer: Server) -> None:
    asked = [("GET", "/health", b""), ("GET", "/nowhere", b""), ("POST", "/generate", b"{"), ("GET", "/v1/models", b"")]
    asked += [("POST", "/generate", b'{"max_tokens": 1, "stream": true}'), ("GET", "/metrics", b"")]
    for method, path, content in asked:
        response = writer.http.request(method, path, content=content, headers={"content-type": "application/json"})
        for name, value in SECURITY_HEADERS.items():
            assert response.headers.get_list(name) == [value], f"{method} {path}"


def test_a_servers_pages_ask_nothing_of_other_hosts(writer: Server) -> None:
    for path in ("/", "/docs"):
        page = writer.http.get(path)
        assert page.status_code == 200
        assert not re.findall(r'(?:src|href)="(?:https?:)?//', page.text)
        assert "http" not in page.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]


def test_answers_do_not_say_what_runs_here(writer: Server) -> None:
    names = ("uvicorn", "starlette", "fastapi", "python", "torch", f"{version('unmask')}")
    for method, path, content in (("GET", "/nowhere", b""), ("POST", "/generate", b"{"), ("GET", "/health", b"")):
        response = writer.http.request(method, path, content=content, headers={"content-type": "application/json"})
        said = f"{dict(response.headers)} {response.text}".lower()
        assert not [name for name in names if name in said], said
        assert "server" not in response.headers


def test_a_server_is_closed_to_other_origins(writer: Server) -> None:
    response = writer.http.get("/health", headers={"origin": ORIGIN})
    assert response.status_code == 200
    assert not [name for name in response.headers if name.startswith("access-control")]
