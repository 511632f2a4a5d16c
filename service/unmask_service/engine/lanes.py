"""How many lanes each sample gets: free places in a tick buy latency, and a full tick spends nothing on speculation.

The number follows from measurements: the pace of evaluations, and the acceptance rate of a sample's drafts.
"""

import heapq
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal
from weakref import WeakKeyDictionary

from unmask_diffusion import Outcome, Work

from unmask_service.engine.tasks import Place
from unmask_service.forecast import Capacity, Pace, Tick

# as many lanes as pay for themselves; or so many for each sample, where they fit
Speculation = Literal["auto", "off"] | int

MOST_LANES = 32  # more drafts have never paid: few runs of right ones are longer
MEMORY = 0.9  # weight that a sample's earlier drafts keep from round to round
FADING = 1 / 16  # share by which a sample without drafts moves, in each round, towards the rate of the others
PRIOR_WEIGHT = 8.0  # number of drafts that the acceptance rate of the others counts as, for a new sample
# ticks without drafts before two lanes are tried, for two ticks: one makes the draft, one evaluates both lanes
PROBE_EVERY = 16
# share of the error of a canvas' cost that a comparison of two ticks corrects, where all lanes make the difference
PACE_LEARNING_RATE = 0.5
SMALLEST_SHARE = 0.01  # no part of a pace is believed to be less than this share of a tick


@dataclass(frozen=True)
class Acceptance:
    """How often a draft was right where those before it were. Older rounds count less."""

    right: float = 0.9 * PRIOR_WEIGHT  # drafts that were accepted
    tried: float = PRIOR_WEIGHT  # drafts that were verified

    @property
    def rate(self) -> float:
        return self.right / self.tried

    def after(self, accepted: int, lanes: int) -> "Acceptance":
        """The rate after a round: `accepted - 1` drafts were right; the next was wrong, unless there was none."""
        tried = min(accepted, lanes - 1)
        return Acceptance(MEMORY * self.right + accepted - 1, MEMORY * self.tried + tried) if tried else self

    def towards(self, other: "Acceptance", share: float) -> "Acceptance":
        right, tried = self.right + share * (other.right - self.right), self.tried + share * (other.tried - self.tried)
        return Acceptance(right, tried)

    def as_prior(self) -> "Acceptance":
        """The same rate with the weight that a new sample starts from."""
        return Acceptance(self.rate * PRIOR_WEIGHT, PRIOR_WEIGHT)


@dataclass(frozen=True)
class Candidate:
    """Work that has its place in the tick, and may get more lanes."""

    tokens: int  # of its canvases so far
    most_lanes: int  # no more lanes than that; 1 for work that cannot draft
    acceptance: Acceptance  # of its drafts
    rows: int = 1  # rows of logits that one of its steps needs, about


def paying_lanes(candidates: Sequence[Candidate], pace: Pace, tokens_per_tick: int) -> list[int]:
    """Give out lanes while one more pays: its sample gains more speed than all of them lose.

    Lane j of a sample is useful if its j drafts are all right: it adds rate^j to the g steps that the sample is
    expected to do, and its tokens and rows (its own and those of a draft) to the seconds of the tick. The lanes
    maximise the sum over samples of log(g / seconds), proportional fairness: steps a second alone would give all lanes
    to short canvases, whose lanes are cheap, and long ones would only see longer ticks. For one sample both are the
    same. Lanes are taken in the order of their gain for their cost, until one does not pay.

    Returns:
        Lanes for each, at least 1 each; all canvases together within `tokens_per_tick`, or one lane each.
    """
    lanes, steps = [1] * len(candidates), [1.0] * len(candidates)
    costs = [pace.token * each.tokens + 2 * each.rows * pace.row for each in candidates]
    tokens = sum(each.tokens for each in candidates)
    seconds = pace.seconds(tokens, sum(each.rows for each in candidates))

    def offer(i: int) -> tuple[float, int, float]:
        gain = math.log1p(candidates[i].acceptance.rate ** lanes[i] / steps[i])
        return -gain / costs[i], i, gain

    offers = [offer(i) for i, each in enumerate(candidates) if each.most_lanes > 1]
    heapq.heapify(offers)
    while offers:
        _, i, gain = heapq.heappop(offers)
        if gain <= len(candidates) * math.log1p(costs[i] / seconds):
            break
        if tokens + candidates[i].tokens > tokens_per_tick:
            continue
        steps[i] += candidates[i].acceptance.rate ** lanes[i]
        lanes[i] += 1
        seconds, tokens = seconds + costs[i], tokens + candidates[i].tokens
        if lanes[i] < min(MOST_LANES, candidates[i].most_lanes):
            heapq.heappush(offers, offer(i))
    return lanes


def fixed_lanes(candidates: Sequence[Candidate], wanted: int, tokens_per_tick: int) -> list[int]:
    """Give every sample the wanted number of lanes, one sample after the other, while the tick has room for them."""
    room = tokens_per_tick - sum(each.tokens for each in candidates)
    lanes = []
    for each in candidates:
        more = max(0, min(wanted - 1, each.most_lanes - 1, room // each.tokens))
        room -= more * each.tokens
        lanes.append(1 + more)
    return lanes


class Speculator:
    """Gives out the lanes of a tick, and learns what drafts are worth. No part of any request's state."""

    def __init__(self, speculation: Speculation) -> None:
        self._speculation = speculation
        # of steps as wide as these, to the power of two: wide ones are seldom guessed right
        self._of_width: defaultdict[int, Acceptance] = defaultdict(Acceptance)
        self._of_work: WeakKeyDictionary[Work, Acceptance] = WeakKeyDictionary()
        self._ticks_without_drafts = 0
        self._last: tuple[Tick, float] | None = None

    def budgets(self, turn: Mapping[Place, int], capacity: Capacity) -> list[int]:
        """The canvases that each place of a tick may use: those that it has taken, and lanes for drafts.

        A budget also says how many steps to draft: as many as would pay as lanes. They are evaluated in the next tick.
        """
        known = [*turn.values()]
        if self._speculation == "off":
            return known
        candidates = [
            Candidate(
                tokens=canvases * work.length,
                most_lanes=work.evaluations_left if work.can_draft else 1,
                acceptance=self._acceptance(work),
                rows=canvases * work.step_size,
            )
            for (_, work), canvases in turn.items()
        ]
        if isinstance(self._speculation, int):
            lanes = fixed_lanes(candidates, self._speculation, capacity.tokens_per_tick)
        else:
            lanes = paying_lanes(candidates, capacity.pace, capacity.tokens_per_tick)
            if max(lanes, default=1) > 1:
                self._ticks_without_drafts = 0
            else:
                self._probe(candidates, lanes, capacity.tokens_per_tick)
        return [max(pair) for pair in zip(known, lanes, strict=True)]

    def learn(self, works: Sequence[Work], budgets: Sequence[int], outcomes: Sequence[Outcome]) -> None:
        if self._speculation == "off":
            return
        for work, budget, outcome in zip(works, budgets, outcomes, strict=True):
            if not work.can_draft:
                continue
            width = work.step_size.bit_length()
            of_work, of_all = self._acceptance(work), self._of_width[width]
            if outcome.states > 1:
                of_work, of_all = (each.after(len(outcome.entries), outcome.states) for each in (of_work, of_all))
            elif budget == 1:
                of_work = of_work.towards(of_all.as_prior(), FADING)
            else:
                continue
            self._of_work[work], self._of_width[width] = of_work, of_all

    def learn_pace(self, capacity: Capacity, tick: Tick, seconds: float) -> Capacity:
        """Learn what a canvas costs from two ticks of the same work with different numbers of lanes.

        `Capacity.after` corrects the sum of a tick's costs. With one lane of one length any division of that sum into
        the evaluation's own cost and its canvases' explains it, and a wrong one would keep speculation off for ever.
        """
        last, self._last = self._last, (tick, seconds)
        if last is None or (tick.samples, tick.tokens) != (last[0].samples, last[0].tokens):
            return capacity
        pace, more = capacity.pace, tick.lane_tokens - last[0].lane_tokens
        if not more:
            return capacity
        found = (seconds - last[1] - pace.row * (tick.lane_rows - last[0].lane_rows)) / more
        weight = PACE_LEARNING_RATE * (more / max(tick.lane_tokens, last[0].lane_tokens)) ** 2
        token = pace.token + weight * (min(max(found, 0.0), 2 * pace.token) - pace.token)
        total = pace.evaluation + pace.token * tick.tokens  # the two parts of a tick with one lane each stay this
        token = min(max(token * tick.tokens, SMALLEST_SHARE * total), (1 - SMALLEST_SHARE) * total) / tick.tokens
        return replace(capacity, pace=Pace(total - token * tick.tokens, token, pace.row))

    def _probe(self, candidates: Sequence[Candidate], lanes: list[int], tokens_per_tick: int) -> None:
        """Now and then, give one sample a second lane although it is not expected to pay."""
        room = tokens_per_tick - sum(each.tokens for each in candidates)
        fits = [i for i, each in enumerate(candidates) if each.most_lanes > 1 and each.tokens <= room]
        self._ticks_without_drafts += 1
        if fits and self._ticks_without_drafts > PROBE_EVERY:
            lanes[fits[0]] = 2
            if self._ticks_without_drafts > PROBE_EVERY + 1:
                self._ticks_without_drafts = 0

    def _acceptance(self, work: Work) -> Acceptance:
        return self._of_work.get(work) or self._of_width[work.step_size.bit_length()].as_prior()
