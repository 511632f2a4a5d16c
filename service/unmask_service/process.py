"""A process: its HTTP servers, the work behind them, and its shutdown.

The first signal drains: new work gets 503, while the sockets stay open and running requests may end. The second signal
ends the drain, the third closes open connections.
"""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from typing import Any

import uvicorn
from starlette.types import ASGIApp

logger = logging.getLogger("unmask")

READING_SECONDS = 5  # after the last request, clients have so long to read the end of their answers


class ListenError(ValueError):
    """The address cannot be listened on."""


def listen(host: str, port: int) -> socket.socket:
    """Take the port. The host `::` takes it for IPv4 too.

    Raises ListenError: the port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    dual_stack = family == socket.AF_INET6 and _is_any_address(host) and socket.has_dualstack_ipv6()
    try:
        listening = socket.create_server((host, port), family=family, dualstack_ipv6=dual_stack)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        hint = "; choose another with --port or UNMASK_PORT (make serve PORT=…)" if taken else ""
        raise ListenError(f"cannot listen on {host}:{port}: {why.partition(' (while')[0]}{hint}") from error
    # Connections inherit it. asyncio would set it only on sockets that name their protocol; without it the body of an
    # answer waits some 40 ms until the client has acknowledged the headers.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _is_any_address(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def url_of(host: str, port: int) -> str:
    """The URL of an address; for all addresses, the one by which this machine reaches itself."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class HttpServer(uvicorn.Server):
    """One application on one socket. Signals are handled by `Process`."""

    def __init__(self, app: ASGIApp, listening: socket.socket, keep_alive_seconds: int = 75) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                workers=1,  # else it is read from WEB_CONCURRENCY
                log_config=None,
                access_log=False,
                proxy_headers=False,  # else FORWARDED_ALLOW_IPS is read; nothing here depends on a client's address
                server_header=False,
                timeout_keep_alive=keep_alive_seconds,
                timeout_graceful_shutdown=READING_SECONDS,
            )
        )
        self._listening = listening
        self.url = url_of(*listening.getsockname()[:2])

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def run_on_socket(self) -> None:
        """Answer until `should_exit`; requests that are cut off then still run their cleanup."""
        await self.serve([self._listening])
        if self.server_state.tasks and not self.force_exit:
            await asyncio.wait(self.server_state.tasks, timeout=READING_SECONDS)


class Process:
    """Runs servers and work together.

    `drain` lets running requests end within a time: `drain_seconds` after the first signal, 0 after the second.
    """

    def __init__(
        self, servers: Sequence[HttpServer], drain: Callable[[float], Awaitable[None]], drain_seconds: float
    ) -> None:
        self._servers, self._drain, self._seconds = servers, drain, drain_seconds
        self._draining: list[asyncio.Task[None]] = []
        self._drained = asyncio.Event()

    async def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Answer and work until a signal, or until the work fails: then raise its exception."""
        loop = asyncio.get_running_loop()
        for kind in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(kind, self._on_signal, kind.name)
        serving = [asyncio.create_task(server.run_on_socket()) for server in self._servers]
        working = asyncio.create_task(work)
        drained = asyncio.create_task(self._drained.wait())
        await asyncio.wait({*serving, working, drained}, return_when=asyncio.FIRST_COMPLETED)
        for server in self._servers:
            server.should_exit = True
        await asyncio.gather(*serving)
        working.cancel()
        drained.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working

    def _on_signal(self, name: str) -> None:
        seconds = 0.0 if self._draining else self._seconds
        logger.info("%s: no new work; running requests have %g s to end", name, seconds)
        for earlier in self._draining:
            earlier.cancel()
        for server in self._servers:
            server.force_exit = len(self._draining) > 1
        self._draining.append(asyncio.get_running_loop().create_task(self._drain_then_exit(seconds)))

    async def _drain_then_exit(self, seconds: float) -> None:
        try:
            await self._drain(seconds)
        except Exception:
            logger.exception("the drain failed")
        self._drained.set()
