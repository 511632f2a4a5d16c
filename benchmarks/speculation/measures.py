"""What drafts are worth: rounds, evaluations and right drafts against lanes; seconds of a sample alone."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from statistics import mean, median

import numpy as np
from rich.progress import track
from unmask_diffusion import ActiveSample, GenerationRequest, Model, Plan, Reveal, SampleError, evaluate, make_plan

from benchmarks.evaluation.clock import Parts, in_turns
from benchmarks.papers.chain import random_chain

EVALUATIONS = 8  # timed in each turn for each number of lanes, along the schedule


@dataclass(frozen=True)
class Run:
    """A finished sample."""

    log: list[Reveal | SampleError] = field(default_factory=list)  # an error can only be the last entry
    lanes: list[int] = field(default_factory=list)  # of each round


@dataclass(frozen=True)
class Rounds:
    """Means of a sample."""

    model: str
    lanes: int  # of a round, at most
    planned: int  # evaluations of the exact sampler, one for each sub-token
    rounds: float  # evaluations one after the other
    evaluations: float  # lanes of all rounds


@dataclass(frozen=True)
class Acceptance:
    """The share of right drafts at one distance."""

    model: str
    distance: int  # reveals between the state that drafts and the state that draws
    drafts: int
    share: float  # right ones among them


@dataclass(frozen=True)
class Latency:
    """One exact sample alone, medians."""

    tokens: int  # generated
    lanes: int  # of a round, at most; 1: no speculation
    rounds: float
    evaluation_ms: float  # of a network evaluation with this many lanes and no drafting
    seconds: float  # from the first evaluation to the last
    saved: float  # seconds without speculation divided by these
    allowed: float  # the same by rounds and `evaluation_ms`, as if drafts and everything else were free


def samples_of(model: Model, plan: Plan) -> list[ActiveSample]:
    return [ActiveSample.start(model, plan, index) for index in range(len(plan.schedules))]


def run_samples(
    model: Model, samples: Sequence[ActiveSample], lanes: Iterator[int], places: int | None = None
) -> list[Run]:
    """Draw samples to their ends, at most `places` in a round; `lanes` gives the limit of each sample and round."""
    runs = {id(each): Run() for each in samples}
    left = list(samples)
    while left:
        now = left[:places]
        budgets = [count for _, count in zip(now, lanes, strict=False)]
        for each, outcome in zip(now, evaluate(model, now, budgets), strict=True):
            run = runs[id(each)]
            run.log.extend(entry for entry in each.apply(outcome) if isinstance(entry, Reveal | SampleError))
            run.lanes.append(outcome.states)
            if each.finished or isinstance(run.log[-1], SampleError):
                left.remove(each)
    return list(runs.values())


def markov_models(length: int) -> Iterator[tuple[str, Model]]:
    """One Markov chain's exact posterior with one and with two digits a token: the models differ in l alone."""
    chain = random_chain()
    for digits in (1, 2):
        yield f"Markov chain, l = {digits}", chain.model(digits, length)


def exact_plan(model: Model, tokens: int, samples: int, seed: int) -> Plan:
    """Exact samples without a prompt, at temperature 1."""
    return make_plan(model, GenerationRequest.model_validate({"max_tokens": tokens, "n": samples, "seed": seed}))


def count_rounds(name: str, model: Model, plan: Plan, lanes: Sequence[int]) -> list[Rounds]:
    """Draw the plan's samples with each number of lanes."""
    counted = []
    for count in track(lanes, description=f"rounds, {name}"):
        runs = run_samples(model, samples_of(model, plan), repeat(count))
        rounds, evaluations = mean(len(each.lanes) for each in runs), mean(sum(each.lanes) for each in runs)
        counted.append(Rounds(name, count, plan.network_evaluations // len(runs), rounds, evaluations))
    return counted


def count_right(name: str, model: Model, plan: Plan, distances: Sequence[int]) -> list[Acceptance]:
    """Draft at every state of the plan's samples, and compare the drafts with the later draws."""
    made, right = dict.fromkeys(distances, 0), dict.fromkeys(distances, 0)
    samples = samples_of(model, plan)
    drafts: list[list[tuple[Reveal, ...]]] = [[] for _ in samples]
    logs: list[list[Reveal]] = [[] for _ in samples]
    for _ in track(plan.schedules[0].steps, description="drafts"):
        outcomes = evaluate(model, samples, [max(distances) + 1] * len(samples))
        for sample, outcome, log, drafted in zip(samples, outcomes, logs, drafts, strict=True):
            (entry,) = outcome.entries
            if not isinstance(entry, Reveal):
                raise RuntimeError(f"a sample of {name} cannot continue: {entry}")
            sample.reveal(entry)  # without the drafts: one lane in the next round too
            log.append(entry)
            drafted.append(outcome.drafts)
    for log, drafted in zip(logs, drafts, strict=True):
        for distance in distances:
            pairs = [
                (each[distance - 1], step + distance) for step, each in enumerate(drafted) if len(each) >= distance
            ]
            made[distance] += len(pairs)
            right[distance] += sum(draft == log[step] for draft, step in pairs)
    return [Acceptance(name, each, made[each], right[each] / made[each]) for each in distances if made[each]]


class Stopwatch:
    """Times samples of one length, a new seed each turn, and evaluations along the schedule of one of them."""

    def __init__(self, model: Model, tokens: int) -> None:
        self._model = model
        self._tokens = tokens
        self._plan = exact_plan(model, tokens, samples=1, seed=0)
        (run,) = run_samples(model, samples_of(model, self._plan), repeat(1))
        self._log = [each for each in run.log if isinstance(each, Reveal)]
        self.lanes_of_rounds: dict[tuple[int, int], list[int]] = {}  # by (lanes, turn)

    def time_sample(self, lanes: int, turn: int) -> Parts:
        samples = samples_of(self._model, exact_plan(self._model, self._tokens, samples=1, seed=turn))
        begun = time.perf_counter()
        (run,) = run_samples(self._model, samples, repeat(lanes))
        seconds = time.perf_counter() - begun
        self.lanes_of_rounds[lanes, turn] = run.lanes
        return {"seconds": seconds}

    def time_evaluation(self, lanes: int, turn: int) -> Parts:
        """Mean seconds of an evaluation with this many lanes, at different steps of the schedule each turn."""
        places = [(i + turn * 0.618 % 1) / EVALUATIONS for i in range(EVALUATIONS)]
        last = max(0, len(self._log) - lanes)
        return {"seconds": mean(self._time_one(int(place * (last + 1)), lanes) for place in places)}

    def _time_one(self, step: int, lanes: int) -> float:
        """Seconds of the evaluation of the state before `step` and of the states that follow it in the log."""
        sample = ActiveSample.start(self._model, self._plan, 0)
        for reveal in self._log[:step]:
            sample.reveal(reveal)
        sample.drafts = tuple(self._log[step : step + lanes - 1])
        begun = time.perf_counter()
        evaluate(self._model, [sample], [lanes])
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
    found = []
    for count, cost in zip(every, costs, strict=True):
        rounds = median(len(watch.lanes_of_rounds[count, turn]) for turn in range(turns))
        saved, allowed = seconds[1] / seconds[count], least[1] / least[count]
        found.append(Latency(tokens, count, rounds, 1000 * cost, seconds[count], saved, allowed))
    return found


def _least_seconds(watch: Stopwatch, lanes: int, turns: int, measured: Sequence[int], costs: Sequence[float]) -> float:
    """Median over the turns of the cost of their rounds, interpolated between the measured numbers of lanes."""
    rounds = (watch.lanes_of_rounds[lanes, turn] for turn in range(turns))
    return median(float(np.interp(each, measured, costs).sum()) for each in rounds)
