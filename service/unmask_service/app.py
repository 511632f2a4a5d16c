"""Composition: settings → broker, engine and HTTP, in one process or split over Redis.

The configuration is checked and the ports are taken before anything slow begins; then the server answers at once,
`/ready` with 503 until the model has been loaded in the background.
"""

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp
from unmask_model_store import default_model_dir, find_bundle, open_outline, read_card

from unmask_service.api import (
    Gate,
    ModelCard,
    Models,
    PrefixMiddleware,
    Service,
    Shared,
    State,
    create_app,
    create_state_app,
)
from unmask_service.api_keys import ApiKey, read_api_keys
from unmask_service.broker import EngineBroker, Failed, Job, JobProgress, MemoryBroker, endpoint_of
from unmask_service.broker.redis import Connections, Keys, RedisApiBroker, RedisEngineBroker, Timing, connect
from unmask_service.engine import Engine, EvaluationThread, HungEvaluationError, Supervisor
from unmask_service.logs import configure_logging, log_request
from unmask_service.machine import keep_freed_memory
from unmask_service.metrics import Metrics, Outcome, Registry
from unmask_service.process import READING_SECONDS, HttpServer, Process, listen
from unmask_service.settings import Settings, SettingsError, kubernetes_variables
from unmask_service.startup import build_facts, check_that_it_can_run, describe, load, open_for_api
from unmask_service.traces import start_traces

logger = logging.getLogger("unmask")

EVALUATION_THREAD = "evaluation"  # the beginning of the evaluation threads' names
JOIN_SECONDS = 1.0
LOOPBACK = {"127.0.0.1", "::1", "localhost"}


def start(command: str, settings: Settings) -> None:
    """Run `unmask serve`, `unmask api` or `unmask worker` until it ends.

    Raises SettingsError, BundleError, MemoryBudgetError (the model's activations do not fit) and ListenError.
    """
    if command == "serve" and settings.redis_url is not None:
        raise SettingsError(
            "--redis-url (UNMASK_REDIS_URL): `unmask serve` keeps its queue in memory; with Redis there are "
            "`unmask api` and `unmask worker`"
        )
    configure_logging(settings.log_level, settings.log_format, settings.log_prompts)
    start_traces(command)
    if ignored := kubernetes_variables():
        logger.info("ignored, as set by Kubernetes for a Service: %s", ", ".join(ignored))
    keep_freed_memory()
    named = NamedModel.of_all(settings.models_of(command), settings)
    try:
        asyncio.run(COMMANDS[command](settings, named))
        for thread in threading.enumerate():
            if thread.name.startswith(EVALUATION_THREAD):
                thread.join(JOIN_SECONDS)
                if thread.is_alive():  # a model is still loading
                    _exit(0)
    except HungEvaluationError as error:
        logger.critical("%s: the process ends", error)
        _exit(1)
    except KeyboardInterrupt:  # one more signal, after the servers have ended
        _exit(0)


def _exit(code: int) -> None:
    """End the process now: the interpreter would wait for the evaluation thread, however long that takes."""
    logging.shutdown()
    os._exit(code)


@dataclass(frozen=True)
class NamedModel:
    """A model that a process is to serve or to work for, not loaded yet."""

    folder: Path
    card: ModelCard

    @classmethod
    def of_all(cls, names: Sequence[str], settings: Settings) -> list["NamedModel"]:
        """Find bundles and read what they are. Raises BundleError; SettingsError: two models have one name."""
        folders = [find_bundle(name, settings.model_dir or default_model_dir()) for name in names]
        named = [cls(folder, describe(folder, settings)) for folder in folders]
        seen: dict[str, Path] = {}
        for each in named:
            if (other := seen.setdefault(each.card.id, each.folder)) is not each.folder:
                raise SettingsError(
                    f"--model (UNMASK_MODEL): two models have the name {each.card.id!r}: {other} and {each.folder}"
                )
        return named


class EngineRoom:
    """Loads a model of a process, and runs its engine under a supervisor."""

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        broker: EngineBroker,
        metrics: Metrics,
        gate: Gate,
        turn: asyncio.Lock | None = None,  # that the engines of the process take
        models: int = 1,  # number of models of the process
    ) -> None:
        self._folder, self._settings, self._turn, self._models = folder, settings, turn or asyncio.Lock(), models
        self._broker, self._metrics, self._gate = broker, metrics, gate
        self.supervisor: Supervisor | None = None  # None until the model is loaded

    async def run(self) -> None:
        """Load the model, open the gate and evaluate. Raises Exception, a failure that no restart can repair."""
        speculation, hang_seconds = self._settings.speculation, self._settings.hang_seconds
        thread = EvaluationThread(hang_seconds, self._turn)
        async with self._turn:
            loaded = await thread.run(load, self._folder, self._settings, self._metrics, self._models)

        def make(failed: Engine | None) -> Engine:
            """The first engine uses the thread that loaded the model; later ones keep only the pace."""
            capacity = loaded.capacity if failed is None else failed.capacity
            own = thread if failed is None else EvaluationThread(hang_seconds, self._turn)
            kind = loaded.fingerprint
            return Engine(loaded.model, self._broker, self._metrics, capacity, own, speculation, kind)

        self.supervisor = Supervisor(
            make,
            up=lambda: self._gate.open(loaded.served),
            down=lambda: self._gate.pause("engine_failed", "the engine has failed and is being restarted"),
            metrics=self._metrics,
        )
        await self.supervisor.run()


async def _serve(settings: Settings, named: Sequence[NamedModel]) -> None:
    for each in named:
        check_that_it_can_run(each.folder, settings)
    registry, shared, turn = Registry(), Shared(), asyncio.Lock()
    services: list[Service] = []
    rooms: list[EngineRoom] = []
    for each in named:
        metrics = Metrics(each.card.id, registry)
        metrics.add_queue_gauges()
        broker = MemoryBroker(
            settings.max_requests,
            settings.max_evaluations,
            settings.orphan_seconds,
            settings.keep_seconds,
            note_end=partial(note_end, metrics),
        )
        services.append(Service(each.card, broker, metrics, read_card(each.folder), shared))
        gate = services[-1].gate
        rooms.append(EngineRoom(each.folder, settings, broker, metrics, gate, turn, len(named)))

    async def drain(seconds: float) -> None:
        for service in services:
            service.gate.close("draining", "the server is shutting down")
        await asyncio.gather(*(room.supervisor.drain(seconds) for room in rooms if room.supervisor is not None))
        await _wait_for_readers(shared, min(seconds + 1, READING_SECONDS))

    async def run_engines() -> None:
        try:
            await _all(room.run() for room in rooms)
        except Exception:
            for service in services:
                service.gate.close("engine_stopped", "the engine has stopped")
            for room in rooms:
                if room.supervisor is not None:
                    await room.supervisor.engine.end_all("engine", "the engine has stopped")
            raise

    with _servers(settings, Models(services)) as servers:
        announcing = asyncio.create_task(_announce(services, servers[0]))
        await Process(servers, drain, settings.drain_seconds).run(run_engines())
        announcing.cancel()


async def _all(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run them together until one of them fails: then end the others, and raise its exception."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _announce(services: Sequence[Service], server: HttpServer) -> None:
    logger.info("loading %s …", ", ".join(service.card.id for service in services))
    while not all(service.gate.is_open for service in services):
        await asyncio.sleep(0.02)
    logger.info("ready: %s (API, and the playground for browsers)", server.url)


def note_end(metrics: Metrics, job: Job, failure: Failed, evaluations_left: int) -> None:
    """Count and log the end of a generation that neither an engine nor a client sees."""
    outcome: Outcome = "cancelled" if failure.reason == "cancelled" else "failed"
    reason = "" if outcome == "cancelled" else failure.reason
    metrics.count_request(endpoint_of(job.id), outcome, reason)
    metrics.evaluations_saved.inc(evaluations_left if outcome == "cancelled" else 0)
    log_request(job, JobProgress(), outcome, reason, metrics.model)


async def _serve_api(settings: Settings, named: Sequence[NamedModel]) -> None:
    registry, shared = Registry(), Shared()
    services: list[Service] = []
    brokers: list[RedisApiBroker] = []
    for each in named:
        metrics, served = Metrics(each.card.id, registry), open_for_api(each.folder)
        metrics.add_queue_gauges()
        metrics.describe(build_facts(), {"architecture": each.card.architecture})
        limits = settings.max_requests, settings.max_evaluations
        brokers.append(RedisApiBroker(*_redis(settings, each.card, metrics), served.model, *limits))
        services.append(Service(each.card, brokers[-1], metrics, read_card(each.folder), shared))
        services[-1].gate.open(served)

    async def drain(seconds: float) -> None:
        for service in services:
            service.gate.close("draining", "the server is shutting down")
        await _wait_for_readers(shared, seconds)
        shared.cut.set()

    async def run_brokers() -> None:
        async with contextlib.AsyncExitStack() as stack:
            for broker in brokers:
                await stack.enter_async_context(broker.running())
            await asyncio.Event().wait()

    with _servers(settings, Models(services)) as servers:
        await Process(servers, drain, settings.drain_seconds).run(run_brokers())


async def _work(settings: Settings, named: Sequence[NamedModel]) -> None:
    folder, card = named[0].folder, named[0].card
    check_that_it_can_run(folder, settings)
    metrics, gate = Metrics(card.id), Gate()
    broker = RedisEngineBroker(*_redis(settings, card, metrics), open_outline(folder))
    room = EngineRoom(folder, settings, broker, metrics, gate)

    async def drain(seconds: float) -> None:
        gate.close("draining", "the worker is shutting down")
        if room.supervisor is not None:
            await room.supervisor.retire(seconds)

    async def run_engine() -> None:
        async with broker.running():
            await room.run()

    app = create_state_app([State(card.id, gate, metrics, broker.load, of_cluster=False)])
    with _listening(settings, [] if settings.metrics_port is None else [(settings.metrics_port, app)]) as servers:
        await Process(servers, drain, settings.drain_seconds).run(run_engine())


def _redis(settings: Settings, card: ModelCard, metrics: Metrics) -> tuple[Connections, Keys, Metrics, Timing]:
    if settings.redis_url is None:
        raise SettingsError("--redis-url (UNMASK_REDIS_URL): is required, such as redis://localhost:6379/0")
    connections, keys = connect(settings.redis_url.get_secret_value()), Keys(settings.redis_prefix, card.id)
    return connections, keys, metrics, Timing(settings.lease_seconds, settings.orphan_seconds, settings.keep_seconds)


@contextlib.contextmanager
def _servers(settings: Settings, models: Models) -> Iterator[list[HttpServer]]:
    """The public server, and where `metrics_port` is set, one for operators."""
    keys = [*read_api_keys(settings.api_keys_file, settings.api_keys)]
    if settings.api_keys_file is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _read_keys_again, keys, settings)
    if not keys and settings.host not in LOOPBACK:
        logger.warning("listening on %s without API keys: whoever reaches it may use it", settings.host)
        if "UNMASK_API_KEY" in os.environ:
            logger.warning("UNMASK_API_KEY is a client's key; the server's setting is UNMASK_API_KEYS")
    origins = settings.cors_origins.split(",") if settings.cors_origins else ()
    public = create_app(models, keys, origins, with_metrics=settings.metrics_port is None)
    public = PrefixMiddleware(public, settings.root_path, settings.trusted_proxies)
    own = [] if settings.metrics_port is None else [(settings.metrics_port, create_state_app(models.states))]
    with _listening(settings, [(settings.port, public), *own]) as servers:
        yield servers


def _read_keys_again(keys: list[ApiKey], settings: Settings) -> None:
    """Replace the accepted keys in place by those that the file has now; a bad file changes nothing."""
    try:
        keys[:] = read_api_keys(settings.api_keys_file, settings.api_keys)
    except SettingsError as error:
        logger.error("SIGHUP: the API keys stay as they were: %s", error)
    else:
        logger.info("SIGHUP: %d API keys are accepted now", len(keys))


@contextlib.contextmanager
def _listening(settings: Settings, apps: Sequence[tuple[int, ASGIApp]]) -> Iterator[list[HttpServer]]:
    with contextlib.ExitStack() as stack:
        servers = []
        for port, app in apps:
            listening = stack.enter_context(listen(settings.host, port))
            servers.append(HttpServer(app, listening, settings.keep_alive_seconds))
            logger.info("listening on %s", servers[-1].url)
        yield servers


async def _wait_for_readers(shared: Shared, seconds: float) -> None:
    """Let clients read the rest of their answers, for so long at most."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while shared.open_answers:
                await asyncio.sleep(0.01)


COMMANDS: dict[str, Callable[[Settings, Sequence[NamedModel]], Coroutine[Any, Any, None]]]
COMMANDS = {"serve": _serve, "api": _serve_api, "worker": _work}
