"""What lanes buy one client: seconds of a sample, against what the measured cost of a lane allows."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from statistics import mean, median

import numpy as np
from unmask_diffusion import ActiveSample, Ask, Model, Reveal, evaluate_lanes

from benchmarks.clock import Parts, in_turns
from benchmarks.speculation_course import samples_of, take_to_ends
from benchmarks.speculation_rounds import exact_plan

# in each turn, of each number of lanes, along the schedule
EVALUATIONS = 8


@dataclass(frozen=True)
class Latency:
    """One exact sample alone, medians.

    Attributes:
        tokens: generated.
        lanes: a round, at most; 1 is off.
        rounds: that it took.
        evaluation_ms: of one network evaluation with so many lanes, measured by itself, no guess being made.
        seconds: from the first evaluation to the last.
        saved: seconds without speculation, times these.
        allowed: the same by rounds and `evaluation_ms` alone, as if guesses and everything else were free.
    """

    tokens: int
    lanes: int
    rounds: float
    evaluation_ms: float
    seconds: float
    saved: float
    allowed: float


class Stopwatch:
    """Times samples of one length, a new seed each turn, and evaluations along the way of one of them."""

    def __init__(self, model: Model, tokens: int) -> None:
        self._model = model
        self._tokens = tokens
        self._plan = exact_plan(model, tokens, samples=1, seed=0)
        (course,) = take_to_ends(model, samples_of(model, self._plan), repeat(1))
        self._log = [each for each in course.outcomes if isinstance(each, Reveal)]
        self.lanes_of_rounds: dict[tuple[int, int], list[int]] = {}

    def time_sample(self, lanes: int, turn: int) -> Parts:
        """Seconds of a sample; remembers the lanes of its rounds by (lanes, turn)."""
        samples = samples_of(self._model, exact_plan(self._model, self._tokens, samples=1, seed=turn))
        begun = time.perf_counter()
        (course,) = take_to_ends(self._model, samples, repeat(lanes))
        seconds = time.perf_counter() - begun
        self.lanes_of_rounds[lanes, turn] = course.lanes
        return {"seconds": seconds}

    def time_evaluation(self, lanes: int, turn: int) -> Parts:
        """Mean seconds of an evaluation with so many lanes, at other places of the schedule each turn."""
        places = [(i + turn * 0.618 % 1) / EVALUATIONS for i in range(EVALUATIONS)]
        last = max(0, len(self._log) - lanes)
        return {"seconds": mean(self._time_one(int(place * (last + 1)), lanes) for place in places)}

    def _time_one(self, step: int, lanes: int) -> float:
        """Seconds of the evaluation of the state before `step` and the ones that follow it in the log."""
        sample = ActiveSample.start(self._model, self._plan, 0)
        for reveal in self._log[:step]:
            sample.reveal(reveal)
        sample.guesses = tuple(self._log[step : step + lanes - 1])
        begun = time.perf_counter()
        evaluate_lanes(self._model, [Ask(sample, lanes)])
        return time.perf_counter() - begun


def measure_latency(model: Model, tokens: int, lanes: Sequence[int], turns: int) -> list[Latency]:
    """Time samples of one length with each number of lanes, in turns with evaluations of that many lanes."""
    watch, every = Stopwatch(model, tokens), sorted({1, *lanes})
    ways: dict[str, Callable[[int], Parts]] = {}
    for count in every:
        ways[f"evaluation {count}"] = partial(watch.time_evaluation, count)
        ways[f"sample {count}"] = partial(watch.time_sample, count)
    medians = in_turns(ways, dict.fromkeys(ways, turns), f"{tokens} tokens")
    costs = [medians[f"evaluation {count}"]["seconds"] for count in every]
    seconds = {count: medians[f"sample {count}"]["seconds"] for count in every}
    least = {count: _least_seconds(watch, count, turns, every, costs) for count in every}
    return [
        Latency(
            tokens,
            count,
            median(len(watch.lanes_of_rounds[count, turn]) for turn in range(turns)),
            1000 * cost,
            seconds[count],
            seconds[1] / seconds[count],
            least[1] / least[count],
        )
        for count, cost in zip(every, costs, strict=True)
    ]


def _least_seconds(watch: Stopwatch, lanes: int, turns: int, measured: Sequence[int], costs: Sequence[float]) -> float:
    """Median over the turns of what their rounds cost; numbers of lanes between the measured ones are interpolated."""
    rounds = (watch.lanes_of_rounds[lanes, turn] for turn in range(turns))
    return median(float(np.interp(each, measured, costs).sum()) for each in rounds)
