"""What the routes work with: one model, the broker that leads to its engines, and whether work is accepted."""

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
    """Whether work is accepted, and if not, why. Closed until a model is ready."""

    def __init__(self) -> None:
        self._served: ServedModel | None = None
        self._code = "loading"
        self._reason = "the model is still loading"

    def open(self, served: ServedModel) -> None:
        """Accept work for this model, unless the gate was closed for good while it loaded."""
        if self._code == "loading":
            self._served = served

    def close(self, code: str, reason: str) -> None:
        """Accept no more work."""
        self._served = None
        self._code = code
        self._reason = reason

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
        unanswered: the generations whose answers are not complete yet.
    """

    card: ModelCard
    broker: Broker
    metrics: Metrics
    gate: Gate = field(default_factory=Gate)
    unanswered: set["Generation"] = field(default_factory=set)
