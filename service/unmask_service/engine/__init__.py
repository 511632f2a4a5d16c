"""The engine: samples of many requests share one network evaluation."""

from unmask_service.engine.fingerprint import fingerprint
from unmask_service.engine.loop import Engine

__all__ = ["Engine", "fingerprint"]
