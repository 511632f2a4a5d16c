"""What a network evaluation costs, against the papers' algorithm and against its own matrix products, in one run.

    --size official   the official networks' sizes with random weights (12 blocks, hidden 768, L 1024, C 50257, l 4,
                      b 15): one sample, everything masked, one sub-token revealed
    --size small      the model that ships: eight samples spread over their schedules, one sub-token each

Ours, its bare matrix products and one step of the papers' sampler (`papers_reference`: dense filter over [L, l, C],
all rows through the head, float64 noise for every class, float32 network) take turns, so that what disturbs the
machine disturbs all of them; medians are told. Nothing is kept from one evaluation to the next. Peak memory is that of
a process that does nothing but evaluate. Official size takes 2 GiB and a few minutes.

    python -m benchmarks.evaluation [--size official|small|both] [--json [FILE]]
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.clock import Parts
from benchmarks.evaluation_gpu import measure_on_gpu
from benchmarks.evaluation_rows import Limits, Row, measure, measure_half_revealed
from benchmarks.figures import Figure, table_of
from benchmarks.machine import machine
from benchmarks.options import parser_of, run_benchmark
from benchmarks.papers_reference import PAPERS_PARTS
from benchmarks.sizes import Size, add_size_options, dtypes_here, sizes_of

GIB = 1 << 30
SHOWN = ("trunk", "products", "attention", "elementwise", "head and draw", "rest")


def figures_of(
    size: str, rows: Sequence[Row], half_revealed: Mapping[str, Any], gpu: Mapping[str, Any]
) -> list[Figure]:
    """What is claimed; the first row is that of the dtype which the server chooses."""
    first = rows[0]
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
    """What is printed beside the figures."""
    first = Table("dtype", "ms", *SHOWN, title=about)
    second = Table("dtype", "bare products, ms", "GFLOP", "GB moved", "of the machine's limit", "peak GiB")
    for row in rows:
        parts = row.split | row.inside_the_trunk
        shares = [f"{parts[part] / row.seconds:.1%}" for part in SHOWN]
        first.add_row(row.dtype, f"{1000 * row.seconds:.1f}", *shares)
        bare = ", ".join(f"{kind} {1000 * seconds:.1f}" for kind, seconds in row.bare_products.items())
        peak = "?" if row.peak_bytes is None else f"{row.peak_bytes / GIB:.2f}"
        work = f"{row.flops / 1e9:.1f}", f"{row.bytes_moved / 1e9:.2f}", f"{row.fraction_of_limit:.0%}"
        second.add_row(row.dtype, bare, *work, peak)
    third = Table("the papers' step, s", *PAPERS_PARTS)
    third.add_row(f"{reference['total']:.3g}", *(f"{reference[part]:.3g}" for part in PAPERS_PARTS))
    fourth = Table("limits", *limits.product_rates, "copy")
    rates = [f"{rate / 1e9:.0f} GFLOP/s" for rate in limits.product_rates.values()]
    fourth.add_row("", *rates, f"{limits.copy_bandwidth / 1e9:.1f} GB/s")
    return [first, second, third, fourth]


def measured(size: Size, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure everything at one size and print it."""
    models = {dtype: size.model(dtype) for dtype in dtypes_here()}
    rows, reference, limits = measure(size, models, arguments.rounds, arguments.reference_rounds)
    half_revealed, gpu = {}, {}
    if size.name == "official":
        half_revealed = measure_half_revealed(next(iter(models.values())), arguments.rounds)
        gpu = measure_on_gpu() if torch.cuda.is_available() else {}
    about = f"{size.name} size, B = {size.samples}; {machine()}"
    for table in tables(rows, reference, limits, about):
        Console().print(table)
    figures = figures_of(size.name, rows, half_revealed, gpu)
    Console().print(table_of(figures))
    return {
        "size": size.name,
        "samples": size.samples,
        "machine": machine(),
        **asdict(rows[0]),
        "rows": [asdict(row) for row in rows],
        "reference": reference,
        "limits": asdict(limits),
        "half_revealed": half_revealed or "measured at official size only",
        "gpu": gpu or "not measured: official size, and where torch sees a GPU, only",
        "figures": [each.as_json() for each in figures],
    }


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = parser_of(__doc__)
    add_size_options(parser)
    parser.add_argument("--rounds", type=int, default=9, help="evaluations of each kind (default: 9)")
    parser.add_argument("--reference-rounds", type=int, default=3, help="steps of the papers' sampler (default: 3)")
    return parser


def main(given: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    run_benchmark(options(), all_measured, given)


def all_measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """What is to be written of all sizes that are asked for: the first one's, and the others' by their names."""
    first, *others = [measured(size, arguments) for size in sizes_of(arguments)]
    for other in others:
        first["figures"] += other.pop("figures")
        first[other["size"]] = other
    return first


if __name__ == "__main__":
    main()
