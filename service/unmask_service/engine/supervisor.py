"""The supervisor replaces an engine that fails by a fresh one, which resumes its jobs."""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable

from unmask_service.engine.loop import Engine, HungEvaluationError
from unmask_service.metrics import Metrics

logger = logging.getLogger("unmask")

MOST_RESTARTS, WINDOW_SECONDS = 5, 600.0  # an engine that fails more often within the window is not restarted
PAUSE_SECONDS = 0.5  # pause before a restart, doubled for each failure in the window


class Supervisor:
    """Runs one engine after another; `engine` is the one that runs, or is about to."""

    def __init__(
        self,
        make: Callable[[Engine | None], Engine],  # makes an engine, given the one that failed
        up: Callable[[], None],  # called when an engine is about to run
        down: Callable[[], None],  # called when an engine has failed
        metrics: Metrics,
        pause_seconds: float = PAUSE_SECONDS,  # before the first restart
    ) -> None:
        self.engine = make(None)
        self._make, self._up, self._down = make, up, down
        self._metrics, self._pause_seconds = metrics, pause_seconds
        self._failures: deque[float] = deque()

    async def run(self) -> None:
        """Keep an engine running until cancelled.

        Raises Exception, the failure of an engine that has failed too often, or that cannot be restarted.
        """
        while True:
            try:
                if self._failures:
                    await self.engine.check()
                self._up()
                await self.engine.run()
            except Exception as error:
                self._down()
                self.engine.close()
                logger.exception("the engine has failed")
                await self.engine.release()
                if isinstance(error, HungEvaluationError) or not self._may_restart():
                    raise
            await asyncio.sleep(self._pause_seconds * 2 ** (len(self._failures) - 1))
            self._metrics.engine_restarts.inc()
            self.engine = self._make(self.engine)

    async def drain(self, seconds: float) -> None:
        """Let all accepted requests finish within the time, in any engine; then end the others with an error."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while (load := await self.engine.broker.load()).running or load.waiting:
                    await asyncio.sleep(0.01)
        message = "the server is shutting down and could not finish this request in time"
        await self.engine.end_all("draining", message)

    async def retire(self, seconds: float) -> None:
        """Claim no more, and let running requests finish within the time; other workers may resume the others."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.engine.stop_claiming():
                    await asyncio.sleep(0.01)

    def _may_restart(self) -> bool:
        now = time.monotonic()
        self._failures.append(now)
        while self._failures[0] < now - WINDOW_SECONDS:
            self._failures.popleft()
        return len(self._failures) <= MOST_RESTARTS
