import asyncio
import socket

import pytest
from starlette.types import Receive, Scope, Send
from unmask_service.process import HttpServer, ListenError, listen, url_of
from unmask_service.settings import read_settings


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_small_writes_leave_at_once(host: str) -> None:
    """An answer's body must not wait until its headers are acknowledged."""
    with listen(host, 0) as listening:
        client = socket.create_connection(listening.getsockname()[:2])
        accepted, _ = listening.accept()
        with client, accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_port_that_is_taken_is_named() -> None:
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(ListenError, match=rf"127.0.0.1:{port}: .*make serve PORT="):
            listen("127.0.0.1", port)


def test_all_addresses_are_those_of_ipv4_too() -> None:
    with listen("::", 0) as listening:
        port = listening.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, port), timeout=20):
                pass
    with listen("::1", 0) as listening, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", listening.getsockname()[1]), timeout=20)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:1"),
        ("::1", "http://[::1]:1"),
        ("0.0.0.0", "http://127.0.0.1:1"),  # noqa: S104
        ("::", "http://[::1]:1"),
    ],
)
def test_the_url_can_be_opened(host: str, url: str) -> None:
    assert url_of(host, 1) == url


def test_idle_connections_are_kept_longer_than_proxies_keep_theirs() -> None:
    """nginx keeps idle connections to servers for 60 seconds; a request on one that is just closed would be a 502."""

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise NotImplementedError

    with listen("127.0.0.1", 0) as listening:
        assert HttpServer(app, listening).config.timeout_keep_alive > 60
        assert HttpServer(app, listening, 7).config.timeout_keep_alive == 7
    assert read_settings().keep_alive_seconds > 60


def test_requests_that_are_cut_tidy_up_before_the_server_has_ended() -> None:
    """What they leave behind may need what is closed next."""

    async def test() -> None:
        asked, tidied = asyncio.Event(), asyncio.Event()

        async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
            if scope["type"] != "http":
                return
            asked.set()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.2)
                tidied.set()

        with listen("127.0.0.1", 0) as listening:
            server = HttpServer(app, listening)
            server.config.timeout_graceful_shutdown = 0
            serving = asyncio.create_task(server.run_on_socket())
            _, writer = await asyncio.open_connection(*listening.getsockname()[:2])
            writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            await asyncio.wait_for(asked.wait(), 20)
            server.should_exit = True
            await serving
            assert tidied.is_set()
            writer.close()

    asyncio.run(test())
