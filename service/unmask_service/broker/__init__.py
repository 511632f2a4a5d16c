"""How plans reach engines and logs reach clients."""

from unmask_service.broker.course import Course
from unmask_service.broker.interface import (
    ApiBroker,
    BrokerAwayError,
    BrokerError,
    Claim,
    Departure,
    EngineBroker,
    IdempotencyKey,
    KeyReusedError,
    QueueFullError,
    Record,
)
from unmask_service.broker.memory import MemoryBroker
from unmask_service.broker.messages import (
    Failed,
    FailureReason,
    Finished,
    Job,
    LogEntry,
    Revealed,
    Scored,
    Started,
    State,
    evaluations_in,
)

__all__ = [
    "ApiBroker",
    "BrokerAwayError",
    "BrokerError",
    "Claim",
    "Course",
    "Departure",
    "EngineBroker",
    "Failed",
    "FailureReason",
    "Finished",
    "IdempotencyKey",
    "Job",
    "KeyReusedError",
    "LogEntry",
    "MemoryBroker",
    "QueueFullError",
    "Record",
    "Revealed",
    "Scored",
    "Started",
    "State",
    "evaluations_in",
]
