"""Request ids: the client's own or a fresh one, on every answer and in every line that the request logs."""

import asyncio
import logging
import re
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send
from unmask_service.api.middleware import HeadersMiddleware, trace_id_of, with_middleware
from unmask_service.logs import LogHandler, context_field
from unmask_service.metrics import Metrics

from tests.helpers_asgi import Asked, ask, ask_here
from tests.helpers_server import Server

METRICS = Metrics("toy")

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
FRESH = re.compile(r"req-[0-9a-f]{32}")

logger = logging.getLogger("tests.request_id")


async def empty(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 204})
    await send({"type": "http.response.body", "body": b""})


def the_id(asked: Asked) -> str:
    (only,) = asked.headers.getlist("x-request-id")
    return only


@pytest.mark.parametrize("given_id", ["a", "7", "x" * 128, "5f0c-…".replace("…", "~!"), '"quoted",{json}', "%0d%0a"])
def test_a_clients_id_comes_back(given_id: str) -> None:
    asked = ask(HeadersMiddleware(empty), headers=[(b"X-Request-ID", given_id.encode())])
    assert the_id(asked) == given_id


@pytest.mark.parametrize("bad", [b"", b" ", b"two words", b"x" * 129, b"\xc3\xa9", b"tab\t", b"nul\x00", b"\x7f"])
def test_what_is_no_id_is_replaced(bad: bytes) -> None:
    assert FRESH.fullmatch(the_id(ask(HeadersMiddleware(empty), headers=[(b"x-request-id", bad)])))


def test_fresh_ids_differ() -> None:
    assert len({the_id(ask(HeadersMiddleware(empty))) for _ in range(20)}) == 20


def test_two_ids_are_none() -> None:
    asked = ask(HeadersMiddleware(empty), headers=[(b"x-request-id", b"a"), (b"x-request-id", b"b")])
    assert FRESH.fullmatch(the_id(asked))


@given(st.lists(st.tuples(st.sampled_from([b"x-request-id", b"traceparent"]), st.binary(max_size=200)), max_size=4))
def test_no_header_bytes_do_harm(headers: list[tuple[bytes, bytes]]) -> None:
    asked = ask(HeadersMiddleware(empty), headers=headers)
    assert (asked.status, asked.error) == (204, None)
    assert re.fullmatch(r"[!-~]{1,128}", the_id(asked))


def test_an_id_of_the_applications_own_gives_way() -> None:
    async def naming(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-request-id", b"inner")]})
        await send({"type": "http.response.body", "body": b""})

    assert the_id(ask(HeadersMiddleware(naming), headers=[(b"x-request-id", b"outer")])) == "outer"


# --- https://www.w3.org/TR/trace-context/ ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        f"00-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-ff",
        f"cc-{TRACE}-{PARENT}-01",
        f"cc-{TRACE}-{PARENT}-01-what-the-future-brings",
        f"01-{TRACE}-{PARENT}-01-",
    ],
)
def test_a_trace_is_known(header: str) -> None:
    assert trace_id_of(Headers({"traceparent": header})) == TRACE


@pytest.mark.parametrize(
    "header",
    [
        "",
        TRACE,
        f"00-{TRACE}-{PARENT}",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}-01-",
        f"cc-{TRACE}-{PARENT}-01.more",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-0G",
        f"00-{TRACE[1:]}-{PARENT}-01",
        f"00-{TRACE}0-{PARENT}-01",
        f"0-{TRACE}-{PARENT}-01",
        f"00_{TRACE}_{PARENT}_01",
        f"00-{TRACE}-{PARENT}-01\n",
    ],
)
def test_what_names_no_trace_is_not_taken_for_one(header: str) -> None:
    assert trace_id_of(Headers({"traceparent": header})) is None


def test_two_traces_are_none() -> None:
    header = (b"traceparent", f"00-{TRACE}-{PARENT}-01".encode())
    assert trace_id_of(Headers(raw=[header, header])) is None


# --- logs ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """The lines that `tests.request_id` logs, as the server writes them."""
    handler = LogHandler("text")
    written: list[str] = []
    handler.emit = lambda record: written.append(handler.format(record))  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield written
    logger.removeHandler(handler)


def ids_in(lines: list[str]) -> list[str]:
    return [found[1] for line in lines for found in re.finditer(r"request_id=(\S+)", line)]


def test_every_line_of_a_request_has_its_id_and_trace(lines: list[str]) -> None:
    async def logging_app(scope: Scope, receive: Receive, send: Send) -> None:
        logger.info("in the request")
        await asyncio.to_thread(logger.info, "in a thread")
        await asyncio.create_task(asyncio.to_thread(logger.info, "in a task"))
        await empty(scope, receive, send)

    headers = [(b"x-request-id", b"mine"), (b"traceparent", f"00-{TRACE}-{PARENT}-01".encode())]
    ask(HeadersMiddleware(logging_app), headers=headers)
    assert len(lines) == 3
    assert all(line.endswith(f"request_id=mine trace_id={TRACE}") for line in lines), lines


def test_requests_side_by_side_keep_their_own(lines: list[str]) -> None:
    async def meeting(names: list[str]) -> None:
        together = asyncio.Barrier(len(names))

        async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
            await together.wait()
            logger.info("mine is %s", context_field("request_id"))
            await empty(scope, receive, send)

        app = HeadersMiddleware(waiting)
        await asyncio.gather(*(ask_here(app, headers=[(b"x-request-id", name.encode())]) for name in names))

    names = [f"name-{i}" for i in range(8)]
    asyncio.run(meeting(names))
    assert sorted(ids_in(lines)) == names
    assert all(f"mine is {name} request_id={name}" in "\n".join(lines) for name in names)


def test_nothing_stays_of_the_request_before(lines: list[str]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        logger.info("here")
        await empty(scope, receive, send)

    async def one_after_the_other() -> None:
        shelled = HeadersMiddleware(app)
        await ask_here(shelled, headers=[(b"traceparent", f"00-{TRACE}-{PARENT}-01".encode())])
        await ask_here(shelled, headers=[(b"x-request-id", b"second")])

    asyncio.run(one_after_the_other())
    assert TRACE in lines[0]
    assert lines[1].endswith("here request_id=second")


def test_no_request_no_id() -> None:
    assert context_field("request_id") is None


# --- streams, and faults ---------------------------------------------------------------------------------------------


def test_a_stream_passes_message_by_message() -> None:
    """The client's `receive` too: who leaves is noticed by the application itself."""
    inner: list[Message] = [{"type": "http.response.start", "status": 200, "headers": []}]
    inner += [{"type": "http.response.body", "body": bytes([i]), "more_body": i < 4} for i in range(5)]
    received: list[Receive] = []

    async def streaming(_scope: Scope, receive: Receive, send: Send) -> None:
        received.append(receive)
        for message in inner:
            await send(message)

    async def run() -> list[Message]:
        outer: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            outer.append(message)

        await with_middleware(streaming, METRICS)({"type": "http", "path": "/", "headers": []}, receive, send)
        assert received == [receive]
        return outer

    outer = asyncio.run(run())
    assert outer[1:] == inner[1:]
    assert all(mine is its for mine, its in zip(outer[1:], inner[1:], strict=True))


def test_other_than_http_passes_untouched() -> None:
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([scope, receive, send])

    async def nothing() -> Message:
        return {}

    async def nowhere(_: Message) -> None:
        return

    async def run() -> None:
        await with_middleware(app, METRICS)(scope, nothing, nowhere)

    scope: Scope = {"type": "lifespan"}
    asyncio.run(run())
    assert seen == [scope, nothing, nowhere]


def failing_app() -> FastAPI:
    app = FastAPI()

    @app.get("/fault")
    async def fault() -> None:
        raise RuntimeError("inside")

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(iter([b"one", b"two"]))

    return app


@pytest.mark.parametrize(("path", "status"), [("/fault", 500), ("/nowhere", 404), ("/stream", 200)])
def test_every_answer_has_the_id(path: str, status: int) -> None:
    asked = ask(with_middleware(failing_app(), METRICS), path, headers=[(b"x-request-id", b"mine")])
    assert asked.status == status
    assert the_id(asked) == "mine"


def test_a_fault_is_logged_with_its_id(lines: list[str]) -> None:
    """The server logs what is raised after the application has returned: the id is still there."""

    async def as_a_server_does() -> None:
        error = (
            await ask_here(with_middleware(failing_app(), METRICS), "/fault", headers=[(b"x-request-id", b"mine")])
        ).error
        assert error is not None
        logger.error("in the application", exc_info=error)

    asyncio.run(as_a_server_does())
    assert "in the application request_id=mine" in lines[0]
    assert "RuntimeError: inside" in lines[0]


# --- a real server ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("GET", "/health", b"", 200),
        ("GET", "/nowhere", b"", 404),
        ("PUT", "/generate", b"", 405),
        ("POST", "/generate", b"{", 400),
        ("POST", "/generate", b'{"n": 0}', 422),
        ("POST", "/generate", b'{"max_tokens": 2}', 200),
        ("POST", "/generate", b'{"max_tokens": 2, "stream": true}', 200),
    ],
)
def test_the_server_says_the_id_whatever_it_answers(
    writer: Server, method: str, path: str, content: bytes, status: int
) -> None:
    headers = {"content-type": "application/json", "x-request-id": "mine"}
    response = writer.http.request(method, path, content=content, headers=headers)
    assert response.status_code == status
    assert response.headers.get_list("x-request-id") == ["mine"]
    del headers["x-request-id"]
    response = writer.http.request(method, path, content=content, headers=headers)
    assert FRESH.fullmatch(response.headers["x-request-id"])


def test_strange_headers_are_no_fault_of_the_servers(writer: Server) -> None:
    strange = [b"\xff\xfe", b"a b", b"x" * 5000, "…".encode()]
    for value in strange:
        response = httpx.get(writer.url + "/health", headers=[(b"x-request-id", value), (b"traceparent", value)])
        assert response.status_code == 200
        assert FRESH.fullmatch(response.headers["x-request-id"])
