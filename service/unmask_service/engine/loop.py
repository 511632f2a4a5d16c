"""The engine: a tick is admit, collect states, evaluate, finish, apply, publish."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Literal, ParamSpec, TypeVar

from unmask_diffusion import Model, Outcome

from unmask_service.broker import (
    Claim,
    EngineBroker,
    Failed,
    FailureReason,
    Finished,
    LogEntry,
    Started,
    evaluations_in,
)
from unmask_service.engine.isolation import check_model, evaluate_apart
from unmask_service.engine.lanes import Speculation, Speculator
from unmask_service.engine.metrics import EngineMetrics
from unmask_service.engine.tasks import Place, Task, count_tick, open_task, take_turn
from unmask_service.forecast import Capacity
from unmask_service.metrics import Metrics

logger = logging.getLogger("unmask")

# Most jobs that are claimed before a tick. Those that end at once take none of its tokens, and there may be any number.
MOST_CLAIMS = 256

Entry = tuple[Task, LogEntry]
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class HungEvaluationError(RuntimeError):
    """A network evaluation does not end, and only the end of the process can end it."""


class EvaluationThread:
    """The one thread that does arithmetic: evaluations run one after the other, and the event loop stays free.

    Load and test a model in it too. Every thread that uses OpenMP keeps helpers of its own, and where there are more
    of them than cores the OpenMP runtime puts them to sleep between regions: measured, 40 ms an evaluation for 28.
    """

    def __init__(self, hang_seconds: float | None = None, turn: asyncio.Lock | None = None) -> None:
        self._hang_seconds = hang_seconds  # an evaluation that takes longer has hung; None: none has
        self.turn = turn or asyncio.Lock()  # held while evaluating: the threads of a process take turns
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="evaluation")

    async def run(
        self, function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Result:
        return await asyncio.wrap_future(self._executor.submit(function, *args, **kwargs))

    async def evaluate(
        self, function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Result:
        """Call a function that evaluates the network in the thread.

        Raises HungEvaluationError: it takes longer than `hang_seconds`.
        """
        try:
            async with asyncio.timeout(self._hang_seconds):
                return await self.run(function, *args, **kwargs)
        except TimeoutError as error:
            raise HungEvaluationError(f"a network evaluation has taken more than {self._hang_seconds} s") from error

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


class Engine:
    """Takes jobs from a broker through the model, samples and passes of many jobs in one network evaluation.

    Jobs are claimed, as the broker's fair queueing has them, while a tick has room for a canvas of each. A job that
    another engine has started is resumed from its log.
    """

    def __init__(
        self,
        model: Model,
        broker: EngineBroker,
        metrics: Metrics,
        capacity: Capacity,
        thread: EvaluationThread | None = None,
        speculation: Speculation = "off",
        fingerprint: str = "",
    ) -> None:
        self.model, self.broker, self.metrics = model, broker, metrics
        self.capacity = capacity  # tokens of a tick, and the pace of recent ticks
        self.fingerprint = fingerprint  # the kind of machine and arithmetic
        self._counts = EngineMetrics(metrics)
        self._tasks: dict[str, Task] = {}
        self._claiming = asyncio.Event()
        self._claiming.set()
        self._end: Callable[[], Failed] | None = None
        self._thread = thread or EvaluationThread()
        self._speculator = Speculator(speculation)
        metrics.tokens_per_tick.set(capacity.tokens_per_tick)

    async def check(self) -> None:
        """Try the model in the engine's thread. Raises BrokenModelError: it cannot evaluate anything."""
        await self._thread.evaluate(check_model, self.model)

    async def run(self) -> None:
        try:
            await self.broker.report(self.capacity)
            while True:
                await self.tick()
        finally:
            self.close()

    def close(self) -> None:
        self._thread.close()
        self._counts.stopped()

    async def tick(self) -> None:
        """Do one network evaluation for the next samples and passes."""
        await self._admit()
        turn = take_turn(self._tasks.values(), self.capacity.tokens_per_tick)
        places, budgets = [*turn], self._speculator.budgets(turn, self.capacity)
        begun = time.perf_counter()
        outcomes = await self._evaluate_and_finish(places, budgets)
        await self._publish(self._apply(places, outcomes))
        await self._learn(places, budgets, outcomes, time.perf_counter() - begun)

    def stop_claiming(self) -> bool:
        """Claim no more jobs; say whether any are still running."""
        self._claiming.clear()
        return bool(self._tasks)

    async def release(self) -> None:
        """Hand back all claimed jobs after a failure: this engine's successor, or another worker, resumes them."""
        self._tasks.clear()
        await self.broker.release(blameless=False)

    async def end_all(self, reason: FailureReason, message: str) -> None:
        """End all running and waiting jobs, and all that still come, with an error."""
        self._end = lambda: Failed(self.broker.now(), reason, message)
        tasks = [*self._tasks.values()]
        self._tasks.clear()
        while (claim := await self.broker.claim_now()) is not None:
            tasks.append(open_task(self.model, claim))
        await self._publish([(task, self._end()) for task in tasks])

    async def _admit(self) -> None:
        """Drop jobs that are no longer ours; claim others while a tick has room for a canvas of each."""
        for job_id, why in (await self.broker.departed(self._tasks)).items():
            self._counts.departed(self._tasks.pop(job_id), why)
        entries: list[Entry] = []
        for _ in range(MOST_CLAIMS):
            if sum(task.plan.length for task in self._tasks.values()) >= self.capacity.tokens_per_tick:
                break
            claim = await self.broker.claim_now() if self._claiming.is_set() else None
            if claim is None and (self._tasks or entries):
                break
            if claim is None:
                await self._claiming.wait()
                claim = await self.broker.claim()
            entries += await self._start(claim)
            # this job may make this engine fail too: claim no other job with it
            if claim.attempts > 1:
                break
        await self._publish(entries)

    async def _start(self, claim: Claim) -> list[Entry]:
        try:
            task = await asyncio.to_thread(open_task, self.model, claim)  # its log may be long
        except Exception:
            logger.exception("request %s cannot start", claim.job.id)
            failure = Failed(self.broker.now(), "engine", "the request could not begin")
            if not await self.broker.append([(claim.job.id, failure)]):
                self._counts.failed_to_start(claim.job, failure)
            return []
        if self._end is not None:
            return [(task, self._end())]
        self._counts.started(task, self.fingerprint)
        started = (task, Started(self.broker.now(), self.fingerprint))
        if task.complete:
            return [started, (task, Finished(self.broker.now()))]
        self._tasks[task.job.id] = task
        return [started]

    async def _evaluate_and_finish(self, places: Sequence[Place], budgets: Sequence[int]) -> list[Outcome]:
        """Collect the states of the work, evaluate them and finish their outcomes, off the event loop."""
        if not places:
            return []
        works = [work for _, work in places]
        async with self._thread.turn:
            begun = time.perf_counter()
            outcomes = await self._thread.evaluate(evaluate_apart, self.model, works, budgets, self._timed)
            self.metrics.count_evaluation(time.perf_counter() - begun)
        return outcomes

    @contextmanager
    def _timed(self, phase: Literal["trunk", "draw"]) -> Iterator[None]:
        """Count the time of a phase. On a GPU the trunk is only launched; drawing waits for it."""
        begun = time.perf_counter()
        yield
        self.metrics.count_phase(phase, time.perf_counter() - begun)

    def _apply(self, places: Sequence[Place], outcomes: Sequence[Outcome]) -> list[Entry]:
        """Write outcomes into the tasks' states; return their log entries."""
        now = self.broker.now()
        entries: list[Entry] = []
        for (task, work), outcome in zip(places, outcomes, strict=True):
            if task.job.id not in self._tasks:  # other work of it has just ended it, or all have been ended
                continue
            of_task = task.apply(work, outcome, now)
            entries += [(task, entry) for entry in of_task]
            if of_task and isinstance(of_task[-1], Finished | Failed):
                del self._tasks[task.job.id]
        return entries

    async def _publish(self, entries: Sequence[Entry]) -> None:
        """Append entries to their logs; only then are they counted."""
        if not entries:
            return
        begun = time.perf_counter()
        departed = await self.broker.append([(task.job.id, entry) for task, entry in entries])
        self.metrics.count_phase("publish", time.perf_counter() - begun)
        for task, entry in entries:
            if task.job.id in departed:
                self.metrics.evaluations.inc(evaluations_in(entry))
            else:
                self._counts.published(task, entry)
        published = {task.job.id: task for task, _ in entries}
        for job_id, why in departed.items():
            self._tasks.pop(job_id, None)
            self._counts.departed(published[job_id], why)

    async def _learn(
        self, places: Sequence[Place], budgets: Sequence[int], outcomes: Sequence[Outcome], seconds: float
    ) -> None:
        """Learn from a tick how fast ticks are, and how often drafts are right."""
        if not places:
            return
        tick = count_tick(places, outcomes)
        self._counts.ticked(places, outcomes, tick)
        self._speculator.learn([work for _, work in places], budgets, outcomes)
        self.capacity = self._speculator.learn_pace(self.capacity.after(tick, seconds), tick, seconds)
        await self.broker.report(self.capacity)
