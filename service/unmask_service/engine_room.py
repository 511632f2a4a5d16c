"""The engine of a process: from a bundle's folder to an engine that is restarted when it fails."""

from pathlib import Path

from unmask_service.api import Gate
from unmask_service.broker import EngineBroker, FailureReason
from unmask_service.engine import Engine, EvaluationThread, Supervisor
from unmask_service.metrics import Metrics
from unmask_service.settings import Settings
from unmask_service.startup import LoadedModel, load


class EngineRoom:
    """Loads the model of a process, and runs its engine under a supervisor."""

    def __init__(self, folder: Path, settings: Settings, broker: EngineBroker, metrics: Metrics, gate: Gate) -> None:
        self._folder, self._settings = folder, settings
        self._broker, self._metrics, self._gate = broker, metrics, gate
        self._supervisor: Supervisor | None = None

    async def run(self) -> None:
        """Load the model, open the gate and evaluate. Raises Exception, a failure that no restart can repair."""
        thread = self._thread()
        loaded = await thread.run(load, self._folder, self._settings, self._metrics)
        self._supervisor = self._supervise(loaded, thread)
        await self._supervisor.run()

    async def drain(self, seconds: float) -> None:
        if self._supervisor is not None:
            await self._supervisor.drain(seconds)

    async def retire(self, seconds: float) -> None:
        if self._supervisor is not None:
            await self._supervisor.retire(seconds)

    async def end_all(self, reason: FailureReason, message: str) -> None:
        if self._supervisor is not None:
            await self._supervisor.engine.end_all(reason, message)

    def _supervise(self, loaded: LoadedModel, thread: EvaluationThread) -> Supervisor:
        def make(failed: Engine | None) -> Engine:
            """The first engine uses the thread that loaded the model; later ones keep only the pace."""
            capacity, own = (loaded.capacity, thread) if failed is None else (failed.capacity, self._thread())
            return Engine(
                loaded.model, self._broker, self._metrics, capacity, own, self._settings.speculation, loaded.fingerprint
            )

        return Supervisor(
            make,
            up=lambda: self._gate.open(loaded.served),
            down=lambda: self._gate.pause("engine_failed", "the engine has failed and is being restarted"),
            metrics=self._metrics,
        )

    def _thread(self) -> EvaluationThread:
        return EvaluationThread(self._settings.hang_seconds)
