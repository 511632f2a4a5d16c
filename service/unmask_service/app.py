"""Composition: settings → broker, engine and HTTP in one process, and its way up and down.

Up: the configuration is checked and the port is taken before anything slow begins; then the server answers at once,
`/ready` with 503 until the model has been loaded in the background. Down: the first signal closes the gate (new work
gets 503) while the sockets stay open and what runs may end; the second ends what runs with an error, at once.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from types import FrameType

import torch
import uvicorn
from fastapi import FastAPI
from unmask_diffusion.request import MAX_STEPS, MAX_TEMPERATURE
from unmask_model_store import Bundle, BundleError, find_bundle, open_bundle, read_config, resolve_device, resolve_dtype
from unmask_model_store.bundle import TOKENIZER_FILE, WEIGHTS_FILE
from unmask_model_store.store import default_model_dir

from unmask_service.allocator import keep_freed_memory
from unmask_service.api import Limits, ModelCard, ServedModel, Service, Vocabulary, create_app
from unmask_service.broker import Failed, MemoryBroker
from unmask_service.engine import BrokenPromiseError, Engine, evaluation_thread, fingerprint, self_test
from unmask_service.metrics import Metrics
from unmask_service.settings import Settings

logger = logging.getLogger("unmask")

# once nothing runs any more, clients get so long to read the last of their answers
LAST_WORDS_SECONDS = 5


class ListenError(ValueError):
    """The address cannot be listened on."""


def serve(settings: Settings) -> None:
    """Serve one model until a signal ends it.

    Raises:
        BundleError: the model is broken, or cannot run here.
        ListenError: the port is taken, or the address is not this machine's.
    """
    configure_logging(settings)
    keep_freed_memory()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    folder = find_bundle(settings.model, settings.model_dir or default_model_dir())
    card = describe(folder, settings)
    with listen(settings.host, settings.port) as sock:
        asyncio.run(ServingProcess(settings, folder, card).run(sock))


def configure_logging(settings: Settings) -> None:
    """Plain lines on stderr. Never prompts, at any level: sse-starlette would log whole events."""
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("sse_starlette").setLevel(logging.INFO)
    if settings.log_level != "debug":
        logging.getLogger("uvicorn").setLevel(logging.WARNING)


def describe(folder: Path, settings: Settings) -> ModelCard:
    """Read what a bundle says of itself, cheaply.

    Raises:
        BundleError: the configuration is broken, the weights are missing, or this machine cannot run it as asked.
    """
    config = read_config(folder)
    resolve_dtype(settings.dtype, resolve_device(settings.device))
    try:
        (folder / WEIGHTS_FILE).open("rb").close()
    except OSError as error:
        raise BundleError(f"{folder / WEIGHTS_FILE}: cannot be read: {error.strerror}") from error
    limits = Limits(
        max_samples=settings.max_samples,
        max_steps=MAX_STEPS,
        max_temperature=MAX_TEMPERATURE,
        max_body_bytes=settings.max_body_bytes,
        max_requests=settings.max_requests,
    )
    return ModelCard(
        id=config.name or folder.resolve().name,
        created=int(time.time()),
        architecture=config.architecture,
        length=config.length,
        vocabulary_size=config.vocabulary_size,
        sub_tokens_per_token=config.sub_tokens_per_token,
        base=config.base,
        canvas=config.canvas,
        tokenizer=(folder / TOKENIZER_FILE).exists(),
        end_token_id=config.end_token_id,
        limits=limits,
    )


def listen(host: str, port: int) -> socket.socket:
    """Take the port.

    Raises:
        ListenError: it is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ListenError(f"cannot listen on {host}:{port}: {why.partition(' (while')[0]}") from error


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
        self.broker = MemoryBroker(settings.max_requests)
        self.metrics.watch(lambda: self.broker.load().running, lambda: self.broker.load().waiting)
        self.service = Service(card, self.broker, self.metrics)
        self.engine: Engine | None = None
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
        if self.engine is not None:
            await self.engine.drain(seconds)
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
        """Load the model, open the gate, evaluate. A failure of any of these ends the process."""
        try:
            thread = evaluation_thread()
            served = await asyncio.get_running_loop().run_in_executor(thread, self._load)
            self.engine = Engine(served.model, self.broker, self.metrics, self.settings.tokens_per_tick, thread)
            self.service.gate.open(served)
            await self.engine.run()
        except Exception as error:
            self.failure = error
            self.service.gate.close("engine_stopped", "the engine has stopped")
            entry = Failed(time.time(), "engine", "the engine has stopped")
            await self.broker.append([(generation.job.id, entry) for generation in self.service.unanswered])
            self.server.should_exit = True

    def _load(self) -> ServedModel:
        begun = time.perf_counter()
        bundle = open_bundle(self.folder, self.settings.dtype, self.settings.device)
        kind = fingerprint(bundle)
        try:
            self_test(bundle)
        except BrokenPromiseError as error:
            logger.warning("%s", error)  # served all the same: only reproducibility is at stake
            kind = "unreproducible"
        served = ServedModel(bundle.name, bundle, Vocabulary(bundle), kind)
        self.metrics.describe(
            build={"version": version("unmask"), "torch": torch.__version__},
            model=_labels_of(bundle, served.fingerprint),
        )
        logger.info("%s is ready after %.2f s", bundle.name, time.perf_counter() - begun)
        return served


def _labels_of(bundle: Bundle, kind_of_machine: str) -> dict[str, str]:
    return {
        "model": bundle.name,
        "architecture": bundle.config.architecture,
        "device": str(bundle.device),
        "dtype": str(bundle.dtype).removeprefix("torch."),
        "fingerprint": kind_of_machine,
    }
