"""Where the time of a network evaluation goes, and what exact sampling costs beside a thousand time steps, in one run.

First the parts of an evaluation of B samples on full canvases, each at another place of its schedule and revealing
one sub-token: trunk, head with draw, and everything else (medians). Then the seconds for a sample, batches of B:

  exact          first-hitting, one sub-token an evaluation
  ancestral      T equal time steps; idle steps are skipped and only a group's rows are drawn
  papers, cache  T steps, all positions drawn in each; the network is evaluated after steps that changed something
  papers         T steps, the network evaluated and all positions drawn in each

The first two are whole runs. The papers' steps are measured at `--reference-steps` evenly spread times, on canvases
masked as the forward process masks them, and scaled to T; the line with the cache is made of the same measurements
and the number of steps that change something (Proposition A.1). All of them run the same network in the same dtype.

    python -m benchmarks.sampler_cost [--model tales] [--batches 1 8 32] [--json FILE]
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
from unmask_diffusion import Model, sample

from benchmarks.clock import Parts, timed_evaluation
from benchmarks.machine import machine
from benchmarks.models import plan_of, spread_out
from benchmarks.options import add_model_options, described, open_model, parser_of, run_benchmark
from benchmarks.papers_reference import PAPERS_PARTS, PapersSampler, step_times, timed_step

WARM_UP = 3
PARTS = ("trunk", "head and draw", "rest")


@dataclass(frozen=True)
class Evaluation:
    """Milliseconds of one evaluation of B samples: medians of the whole and of its parts."""

    samples: int
    total: float
    parts: Parts


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


def measure_evaluation(model: Model, samples: int, rounds: int) -> Evaluation:
    """Time evaluations of samples whose places in their schedules are spread evenly, and over the rounds too."""
    plan = plan_of(model, samples, seed=1)
    shifts = [(turn + 0.5) / (rounds + WARM_UP) for turn in range(rounds + WARM_UP)]
    measured = [timed_evaluation(model, spread_out(model, plan, shift)) for shift in shifts][WARM_UP:]
    medians = {name: 1000 * median(each[name] for each in measured) for name in ("total", *PARTS)}
    return Evaluation(samples, medians.pop("total"), medians)


def measure_ours(model: Model, samples: int, steps: int | None, seed: int) -> Cost:
    """Draw a batch by the exact sampler, or the ancestral one with `steps`."""
    plan = plan_of(model, samples, seed, steps)
    begun = time.perf_counter()
    sample(model, **plan.request.model_dump())
    seconds = time.perf_counter() - begun
    evaluations = max(len(schedule.groups) for schedule in plan.schedules)
    return Cost(samples, "ancestral" if steps else "exact", evaluations, seconds / samples)


def measure_papers(model: Model, samples: int, steps: int, measured_steps: int, seed: int) -> list[Cost]:
    """Time steps of the papers' sampler and scale them to all: with and without the cache."""
    papers = PapersSampler(model.denoiser, model.sub_tokenizer, seed)
    shape = (samples, model.denoiser.length)
    measured = []
    spread = [int((i + 0.5) * steps / measured_steps) for i in range(measured_steps)]
    for step in [spread[0]] * WARM_UP + spread:
        now, then = step_times(steps)[step]
        digits = model.sub_tokenizer.encode(torch.randint(model.denoiser.vocabulary_size, shape))
        sub_tokens = torch.where(torch.rand(digits.shape) < now, model.sub_tokenizer.mask_id, digits)
        measured.append(timed_step(papers, sub_tokens, now, then))
    parts = {name: mean(each[name] for each in measured[WARM_UP:]) for name in PAPERS_PARTS}
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
        shares = [f"{each.parts[part]:.2f} ({each.parts[part] / each.total:.0%})" for part in PARTS]
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
    run_benchmark(options(), measured, given)


def measured(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure, print and plot; what is to be written."""
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
    return {
        "model": described(model),
        "machine": machine(),
        "milliseconds_an_evaluation": [asdict(each) for each in evaluations],
        "time_steps": arguments.steps,
        "reference_steps_measured": arguments.reference_steps,
        "repeats": arguments.repeats,
        "samplers": [asdict(cost) for cost in costs],
    }


if __name__ == "__main__":
    main()
