"""What an engine has claimed, and which of it shares the next evaluation.

A task is a job with its state: its plan and its log, whoever wrote that. Its work, samples or passes, shares ticks with
the work of other tasks; outcomes are written into the state and become log entries.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, zip_longest

from unmask_diffusion import (
    ActivePass,
    ActiveSample,
    Model,
    Outcome,
    Plan,
    Readout,
    Reveal,
    SampleError,
    ScorePlan,
    Tally,
    Work,
)

from unmask_service.broker import Claim, Failed, Finished, JobProgress, LogEntry, Revealed, Scored
from unmask_service.forecast import Tick

# evaluations of a pass, or seconds, between two entries of the log: what is lost at most if the engine fails
EVALUATIONS_AN_ENTRY, SECONDS_AN_ENTRY = 32, 1.0
# states of one score in a tick: with more of them, which are short, a tick spends its time outside of the network
MOST_LANES = 256


class Generation:
    """A claimed generation and its samples."""

    bulk = False

    def __init__(self, model: Model, claim: Claim, plan: Plan) -> None:
        self.job = claim.job
        self.plan = plan
        self.progress = JobProgress()  # what its log says of its progress
        every = [ActiveSample.start(model, plan, index) for index in range(len(plan.schedules))]
        for entry in claim.log:
            self.progress.note(entry)
            if isinstance(entry, Revealed):
                every[entry.reveal.sample].reveal(entry.reveal)
        for sample in every:
            sample.candidates = claim.job.candidates
        self._samples = [sample for sample in every if not sample.finished]

    @property
    def complete(self) -> bool:
        return not self._samples

    @property
    def evaluations_left(self) -> int:
        return sum(sample.evaluations_left for sample in self._samples)

    @property
    def tokens(self) -> int:
        """Tokens of one canvas for each sample that is not complete."""
        return len(self._samples) * self.plan.length

    def in_turn(self) -> Iterator[ActiveSample]:
        """Its samples, the longest first: so they end together, and none is left to be evaluated alone."""
        return iter(sorted(self._samples, key=lambda sample: -sample.evaluations_left))

    def apply(self, work: Work, outcome: Outcome, now: float) -> list[LogEntry]:
        """Write an outcome of one of its samples into the state; return what the log is to say."""
        entries: list[LogEntry] = []
        left = work.evaluations_left
        for lane, entry in enumerate(work.apply(outcome)):
            if isinstance(entry, Reveal):
                left -= 1
                # of the last one: an outcome has no reveal behind the one that makes the rest needless
                saved = left - work.evaluations_left if lane + 1 == len(outcome.entries) else 0
                entries.append(Revealed(now, entry, lane, outcome.candidates[lane], saved))
            elif isinstance(entry, SampleError):
                return [*entries, failure(entry, now)]
        if work.finished:
            self._samples = [sample for sample in self._samples if sample is not work]
        return [*entries, Finished(now)] if self.complete else entries


class Scoring:
    """A claimed score and its passes, which are drawn when their turn comes: there may be thousands."""

    bulk = True  # all states of its passes are known, so it could fill every tick

    def __init__(self, model: Model, claim: Claim, plan: ScorePlan) -> None:
        self.job = claim.job
        self.plan = plan
        self.progress = JobProgress()  # what its log says of its progress
        self._model = model
        self._tally = Tally(plan)
        for entry in claim.log:
            self.progress.note(entry)
            if isinstance(entry, Scored):
                self._tally.note(entry.readout)
        self._passes: list[ActivePass] = []
        self._next = self._tally.replicates * len(plan.windows) * plan.passes_a_window
        self._unpublished: dict[int, tuple[Readout, float]] = {}  # by pass, with the time of its first readout

    @property
    def complete(self) -> bool:
        return self._tally.enough

    @property
    def evaluations_left(self) -> int:
        """Planned network evaluations that are not in the log."""
        return self.plan.network_evaluations - self._tally.evaluations

    @property
    def tokens(self) -> int:
        """Tokens of one canvas."""
        return self.plan.length

    def in_turn(self) -> Iterator[ActivePass]:
        """Its passes in their order: replicates become complete one after the other."""
        yield from [*self._passes]
        while self._next < self.plan.passes:
            active = ActivePass(self._model, self.plan, self._next, self._tally.steps_done(self._next))
            self._next += 1
            if not active.finished:
                self._passes.append(active)
                yield active

    def apply(self, work: Work, outcome: Outcome, now: float) -> list[LogEntry]:
        """Write an outcome of one of its passes into the state; return what the log is to say, now and then."""
        (entry,) = work.apply(outcome)
        if isinstance(entry, SampleError):
            return [failure(entry, now)]
        if not isinstance(entry, Readout):
            raise TypeError(f"a pass gives readouts, not {entry!r}")
        before, since = self._unpublished.pop(entry.index, (None, now))
        readout = entry if before is None else before + entry
        if work.finished:
            self._passes = [each for each in self._passes if each is not work]
        elif readout.evaluations < EVALUATIONS_AN_ENTRY and now < since + SECONDS_AN_ENTRY:
            self._unpublished[entry.index] = readout, since
            return []
        self._tally.note(readout)
        return [Scored(now, readout), *([Finished(now)] if self.complete else [])]


Task = Generation | Scoring
# a unit of work with its task
Place = tuple[Task, Work]


def open_task(model: Model, claim: Claim) -> Task:
    """Rebuild the state of a job from its plan and its log."""
    plan = claim.job.plan
    return Scoring(model, claim, plan) if isinstance(plan, ScorePlan) else Generation(model, claim, plan)


def failure(error: SampleError, now: float) -> Failed:
    """The end of a task that cannot continue."""
    return Failed(now, "impossible" if error.impossible else "engine", error.message)


def take_turn(tasks: Iterable[Task], tokens_per_tick: int) -> Counter[Place]:
    """Take one canvas of each task, oldest first, then a second of each, until the tokens are spent.

    So the oldest task advances in every tick, whatever comes after it, and a large request leaves room for small ones.
    The first canvas is taken even if it is longer than a tick should be. Bulk tasks could fill every tick; so that they
    do not delay the others, all of them together take no more of a tick than the others do.

    Returns:
        The number of canvases for each place, in the order in which they were taken: only known states.
    """
    tasks = [*tasks]
    others = sum(task.tokens for task in tasks if not task.bulk)
    share = others // max(1, sum(task.bulk for task in tasks)) if others else None
    turn: Counter[Place] = Counter()
    tokens = 0
    for place in chain.from_iterable(zip_longest(*(_canvases(task, share) for task in tasks))):
        if place is None:
            continue
        tokens += place[1].length
        if turn and tokens > tokens_per_tick:
            break
        turn[place] += 1
    return turn


def _canvases(task: Task, share: int | None) -> Iterator[Place]:
    """The places of a task, once for each canvas; a bulk task takes its share of tokens, but at least one canvas."""
    canvases = ((task, work) for work in task.in_turn() for _ in range(work.known_states))
    if not task.bulk:
        return canvases
    return islice(canvases, max(1, MOST_LANES if share is None else min(MOST_LANES, share // task.plan.length)))


def count_tick(places: Sequence[Place], outcomes: Sequence[Outcome]) -> Tick:
    """Count what a tick did, and what it would have done with one state for each place."""
    pairs = [(work.length, done) for (_, work), done in zip(places, outcomes, strict=True)]
    return Tick(
        requests=len({task.job.id for task, _ in places}),
        samples=len(places),
        tokens=sum(length for length, _ in pairs),
        rows=sum(done.rows for _, done in pairs),
        groups=sum(done.steps for _, done in pairs),
        lane_tokens=sum(length * done.states for length, done in pairs),
        lane_rows=sum(done.all_rows for _, done in pairs),
        bounded=sum(done.bounded for _, done in pairs),
        revealed=sum(
            len(entry.sub_tokens)
            for _, done in pairs
            if done.bounded
            for entry in done.entries
            if isinstance(entry, Reveal)
        ),
    )


def noise_spread(places: Sequence[Place]) -> float:
    """The largest less the smallest share of masked sub-tokens among the samples and passes of a tick."""
    shares = [work.masked_share for _, work in places]
    return max(shares) - min(shares)
