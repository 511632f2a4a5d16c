"""20 times more load than the server can serve: it must refuse with 429, keep its memory and stay as fast.

1. A closed loop of more clients than a tick has room for saturates the server; its evaluations a second are its
   capacity. The streams have one to four samples of one length (with mixed lengths the long ones would fill the ticks
   after a while) and one given token (the first reveal of a blank canvas is cached).
2. Requests arrive at 20 times the rate that this capacity serves (open loop, Poisson) for a minute.
3. The server is saturated again, because machines drift.

Throughput is read from the server's counter of evaluations and memory from the process, every second once the queue is
full.
"""

import argparse
import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from unmask_bench.load import Load, Mix, Range
from unmask_bench.report import Figures, summarise

from benchmarks.harness import Figure, Numbers
from benchmarks.models import add_model_options, described, open_model
from benchmarks.serving.server import (
    evaluations_a_second,
    growth,
    load_on,
    resident,
    server_of,
    settled,
    watching,
)

TIMES = 20.0
SAMPLES = 4  # the largest n: the clients run on the same processor and must not use much of it
REFUSED = "429 "


@dataclass(frozen=True)
class Phase:
    """A load and the server's metrics during it."""

    name: str
    evaluations_a_second: float
    resident: float  # mean memory, MiB
    growth: float  # of memory from start to end by linear regression, MiB
    summary: Figures  # what the clients saw


async def phase(url: str, mix: Mix, load: Load, name: str, settle: float) -> Phase:
    """Put a load on the server; the first `settle` seconds do not count."""
    async with watching(url, every=min(1.0, settle / 5)) as moments:
        run = await load_on(url, mix, load, name)
    steady = settled(moments, settle)
    return Phase(name, evaluations_a_second(steady), resident(steady), growth(steady), summarise(run))


def measure(url: str, mix: Mix, evaluations: float, arguments: argparse.Namespace) -> list[Phase]:
    """Saturation, overload, saturation; `evaluations` is the mean of a request's network evaluations."""
    short, settle = max(2.0, arguments.seconds / 5), max(1.0, arguments.seconds / 12)

    async def all_phases() -> list[Phase]:
        saturated = Load(arguments.concurrency, seconds=short + settle, abandon=True)
        before = await phase(url, mix, saturated, "saturation", settle)
        rate = arguments.times * max(1.0, before.evaluations_a_second) / evaluations
        filling = max(settle, arguments.seconds / 3)  # memory grows until the queue is full
        flood = Load(request_rate=rate, seconds=arguments.seconds + filling, abandon=True)
        during = await phase(url, mix, flood, f"{arguments.times:g} times as much", filling)
        return [before, during, await phase(url, mix, saturated, "saturation again", settle)]

    return asyncio.run(all_phases())


def figures_of(phases: Sequence[Phase], times: float) -> list[Figure]:
    before, during, after = phases
    kinds: dict[str, int] = during.summary["errors_by_kind"]
    others = sum(count for kind, count in kinds.items() if not kind.startswith(REFUSED))
    throughput = during.evaluations_a_second / mean([before.evaluations_a_second, after.evaluations_a_second])
    growing = during.growth / during.resident
    return [
        Figure(f"{times:g}x overload, errors other than 429", others, "at most", 0),
        Figure(f"{times:g}x overload, growth of resident memory, share", growing, "at most", 0.02),
        Figure(f"{times:g}x overload, throughput of saturation's", throughput, "at least", 0.95),
    ]


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser)
    parser.add_argument("--seconds", type=float, default=60.0, help="of overload (default: 60)")
    parser.add_argument("--times", type=float, default=TIMES, help="of the capacity (default: 20)")
    parser.add_argument("--concurrency", type=int, default=96, help="clients that saturate the server (default: 96)")


def measured(arguments: argparse.Namespace) -> Numbers:
    model = open_model(arguments)
    length = max(1, model.denoiser.length // 2)
    mix = Mix(max_tokens=Range(length, length), n=Range(1, SAMPLES), common={"prompt": [0]})
    samples = [json.loads(mix.call(number).body)["n"] for number in range(1000)]
    digits = model.sub_tokenizer.sub_tokens_per_token
    with server_of(arguments) as server:
        phases = measure(server.url, mix, mean(samples) * length * digits, arguments)
    for each in phases:
        errors = ", ".join(f"{count} x {kind}" for kind, count in each.summary["errors_by_kind"].items()) or "none"
        print(f"{each.name}: {each.evaluations_a_second:.0f} evaluations a second, errors: {errors}")
    about = {"model": described(model), "seconds": arguments.seconds, "times": arguments.times}
    return about | {"phases": phases, "figures": figures_of(phases, arguments.times)}
