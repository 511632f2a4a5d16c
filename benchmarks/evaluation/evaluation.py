"""What a network evaluation costs, against the papers' algorithm and against its own matrix products, in one run.

    --size official   the official networks' size with random weights (12 blocks, hidden 768, L 1024, C 50257, l 4,
                      b 15): one sample, everything masked, one sub-token revealed
    --size small      the model that ships: eight samples spread over their schedules, one sub-token each
    --size cifar10    the published image network of CIFAR-10: one and four pictures, against bare convolutions

Our evaluation, its bare matrix products and one step of the papers' sampler (`papers_sampler.py`: dense filter over
[L, l, C], all rows through the head, float64 noise for every class, float32 network) take turns, so that load on the
machine disturbs all of them; the figures are medians. Nothing is cached between evaluations. Peak memory is that of a
process that only evaluates. The official size takes 2 GiB and a few minutes.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from benchmarks.evaluation.clock import Parts
from benchmarks.evaluation.papers_sampler import PAPERS_PARTS
from benchmarks.evaluation.pictures import measured_pictures
from benchmarks.evaluation.rows import Limits, Row, measure, measure_half_revealed, measure_on_gpu
from benchmarks.evaluation.sizes import PICTURES, Size, add_size_options, dtypes_here, sizes_of
from benchmarks.harness import Figure, Numbers, Table
from benchmarks.models import prepare

GIB = 1 << 30
SHOWN = ("trunk", "products", "attention", "elementwise", "head and draw", "rest")


def figures_of(
    size: str, rows: Sequence[Row], half_revealed: Mapping[str, Any], gpu: Mapping[str, Any]
) -> list[Figure]:
    first = rows[0]  # in the dtype that the server chooses
    if size == "small":
        return [
            Figure("small model, B = 8: times faster than the papers' step", first.ratio_to_reference, "at least", 5),
            Figure("small model, B = 8: share outside the trunk", first.outside_the_trunk, "at most", 0.05),
        ]
    figures = [Figure(f"official size, {first.dtype}: times bare products", first.ratio_to_matmul, "at most", 1.4)]
    for row in rows:
        bound = 20 if row.dtype == "bfloat16" else 4
        measure = f"official size, {row.dtype}: times faster than the papers' step"
        figures.append(Figure(measure, row.ratio_to_reference, "at least", bound))
    share = half_revealed["head_and_draw_share"]
    figures.append(Figure("official size, half revealed: share of head and draw", share, "at most", 0.02))
    if first.peak_bytes is not None:
        figures.append(Figure("official size: GiB resident", first.peak_bytes / GIB, "at most", 0.8))
    if gpu:
        fraction = gpu["fraction_of_matmul_limit"]
        figures.append(Figure("official size, GPU, B = 16: of its trunk's products", fraction, "at least", 0.6))
    return figures


def tables(rows: Sequence[Row], reference: Parts, limits: Limits, about: str) -> list[Table]:
    times, work = [], []
    for row in rows:
        parts = row.split | row.inside_the_trunk
        times.append([row.dtype, f"{1000 * row.seconds:.1f}", *(f"{parts[part] / row.seconds:.1%}" for part in SHOWN)])
        bare = ", ".join(f"{kind} {1000 * seconds:.1f}" for kind, seconds in row.bare_products.items())
        peak = "?" if row.peak_bytes is None else f"{row.peak_bytes / GIB:.2f}"
        done = f"{row.flops / 1e9:.1f}", f"{row.bytes_moved / 1e9:.2f}", f"{row.fraction_of_limit:.0%}"
        work.append([row.dtype, bare, *done, peak])
    products = ["dtype", "bare products, ms", "GFLOP", "GB moved", "of the machine's limit", "peak GiB"]
    step = [f"{reference[part]:.3g}" for part in ("total", *PAPERS_PARTS)]
    rates = [f"{rate / 1e9:.0f} GFLOP/s" for rate in limits.product_rates.values()]
    return [
        Table(about, ["dtype", "ms", *SHOWN], times),
        Table("Bare matrix products", products, work),
        Table("The papers' step, seconds", ["total", *PAPERS_PARTS], [step]),
        Table("Limits", [*limits.product_rates, "copy"], [[*rates, f"{limits.copy_bandwidth / 1e9:.1f} GB/s"]]),
    ]


def add_options(parser: argparse.ArgumentParser) -> None:
    add_size_options(parser)
    parser.add_argument("--rounds", type=int, default=9, help="evaluations of each kind (default: 9)")
    parser.add_argument("--reference-rounds", type=int, default=3, help="steps of the papers' sampler (default: 3)")


def measured(arguments: argparse.Namespace) -> Numbers:
    """The numbers of the first size, and those of the other under its name."""
    if arguments.size == PICTURES:
        prepare(arguments)
        return measured_pictures(arguments.rounds)
    first, *others = [measured_at(size, arguments) for size in sizes_of(arguments)]
    for other in others:
        first["figures"] += other.pop("figures")
        first[other["size"]] = other
    return first


def measured_at(size: Size, arguments: argparse.Namespace) -> Numbers:
    models = {dtype: size.model(dtype) for dtype in dtypes_here()}
    rows, reference, limits = measure(size, models, arguments.rounds, arguments.reference_rounds)
    half_revealed, gpu = {}, {}
    if size.name == "official":
        half_revealed = measure_half_revealed(next(iter(models.values())), arguments.rounds)
        gpu = measure_on_gpu() if torch.cuda.is_available() else {}
    for table in tables(rows, reference, limits, f"{size.name} size, B = {size.samples}"):
        print(table)
    return {
        "size": size.name,
        "samples": size.samples,
        **asdict(rows[0]),
        "rows": rows,
        "reference": reference,
        "limits": limits,
        "half_revealed": half_revealed or "measured at official size only",
        "gpu": gpu or "not measured: only at official size, where torch sees a GPU",
        "figures": figures_of(size.name, rows, half_revealed, gpu),
    }
