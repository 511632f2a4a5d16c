"""Where the time of a network evaluation goes, and what metrics cost beside it.

The parts of an evaluation of B samples (trunk, head with draw, everything else), and everything that the engine counts
of such a tick. Medians, in turns. The samples stand on full canvases at different steps of their schedules and reveal
one sub-token each. `python -m benchmarks.papers wall-clock` measures whole samples beside the papers' algorithm.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rich.progress import track
from unmask_diffusion import ActiveSample, Model
from unmask_service.engine.tasks import noise_spread
from unmask_service.forecast import Tick
from unmask_service.metrics import Metrics

from benchmarks.evaluation.clock import Clock, Parts, timed_evaluation
from benchmarks.harness import Numbers, Table
from benchmarks.models import add_model_options, described, open_model, plan_of, spread_out

WARM_UP = 3
PARTS = ("trunk", "head and draw", "rest")


@dataclass(frozen=True)
class Evaluation:
    """Milliseconds of one evaluation of B samples, medians: the whole, its parts, the metrics of its tick."""

    samples: int
    total: float
    parts: Parts
    metrics: float

    @property
    def row(self) -> list[str]:
        parts = [f"{self.parts[part]:.2f} ({self.parts[part] / self.total:.0%})" for part in PARTS]
        times = f"{self.total:.2f}", *parts, f"{self.total / self.samples:.2f}"
        return [str(self.samples), *times, f"{1000 * self.metrics:.1f} ({self.metrics / self.total:.2%})"]


def count_all(metrics: Metrics, samples: Sequence[ActiveSample]) -> None:
    """Count what the engine counts of a tick in which each sample reveals a sub-token."""
    now = time.time()
    metrics.count_evaluation(0.01)
    for phase in ("trunk", "draw", "publish"):
        metrics.count_phase(phase, 0.01)
    metrics.count_round_trip("append", 0.001)
    for _ in samples:
        metrics.count_reveal(now, now - 0.01, now - 1, 1)
    metrics.count_rounds((1, 1) for _ in samples)
    count, tokens = len(samples), sum(sample.plan.length for sample in samples)
    size = {"tokens": tokens, "rows": count, "groups": count, "lane_tokens": tokens, "lane_rows": count}
    happened = Tick(requests=count, samples=count, **size)
    metrics.count_tick(happened, noise_spread([(None, sample) for sample in samples]))  # type: ignore[misc]


def measure_evaluation(model: Model, samples: int, rounds: int) -> Evaluation:
    """Time evaluations of samples that are spread over their schedules, and the metrics of their ticks."""
    plan, metrics = plan_of(model, samples, seed=1), Metrics("benchmark")
    measured = []
    for turn in range(rounds + WARM_UP):
        active = spread_out(model, plan, (turn + 0.5) / (rounds + WARM_UP))
        parts, clock = timed_evaluation(model, active), Clock()
        clock.timed("metrics", count_all)(metrics, active)
        measured.append(parts | clock.seconds)
    medians = {name: 1000 * median(each[name] for each in measured[WARM_UP:]) for name in ("total", "metrics", *PARTS)}
    return Evaluation(samples, medians.pop("total"), metrics=medians.pop("metrics"), parts=medians)


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32], help="B of the evaluations")
    parser.add_argument("--rounds", type=int, default=64, help="evaluations timed for each B (default: 64)")


def measured(arguments: argparse.Namespace) -> Numbers:
    model = open_model(arguments)
    batches = track(arguments.batches, description="evaluations")
    evaluations = [measure_evaluation(model, samples, arguments.rounds) for samples in batches]
    columns = ["B", "ms", *PARTS, "ms a sample", "metrics, µs"]
    print(Table("One network evaluation", columns, [each.row for each in evaluations]))
    return {"model": described(model), "milliseconds_an_evaluation": evaluations}
