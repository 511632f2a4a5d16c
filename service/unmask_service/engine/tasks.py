"""What an engine has claimed: generations, whose samples are drawn, and scores, whose passes are read.

A task's state is its plan and its log, wherever that was written. Of its samples or passes, some share a tick with
those of other tasks; what became of them is written into the state, and told as log entries.
"""

from collections.abc import Iterator
from itertools import repeat

from unmask_diffusion import (
    ActivePass,
    ActiveSample,
    Model,
    PassRound,
    Plan,
    Readout,
    Round,
    SampleError,
    ScorePlan,
    Tally,
)

from unmask_service.broker import Claim, Course, Failed, Finished, LogEntry, Revealed, Scored

# of a pass, between two entries of the log, or so many seconds: what is lost at most if the engine is
EVALUATIONS_AN_ENTRY = 32
SECONDS_AN_ENTRY = 1.0


class Generation:
    """A claimed generation and its samples.

    Attributes:
        job: as it was submitted.
        plan: the job's.
        course: what its log has told so far.
    """

    def __init__(self, model: Model, claim: Claim, plan: Plan) -> None:
        self.job = claim.job
        self.plan = plan
        self.course = Course()
        every = [ActiveSample.start(model, plan, index) for index in range(len(plan.schedules))]
        for entry in claim.log:
            self.course.note(entry)
            if isinstance(entry, Revealed):
                every[entry.reveal.sample].reveal(entry.reveal)
        self._samples = [sample for sample in every if not sample.finished]

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return not self._samples

    @property
    def evaluations_left(self) -> int:
        """Network evaluations that its samples still need."""
        return sum(sample.groups_left for sample in self._samples)

    @property
    def samples(self) -> int:
        """Samples that still have sub-tokens to reveal."""
        return len(self._samples)

    def in_turn(self) -> Iterator[ActiveSample]:
        """Its samples, those with most to do first: so they end together, and none is left to be evaluated alone."""
        return iter(sorted(self._samples, key=lambda sample: -sample.groups_left))

    def take(self, sample: ActiveSample, done: Round, now: float) -> list[LogEntry]:
        """Write into a sample what was accepted; return what its log is to say."""
        entries: list[LogEntry] = []
        for lane, (reveal, candidates) in enumerate(zip(done.reveals, done.candidates, strict=True)):
            sample.reveal(reveal)
            entries.append(Revealed(now, reveal, lane, candidates))
        sample.guesses = done.guesses
        if sample.finished:
            self._samples.remove(sample)
        if done.error is not None:
            entries.append(failure(done.error, now))
        elif self.complete:
            entries.append(Finished(now))
        return entries


class Scoring:
    """A claimed score and its passes, which are drawn as their turn comes: there may be thousands.

    Attributes:
        job: as it was submitted.
        plan: the job's.
        course: what its log has told so far.
    """

    def __init__(self, model: Model, claim: Claim, plan: ScorePlan) -> None:
        self.job = claim.job
        self.plan = plan
        self.course = Course()
        self._model = model
        self._tally = Tally(plan)
        for entry in claim.log:
            self.course.note(entry)
            if isinstance(entry, Scored):
                self._tally.note(entry.readout)
        self._begun: list[ActivePass] = []
        self._next = self._tally.replicates * len(plan.windows) * plan.passes_a_window
        self._untold: dict[int, tuple[Readout, float]] = {}

    @property
    def complete(self) -> bool:
        """Whether enough has been read."""
        return self._tally.enough

    @property
    def evaluations_left(self) -> int:
        """Network evaluations that are planned and not told."""
        return self.plan.network_evaluations - self._tally.evaluations

    def in_turn(self) -> Iterator[ActivePass]:
        """Its passes, each for as many lanes as it can use before the next: its states are known, and replicates
        are complete one after the other.
        """
        for active in [*self._begun]:
            yield from repeat(active, active.evaluations_left)
        while self._next < self.plan.passes:
            active = ActivePass(self._model, self.plan, self._next, self._tally.steps_done(self._next))
            self._next += 1
            if not active.finished:
                self._begun.append(active)
                yield from repeat(active, active.evaluations_left)

    def take(self, active: ActivePass, done: PassRound, now: float) -> list[LogEntry]:
        """Let a pass move on; return what the log is to say: something every so many evaluations."""
        if isinstance(done.outcome, SampleError):
            return [failure(done.outcome, now)]
        active.step += done.lanes
        untold, since = self._untold.pop(active.index, (None, now))
        readout = done.outcome if untold is None else untold + done.outcome
        if active.finished:
            self._begun.remove(active)
        elif readout.evaluations < EVALUATIONS_AN_ENTRY and now < since + SECONDS_AN_ENTRY:
            self._untold[active.index] = readout, since
            return []
        self._tally.note(readout)
        return [Scored(now, readout), *([Finished(now)] if self.complete else [])]


Task = Generation | Scoring
# of a task, what takes part in a tick
Part = ActiveSample | ActivePass


def open_task(model: Model, claim: Claim) -> Task:
    """The state that a plan and its log have come to."""
    plan = claim.job.plan
    return Scoring(model, claim, plan) if isinstance(plan, ScorePlan) else Generation(model, claim, plan)


def take(task: Task, part: Part, done: Round | PassRound, now: float) -> list[LogEntry]:
    """Write into a task what became of its part; return what its log is to say."""
    if isinstance(task, Generation) and isinstance(part, ActiveSample) and isinstance(done, Round):
        return task.take(part, done, now)
    if isinstance(task, Scoring) and isinstance(part, ActivePass) and isinstance(done, PassRound):
        return task.take(part, done, now)
    raise TypeError(f"a {type(done).__name__} is not for a {type(part).__name__} of a {type(task).__name__}")


def failure(error: SampleError, now: float) -> Failed:
    """The end of a task that cannot go on."""
    return Failed(now, "impossible" if error.impossible else "engine", error.message)
