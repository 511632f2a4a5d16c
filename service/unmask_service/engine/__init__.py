"""The engine: samples of many requests share one network evaluation."""

from unmask_service.engine.lanes import Speculation
from unmask_service.engine.loop import Engine, EvaluationThread, HungEvaluationError
from unmask_service.engine.start_up import BrokenPromiseError, fingerprint, measured_capacity, processor_name, self_test
from unmask_service.engine.supervisor import Supervisor

__all__ = [
    "BrokenPromiseError",
    "Engine",
    "EvaluationThread",
    "HungEvaluationError",
    "Speculation",
    "Supervisor",
    "fingerprint",
    "measured_capacity",
    "processor_name",
    "self_test",
]
