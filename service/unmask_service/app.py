"""Composition: settings → broker, engine and HTTP, in one process or split over Redis.

The configuration is checked and the ports are taken before anything slow begins; then the server answers at once,
`/ready` with 503 until the model has been loaded in the background.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from starlette.types import ASGIApp
from unmask_model_store import find_bundle, open_outline
from unmask_model_store.store import default_model_dir

from unmask_service.allocator import keep_freed_memory
from unmask_service.api import Gate, ModelCard, Service, State, create_app, create_state_app
from unmask_service.api_keys import read_api_keys
from unmask_service.broker import Course, Failed, Job, MemoryBroker
from unmask_service.broker.redis import Connections, Keys, RedisApiBroker, RedisEngineBroker, Timing, connect
from unmask_service.engine import HungEvaluationError
from unmask_service.engine_room import EngineRoom
from unmask_service.logs import configure_logging
from unmask_service.metrics import Metrics, Outcome
from unmask_service.process import LAST_WORDS_SECONDS, HttpServer, Process, listen, url_of
from unmask_service.request_log import log_request
from unmask_service.settings import Settings, SettingsError
from unmask_service.startup import build_facts, check_that_it_can_run, describe, open_for_api

logger = logging.getLogger("unmask")

Main = Callable[[Settings, Path, ModelCard], Coroutine[Any, Any, None]]

LOOPBACK = {"127.0.0.1", "::1", "localhost"}


def serve(settings: Settings) -> None:
    """`unmask serve`: API and engine in one process, the queue in memory.

    Raises:
        SettingsError: settings contradict each other.
        BundleError: the model is broken, or cannot run here.
        MemoryBudgetError: the model's activations do not fit into the memory.
        ListenError: a port is taken, or the address is not this machine's.
    """
    if settings.redis_url is not None:
        raise SettingsError(
            "--redis-url (UNMASK_REDIS_URL): `unmask serve` keeps its queue in memory; with Redis there are "
            "`unmask api` and `unmask worker`"
        )
    _run(settings, _serve)


def serve_api(settings: Settings) -> None:
    """`unmask api`: the API alone, engines being reached over Redis.

    Raises:
        SettingsError: settings contradict each other, or Redis' address is none.
        BundleError: the model is broken.
        ListenError: a port is taken, or the address is not this machine's.
    """
    _run(settings, _serve_api)


def work(settings: Settings) -> None:
    """`unmask worker`: an engine alone, taking its work from Redis.

    Raises:
        SettingsError: settings contradict each other, or Redis' address is none.
        BundleError: the model is broken, or cannot run here.
        MemoryBudgetError: the model's activations do not fit into the memory.
        ListenError: the metrics' port is taken.
    """
    _run(settings, _work)


def _run(settings: Settings, main: Main) -> None:
    configure_logging(settings.log_level, settings.log_format, settings.log_prompts)
    keep_freed_memory()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    folder = find_bundle(settings.model, settings.model_dir or default_model_dir())
    card = describe(folder, settings)
    try:
        asyncio.run(main(settings, folder, card))
    except HungEvaluationError as error:
        logger.critical("%s: the process ends", error)
        logging.shutdown()
        os._exit(1)  # the interpreter would wait for the thread for ever


async def _serve(settings: Settings, folder: Path, card: ModelCard) -> None:
    check_that_it_can_run(folder, settings)
    metrics = Metrics(card.id)
    metrics.add_work_at_hand()
    broker = MemoryBroker(
        settings.max_requests,
        settings.max_evaluations,
        settings.orphan_seconds,
        settings.keep_seconds,
        note_end=lambda job, failure, left: note_end(metrics, job, failure, left),
    )
    service = Service(card, broker, metrics)
    room = EngineRoom(folder, settings, broker, metrics, service.gate)

    async def drain(seconds: float) -> None:
        """Refuse new work, let what runs end in the time it has, and its clients read the end."""
        service.gate.close("draining", "the server is shutting down")
        await room.drain(seconds)
        await _last_words(service, min(seconds + 1, LAST_WORDS_SECONDS))

    async def run_engine() -> None:
        try:
            await room.run()
        except Exception:
            service.gate.close("engine_stopped", "the engine has stopped")
            await room.end_all("engine", "the engine has stopped")
            raise

    with _servers(settings, service) as servers:
        await Process(servers, drain, settings.drain_seconds).run(run_engine())


def note_end(metrics: Metrics, job: Job, failure: Failed, evaluations_left: int) -> None:
    """Count a generation whose end neither an engine nor a client sees."""
    outcome: Outcome = "cancelled" if failure.reason == "cancelled" else "failed"
    reason = "" if outcome == "cancelled" else failure.reason
    metrics.count_request(outcome, reason)
    metrics.evaluations_saved.inc(evaluations_left if outcome == "cancelled" else 0)
    log_request(job, Course(), outcome, reason, metrics.model)


async def _serve_api(settings: Settings, folder: Path, card: ModelCard) -> None:
    metrics, served = Metrics(card.id), open_for_api(folder)
    metrics.add_work_at_hand()
    broker = RedisApiBroker(
        *_redis(settings, card),
        metrics,
        _timing(settings),
        served.model,
        settings.max_requests,
        settings.max_evaluations,
    )
    service = Service(card, broker, metrics)
    service.gate.open(served)
    metrics.describe(build_facts(), {"model": card.id, "architecture": card.architecture})

    async def drain(seconds: float) -> None:
        """Refuse new work, and let clients read on for a while; what is detached goes on without us."""
        service.gate.close("draining", "the server is shutting down")
        await _last_words(service, seconds)
        service.cut.set()

    async def run_broker() -> None:
        async with broker.running():
            await asyncio.Event().wait()

    with _servers(settings, service) as servers:
        await Process(servers, drain, settings.drain_seconds).run(run_broker())


async def _work(settings: Settings, folder: Path, card: ModelCard) -> None:
    check_that_it_can_run(folder, settings)
    metrics, gate = Metrics(card.id), Gate()
    broker = RedisEngineBroker(*_redis(settings, card), metrics, _timing(settings), open_outline(folder))
    room = EngineRoom(folder, settings, broker, metrics, gate)

    async def drain(seconds: float) -> None:
        """Claim no more, and let what runs end in the time it has; others go on with what is left."""
        gate.close("draining", "the worker is shutting down")
        await room.retire(seconds)

    async def run_engine() -> None:
        async with broker.running():
            await room.run()

    app = create_state_app(State(gate, metrics, broker.load, of_cluster=False))
    apps = [] if settings.metrics_port is None else [(settings.metrics_port, app)]
    with _listening(settings, apps) as servers:
        await Process(servers, drain, settings.drain_seconds).run(run_engine())


def _redis(settings: Settings, card: ModelCard) -> tuple[Connections, Keys]:
    if settings.redis_url is None:
        raise SettingsError("--redis-url (UNMASK_REDIS_URL): is required, such as redis://localhost:6379/0")
    return connect(settings.redis_url.get_secret_value()), Keys(settings.redis_prefix, card.id)


def _timing(settings: Settings) -> Timing:
    return Timing(settings.lease_seconds, settings.orphan_seconds, settings.keep_seconds)


@contextlib.contextmanager
def _servers(settings: Settings, service: Service) -> Iterator[list[HttpServer]]:
    """The public server, and where there is a port for it, one for operators."""
    keys = read_api_keys(settings.api_keys_file, settings.api_keys)
    if not keys and settings.host not in LOOPBACK:
        logger.warning("listening on %s without API keys: whoever reaches it may use it", settings.host)
    origins = settings.cors_origins.split(",") if settings.cors_origins else ()
    public = create_app(service, keys, origins, with_metrics=settings.metrics_port is None)
    own = [] if settings.metrics_port is None else [(settings.metrics_port, create_state_app(service.state))]
    with _listening(settings, [(settings.port, public), *own]) as servers:
        yield servers


@contextlib.contextmanager
def _listening(settings: Settings, apps: Sequence[tuple[int, ASGIApp]]) -> Iterator[list[HttpServer]]:
    """Take the ports of applications."""
    with contextlib.ExitStack() as stack:
        servers = []
        for port, app in apps:
            listening = stack.enter_context(listen(settings.host, port))
            logger.info("listening on %s", url_of(listening))
            servers.append(HttpServer(app, listening))
        yield servers


async def _last_words(service: Service, seconds: float) -> None:
    """Let clients read what is left to be read, for so long at most."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while service.open_answers:
                await asyncio.sleep(0.01)
