"""Composition: settings → broker, engine and HTTP in one process, and its way up and down.

Up: the configuration is checked and the port is taken before anything slow begins; then the server answers at once,
`/ready` with 503 until the model has been loaded in the background. Down: the first signal closes the gate (new work
gets 503) while the sockets stay open and what runs may end; the second ends what runs with an error, at once.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import FrameType

import torch
import uvicorn
from fastapi import FastAPI
from unmask_model_store import find_bundle
from unmask_model_store.store import default_model_dir

from unmask_service.allocator import keep_freed_memory
from unmask_service.api import ModelCard, Service, create_app
from unmask_service.broker import Failed, MemoryBroker
from unmask_service.engine import Engine, EvaluationThread, HungEvaluationError, Supervisor
from unmask_service.metrics import Metrics
from unmask_service.settings import Settings
from unmask_service.startup import LoadedModel, describe, load

logger = logging.getLogger("unmask")

# once nothing runs any more, clients get so long to read the last of their answers
LAST_WORDS_SECONDS = 5


class ListenError(ValueError):
    """The address cannot be listened on."""


def serve(settings: Settings) -> None:
    """Serve one model until a signal ends it.

    Raises:
        BundleError: the model is broken, or cannot run here.
        MemoryBudgetError: the model's activations do not fit into the memory.
        ListenError: the port is taken, or the address is not this machine's.
    """
    configure_logging(settings)
    keep_freed_memory()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    folder = find_bundle(settings.model, settings.model_dir or default_model_dir())
    card = describe(folder, settings)
    with listen(settings.host, settings.port) as sock:
        try:
            asyncio.run(ServingProcess(settings, folder, card).run(sock))
        except HungEvaluationError as error:
            logger.critical("%s: the process ends", error)
            logging.shutdown()
            os._exit(1)  # the interpreter would wait for the thread for ever


def configure_logging(settings: Settings) -> None:
    """Plain lines on stderr. Never prompts, at any level: sse-starlette would log whole events."""
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("sse_starlette").setLevel(logging.INFO)
    if settings.log_level != "debug":
        logging.getLogger("uvicorn").setLevel(logging.WARNING)


def listen(host: str, port: int) -> socket.socket:
    """Take the port.

    Raises:
        ListenError: it is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ListenError(f"cannot listen on {host}:{port}: {why.partition(' (while')[0]}") from error
    # Connections inherit it. asyncio would set it only on sockets that name their protocol; without it the body of an
    # answer waits some 40 ms until the client has acknowledged the headers.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


class DrainingServer(uvicorn.Server):
    """A server whose sockets stay open while it drains. A second signal leaves no time for it, a third cuts all."""

    def __init__(self, config: uvicorn.Config, drain: Callable[[float], Awaitable[None]], seconds: float) -> None:
        super().__init__(config)
        self._loop = asyncio.get_running_loop()
        self._drain = drain
        self._seconds = seconds
        self._draining: list[asyncio.Task[None]] = []

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 — uvicorn's signature
        """Called by the signal, between any two instructions: the loop does the rest."""
        self._loop.call_soon_threadsafe(self._on_signal, signal.Signals(sig).name)

    def _on_signal(self, name: str) -> None:
        seconds = 0.0 if self._draining else self._seconds
        logger.info("%s: no new work; what runs has %g s to end in", name, seconds)
        for earlier in self._draining:
            earlier.cancel()
        self.force_exit = len(self._draining) > 1
        self._draining.append(self._loop.create_task(self._drain_then_exit(seconds)))

    async def _drain_then_exit(self, seconds: float) -> None:
        try:
            await self._drain(seconds)
        except Exception:
            logger.exception("the drain failed")
        self.should_exit = True


class ServingProcess:
    """`unmask serve`: API and engine in one event loop, the broker in memory."""

    def __init__(self, settings: Settings, folder: Path, card: ModelCard) -> None:
        self.settings = settings
        self.folder = folder
        self.metrics = Metrics(card.id)
        self.broker = MemoryBroker(settings.max_requests, settings.max_evaluations)
        self.service = Service(card, self.broker, self.metrics)
        self.supervisor: Supervisor | None = None
        self.failure: Exception | None = None

    async def run(self, sock: socket.socket) -> None:
        """Answer until a signal, or until the model or the engine fails.

        Raises:
            Exception: what failed.
        """
        config = uvicorn.Config(
            create_app(self.service, self._lifespan),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=LAST_WORDS_SECONDS,
        )
        self.server = DrainingServer(config, self.drain, self.settings.drain_seconds)
        host, port = sock.getsockname()[:2]
        logger.info("listening on http://%s:%s", f"[{host}]" if ":" in host else host, port)
        await self.server.serve([sock])
        if self.failure is not None:
            raise self.failure

    async def drain(self, seconds: float) -> None:
        """Refuse new work, let what runs end in the time it has, and its clients read the end."""
        self.service.gate.close("draining", "the server is shutting down")
        if self.supervisor is not None:
            await self.supervisor.engine.drain(seconds)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(seconds + 1, LAST_WORDS_SECONDS)):
                while self.service.unanswered:
                    await asyncio.sleep(0.01)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        work = asyncio.create_task(self._work())
        yield
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)

    async def _work(self) -> None:
        """Load the model, open the gate, evaluate. What no restart can mend ends the process."""
        try:
            thread = self._thread()
            loaded = await thread.run(load, self.folder, self.settings, self.metrics)
            self.supervisor = self._supervisor(loaded, thread)
            await self.supervisor.run()
        except Exception as error:
            self.failure = error
            self.service.gate.close("engine_stopped", "the engine has stopped")
            entry = Failed(time.time(), "engine", "the engine has stopped")
            await self.broker.append([(generation.job.id, entry) for generation in self.service.unanswered])
            self.server.should_exit = True

    def _supervisor(self, loaded: LoadedModel, thread: EvaluationThread) -> Supervisor:
        def make(failed: Engine | None) -> Engine:
            """The first engine shares the thread that loaded the model; the next begin with all new, but the pace."""
            capacity, own = (loaded.capacity, thread) if failed is None else (failed.capacity, self._thread())
            model, speculation = loaded.served.model, self.settings.speculation
            return Engine(model, self.broker, self.metrics, capacity, own, speculation)

        gate = self.service.gate
        return Supervisor(
            make,
            up=lambda: gate.open(loaded.served),
            down=lambda: gate.pause("engine_failed", "the engine has failed and is being restarted"),
            metrics=self.metrics,
        )

    def _thread(self) -> EvaluationThread:
        return EvaluationThread(self.settings.hang_seconds)
