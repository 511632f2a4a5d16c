"""The engine: a tick is admit, evaluate, draw, reveal, publish."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from unmask_diffusion import ActiveSample, Model, Reveal, SampleError, evaluate

from unmask_service.broker import Broker, Failed, FailureReason, Finished, Job, LogEntry, Revealed, Started
from unmask_service.metrics import Metrics

logger = logging.getLogger(__name__)

Entry = tuple[str, LogEntry]


class Generation:
    """A claimed job and its samples.

    Attributes:
        job: as it was claimed.
        samples: those that still have sub-tokens to reveal.
    """

    def __init__(self, model: Model, job: Job) -> None:
        self.job = job
        every = (ActiveSample.start(model, job.plan, index) for index in range(job.plan.request.n))
        self.samples = [sample for sample in every if not sample.finished]


Turn = tuple[Generation, ActiveSample]


def evaluation_thread() -> ThreadPoolExecutor:
    """The one thread that does arithmetic: evaluations follow one another, and the event loop stays free.

    Load and test a model in it too. Every thread that uses OpenMP keeps helpers of its own, and where there are more
    of them than cores the OpenMP runtime puts them to sleep between regions: measured, 40 ms an evaluation for 28.
    """
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="evaluation")


class Engine:
    """Takes jobs from a broker through the model, samples of many jobs in one network evaluation.

    The first come are served first: a tick takes samples in the order of their arrival until `tokens_per_tick` is
    spent, so that what has begun goes on and nothing starves.
    """

    def __init__(
        self,
        model: Model,
        broker: Broker,
        metrics: Metrics,
        tokens_per_tick: int,
        thread: ThreadPoolExecutor | None = None,
    ) -> None:
        self.model = model
        self.broker = broker
        self.metrics = metrics
        self.tokens_per_tick = tokens_per_tick
        self.alive = False
        self._generations: dict[str, Generation] = {}
        self._thread = thread or evaluation_thread()

    async def run(self) -> None:
        """Tick until cancelled."""
        self.alive = True
        try:
            while True:
                await self.tick()
        finally:
            self.alive = False
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def tick(self) -> None:
        """One network evaluation for the samples whose turn it is."""
        await self._admit()
        turn = self._take_turn()
        outcomes = await self._evaluate(turn)
        entries = self._reveal(turn, outcomes)
        await self._publish(entries)

    async def drain(self, seconds: float) -> None:
        """Let all that was accepted end within the time, then end what is left with an error."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._generations or self.broker.load().waiting:
                    await asyncio.sleep(0.01)
        while (job := self.broker.claim_now()) is not None:
            self._generations[job.id] = Generation(self.model, job)
        message = "the server is shutting down and could not finish this generation in time"
        await self._fail(list(self._generations), "draining", message)

    async def _admit(self) -> None:
        """Drop jobs whose clients have gone; claim jobs while their samples fit into a tick."""
        for job_id in self.broker.left(self._generations):
            del self._generations[job_id]
        entries: list[Entry] = []
        while self._active_tokens() < self.tokens_per_tick:
            job = self.broker.claim_now()
            if job is None and (self._generations or entries):
                break
            entries += self._start(job or await self.broker.claim())
        if entries:
            await self._publish(entries)

    def _start(self, job: Job) -> list[Entry]:
        generation = Generation(self.model, job)
        entries: list[Entry] = [(job.id, Started(time.time()))]
        if generation.samples:
            self._generations[job.id] = generation
        else:
            entries.append((job.id, Finished(time.time())))
        return entries

    def _active_tokens(self) -> int:
        return sum(g.job.plan.length * len(g.samples) for g in self._generations.values())

    def _take_turn(self) -> list[Turn]:
        """The samples of this tick, oldest first, at least one and as many as `tokens_per_tick` admits."""
        turn: list[Turn] = []
        tokens = 0
        for generation in self._generations.values():
            for sample in generation.samples:
                tokens += generation.job.plan.length
                if turn and tokens > self.tokens_per_tick:
                    return turn
                turn.append((generation, sample))
        return turn

    async def _evaluate(self, turn: Sequence[Turn]) -> Sequence[Reveal | SampleError]:
        """Evaluate off the event loop; a fault of ours ends the generations of this turn with an error."""
        if not turn:
            return []
        samples = [sample for _, sample in turn]
        begun = time.perf_counter()
        try:
            loop = asyncio.get_running_loop()
            outcomes = await loop.run_in_executor(self._thread, evaluate, self.model, samples)
        except Exception:
            logger.exception("the network evaluation failed; the generations that shared it end with an error")
            shared = {generation.job.id for generation, _ in turn} & self._generations.keys()
            await self._fail(shared, "engine", "the network evaluation failed")
            return []
        self.metrics.evaluation_seconds.observe(time.perf_counter() - begun)
        return outcomes

    def _reveal(self, turn: Sequence[Turn], outcomes: Sequence[Reveal | SampleError]) -> list[Entry]:
        """Write outcomes into the samples' states and make the log entries that say so."""
        now = time.time()
        entries: list[Entry] = []
        for (generation, sample), outcome in zip(turn, outcomes, strict=False):
            job_id = generation.job.id
            if job_id not in self._generations:  # another sample of this job has just failed
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
        await self.broker.append(entries)
        reveals = [entry.reveal for _, entry in entries if isinstance(entry, Revealed)]
        self.metrics.evaluations.inc(len(reveals))
        self.metrics.sub_tokens.inc(sum(len(reveal.sub_tokens) for reveal in reveals))

    async def _fail(self, job_ids: Iterable[str], reason: FailureReason, message: str) -> None:
        entries = [(job_id, Failed(time.time(), reason, message)) for job_id in job_ids]
        for job_id, _ in entries:
            del self._generations[job_id]
        await self._publish(entries)
