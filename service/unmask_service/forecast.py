"""When a request will end: a forecast from the plans in the queue and the measured pace. Pure functions, no clock.

The engine claims requests by fair queueing between clients, those of one client in the order of their arrival. A tick
takes one sample of each claimed request, then a second, until its tokens are spent. So `outlook` plays the queue
through in ticks: a request is claimed when the end of another makes room. Later ticks are taken to be as full as they
are now, or as they have been recently if that is more, because under steady load a new request comes for each that
ends. (All evaluations in the queue divided by evaluations a second would be wrong by the number of requests that share
a tick.)
"""

import heapq
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from operator import itemgetter
from statistics import fmean

from unmask_diffusion import Plan, ScorePlan

from unmask_service.api_keys import NO_QUOTA, Quota

# Share of an evaluation's error that corrects the pace: a change of pace is learned in some ten evaluations.
LEARNING_RATE = 0.1
LARGEST_ERROR = 1.0  # one evaluation that the machine held up counts at most as twice as long as expected
SMALLEST_SHARE = 0.01  # no part of a pace starts below this share: a correction by a factor could never change a zero
MEMORY = 1 / 16  # weight of the last tick in the moving averages of a capacity


@dataclass(frozen=True)
class Pace:
    """Cost of a network evaluation in seconds, the work around it included. All parts are positive."""

    evaluation: float  # fixed cost
    token: float  # a token of the canvases that share the evaluation: the trunk
    row: float  # a row of logits that is drawn from: head and draw

    def seconds(self, tokens: float, rows: float) -> float:
        return self.evaluation + self.token * tokens + self.row * rows

    def after(self, tokens: float, rows: float, seconds: float) -> "Pace":
        """The pace corrected by one measured evaluation.

        A step of normalised least mean squares on relative errors: each part is corrected by a factor, in proportion
        to its share of the cost, so that none becomes negative.
        """
        parts = (self.evaluation, self.token * tokens, self.row * rows)
        expected = sum(parts)
        error = min(seconds / expected - 1, LARGEST_ERROR)
        step = LEARNING_RATE * error * expected / sum(part * part for part in parts)
        evaluation, token, row = (1 + step * part for part in parts)
        return Pace(self.evaluation * evaluation, self.token * token, self.row * row)


def first_pace(one: float, wide: float, many: float, tokens: int, canvases: int, rows: int) -> Pace:
    """The pace that three timed evaluations show, in seconds.

    `one` is of one canvas of so many tokens that draws one row, `wide` the same with `rows` rows, and `many` of
    `canvases` such canvases, a row each. With `canvases` 1, a canvas is taken to cost half of its evaluation; with
    `rows` less than 2, the cost of a row is unknown and set to the smallest share.
    """
    least = SMALLEST_SHARE * one
    row = max((wide - one) / (rows - 1), least / rows) if rows > 1 else least
    rest = max(one - row, least)
    more = canvases - 1
    canvas = max((many - one) / more - row if more else rest / 2, least)
    return Pace(evaluation=max(rest - canvas, least), token=canvas / tokens, row=row)


@dataclass(frozen=True)
class Work:
    """What one request still needs."""

    tokens: int  # tokens of one of its canvases: what one sample takes of a tick
    samples: int  # samples that are not complete; 0 if nothing is left to do
    evaluations: int  # network evaluations left, all samples
    rows: float  # rows of logits left to draw, expected
    client: str = ""  # name of the API key that it came with
    weight: float = 1.0  # of the client in fair queueing
    bounded: bool = False  # whether these are the most that there can be, an evaluation a sub-token

    @classmethod
    def of(cls, plan: Plan | ScorePlan, quota: Quota = NO_QUOTA) -> "Work":
        """The work of a whole plan, of a client with this quota; for a score, the most that it can take."""
        client = quota.client, quota.weight
        evaluations = plan.network_evaluations
        if isinstance(plan, ScorePlan):  # its states are known: any may share a tick
            return cls(plan.length, evaluations, evaluations, plan.rows, *client)
        samples, holes = len(plan.schedules), plan.canvas.count(None)
        if not holes:
            return cls(plan.length, 0, 0, 0.0, *client)
        rows = samples * rows_of_plan(plan, evaluations / samples)
        return cls(plan.length * plan.canvases, samples, evaluations, rows, *client, plan.request.sampler.by_bound)

    @property
    def cost(self) -> float:
        """By how much its client's turn moves on in fair queueing when it is claimed."""
        return max(1, self.evaluations) / self.weight

    def left(self, evaluations: int) -> "Work":
        """The rest of this work when so many evaluations are left."""
        share = evaluations / self.evaluations if self.evaluations else 0.0
        return replace(self, samples=min(self.samples, evaluations), evaluations=evaluations, rows=share * self.rows)

    def expected(self, reveals: float) -> "Work":
        """The same work where an evaluation with a bound reveals so many sub-tokens."""
        if not self.bounded:
            return self
        left = self.left(max(self.samples, round(self.evaluations / reveals)))
        return replace(left, bounded=False)


def rows_of_plan(plan: Plan, groups: float) -> float:
    """Expected number of rows that a sample of a plan draws in so many groups."""
    holes = plan.canvas.count(None)
    if plan.request.sampler.by_confidence:
        return plan.canvases * groups * holes / plan.blocks / 2  # each step looks at what is masked in its block
    times = plan.reveals / max(1, plan.sub_tokens)  # that a sub-token is revealed
    return plan.canvases * rows_of(holes, plan.units_a_token * times, groups, plan.blocks)


def rows_of(holes: int, digits: float, groups: float, blocks: int = 1) -> float:
    """Expected number of rows that one sample draws: in each group one for every position of which it holds a digit.

    There are `holes` positions to generate, with `digits` parts each that may be in different groups; `blocks` equal
    parts of the holes have their own share of the groups, at least one each.
    """
    missed: float = (1 - blocks / groups) ** digits
    return groups * holes / blocks * (1 - missed)


@dataclass(frozen=True)
class Tick:
    """What an engine did in one tick."""

    requests: int  # requests that took part
    samples: int  # their samples that took part
    tokens: int  # tokens, one canvas per sample
    rows: int  # rows of logits, one lane per sample
    groups: int  # groups revealed; more than one per sample where drafts were accepted
    lane_tokens: int  # tokens of the canvases of all lanes
    lane_rows: int  # rows drawn at all lanes, and for drafts
    bounded: int = 0  # samples in whose evaluations a bound decided
    revealed: int = 0  # sub-tokens that these revealed


@dataclass(frozen=True)
class Capacity:
    """What an engine does in a tick: its limit, its pace, and moving averages over recent ticks."""

    tokens_per_tick: int  # tokens that may share an evaluation
    pace: Pace
    company_tokens: float = 0.0  # tokens of other requests in the ticks of a request
    groups: float = 1.0  # groups that a sample reveals in a tick
    effort: float = 1.0  # cost of a tick over the cost with one lane per sample
    reveals: float = 1.0  # sub-tokens that an evaluation with a bound reveals

    @property
    def speed(self) -> float:
        """Groups a second with speculation over groups a second without."""
        return self.groups / self.effort

    def after(self, tick: Tick, seconds: float) -> "Capacity":
        """The capacity corrected by one tick and its duration."""
        company = (1 - 1 / tick.requests) * tick.tokens
        effort = self.pace.seconds(tick.lane_tokens, tick.lane_rows) / self.pace.seconds(tick.tokens, tick.rows)
        return Capacity(
            self.tokens_per_tick,
            self.pace.after(tick.lane_tokens, tick.lane_rows, seconds),
            self.company_tokens + MEMORY * (company - self.company_tokens),
            self.groups + MEMORY * (tick.groups / tick.samples - self.groups),
            self.effort + MEMORY * (effort - self.effort),
            self.reveals + MEMORY * (tick.revealed / tick.bounded - self.reveals) if tick.bounded else self.reveals,
        )


def mean_capacity(capacities: Sequence[Capacity]) -> Capacity | None:
    """Average capacity of one of several engines; None without any."""
    if not capacities:
        return None
    paces = [each.pace for each in capacities]
    return Capacity(
        min(each.tokens_per_tick for each in capacities),
        Pace(fmean(p.evaluation for p in paces), fmean(p.token for p in paces), fmean(p.row for p in paces)),
        fmean(each.company_tokens for each in capacities),
        fmean(each.groups for each in capacities),
        fmean(each.effort for each in capacities),
        fmean(each.reveals for each in capacities),
    )


@dataclass(frozen=True)
class Load:
    """The requests that have not ended, in the order of their arrival."""

    running: tuple[Work, ...]  # claimed by an engine
    waiting: tuple[Work, ...]  # not claimed
    capacity: Capacity | None  # of one engine; None before any engine has reported
    engines: int = 1  # engines that share the work
    # fair queueing: by how much the turns of clients are later than that of the last claim; 0 where left out
    ahead: Mapping[str, float] = field(default_factory=dict, compare=False)

    def in_turn(self, *more: Work) -> tuple[Work, ...]:
        """The waiting requests, and `more` that come now, in the order in which engines will claim them."""
        turns, timed = dict(self.ahead), []
        for each in (*self.waiting, *more):
            timed.append((turns.get(each.client, 0.0), each))
            turns[each.client] = timed[-1][0] + each.cost
        return tuple(each for _, each in sorted(timed, key=itemgetter(0)))

    def waiting_before(self, work: Work) -> tuple[Work, ...]:
        """The waiting requests that engines will claim before one that comes now."""
        new = replace(work)  # another object, whatever waits
        return tuple(takewhile(lambda each: each is not new, self.in_turn(new)))

    def of_one_engine(self) -> "Load":
        """The share of the least loaded engine: requests are dealt out one by one."""
        last = self.engines - 1
        return Load(self.running[last :: self.engines], self.waiting[last :: self.engines], self.capacity)

    def expected(self, reveals: float) -> "Load":
        """The load where an evaluation with a bound reveals so many sub-tokens."""
        running, waiting = (tuple(each.expected(reveals) for each in part) for part in (self.running, self.waiting))
        return replace(self, running=running, waiting=waiting)

    @property
    def evaluations(self) -> int:
        """Network evaluations that all requests still need."""
        return sum(work.evaluations for work in (*self.running, *self.waiting))


@dataclass(frozen=True)
class Outlook:
    """The time that a request which comes now will take."""

    start_seconds: float  # until an engine claims it
    group_seconds: float  # until each of its samples has revealed one more group
    row_seconds: float  # for each row that it draws
    speed: float = 1.0  # factor by which speculation shortens the groups
    reveals: float = 1.0  # sub-tokens that an evaluation with a bound reveals

    def seconds(self, groups: float, rows: float) -> float:
        """Seconds to the end if each sample has so many groups and all samples together draw so many rows.

        Speculation is not counted on: the fewer groups a plan has, the larger they are and the rarer drafts are right.
        """
        return self.start_seconds + groups * self.group_seconds + rows * self.row_seconds if groups else 0.0

    def seconds_of(self, work: Work) -> float:
        """Seconds to the end of the request as it is planned, with the recent gain of speculation."""
        work = work.expected(self.reveals)
        own = self.seconds(work.evaluations / max(1, work.samples), work.rows) - self.start_seconds
        return self.start_seconds + own / self.speed if work.samples else 0.0


def outlook(load: Load, capacity: Capacity, work: Work) -> Outlook:
    """The outlook of a request with this work if it comes now."""
    load = replace(load, waiting=load.waiting_before(work)).expected(capacity.reveals).of_one_engine()
    most = capacity.tokens_per_tick
    claimed, waiting = ([each for each in works if each.samples] for works in (load.running, load.waiting))
    taken = sum(each.tokens for each in claimed)
    while waiting and taken < most:  # the engine claims requests while a sample of each has room
        taken += waiting[0].tokens
        claimed.append(waiting.pop(0))
    level = samples_per_request(claimed, most)
    start = _ticks_until_claimed(claimed, waiting, most, level)
    if not start:
        level = samples_per_request([*claimed, work], most)
    own = min(work.samples, level)
    others = [(each, min(each.samples, level)) for each in claimed]
    tokens = max(capacity.company_tokens, sum(share * each.tokens for each, share in others))
    rows = sum(share * each.rows / each.evaluations for each, share in others)
    shared = max(work.tokens, min(most, tokens + own * work.tokens))
    tick = capacity.pace.seconds(shared, rows)
    group = tick * work.samples / own if work.samples else 0.0
    speed = min(capacity.speed, max(1.0, most / shared))  # a full tick has no room for more lanes
    return Outlook(start * tick / speed, group, capacity.pace.row, speed, capacity.reveals)


def seconds_of_work(load: Load, capacity: Capacity) -> float:
    """Seconds until all requests are done if no more come."""
    load = load.expected(capacity.reveals).of_one_engine()
    every = [work for work in (*load.running, *load.waiting) if work.samples]
    if not every:
        return 0.0
    tokens = min(capacity.tokens_per_tick, sum(each.tokens * each.samples for each in every))
    ticks = max(
        sum(each.tokens * each.evaluations for each in every) / tokens,
        max(each.evaluations / each.samples for each in every),
    )
    seconds = ticks * capacity.pace.seconds(tokens, 0) + sum(each.rows for each in every) * capacity.pace.row
    return seconds / capacity.speed


def seconds_until_an_end(load: Load, capacity: Capacity, client: str) -> float:
    """Seconds until the first of a client's requests ends; 0 if it has none."""
    ends = [(outlook(load, capacity, each), each) for each in load.running if each.client == client]
    seconds = [ahead.seconds_of(each) - ahead.start_seconds for ahead, each in ends]
    in_turn = load.in_turn()
    before = tuple(takewhile(lambda each: each.client != client, in_turn))
    first = in_turn[len(before) : len(before) + 1]
    seconds += [outlook(replace(load, waiting=before), capacity, each).seconds_of(each) for each in first]
    return max(0.0, min(seconds, default=0.0))


def most_groups_in_time(ahead: Outlook, rows: Callable[[int], float], most: int, seconds: float, least: int = 1) -> int:
    """The largest number of groups from `least` to `most` with which a request ends in time; 0 if `least` is too many.

    `rows` gives the rows that the request draws with so many groups; it never decreases.
    """
    fits = bisect_right(range(least, most + 1), seconds, key=lambda groups: ahead.seconds(groups, rows(groups)))
    return least - 1 + fits if fits else 0


def samples_per_request(requests: Sequence[Work], tokens_per_tick: int) -> float:
    """The largest number of samples that a tick can take of each request; inf if all samples fit.

    It is below 1 if not even one sample of each fits; then each request takes part in a share of the ticks.
    """
    left, tokens = float(tokens_per_tick), sum(each.tokens for each in requests)
    for each in sorted(requests, key=lambda work: work.samples):
        level = left / tokens
        if each.samples >= level:
            return level
        left -= each.samples * each.tokens
        tokens -= each.tokens
    return math.inf


def _ticks_until_claimed(claimed: Sequence[Work], waiting: Sequence[Work], tokens_per_tick: int, level: float) -> float:
    """Ticks until the engine claims one more request behind those that wait."""

    def ticks(work: Work) -> float:
        return work.evaluations / min(work.samples, level)

    ends = [(ticks(each), each.tokens) for each in claimed]
    heapq.heapify(ends)
    taken, now = sum(each.tokens for each in claimed), 0.0
    for each in (*waiting, None):
        while taken >= tokens_per_tick:
            now, tokens = heapq.heappop(ends)
            taken -= tokens
        if each is not None:
            heapq.heappush(ends, (now + ticks(each), each.tokens))
            taken += each.tokens
    return now
