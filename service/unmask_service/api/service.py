"""What the routes work with: one model, the broker that leads to its engines, and whether work is accepted."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unmask_diffusion import Model

from unmask_service.api.errors import UnavailableError
from unmask_service.api.schemas import ModelCard
from unmask_service.api.transcript import Vocabulary
from unmask_service.broker import Broker
from unmask_service.metrics import Metrics

if TYPE_CHECKING:
    from unmask_service.api.generation import Generation


PLANS_AT_A_TIME = 4


@dataclass(frozen=True)
class ServedModel:
    """A model that is ready.

    Attributes:
        name: what clients call it.
        model: as `unmask_diffusion` knows it.
        vocabulary: its tokens, for streams.
        fingerprint: the kind of machine and arithmetic that its tokens come from.
    """

    name: str
    model: Model
    vocabulary: Vocabulary
    fingerprint: str


class Gate:
    """Whether work is accepted, and if not, why. Shut until a model is ready."""

    def __init__(self) -> None:
        self._served: ServedModel | None = None
        self._code = "loading"
        self._reason = "the model is still loading"
        self._closed = False

    def open(self, served: ServedModel) -> None:
        """Accept work for this model, unless the gate has been closed for good."""
        if not self._closed:
            self._served = served

    def pause(self, code: str, reason: str) -> None:
        """Accept no work until the gate is opened again."""
        self._served = None
        if not self._closed:
            self._code = code
            self._reason = reason

    def close(self, code: str, reason: str) -> None:
        """Accept no more work, for good."""
        self.pause(code, reason)
        self._closed = True

    def pass_through(self) -> ServedModel:
        """The model to work with.

        Raises:
            UnavailableError: none now; the message says why.
        """
        if self._served is None:
            raise UnavailableError(self._reason, self._code)
        return self._served


@dataclass
class Service:
    """One model behind HTTP.

    Attributes:
        card: facts of the model and the bounds of a request, known before the model is loaded.
        broker: takes jobs, gives logs.
        metrics: what the requests are counted in.
        gate: whether work is accepted.
        planning: lets a few requests be planned at a time, so that no more than those find the queue full afterwards.
        unanswered: the generations whose answers are not complete yet.
    """

    card: ModelCard
    broker: Broker
    metrics: Metrics
    gate: Gate = field(default_factory=Gate)
    planning: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PLANS_AT_A_TIME))
    unanswered: set["Generation"] = field(default_factory=set)
