"""What batching is worth: a server under load against the bare trunk, and against one request at a time.

First 16 streams of mixed length at a time (exact sampler, a quarter of the model's length to the whole) through
`unmask serve`, and in this process the trunk alone on the same packed shapes: which samples share an evaluation follows
from their lengths, so the shapes are known; every few evaluations one is timed. Then canvases of 32 tokens, 16 at a
time and one at a time. Both pairs are measured in turns, and the medians of their ratios told. The server has its
clients (this process) beside it on the same processor.

    python -m benchmarks.throughput [--concurrency 16] [--requests 32] [--repeats 2] [--json FILE]
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median

import torch
from rich.console import Console
from rich.progress import track
from unmask_bench.load import Load, Mix, Range
from unmask_diffusion import Model

from benchmarks.figures import Figure, table_of
from benchmarks.machine import machine
from benchmarks.options import add_model_options, described, open_model, parser_of, run_benchmark
from benchmarks.workloads import lengths_of, mixed_lengths, put_load, server_of

SHORT = 32
WARM_UP = 3


@dataclass(frozen=True)
class Turn:
    """One repeat of everything. Seconds for the same evaluations by the server and by the trunk; evaluations a second.

    Attributes:
        server_seconds, trunk_seconds: of the load of mixed lengths.
        together, alone: with short canvases, many at a time and one at a time.
        client_cpu_share: of a core, by the clients of the load of mixed lengths.
    """

    server_seconds: float
    trunk_seconds: float
    together: float
    alone: float
    client_cpu_share: float


def ticks_of(lengths: Sequence[int], digits: int, places: int) -> Iterator[list[int]]:
    """The lengths of the canvases that share each evaluation, the next joining when one ends."""
    waiting = iter(lengths)
    active: list[list[int]] = []  # [length, evaluations left]
    while True:
        while len(active) < places and (length := next(waiting, None)) is not None:
            active.append([length, length * digits])
        if not active:
            return
        yield [length for length, _ in active]
        active = [[length, left - 1] for length, left in active if left > 1]


@torch.inference_mode()
def seconds_of_trunk(model: Model, ticks: Sequence[Sequence[int]], measured: int) -> float:
    """What the trunk alone takes for all ticks, `measured` of them timed, evenly spread."""
    every = max(1, len(ticks) // measured)
    chosen = ticks[every // 2 :: every]
    for tick in chosen[:WARM_UP]:
        seconds_of_tick(model, tick)
    seconds = [seconds_of_tick(model, tick) for tick in track(chosen, description="trunk alone", transient=True)]
    return sum(seconds) * len(ticks) / len(chosen)


def seconds_of_tick(model: Model, lengths: Sequence[int]) -> float:
    """One evaluation of the trunk: half-masked canvases, of each of which one row is read."""
    canvases = [half_masked(model, length) for length in lengths]
    rows = [torch.tensor([length // 2]) for length in lengths]
    begun = time.perf_counter()
    model.denoiser.trunk(canvases, rows)
    return time.perf_counter() - begun


def half_masked(model: Model, length: int) -> torch.Tensor:
    """Any canvas, every other token known: int64 [length, l]."""
    digits = model.sub_tokenizer.encode(torch.arange(length) % model.denoiser.vocabulary_size)
    digits[::2] = model.sub_tokenizer.mask_id
    return digits


def measure(model: Model, url: str, arguments: argparse.Namespace) -> Turn:
    """One turn."""
    places = arguments.concurrency
    mix = mixed_lengths(model.denoiser.length)
    lengths = lengths_of(mix, arguments.requests)
    ticks = list(ticks_of(lengths, model.sub_tokenizer.sub_tokens_per_token, places))
    loaded = put_load(url, mix, Load(places, requests=arguments.requests), "mixed lengths")
    trunk = seconds_of_trunk(model, ticks, arguments.measured_ticks)
    short = Mix(max_tokens=Range(*[min(SHORT, model.denoiser.length)] * 2))
    rates = []
    for concurrency, requests in ((1, max(1, places // 4)), (places, 3 * places)):
        run = put_load(url, short, Load(concurrency, requests=requests), f"{SHORT} tokens, {concurrency} at a time")
        rates.append(sum(each.counted("sampling", "network_evaluations") for each in run.records) / run.seconds)
    return Turn(loaded.seconds, trunk, rates[1], rates[0], loaded.cpu_seconds / loaded.seconds)


def figures_of(turns: Sequence[Turn]) -> list[Figure]:
    """Medians of the turns' ratios."""
    of_trunk = median(each.trunk_seconds / each.server_seconds for each in turns)
    of_one = median(each.together / each.alone for each in turns)
    return [
        Figure("throughput, mixed lengths, of the bare trunk's at the same shapes", of_trunk, "at least", 0.8),
        Figure("throughput, canvases of 32 tokens, times one request at a time", of_one, "at least", 2.5),
    ]


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = parser_of(__doc__)
    add_model_options(parser)
    parser.add_argument("--concurrency", type=int, default=16, help="requests at a time (default: 16)")
    parser.add_argument("--requests", type=int, default=32, help="of mixed length, a turn (default: 32)")
    parser.add_argument("--repeats", type=int, default=2, help="turns (default: 2)")
    parser.add_argument("--measured-ticks", type=int, default=40, help="evaluations of the bare trunk (default: 40)")
    return parser


def main(given: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    run_benchmark(options(), measured, given)


def measured(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure and print; what is to be written."""
    model, places = open_model(arguments), arguments.concurrency
    with server_of(arguments) as server:
        put_load(server.url, mixed_lengths(model.denoiser.length), Load(places, requests=places), "warm-up")
        turns = [measure(model, server.url, arguments) for _ in range(arguments.repeats)]
    figures = figures_of(turns)
    Console().print(table_of(figures, f"{places} at a time, {described(model)}; {machine()}"))
    about = {"model": described(model), "machine": machine(), "concurrency": places, "requests": arguments.requests}
    results = {"turns": [asdict(each) for each in turns], "figures": [each.as_json() for each in figures]}
    return about | results


if __name__ == "__main__":
    main()
