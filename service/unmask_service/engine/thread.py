"""The one thread that does arithmetic."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class HungEvaluationError(RuntimeError):
    """A network evaluation does not come to an end, and nothing can end it but the end of the process."""


class EvaluationThread:
    """The one thread that does arithmetic: evaluations follow one another, and the event loop stays free.

    Load and test a model in it too. Every thread that uses OpenMP keeps helpers of its own, and where there are more
    of them than cores the OpenMP runtime puts them to sleep between regions: measured, 40 ms an evaluation for 28.

    Args:
        hang_seconds: an evaluation that takes longer has hung; None: none does.
    """

    def __init__(self, hang_seconds: float | None = None) -> None:
        self._hang_seconds = hang_seconds
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="evaluation")

    async def run(
        self, work: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Result:
        """Do some work in the thread, however long it takes."""
        return await asyncio.wrap_future(self._executor.submit(work, *args, **kwargs))

    async def evaluate(
        self, work: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Result:
        """Do an evaluation in the thread.

        Raises:
            HungEvaluationError: it takes longer than any should.
        """
        try:
            async with asyncio.timeout(self._hang_seconds):
                return await self.run(work, *args, **kwargs)
        except TimeoutError as error:
            raise HungEvaluationError(f"a network evaluation has taken more than {self._hang_seconds} s") from error

    def close(self) -> None:
        """Take no more work; what has begun comes to its end."""
        self._executor.shutdown(wait=False, cancel_futures=True)
