"""What drafts are worth: rounds, evaluations and right drafts against lanes; seconds of a sample alone."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from statistics import mean, median

import numpy as np
from rich.progress import track
from unmask_diffusion import (
    ActiveSample,
    Ask,
    GenerationRequest,
    Model,
    Outcome,
    Plan,
    Reveal,
    evaluate_lanes,
    make_plan,
)

from benchmarks.evaluation.clock import Parts, in_turns
from benchmarks.papers.chain import random_chain


@dataclass(frozen=True)
class Course:
    """How a sample came to its end."""

    outcomes: list[Outcome] = field(default_factory=list)  # its log; an error can only be the last
    lanes: list[int] = field(default_factory=list)  # that it had in each round


def samples_of(model: Model, plan: Plan) -> list[ActiveSample]:
    """All samples of a plan, before their first reveals."""
    return [ActiveSample.start(model, plan, index) for index in range(len(plan.schedules))]


def take_to_ends(
    model: Model, samples: Sequence[ActiveSample], lanes: Iterator[int], places: int | None = None
) -> list[Course]:
    """Take samples to their ends.

    Args:
        model: to evaluate.
        samples: the first of them begin, the next join when one ends.
        lanes: of a sample in a round, at most, and so on without end; a guess less is made for its next round.
        places: samples in a round (default: all).
    """
    courses = {id(each): Course() for each in samples}
    left = list(samples)
    while left:
        now = left[:places]
        asks = [Ask(each, count, foresight=count - 1) for each, count in zip(now, lanes, strict=False)]
        for each, done in zip(now, evaluate_lanes(model, asks), strict=True):
            courses[id(each)].outcomes.extend(done.outcomes)
            courses[id(each)].lanes.append(done.lanes)
            if not _go_on(each, done.outcomes, done.guesses):
                left.remove(each)
    return list(courses.values())


def _go_on(sample: ActiveSample, outcomes: Sequence[Outcome], guesses: tuple[Reveal, ...]) -> bool:
    """Write what a round did into its sample; whether there is more to do."""
    for outcome in outcomes:
        if not isinstance(outcome, Reveal):
            return False
        sample.reveal(outcome)
    sample.guesses = guesses
    return not sample.finished


@dataclass(frozen=True)
class Rounds:
    """Means of a sample."""

    model: str  # its name
    lanes: int  # a round, at most
    planned: int  # evaluations of the exact sampler, one a sub-token
    rounds: float  # evaluations one after the other that it took
    evaluations: float  # lanes of all rounds


@dataclass(frozen=True)
class Acceptance:
    """How often a guess is right that was made so many reveals before its turn."""

    model: str  # its name
    distance: int  # reveals between the state that is guessed at and the one that decides
    guesses: int  # that were made
    share: float  # of them that were right


def markov_models(length: int) -> Iterator[tuple[str, Model]]:
    """One Markov chain's exact posterior with one and with two digits a token: they differ in l and nothing else."""
    chain = random_chain()
    for digits in (1, 2):
        yield f"Markov chain, l = {digits}", chain.model(digits, length)


def exact_plan(model: Model, tokens: int, samples: int, seed: int) -> Plan:
    """Exact samples of a number of tokens from nothing, at temperature 1."""
    return make_plan(model, GenerationRequest.model_validate({"max_tokens": tokens, "n": samples, "seed": seed}))


def count_rounds(name: str, model: Model, plan: Plan, lanes: Sequence[int]) -> list[Rounds]:
    """Take the plan's samples to their ends with each number of lanes."""
    counted = []
    for count in track(lanes, description=f"rounds, {name}"):
        courses = take_to_ends(model, samples_of(model, plan), repeat(count))
        rounds, evaluations = mean(len(each.lanes) for each in courses), mean(sum(each.lanes) for each in courses)
        counted.append(Rounds(name, count, plan.network_evaluations // len(courses), rounds, evaluations))
    return counted


def count_right(name: str, model: Model, plan: Plan, distances: Sequence[int]) -> list[Acceptance]:
    """Guess at every state of the plan's samples, and compare with what was drawn when the turn came."""
    made, right = dict.fromkeys(distances, 0), dict.fromkeys(distances, 0)
    for guesses, log in _guesses_at_every_state(model, plan, max(distances)):
        for distance in distances:
            pairs = [
                (each[distance - 1], log[step + distance]) for step, each in enumerate(guesses) if len(each) >= distance
            ]
            made[distance] += len(pairs)
            right[distance] += sum(guess == drawn for guess, drawn in pairs)
    return [Acceptance(name, each, made[each], right[each] / made[each]) for each in distances if made[each]]


def _guesses_at_every_state(
    model: Model, plan: Plan, foresight: int
) -> Iterator[tuple[list[tuple[Reveal, ...]], list[Reveal]]]:
    """For each sample what was guessed at each of its states, and its log."""
    samples = samples_of(model, plan)
    guesses: list[list[tuple[Reveal, ...]]] = [[] for _ in samples]
    logs: list[list[Reveal]] = [[] for _ in samples]
    for _ in track(plan.schedules[0].groups, description="guesses"):
        for i, done in enumerate(evaluate_lanes(model, [Ask(each, foresight=foresight) for each in samples])):
            reveal = done.outcomes[0]
            if not isinstance(reveal, Reveal):
                raise RuntimeError(reveal.message)
            samples[i].reveal(reveal)
            logs[i].append(reveal)
            guesses[i].append(done.guesses)
    yield from zip(guesses, logs, strict=True)


# in each turn, of each number of lanes, along the schedule
EVALUATIONS = 8


@dataclass(frozen=True)
class Latency:
    """One exact sample alone, medians."""

    tokens: int  # generated
    lanes: int  # a round, at most; 1 is off
    rounds: float  # that it took
    evaluation_ms: float  # of one network evaluation with so many lanes, measured by itself, no guess being made
    seconds: float  # from the first evaluation to the last
    saved: float  # seconds without speculation, times these
    allowed: float  # the same by rounds and `evaluation_ms` alone, as if guesses and everything else were free


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
