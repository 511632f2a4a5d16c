"""What travels between API processes and engines: jobs one way, log entries the other."""

from dataclasses import dataclass
from typing import Literal

from unmask_diffusion import Plan, Reveal

FailureReason = Literal["impossible", "engine", "draining"]


@dataclass(frozen=True)
class Job:
    """A plan on its way to an engine.

    Attributes:
        id: of the generation, as the client knows it.
        plan: what to do.
        submitted_at: Unix time, seconds.
        expected_seconds: from then to its end, as forecast; None where no engine had said how fast it is.
    """

    id: str
    plan: Plan
    submitted_at: float
    expected_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """An engine has taken the job; `at` is Unix time in seconds here and below."""

    at: float


@dataclass(frozen=True, slots=True)
class Revealed:
    """One network evaluation revealed a group of one sample.

    Attributes:
        lane: the state that it was drawn at: 0 for the log's own, i for the one that i right guesses led to. So a
            round of evaluation begins with every 0.
    """

    at: float
    reveal: Reveal
    lane: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """Every sample is complete."""

    at: float


@dataclass(frozen=True, slots=True)
class Failed:
    """The generation ends without an answer.

    Attributes:
        reason: "impossible" (what was given has probability zero), "engine" (a fault of ours), "draining".
        message: for the client.
    """

    at: float
    reason: FailureReason
    message: str


LogEntry = Started | Revealed | Finished | Failed
