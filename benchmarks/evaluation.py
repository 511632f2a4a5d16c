"""Where the time of a network evaluation goes, and what exact sampling costs beside a thousand time steps, in one run.

First the parts of an evaluation of B samples on full canvases, each at another place of its schedule and revealing
one sub-token: trunk, head, draw and everything else (medians). Then the seconds for a sample, batches of B:

  exact          first-hitting, one sub-token an evaluation
  ancestral      T equal time steps; idle steps are skipped and only a group's rows are drawn
  papers, cache  T steps, all positions drawn in each; the network is evaluated after steps that changed something
  papers         T steps, the network evaluated and all positions drawn in each

The first two are whole runs. The papers' steps are measured at `--reference-steps` evenly spread times, on canvases
masked as the forward process masks them, and scaled to T; the line with the cache is made of the same measurements
and the number of steps that change something (Proposition A.1). All of them run the same network in the same dtype.

    python -m benchmarks.evaluation [--model tales] [--batches 1 8 32] [--json FILE]
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import mean, median

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from unmask_diffusion import ActiveSample, GenerationRequest, Model, Plan, evaluate, initial_state, make_plan, sample

from benchmarks.clock import Clock, clocks_around
from benchmarks.machine import machine
from benchmarks.options import add_model_options, described, open_model, parser_of, write_json
from benchmarks.papers_reference import PapersSampler, step_times

WARM_UP = 3
PARTS = ("trunk", "head", "draw", "rest")
PAPERS_PARTS = ("network", "filter", "draw", "unmask")


@dataclass(frozen=True)
class Evaluation:
    """Milliseconds of one evaluation of B samples: medians of the whole and of its parts."""

    samples: int
    total: float
    trunk: float
    head: float
    draw: float
    rest: float


@dataclass(frozen=True)
class Cost:
    """What one way to sample costs.

    Attributes:
        samples: B, drawn together.
        sampler: one of the four above.
        network_evaluations: of the batch.
        seconds_a_sample: of wall-clock time, for the batch and divided by B.
        times_exact: the same divided by that of the exact sampler.
        parts: of a step in milliseconds, where it was measured.
    """

    samples: int
    sampler: str
    network_evaluations: float
    seconds_a_sample: float
    times_exact: float = 1.0
    parts: dict[str, float] | None = None


def plan_of(model: Model, samples: int, seed: int, steps: int | None = None) -> Plan:
    """A plan for full, empty canvases: exact, or ancestral with `steps`."""
    sampler = {"name": "ancestral" if steps else "first_hitting", "steps": steps}
    fields = {"n": samples, "max_tokens": model.denoiser.length, "seed": seed, "sampler": sampler}
    return make_plan(model, GenerationRequest.model_validate(fields))


def on_its_way(model: Model, plan: Plan, index: int, step: int) -> ActiveSample:
    """A sample `step` groups into its schedule, what is revealed being any tokens."""
    chance = torch.Generator().manual_seed(index * 1_000_003 + step)
    tokens = torch.randint(model.denoiser.vocabulary_size, (plan.length,), generator=chance)
    sub_tokens = [each for group in plan.schedules[index].groups[:step] for each in group]
    digits = initial_state(model, plan).flatten()
    digits[sub_tokens] = model.sub_tokenizer.encode(tokens).flatten()[sub_tokens]
    return ActiveSample(plan, index, digits.view(plan.length, -1), step)


def measure_evaluation(model: Model, samples: int, rounds: int) -> Evaluation:
    """Time evaluations of samples whose places in their schedules are spread evenly, and over the rounds too."""
    plan = plan_of(model, samples, seed=1)
    steps = len(plan.schedules[0].groups)
    measured: list[dict[str, float]] = []
    with clocks_around(model) as (timed, clock):
        for turn in range(rounds + WARM_UP):
            shift = (turn + 0.5) / (rounds + WARM_UP)
            batch = [on_its_way(model, plan, i, int((i + shift) / samples * steps)) for i in range(samples)]
            clock.seconds.clear()
            clock.timed("total", evaluate)(timed, batch)
            total = clock.seconds.pop("total")
            rest = total - sum(clock.seconds.values())
            measured.append({**clock.seconds, "rest": rest, "total": total})
    medians = {name: 1000 * median(each[name] for each in measured[WARM_UP:]) for name in ("total", *PARTS)}
    return Evaluation(samples, **medians)


def measure_ours(model: Model, samples: int, steps: int | None, seed: int) -> Cost:
    """Draw a batch by the exact sampler, or the ancestral one with `steps`."""
    plan = plan_of(model, samples, seed, steps)
    begun = time.perf_counter()
    sample(model, **plan.request.model_dump())
    seconds = time.perf_counter() - begun
    evaluations = max(len(schedule.groups) for schedule in plan.schedules)
    return Cost(samples, "ancestral" if steps else "exact", evaluations, seconds / samples)


@torch.inference_mode()
def measure_papers(model: Model, samples: int, steps: int, measured_steps: int, seed: int) -> list[Cost]:
    """Time steps of the papers' sampler and scale them to all: with and without the cache."""
    papers = PapersSampler(model.denoiser, model.sub_tokenizer, seed)
    shape = (samples, model.denoiser.length)
    clock = Clock()
    spread = [int((i + 0.5) * steps / measured_steps) for i in range(measured_steps)]
    for number, step in enumerate([spread[0]] * WARM_UP + spread):
        if number == WARM_UP:
            clock.seconds.clear()
        now, then = step_times(steps)[step]
        digits = model.sub_tokenizer.encode(torch.randint(model.denoiser.vocabulary_size, shape))
        sub_tokens = torch.where(torch.rand(digits.shape) < now, model.sub_tokenizer.mask_id, digits)
        logits = clock.timed("network", papers.logits)(sub_tokens)
        probabilities = clock.timed("filter", papers.probabilities)(logits, sub_tokens)
        classes = clock.timed("draw", papers.draw_everywhere)(probabilities)
        clock.timed("unmask", papers.unmask)(sub_tokens, classes, now, then)
    parts = {name: clock.seconds[name] / measured_steps for name in PAPERS_PARTS}
    changing = steps * (1 - (1 - 1 / steps) ** (samples * model.denoiser.length * digits.shape[-1]))
    cached = changing * (parts["network"] + parts["filter"]) + steps * (parts["draw"] + parts["unmask"])
    milliseconds = {name: 1000 * seconds for name, seconds in parts.items()}
    return [
        Cost(samples, "papers, cache", changing, cached / samples),
        Cost(samples, "papers", steps, steps * sum(parts.values()) / samples, parts=milliseconds),
    ]


def compare(model: Model, samples: int, steps: int, measured_steps: int, repeats: int) -> list[Cost]:
    """The four samplers beside each other, in turns; means over the repeats."""
    runs = []
    for seed in track(range(repeats), description=f"samplers, B = {samples}"):
        ours = [measure_ours(model, samples, None, seed), measure_ours(model, samples, steps, seed)]
        runs.append(ours + measure_papers(model, samples, steps, measured_steps, seed))
    means = [mean(cost.seconds_a_sample for cost in costs) for costs in zip(*runs, strict=True)]
    return [
        replace(cost, seconds_a_sample=seconds, times_exact=seconds / means[0])
        for cost, seconds in zip(runs[-1], means, strict=True)
    ]


def tables(evaluations: Sequence[Evaluation], costs: Sequence[Cost], about: str) -> list[Table]:
    """What is printed."""
    first = Table("B", "ms", *PARTS, "ms a sample", title=f"one network evaluation, {about}")
    for each in evaluations:
        shares = [f"{getattr(each, part):.2f} ({getattr(each, part) / each.total:.0%})" for part in PARTS]
        first.add_row(str(each.samples), f"{each.total:.2f}", *shares, f"{each.total / each.samples:.2f}")
    second = Table("B", "sampler", "evaluations", "seconds a sample", "times exact", title="whole samples")
    third = Table("B", *PAPERS_PARTS, title="one step of the papers' sampler, ms")
    for cost in costs:
        figures = f"{cost.network_evaluations:.0f}", f"{cost.seconds_a_sample:.2f}", f"{cost.times_exact:.2f}"
        second.add_row(str(cost.samples), cost.sampler, *figures)
        if cost.parts:
            third.add_row(str(cost.samples), *(f"{cost.parts[part]:.2f}" for part in PAPERS_PARTS))
    return [first, second, third]


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = parser_of(__doc__)
    add_model_options(parser)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32], help="B of the evaluations")
    parser.add_argument("--rounds", type=int, default=64, help="evaluations timed for each B (default: 64)")
    parser.add_argument("--sampler-batches", type=int, nargs="+", default=[1, 8], help="B of the whole samples")
    parser.add_argument("--steps", type=int, default=1024, help="T of the ancestral samplers (default: 1024)")
    parser.add_argument("--reference-steps", type=int, default=64, help="of the papers' steps, timed (default: 64)")
    parser.add_argument("--repeats", type=int, default=3, help="of the samplers' comparison (default: 3)")
    return parser


def main(given: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    arguments = options().parse_args(given)
    model = open_model(arguments)
    evaluations = [
        measure_evaluation(model, samples, arguments.rounds)
        for samples in track(arguments.batches, description="evaluations")
    ]
    costs = [
        cost
        for samples in arguments.sampler_batches
        for cost in compare(model, samples, arguments.steps, arguments.reference_steps, arguments.repeats)
    ]
    about = f"{described(model)}; {machine()}"
    for table in tables(evaluations, costs, about):
        Console().print(table)
    figures = {
        "model": described(model),
        "machine": machine(),
        "milliseconds_an_evaluation": [asdict(each) for each in evaluations],
        "time_steps": arguments.steps,
        "reference_steps_measured": arguments.reference_steps,
        "repeats": arguments.repeats,
        "samplers": [asdict(cost) for cost in costs],
    }
    write_json(arguments.json, figures)


if __name__ == "__main__":
    main()
