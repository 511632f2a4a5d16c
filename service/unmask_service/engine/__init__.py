"""The engine: samples of many requests share one network evaluation."""

from unmask_service.engine.fingerprint import fingerprint, processor_name
from unmask_service.engine.loop import Engine

__all__ = ["Engine", "fingerprint", "processor_name"]
