"""The broker: takes jobs to engines and logs to clients."""

from unmask_service.broker.interface import (
    ApiBroker,
    BrokerAwayError,
    BrokerError,
    Claim,
    Departure,
    EngineBroker,
    IdempotencyKey,
    JobRecord,
    KeyReusedError,
    QueueFullError,
)
from unmask_service.broker.memory import MemoryBroker
from unmask_service.broker.messages import (
    Failed,
    FailureReason,
    Finished,
    Job,
    JobProgress,
    LogEntry,
    Revealed,
    Scored,
    Started,
    State,
    evaluations_in,
    milliseconds_between,
)

# former names, until the other rooms use the new ones
Course = JobProgress
Record = JobRecord

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
    "JobProgress",
    "JobRecord",
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
    "milliseconds_between",
]
