"""Where the time of a network evaluation goes.

The parts of an evaluation of B samples: trunk, head with draw, and everything else (medians). The samples stand on full
canvases at different steps of their schedules and reveal one sub-token each. What whole samples cost beside the papers'
algorithm is an experiment: `python -m benchmarks.papers wall-clock`.
"""

import argparse
from dataclasses import dataclass
from statistics import median

from rich.progress import track
from unmask_diffusion import Model

from benchmarks.evaluation.clock import Parts, timed_evaluation
from benchmarks.harness import Numbers, Table
from benchmarks.models import add_model_options, described, open_model, plan_of, spread_out

WARM_UP = 3
PARTS = ("trunk", "head and draw", "rest")


@dataclass(frozen=True)
class Evaluation:
    """Milliseconds of one evaluation of B samples: medians of the whole and of its parts."""

    samples: int
    total: float
    parts: Parts


def measure_evaluation(model: Model, samples: int, rounds: int) -> Evaluation:
    """Time evaluations of samples that are spread over their schedules."""
    plan = plan_of(model, samples, seed=1)
    shifts = [(turn + 0.5) / (rounds + WARM_UP) for turn in range(rounds + WARM_UP)]
    measured = [timed_evaluation(model, spread_out(model, plan, shift)) for shift in shifts][WARM_UP:]
    medians = {name: 1000 * median(each[name] for each in measured) for name in ("total", *PARTS)}
    return Evaluation(samples, medians.pop("total"), medians)


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32], help="B of the evaluations")
    parser.add_argument("--rounds", type=int, default=64, help="evaluations timed for each B (default: 64)")


def measured(arguments: argparse.Namespace) -> Numbers:
    model = open_model(arguments)
    batches = track(arguments.batches, description="evaluations")
    evaluations = [measure_evaluation(model, samples, arguments.rounds) for samples in batches]
    rows = []
    for each in evaluations:
        parts = [f"{each.parts[part]:.2f} ({each.parts[part] / each.total:.0%})" for part in PARTS]
        rows.append([str(each.samples), f"{each.total:.2f}", *parts, f"{each.total / each.samples:.2f}"])
    print(Table("One network evaluation", ["B", "ms", *PARTS, "ms a sample"], rows))
    return {"model": described(model), "milliseconds_an_evaluation": evaluations}
