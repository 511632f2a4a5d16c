"""The engine: samples of many requests share one network evaluation."""

from unmask_service.engine.fingerprint import fingerprint, processor_name
from unmask_service.engine.loop import Engine, evaluation_thread
from unmask_service.engine.self_test import BrokenPromiseError, self_test

__all__ = ["BrokenPromiseError", "Engine", "evaluation_thread", "fingerprint", "processor_name", "self_test"]
