"""The work at hand, as small as a forecast needs it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from unmask_diffusion import Plan, ScorePlan

from unmask_service.forecast.pace import Pace

# the share of the last tick in what is remembered of a tick's company
MEMORY = 1 / 16


@dataclass(frozen=True)
class Work:
    """What one request still needs.

    Attributes:
        tokens: of one of its canvases: what one of its samples takes of a tick.
        samples: that are not complete, and so may share a tick; 0 where there is nothing to do.
        evaluations: left, all samples.
        rows: of logits that they draw, about.
    """

    tokens: int
    samples: int
    evaluations: int
    rows: float

    @classmethod
    def of(cls, plan: Plan | ScorePlan) -> "Work":
        """A whole plan; of a score's, what it takes if it is not ended early."""
        evaluations = plan.network_evaluations
        if isinstance(plan, ScorePlan):
            return cls(plan.length, evaluations, evaluations, plan.rows)  # its states are known: any may share a tick
        return cls(plan.length, min(len(plan.schedules), evaluations), evaluations, planned_rows(plan))

    def left(self, evaluations: int) -> "Work":
        """What is left of it when so many evaluations are."""
        share = evaluations / self.evaluations if self.evaluations else 0.0
        return Work(self.tokens, min(self.samples, evaluations), evaluations, share * self.rows)


@dataclass(frozen=True)
class Tick:
    """What an engine did in a tick.

    Attributes:
        requests: that took part.
        samples: of these.
        tokens: of one canvas a sample.
        rows: of logits that a lane a sample draws.
        groups: revealed; more than one a sample where guesses were right.
        lane_tokens: of the canvases of all lanes.
        lane_rows: drawn at all lanes, and for guesses.
    """

    requests: int
    samples: int
    tokens: int
    rows: int
    groups: int
    lane_tokens: int
    lane_rows: int


@dataclass(frozen=True)
class Capacity:
    """What an engine does in a tick, as measured of late.

    Attributes:
        tokens_per_tick: that may share an evaluation.
        pace: of evaluations.
        company_tokens: with how many tokens of others a request has shared its ticks.
        company_rows: and with how many of their rows.
        groups: that a sample has revealed in a tick.
        effort: what ticks have cost, over what they would have with a lane a sample.
    """

    tokens_per_tick: int
    pace: Pace
    company_tokens: float = 0.0
    company_rows: float = 0.0
    groups: float = 1.0
    effort: float = 1.0

    @property
    def speed(self) -> float:
        """Groups a second with the lanes that samples got, over groups a second with a lane each."""
        return self.groups / self.effort

    def after(self, tick: Tick, seconds: float) -> "Capacity":
        """After a tick that took so long."""
        others = 1 - 1 / tick.requests
        effort = self.pace.seconds(tick.lane_tokens, tick.lane_rows) / self.pace.seconds(tick.tokens, tick.rows)
        return Capacity(
            self.tokens_per_tick,
            self.pace.after(tick.lane_tokens, tick.lane_rows, seconds),
            self.company_tokens + MEMORY * (others * tick.tokens - self.company_tokens),
            self.company_rows + MEMORY * (others * tick.rows - self.company_rows),
            self.groups + MEMORY * (tick.groups / tick.samples - self.groups),
            self.effort + MEMORY * (effort - self.effort),
        )


def mean_capacity(capacities: Sequence[Capacity]) -> Capacity | None:
    """What one of several engines does in a tick, on the average; None where there is none."""
    if not capacities:
        return None

    def mean(of: Callable[[Capacity], float]) -> float:
        return fmean(map(of, capacities))

    return Capacity(
        min(each.tokens_per_tick for each in capacities),
        Pace(mean(lambda c: c.pace.evaluation), mean(lambda c: c.pace.token), mean(lambda c: c.pace.row)),
        mean(lambda c: c.company_tokens),
        mean(lambda c: c.company_rows),
        mean(lambda c: c.groups),
        mean(lambda c: c.effort),
    )


@dataclass(frozen=True)
class Load:
    """The work at hand, in the order of its arrival.

    Attributes:
        running: requests that an engine has claimed.
        waiting: requests that none has claimed.
        capacity: of an engine; None before any has said so.
        engines: that share the work.
    """

    running: tuple[Work, ...]
    waiting: tuple[Work, ...]
    capacity: Capacity | None
    engines: int = 1

    def of_one_engine(self) -> "Load":
        """What the engine that has least to do will have done of it: requests are dealt out one by one."""
        last = self.engines - 1
        return Load(self.running[last :: self.engines], self.waiting[last :: self.engines], self.capacity)

    @property
    def evaluations(self) -> int:
        """Network evaluations that all requests still need."""
        return sum(work.evaluations for work in (*self.running, *self.waiting))


def planned_rows(plan: Plan) -> float:
    """The rows of logits that a plan draws, about."""
    samples, holes = len(plan.schedules), plan.canvas.count(None)
    if not holes:
        return 0.0
    digits = plan.schedules[0].sub_tokens // holes
    return samples * rows_of(holes, digits, plan.network_evaluations / samples)


def rows_of(holes: int, digits: int, groups: float) -> float:
    """The rows that one sample draws, expected: in each group one for every position of which it holds a digit.

    Args:
        holes: positions to generate.
        digits: sub-tokens a token.
        groups: at least 1.
    """
    return groups * holes * (1 - (1 - 1 / groups) ** digits)
