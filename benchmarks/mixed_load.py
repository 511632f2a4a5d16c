"""What users feel: latency against load, with lengths, samplers and numbers of samples mixed.

A closed loop of 1, 2, 4, … clients, one level after the other, each for some seconds: exact and coarse first-hitting,
ancestral with half the length's time steps and with a single one (which draws its whole canvas at once), one sample or
two, three quarters streamed. Between unmasks is the time between two events of the same sample, by the client's clock.

    python -m benchmarks.mixed_load [--levels 1 4 16] [--seconds 10] [--json FILE] [--png FILE]
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from unmask_bench.load import Load
from unmask_bench.report import Figures, plot, summarise, sweep_report

from benchmarks.figures import Figure, table_of
from benchmarks.machine import machine
from benchmarks.options import add_model_options, described, open_model, parser_of, run_benchmark
from benchmarks.workloads import mixed_samplers, put_load, server_of

AT = 16


def figures_of(points: Sequence[Figures]) -> list[Figure]:
    """That of the level that is nearest to 16 clients."""
    point = min(points, key=lambda each: abs(each["max_concurrency"] - AT))
    if not point["median_itl_ms"]:
        return []
    spread = point["p99_itl_ms"] / point["median_itl_ms"]
    return [Figure("time between unmasks, mixed load, p99 over median", spread, "at most", 3.0)]


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = parser_of(__doc__)
    add_model_options(parser)
    parser.add_argument("--levels", type=int, nargs="+", default=[1, 4, 16], help="clients (default: 1 4 16)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each level, and its last ends (default: 10)")
    parser.add_argument("--png", type=Path, metavar="FILE", help="write the plot here")
    return parser


def main(given: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    run_benchmark(options(), measured, given)


def measured(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure and print; what is to be written."""
    model = open_model(arguments)
    mix = mixed_samplers(model.denoiser.length)
    with server_of(arguments) as server:
        put_load(server.url, mix, Load(2, requests=4), "warm-up")
        loads = [Load(level, seconds=arguments.seconds) for level in arguments.levels]
        points = [summarise(put_load(server.url, mix, load, load.label)) for load in loads]
    figures = figures_of(points)
    Console().print(sweep_report(points))
    Console().print(table_of(figures, f"{described(model)}; {machine()}"))
    if arguments.png:
        plot(points, arguments.png)
    about = {"model": described(model), "machine": machine(), "seconds": arguments.seconds}
    return about | {"levels": points, "figures": [each.as_json() for each in figures]}


if __name__ == "__main__":
    main()
