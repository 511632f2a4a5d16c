"""The engine: a tick is admit, evaluate, draw, reveal, publish."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable, Sequence

from unmask_diffusion import Ask, Model, Round

from unmask_service.broker import Broker, Failed, FailureReason, Finished, Job, LogEntry, Revealed, Started
from unmask_service.engine.isolation import check_model, evaluate_apart
from unmask_service.engine.lanes import Speculation, Speculator
from unmask_service.engine.thread import EvaluationThread
from unmask_service.engine.turn import Generation, Place, first_round_tokens, take_turn, what_happened
from unmask_service.forecast import Capacity
from unmask_service.metrics import Metrics

logger = logging.getLogger(__name__)

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
        speculation: Speculation = "off",
    ) -> None:
        self.model = model
        self.broker = broker
        self.metrics = metrics
        self.capacity = capacity
        self._generations: dict[str, Generation] = {}
        self._thread = thread or EvaluationThread()
        self._speculator = Speculator(speculation)

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
        asks = self._speculator.ask([sample for _, sample in turn], self.capacity)
        begun = time.perf_counter()
        rounds = await self._evaluate(asks)
        await self._publish(self._reveal(turn, rounds))
        await self._learn(turn, asks, rounds, time.perf_counter() - begun)

    async def drain(self, seconds: float) -> None:
        """Let all that was accepted end within the time, then end what is left with an error."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._generations or (await self.broker.load()).waiting:
                    await asyncio.sleep(0.01)
        await self.end_all("draining", "the server is shutting down and could not finish this generation in time")

    async def end_all(self, reason: FailureReason, message: str) -> None:
        """End all that runs and all that waits with an error."""
        job_ids = [*self._generations]
        self._generations.clear()
        while (job := await self.broker.claim_now()) is not None:
            job_ids.append(job.id)
        await self._publish([(job_id, Failed(time.time(), reason, message)) for job_id in job_ids])

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
        entries: list[Entry] = [(job.id, Started(time.time()))]
        try:
            generation = Generation(self.model, job)
        except Exception:
            logger.exception("generation %s cannot begin", job.id)
            return [*entries, (job.id, Failed(time.time(), "engine", "the generation could not begin"))]
        if generation.samples:
            self._generations[job.id] = generation
        else:
            entries.append((job.id, Finished(time.time())))
        return entries

    async def _evaluate(self, asks: Sequence[Ask]) -> Sequence[Round]:
        """Evaluate off the event loop."""
        if not asks:
            return []
        begun = time.perf_counter()
        rounds = await self._thread.evaluate(evaluate_apart, self.model, asks)
        self.metrics.evaluation_seconds.observe(time.perf_counter() - begun)
        return rounds

    def _reveal(self, turn: Sequence[Place], rounds: Sequence[Round]) -> list[Entry]:
        """Write what was accepted into the samples' states and make the log entries that say so."""
        now = time.time()
        entries: list[Entry] = []
        for (generation, sample), done in zip(turn, rounds, strict=True):
            job_id = generation.job.id
            if job_id not in self._generations:  # another sample of this job has just failed, or all have been ended
                continue
            for lane, reveal in enumerate(done.reveals):
                sample.reveal(reveal)
                entries.append((job_id, Revealed(now, reveal, lane)))
            sample.guesses = done.guesses
            if sample.finished:
                generation.samples.remove(sample)
            if done.error is not None:
                reason: FailureReason = "impossible" if done.error.impossible else "engine"
                entries.append((job_id, Failed(now, reason, done.error.message)))
                del self._generations[job_id]
            elif not generation.samples:
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

    async def _learn(self, turn: Sequence[Place], asks: Sequence[Ask], rounds: Sequence[Round], seconds: float) -> None:
        """Learn from a tick how fast ticks are, and what guesses are worth."""
        if not turn:
            return
        self._speculator.learn(asks, rounds)
        self.metrics.count_rounds((done.lanes, len(done.outcomes)) for done in rounds)
        self.capacity = self.capacity.after(what_happened(turn, rounds), seconds)
        await self.broker.report(self.capacity)
