"""The engine: a tick is admit, evaluate, draw, reveal, publish."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from unmask_diffusion import ActivePass, ActiveSample, Ask, Model, PassAsk, PassRound, Round

from unmask_service.broker import (
    Claim,
    EngineBroker,
    Failed,
    FailureReason,
    Finished,
    LogEntry,
    Started,
)
from unmask_service.engine.books import Books
from unmask_service.engine.isolation import check_model, evaluate_apart
from unmask_service.engine.lanes import Speculation, Speculator
from unmask_service.engine.tasks import Task, open_task, take
from unmask_service.engine.thread import EvaluationThread
from unmask_service.engine.turn import Place, first_round_tokens, take_turn, what_happened
from unmask_service.forecast import Capacity
from unmask_service.metrics import Metrics

logger = logging.getLogger("unmask")

Entry = tuple[Task, LogEntry]


class Engine:
    """Takes jobs from a broker through the model, samples and passes of many jobs in one network evaluation.

    Jobs are claimed in the order of their arrival while a tick has room for a sample of each. What another engine has
    begun is gone on with from its log.

    Attributes:
        capacity: tokens of a tick, and how fast one is, as measured of late.
        fingerprint: the kind of machine and arithmetic that this is.
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
        self.model = model
        self.broker = broker
        self.metrics = metrics
        self._books = Books(metrics)
        self.capacity = capacity
        self.fingerprint = fingerprint
        self._tasks: dict[str, Task] = {}
        self._claiming = asyncio.Event()
        self._claiming.set()
        self._end: Callable[[], Failed] | None = None
        self._thread = thread or EvaluationThread()
        self._speculator = Speculator(speculation)
        metrics.tokens_per_tick.set(capacity.tokens_per_tick)

    async def check(self) -> None:
        """Try the model in the engine's thread.

        Raises:
            BrokenModelError: it cannot evaluate anything.
        """
        await self._thread.evaluate(check_model, self.model)

    async def run(self) -> None:
        """Tick until cancelled.

        Raises:
            Exception: a failure that is no single request's.
        """
        try:
            await self.broker.report(self.capacity)
            while True:
                await self.tick()
        finally:
            self.close()

    def close(self) -> None:
        """Evaluate no more."""
        self._thread.close()

    async def tick(self) -> None:
        """One network evaluation for the samples and passes whose turn it is."""
        await self._admit()
        lanes = take_turn(self._tasks.values(), self.capacity.tokens_per_tick)
        turn, asks = [*lanes], self._asks(lanes)
        begun = time.perf_counter()
        rounds = await self._evaluate(asks)
        await self._publish(self._reveal(turn, rounds))
        await self._learn(turn, asks, rounds, time.perf_counter() - begun)

    def _asks(self, lanes: Mapping[Place, int]) -> list[Ask | PassAsk]:
        """Passes get the places that they took; what is left of the tick goes to guesses of samples."""
        samples = [(task, part) for task, part in lanes if isinstance(part, ActiveSample)]
        asks = self._speculator.ask([sample for _, sample in samples], self._room_for_samples(lanes))
        told = [task.job.candidates for task, _ in samples]
        drawn = iter([replace(ask, candidates=k) if k else ask for ask, k in zip(asks, told, strict=True)])
        return [
            PassAsk(part, count) if isinstance(part, ActivePass) else next(drawn) for (_, part), count in lanes.items()
        ]

    def _room_for_samples(self, lanes: Mapping[Place, int]) -> Capacity:
        read = sum(count * task.plan.length for (task, part), count in lanes.items() if isinstance(part, ActivePass))
        return replace(self.capacity, tokens_per_tick=self.capacity.tokens_per_tick - read)

    def stop_claiming(self) -> bool:
        """Take nothing more; say whether anything still runs."""
        self._claiming.clear()
        return bool(self._tasks)

    async def release(self) -> None:
        """Hand back all that runs: this engine has failed, and its successor, or another, goes on with it."""
        self._tasks.clear()
        await self.broker.release(blameless=False)

    async def end_all(self, reason: FailureReason, message: str) -> None:
        """End all that runs and all that waits with an error, and whatever still comes."""
        self._end = lambda: Failed(self.broker.now(), reason, message)
        tasks = [*self._tasks.values()]
        self._tasks.clear()
        while (claim := await self.broker.claim_now()) is not None:
            tasks.append(open_task(self.model, claim))
        await self._publish([(task, self._end()) for task in tasks])

    async def _admit(self) -> None:
        """Drop jobs that are no longer ours; claim others while a tick has room for a sample of each."""
        for job_id, why in (await self.broker.departed(self._tasks)).items():
            self._books.departed(self._tasks.pop(job_id), why)
        entries: list[Entry] = []
        while first_round_tokens(self._tasks.values()) < self.capacity.tokens_per_tick:
            claim = await self.broker.claim_now() if self._claiming.is_set() else None
            if claim is None and (self._tasks or entries):
                break
            claim = claim or await self._next_claim()
            entries += await self._start(claim)
            # it may bring this engine down too: nobody who has not yet begun should be beside it
            if claim.attempts > 1:
                break
        await self._publish(entries)

    async def _next_claim(self) -> Claim:
        await self._claiming.wait()
        return await self.broker.claim()

    async def _start(self, claim: Claim) -> list[Entry]:
        try:
            task = await asyncio.to_thread(open_task, self.model, claim)  # its log may be long
        except Exception:
            logger.exception("request %s cannot begin", claim.job.id)
            failure = Failed(self.broker.now(), "engine", "the request could not begin")
            if not await self.broker.append([(claim.job.id, failure)]):
                self._books.given_up(claim.job, failure)
            return []
        return self._begin(task)

    def _begin(self, task: Task) -> list[Entry]:
        if self._end is not None:
            return [(task, self._end())]
        self._books.begun(task, self.fingerprint)
        started = (task, Started(self.broker.now(), self.fingerprint))
        if task.complete:
            return [started, (task, Finished(self.broker.now()))]
        self._tasks[task.job.id] = task
        return [started]

    async def _evaluate(self, asks: Sequence[Ask | PassAsk]) -> Sequence[Round | PassRound]:
        """Evaluate off the event loop."""
        if not asks:
            return []
        begun = time.perf_counter()
        rounds = await self._thread.evaluate(evaluate_apart, self.model, asks)
        self.metrics.count_evaluation(time.perf_counter() - begun)
        return rounds

    def _reveal(self, turn: Sequence[Place], rounds: Sequence[Round | PassRound]) -> list[Entry]:
        """Write what was accepted into the tasks' states and make the log entries that say so."""
        now = self.broker.now()
        entries: list[Entry] = []
        for (task, part), done in zip(turn, rounds, strict=True):
            if task.job.id not in self._tasks:  # another part of it has just ended it, or all have been ended
                continue
            told = take(task, part, done, now)
            entries += [(task, entry) for entry in told]
            if told and isinstance(told[-1], Finished | Failed):
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
                self._books.refused(entry)
            else:
                self._books.published(task, entry)
        published = {task.job.id: task for task, _ in entries}
        for job_id, why in departed.items():
            self._tasks.pop(job_id, None)
            self._books.departed(published[job_id], why)

    async def _learn(
        self,
        turn: Sequence[Place],
        asks: Sequence[Ask | PassAsk],
        rounds: Sequence[Round | PassRound],
        seconds: float,
    ) -> None:
        """Learn from a tick how fast ticks are, and what guesses are worth."""
        if not turn:
            return
        drawn = [done for done in rounds if isinstance(done, Round)]
        self._speculator.learn([ask for ask in asks if isinstance(ask, Ask)], drawn)
        happened = what_happened(turn, rounds)
        self._books.ticked(turn, drawn, happened)
        self.capacity = self.capacity.after(happened, seconds)
        await self.broker.report(self.capacity)
