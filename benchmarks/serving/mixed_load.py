"""Latency against load, with mixed lengths, samplers and numbers of samples.

A closed loop of 1, 4 and 16 clients, one level after the other: exact and coarse first-hitting, ancestral with half the
length's time steps and with a single one (which draws the whole canvas at once), one sample or two, 3/4 of the requests
streamed. "Between unmasks" is the time between two events of the same sample, by the client's clock.
"""

import argparse
from pathlib import Path

from rich.console import Console
from unmask_bench.load import Load
from unmask_bench.report import plot, summarise, sweep_report

from benchmarks.harness import Figure, Numbers
from benchmarks.models import add_model_options, described, open_model
from benchmarks.serving.server import mixed_samplers, put_load, server_of

AT = 16  # clients of the level that gives the figure


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser)
    parser.add_argument("--levels", type=int, nargs="+", default=[1, 4, 16], help="clients (default: 1 4 16)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each level (default: 10)")
    parser.add_argument("--png", type=Path, metavar="FILE", help="write the plot here")


def measured(arguments: argparse.Namespace) -> Numbers:
    model = open_model(arguments)
    mix = mixed_samplers(model.denoiser.length)
    with server_of(arguments) as server:
        put_load(server.url, mix, Load(2, requests=4), "warm-up")
        loads = [Load(level, seconds=arguments.seconds) for level in arguments.levels]
        points = [summarise(put_load(server.url, mix, load, load.label)) for load in loads]
    Console().print(sweep_report(points))
    if arguments.png:
        plot(points, arguments.png)
    point, figures = min(points, key=lambda each: abs(each["max_concurrency"] - AT)), []
    if point["median_itl_ms"]:
        spread = point["p99_itl_ms"] / point["median_itl_ms"]
        figures.append(Figure("time between unmasks, mixed load, p99 over median", spread, "at most", 3.0))
    about = {"model": described(model), "seconds": arguments.seconds}
    return about | {"levels": points, "figures": figures}
