"""Twenty times more than the server can do: it must refuse with 429, keep its memory, and go on as fast as before.

First the server is saturated by a closed loop of more clients than a tick has room for (streams of one to four samples
of one length, since of mixed ones the long would fill the ticks by and by, and a token is given, since blank canvases
are known): the evaluations a second that it does then are its capacity. Then requests arrive at 20 times the rate
that this capacity can serve (an open loop, Poisson) for a minute; then it is saturated once more, because machines
drift. Throughput is what the server's counter of evaluations says, resident memory what the process says, both read
every second once the queue is full.

    python -m benchmarks.overload [--seconds 60] [--json FILE]
"""

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from rich.console import Console
from unmask_bench.load import Load, Mix, Range
from unmask_bench.report import Figures, summarise

from benchmarks.figures import Figure, table_of
from benchmarks.machine import machine
from benchmarks.metrics import Moment, evaluations_a_second, growth, resident, watching
from benchmarks.options import add_model_options, described, open_model, parser_of, run_benchmark
from benchmarks.workloads import evaluations_a_request, load_on, server_of

TIMES = 20.0
# the largest n: clients on the same processor must not be what takes its time
SAMPLES = 4
REFUSED = "429 "


@dataclass(frozen=True)
class Phase:
    """A load and what the server did meanwhile.

    Attributes:
        name: of the load.
        evaluations_a_second: by the server's counter.
        resident, growth: mean MiB, and MiB from beginning to end by linear regression.
        summary: what the clients saw.
    """

    name: str
    evaluations_a_second: float
    resident: float
    growth: float
    summary: Figures


async def phase(url: str, mix: Mix, load: Load, name: str, settle: float) -> Phase:
    """Put a load on the server; its first `settle` seconds count for nothing."""
    async with watching(url, every=min(1.0, settle / 5)) as moments:
        run = await load_on(url, mix, load, name)
    steady = settled(moments, settle)
    return Phase(name, evaluations_a_second(steady), resident(steady), growth(steady), summarise(run))


def settled(moments: Sequence[Moment], settle: float) -> Sequence[Moment]:
    """Those after the first `settle` seconds, but at least the last two."""
    first = next((i for i, each in enumerate(moments) if each.at >= moments[0].at + settle), len(moments))
    return moments[min(first, len(moments) - 2) :]


def measure(url: str, mix: Mix, evaluations: float, arguments: argparse.Namespace) -> list[Phase]:
    """Saturation, overload, saturation. `evaluations` are those of a request, in the mean."""
    short, settle = max(2.0, arguments.seconds / 5), max(1.0, arguments.seconds / 12)

    async def all_phases() -> list[Phase]:
        saturated = Load(arguments.concurrency, seconds=short + settle, abandon=True)
        before = await phase(url, mix, saturated, "saturation", settle)
        rate = arguments.times * max(1.0, before.evaluations_a_second) / evaluations
        filling = max(settle, arguments.seconds / 3)  # until the queue is full, memory grows as it must
        flood = Load(request_rate=rate, seconds=arguments.seconds + filling, abandon=True)
        during = await phase(url, mix, flood, f"{arguments.times:g} times as much", filling)
        return [before, during, await phase(url, mix, saturated, "saturation again", settle)]

    return asyncio.run(all_phases())


def figures_of(phases: Sequence[Phase], times: float) -> list[Figure]:
    """Errors, memory, throughput."""
    before, during, after = phases
    kinds: dict[str, int] = during.summary["errors_by_kind"]
    others = sum(count for kind, count in kinds.items() if not kind.startswith(REFUSED))
    capacity = mean([before.evaluations_a_second, after.evaluations_a_second])
    return [
        Figure(f"{times:g}x overload, errors other than 429", others, "at most", 0),
        Figure(
            f"{times:g}x overload, growth of resident memory, share", during.growth / during.resident, "at most", 0.02
        ),
        Figure(
            f"{times:g}x overload, throughput of saturation's", during.evaluations_a_second / capacity, "at least", 0.95
        ),
    ]


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = parser_of(__doc__)
    add_model_options(parser)
    parser.add_argument("--seconds", type=float, default=60.0, help="of overload (default: 60)")
    parser.add_argument("--times", type=float, default=TIMES, help="of the capacity (default: 20)")
    parser.add_argument("--concurrency", type=int, default=96, help="clients that saturate the server (default: 96)")
    return parser


def main(given: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    run_benchmark(options(), measured, given)


def measured(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure and print; what is to be written."""
    model = open_model(arguments)
    length = max(1, model.denoiser.length // 2)
    mix = Mix(max_tokens=Range(length, length), n=Range(1, SAMPLES), common={"prompt": [0]})
    with server_of(arguments) as server:
        phases = measure(server.url, mix, evaluations_a_request(model, mix), arguments)
    figures = figures_of(phases, arguments.times)
    console = Console(highlight=False)
    for each in phases:
        errors = ", ".join(f"{count} x {kind}" for kind, count in each.summary["errors_by_kind"].items()) or "none"
        console.print(f"{each.name}: {each.evaluations_a_second:.0f} evaluations a second, errors: {errors}")
    console.print(table_of(figures, f"{arguments.seconds:g} s, {described(model)}; {machine()}"))
    about = {"model": described(model), "machine": machine(), "seconds": arguments.seconds, "times": arguments.times}
    results = {"phases": [vars(each) for each in phases], "figures": [each.as_json() for each in figures]}
    return about | results


if __name__ == "__main__":
    main()
