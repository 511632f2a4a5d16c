"""What the routes work with: models, the brokers that their engines claim jobs from, and whether work is accepted."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field

from unmask_diffusion import Outline, text_of
from unmask_model_store import TextSettings

from unmask_service.api.chat_template import ChatRenderer
from unmask_service.api.errors import RefusedError, quoted
from unmask_service.api.schemas import ModelCard
from unmask_service.broker import ApiBroker, BrokerAwayError, IdempotencyKey
from unmask_service.forecast import Load
from unmask_service.metrics import Metrics, show_queues

PLANS_AT_A_TIME = 4
KEPT_STATUS_BYTES = 16 << 20


class Vocabulary:
    """The tokens of a model: digits → id → text."""

    def __init__(self, model: Outline) -> None:
        codes: list[list[int]] = model.sub_tokenizer.codes.tolist()
        self.id_of = {tuple(code): token for token, code in enumerate(codes)}
        self._model = model
        self._texts: dict[int, str | None] = {}

    def text_of(self, token: int) -> str | None:
        """The text of one token within a text, perhaps a part of a UTF-8 character; None without a tokenizer."""
        if token not in self._texts:
            self._texts[token] = text_of(self._model, [token], continues=True)
        return self._texts[token]


@dataclass(frozen=True)
class ServedModel:
    """A model that is ready."""

    name: str  # the name that clients use
    model: Outline  # what planning and reading logs need
    vocabulary: Vocabulary
    trained: bytes | None = None  # for each token id whether training has met it; None: not known
    texts: TextSettings = field(default_factory=TextSettings)  # its special tokens, and the template of a chat


class Gate:
    """Whether work is accepted, and if not, why. Shut until a model is ready."""

    def __init__(self) -> None:
        self._served: ServedModel | None = None
        self._shut: tuple[str, str] | None = ("loading", "the model is still loading")
        self._closed = False

    @property
    def is_open(self) -> bool:
        return self._shut is None

    def open(self, served: ServedModel) -> None:
        """Accept work for this model, unless the gate has been closed."""
        self._served = served
        if not self._closed:
            self._shut = None

    def pause(self, code: str, reason: str) -> None:
        """Accept no work until the gate is opened again."""
        if not self._closed:
            self._shut = code, reason

    def close(self, code: str, reason: str) -> None:
        """Accept no work from now on; nothing opens the gate again."""
        self.pause(code, reason)
        self._closed = True

    def pass_through(self) -> ServedModel:
        """The model to work with. Raises RefusedError while no work is accepted."""
        if self._shut is not None:
            raise RefusedError(*self._shut)
        return self.look_in()

    def look_in(self) -> ServedModel:
        """The model whose jobs can be read, even while no work is accepted. Raises RefusedError before it is loaded."""
        if self._served is None:
            raise RefusedError(*(self._shut or ("loading", "the model is still loading")))
        return self._served


@dataclass(frozen=True)
class State:
    """The state of one model in a process, for operators and their monitoring."""

    model: str  # its name
    gate: Gate
    metrics: Metrics
    load: Callable[[], Awaitable[Load]]
    of_cluster: bool = True  # whether the metrics have the load of all engines: API processes report it, workers do not

    async def check(self) -> None:
        """Raise RefusedError where no work is accepted or no engine is alive, BrokerAwayError without a queue."""
        self.gate.pass_through()
        if (await self.load()).capacity is None:
            raise RefusedError("no_worker", f"no worker of {self.model!r} is alive")

    async def measure(self) -> Load | None:
        """Set the gauge `ready`; return the load, None where it is not known."""
        try:
            load = await self.load()
        except BrokerAwayError:
            load = None
        self.metrics.ready.set(self.gate.is_open and load is not None and load.capacity is not None)
        return load


async def exposition(states: Sequence[State]) -> bytes:
    """The metrics of a process, whose models share a registry."""
    loads = {state.metrics: await state.measure() for state in states}
    if states[0].of_cluster:
        show_queues(loads)
    return states[0].metrics.exposition()


class Cache:
    """Values of so many bytes in all; the least recently used are dropped first."""

    def __init__(self, most_bytes: int) -> None:
        self._most, self._held = most_bytes, 0
        self._values: OrderedDict[str, bytes] = OrderedDict()

    def get(self, key: str) -> bytes | None:
        if key in self._values:
            self._values.move_to_end(key)
        return self._values.get(key)

    def put(self, key: str, value: bytes) -> None:
        self._held += len(value) - len(self._values.pop(key, b""))
        self._values[key] = value
        while self._held > self._most:
            _, dropped = self._values.popitem(last=False)
            self._held -= len(dropped)


@dataclass
class Shared:
    """What the models of a process share."""

    # of a crowd only so many requests are planned before they find the queue full
    planning: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PLANS_AT_A_TIME))
    # a text of a megabyte may take 500 bytes of memory for each of its bytes while it is split into tokens
    large_text: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    # their own threads: what is short, such as reading a log, never waits for these
    planners: Executor = field(default_factory=lambda: ThreadPoolExecutor(PLANS_AT_A_TIME, "plan"))
    parsers: Executor = field(default_factory=lambda: ThreadPoolExecutor(1, "parse"))
    chat_renderer: ChatRenderer = field(default_factory=ChatRenderer)
    painters: Executor = field(default_factory=lambda: ThreadPoolExecutor(1, "paint"))
    open_answers: int = 0  # responses that have not sent their last byte
    cut: asyncio.Event = field(default_factory=asyncio.Event)  # set when all streams must end where they are


@dataclass
class Service:
    """One model behind HTTP."""

    card: ModelCard  # the facts of the model and the limits of a request, known before the model is loaded
    broker: ApiBroker
    metrics: Metrics
    readme: str | None = None  # the model's README.md
    shared: Shared = field(default_factory=Shared)
    gate: Gate = field(default_factory=Gate)
    statuses: Cache = field(default_factory=lambda: Cache(KEPT_STATUS_BYTES))  # of jobs that have ended, as JSON

    @property
    def state(self) -> State:
        return State(self.card.id, self.gate, self.metrics, self.broker.load)

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        self.shared.open_answers += 1
        self.metrics.streams.inc()
        try:
            yield
        finally:
            self.shared.open_answers -= 1
            self.metrics.streams.dec()


class Models:
    """The models that a process serves, by the names that clients use. The first is the default."""

    def __init__(self, services: Sequence[Service]) -> None:
        self.services = {service.card.id: service for service in services}
        self.default = services[0]
        self.shared = self.default.shared
        self.max_body_bytes = self.default.card.limits.max_body_bytes  # the same for all

    @property
    def states(self) -> list[State]:
        return [service.state for service in self.services.values()]

    def of(self, name: str | None, param: str = "model") -> Service:
        """The service of the model that a request names, or of the default. Raises RefusedError: it is not served."""
        if name is None:
            return self.default
        if name not in self.services:
            *others, last = map(repr, self.services)
            known = f"{', '.join(others)} and {last} are" if others else f"{last} is"
            raise RefusedError("model_not_found", f"model {quoted(name)} is not served here; {known}", param)
        return self.services[name]

    async def refuse_reused(self, key: IdempotencyKey, service: Service) -> None:
        """Raise KeyReusedError where the key of a request for one model belongs to a request for another."""
        for other in self.services.values():
            if other is not service:
                await other.broker.id_of(key)
