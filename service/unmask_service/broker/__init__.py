"""How plans reach engines and logs reach clients."""

from unmask_service.broker.interface import Broker, QueueFullError
from unmask_service.broker.memory import MemoryBroker
from unmask_service.broker.messages import Failed, FailureReason, Finished, Job, LogEntry, Revealed, Started

__all__ = [
    "Broker",
    "Failed",
    "FailureReason",
    "Finished",
    "Job",
    "LogEntry",
    "MemoryBroker",
    "QueueFullError",
    "Revealed",
    "Started",
]
