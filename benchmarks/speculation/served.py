"""What speculation saves a server's clients, one alone and many at a time, against a server without it.

Two servers with the same model and the same requests, in turns: one client with 100 and with 24 tokens, then 16 streams
of mixed length at a time. Exact sampler, temperature 1. The figures are medians of the turns' ratios.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from unmask_bench.load import Load, Mix, Range

from benchmarks.harness import Figure, Numbers
from benchmarks.models import add_model_options, described, open_model
from benchmarks.serving.server import mixed_lengths, put_load, server_of

# claimed of the model that ships, on two cores
FASTER = {100: 1.5, 24: 2.5}
SATURATED = 0.98


@dataclass(frozen=True)
class Turn:
    """Seconds for the same requests, with speculation and without."""

    load: str  # what was asked
    on: float  # seconds
    off: float
    rounds: float  # of a request with speculation, in the mean
    evaluations: float

    @property
    def faster(self) -> float:
        return self.off / self.on


def turn(urls: tuple[str, str], name: str, mix: Mix, load: Load) -> Turn:
    on, off = (
        put_load(url, mix, load, f"{name}, speculation {word}") for url, word in zip(urls, ("auto", "off"), strict=True)
    )
    rounds, evaluations = (
        sum(each.counted("sampling", field) for each in on.records) / len(on.records)
        for field in ("rounds", "network_evaluations")
    )
    return Turn(name, on.seconds, off.seconds, rounds, evaluations)


def figures_of(turns: Sequence[Turn], alone: Sequence[int]) -> list[Figure]:
    figures = []
    for name in dict.fromkeys(each.load for each in turns):
        ratio = median(each.faster for each in turns if each.load == name)
        tokens = next((tokens for tokens in alone if name == of_alone(tokens)), None)
        if tokens is None:
            figures.append(Figure(f"{name}: throughput, times that without speculation", ratio, "at least", SATURATED))
        elif tokens in FASTER:
            figures.append(
                Figure(f"{name}: seconds without speculation, times with", ratio, "at least", FASTER[tokens])
            )
    return figures


def of_alone(tokens: int) -> str:
    return f"one client, {tokens} tokens"


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser)
    parser.add_argument("--tokens", type=int, nargs="+", default=[100, 24], help="of one client's requests")
    parser.add_argument("--alone", type=int, default=6, help="requests of one client, a turn (default: 6)")
    parser.add_argument("--concurrency", type=int, default=16, help="requests at a time (default: 16)")
    parser.add_argument("--requests", type=int, default=32, help="of mixed length, a turn (default: 32)")
    parser.add_argument("--repeats", type=int, default=3, help="turns (default: 3)")


def measured(arguments: argparse.Namespace) -> Numbers:
    model, places = open_model(arguments), arguments.concurrency
    length = model.denoiser.length
    loads = [(of_alone(n), Mix(max_tokens=Range(n, n)), Load(1, requests=arguments.alone)) for n in arguments.tokens]
    loads.append((f"{places} clients", mixed_lengths(length), Load(places, requests=arguments.requests)))
    with server_of(arguments, "--speculation", "auto") as on, server_of(arguments) as off:
        for url in (on.url, off.url):
            put_load(url, mixed_lengths(length), Load(places, requests=places), "warm-up")
        turns = [turn((on.url, off.url), *load) for _ in range(arguments.repeats) for load in loads]
    about = {"model": described(model), "concurrency": places, "requests": arguments.requests}
    return about | {"turns": turns, "figures": figures_of(turns, arguments.tokens)}
