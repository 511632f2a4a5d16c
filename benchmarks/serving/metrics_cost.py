"""What metrics cost: everything that the engine counts in a tick, against the network evaluation of that tick.

The samples stand on full canvases at different steps of their schedules and reveal one sub-token each. Medians, both
measured in turns in one run.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from unmask_diffusion import ActiveSample, Model, evaluate
from unmask_service.engine.tasks import noise_spread
from unmask_service.forecast import Tick
from unmask_service.metrics import Metrics

from benchmarks.harness import Numbers, Table
from benchmarks.models import add_model_options, described, open_model, plan_of, spread_out

WARM_UP = 3


@dataclass(frozen=True)
class Cost:
    """What a tick costs."""

    samples: int
    evaluation_ms: float
    metrics_us: float
    share: float  # of the metrics in the evaluation


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


def measure(model: Model, samples: int, repeats: int) -> Cost:
    metrics = Metrics("benchmark")
    plan = plan_of(model, samples, seed=1)
    shifts = [(turn + 0.5) / (repeats + WARM_UP) for turn in range(repeats + WARM_UP)]
    evaluations, counts = [], []
    for shift in shifts:
        active = spread_out(model, plan, shift)
        evaluations.append(seconds_of(evaluate, model, active))
        counts.append(seconds_of(count_all, metrics, active))
    evaluation, counting = median(evaluations[WARM_UP:]), median(counts[WARM_UP:])
    return Cost(samples, 1000 * evaluation, 1e6 * counting, counting / evaluation)


def seconds_of(function: Callable[..., object], *arguments: object) -> float:
    begun = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - begun


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16], help="samples of a tick (default: 1 16)")
    parser.add_argument("--repeats", type=int, default=64, help="ticks timed for each (default: 64)")


def measured(arguments: argparse.Namespace) -> Numbers:
    model = open_model(arguments)
    costs = [measure(model, samples, arguments.repeats) for samples in arguments.batches]
    rows = [
        [str(each.samples), f"{each.evaluation_ms:.2f}", f"{each.metrics_us:.1f}", f"{each.share:.2%}"]
        for each in costs
    ]
    print(Table("Counting a tick, against its evaluation", ["samples", "evaluation, ms", "metrics, us", "share"], rows))
    return {"model": described(model), "ticks": costs}
