"""The engine: a tick is admit, evaluate, draw, reveal, publish."""

import asyncio
import contextlib
import time
from collections.abc import Iterable, Sequence

from unmask_diffusion import Model, Reveal, SampleError

from unmask_service.broker import Broker, Failed, FailureReason, Finished, Job, LogEntry, Revealed, Started
from unmask_service.engine.isolation import check_model, evaluate_apart
from unmask_service.engine.thread import EvaluationThread
from unmask_service.engine.turn import Generation, Place, first_round_tokens, take_turn
from unmask_service.forecast import Capacity
from unmask_service.metrics import Metrics

Entry = tuple[str, LogEntry]


class Engine:
    """Takes jobs from a broker through the model, samples of many jobs in one network evaluation.

    Jobs are claimed in the order of their arrival while a tick has room for a sample of each.

    Attributes:
        capacity: tokens of a tick, and how fast one is, as measured of late.
    """

    def __init__(
        self,
        model: Model,
        broker: Broker,
        metrics: Metrics,
        capacity: Capacity,
        thread: EvaluationThread | None = None,
    ) -> None:
        self.model = model
        self.broker = broker
        self.metrics = metrics
        self.capacity = capacity
        self._generations: dict[str, Generation] = {}
        self._thread = thread or EvaluationThread()

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
        """One network evaluation for the samples whose turn it is."""
        await self._admit()
        turn = take_turn(self._generations.values(), self.capacity.tokens_per_tick)
        begun = time.perf_counter()
        outcomes = await self._evaluate(turn)
        await self._publish(self._reveal(turn, outcomes))
        await self._measure(turn, outcomes, time.perf_counter() - begun)

    async def drain(self, seconds: float) -> None:
        """Let all that was accepted end within the time, then end what is left with an error."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._generations or (await self.broker.load()).waiting:
                    await asyncio.sleep(0.01)
        await self.end_all("draining", "the server is shutting down and could not finish this generation in time")

    async def end_all(self, reason: FailureReason, message: str) -> None:
        """End all that runs and all that waits with an error."""
        while (job := await self.broker.claim_now()) is not None:
            self._generations[job.id] = Generation(self.model, job)
        entries = [(job_id, Failed(time.time(), reason, message)) for job_id in self._generations]
        self._generations.clear()
        await self._publish(entries)

    async def _admit(self) -> None:
        """Drop jobs whose clients have gone; claim jobs while a tick has room for a sample of each."""
        await self._drop(await self.broker.left(self._generations))
        entries: list[Entry] = []
        while first_round_tokens(self._generations.values()) < self.capacity.tokens_per_tick:
            job = await self.broker.claim_now()
            if job is None and (self._generations or entries):
                break
            entries += self._start(job or await self.broker.claim())
        await self._publish(entries)

    async def _drop(self, job_ids: Iterable[str]) -> None:
        gone = [self._generations.pop(job_id) for job_id in job_ids]
        self.metrics.evaluations_saved.inc(sum(generation.evaluations_left for generation in gone))

    def _start(self, job: Job) -> list[Entry]:
        generation = Generation(self.model, job)
        entries: list[Entry] = [(job.id, Started(time.time()))]
        if generation.samples:
            self._generations[job.id] = generation
        else:
            entries.append((job.id, Finished(time.time())))
        return entries

    async def _evaluate(self, turn: Sequence[Place]) -> Sequence[Reveal | SampleError]:
        """Evaluate off the event loop."""
        if not turn:
            return []
        samples = [sample for _, sample in turn]
        begun = time.perf_counter()
        outcomes = await self._thread.evaluate(evaluate_apart, self.model, samples)
        self.metrics.evaluation_seconds.observe(time.perf_counter() - begun)
        return outcomes

    def _reveal(self, turn: Sequence[Place], outcomes: Sequence[Reveal | SampleError]) -> list[Entry]:
        """Write outcomes into the samples' states and make the log entries that say so."""
        now = time.time()
        entries: list[Entry] = []
        for (generation, sample), outcome in zip(turn, outcomes, strict=True):
            job_id = generation.job.id
            if job_id not in self._generations:  # another sample of this job has just failed, or all have been ended
                continue
            if isinstance(outcome, SampleError):
                reason: FailureReason = "impossible" if outcome.impossible else "engine"
                entries.append((job_id, Failed(now, reason, outcome.message)))
                del self._generations[job_id]
                continue
            sample.reveal(outcome)
            entries.append((job_id, Revealed(now, outcome)))
            if sample.finished:
                generation.samples.remove(sample)
            if not generation.samples:
                entries.append((job_id, Finished(now)))
                del self._generations[job_id]
        return entries

    async def _publish(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        await self.broker.append(entries)
        reveals = [entry.reveal for _, entry in entries if isinstance(entry, Revealed)]
        self.metrics.evaluations.inc(len(reveals))
        self.metrics.sub_tokens.inc(sum(len(reveal.sub_tokens) for reveal in reveals))

    async def _measure(self, turn: Sequence[Place], outcomes: Sequence[Reveal | SampleError], seconds: float) -> None:
        """Learn from a tick how fast ticks are."""
        if not turn:
            return
        tokens = sum(generation.job.plan.length for generation, _ in turn)
        rows = sum(_rows_of(outcome) for outcome in outcomes if isinstance(outcome, Reveal))
        requests = len({generation.job.id for generation, _ in turn})
        self.capacity = self.capacity.after(requests, tokens, rows, seconds)
        await self.broker.report(self.capacity)


def _rows_of(reveal: Reveal) -> int:
    return len({position for position, _, _ in reveal.sub_tokens})
