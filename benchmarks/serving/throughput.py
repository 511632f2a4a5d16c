"""What batching is worth: a server under load against the bare trunk, and against one request at a time.

1. 16 streams of mixed length at a time (exact sampler, 1/4 to 4/4 of the model's length) through `unmask serve`; in
   this process the trunk alone on the same packed shapes. The lengths determine which samples share an evaluation, so
   the shapes are known; one of every few evaluations is timed.
2. Canvases of 32 tokens, 16 at a time and one at a time.

Both pairs are measured in turns; the figures are medians of the turns' ratios. The clients (this process) run on the
same processor as the server.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from rich.progress import track
from unmask_bench.load import Load, Mix, Range
from unmask_diffusion import Model

from benchmarks.harness import Figure, Numbers
from benchmarks.models import add_model_options, described, open_model
from benchmarks.serving.server import mixed_lengths, put_load, server_of

SHORT = 32
WARM_UP = 3


@dataclass(frozen=True)
class Turn:
    """One repeat of everything."""

    server_seconds: float  # for the load of mixed lengths
    trunk_seconds: float  # for the same evaluations
    together: float  # evaluations a second, short canvases, many at a time
    alone: float  # one at a time
    client_cpu_share: float  # of a core, during the load of mixed lengths


def ticks_of(lengths: Sequence[int], digits: int, places: int) -> Iterator[list[int]]:
    """The lengths of the canvases of each shared evaluation; the next canvas joins when one is finished."""
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
    """Seconds of the trunk alone for all ticks, from `measured` of them, evenly spread."""
    every = max(1, len(ticks) // measured)
    chosen = ticks[every // 2 :: every]
    for tick in chosen[:WARM_UP]:
        seconds_of_tick(model, tick)
    seconds = [seconds_of_tick(model, tick) for tick in track(chosen, description="trunk alone", transient=True)]
    return sum(seconds) * len(ticks) / len(chosen)


def seconds_of_tick(model: Model, lengths: Sequence[int]) -> float:
    """One evaluation of the trunk on canvases with every other token known, one row read of each."""
    canvases = [model.sub_tokenizer.encode(torch.arange(each) % model.denoiser.vocabulary_size) for each in lengths]
    for canvas in canvases:
        canvas[::2] = model.sub_tokenizer.mask_id
    rows = [torch.tensor([length // 2]) for length in lengths]
    begun = time.perf_counter()
    model.denoiser.trunk(canvases, rows)
    return time.perf_counter() - begun


def measure(model: Model, url: str, arguments: argparse.Namespace) -> Turn:
    places = arguments.concurrency
    mix = mixed_lengths(model.denoiser.length)
    lengths = [json.loads(mix.call(number).body)["max_tokens"] for number in range(arguments.requests)]
    ticks = list(ticks_of(lengths, model.sub_tokenizer.sub_tokens_per_token, places))
    loaded = put_load(url, mix, Load(places, requests=arguments.requests), "mixed lengths")
    trunk = seconds_of_trunk(model, ticks, arguments.measured_ticks)
    short = Mix(max_tokens=Range(*[min(SHORT, model.denoiser.length)] * 2))
    rates = []
    for concurrency, requests in ((1, max(1, places // 4)), (places, 3 * places)):
        run = put_load(url, short, Load(concurrency, requests=requests), f"{SHORT} tokens, {concurrency} at a time")
        rates.append(sum(each.counted("sampling", "network_evaluations") for each in run.records) / run.seconds)
    return Turn(loaded.seconds, trunk, rates[1], rates[0], loaded.cpu_seconds / loaded.seconds)


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser)
    parser.add_argument("--concurrency", type=int, default=16, help="requests at a time (default: 16)")
    parser.add_argument("--requests", type=int, default=32, help="of mixed length, a turn (default: 32)")
    parser.add_argument("--repeats", type=int, default=2, help="turns (default: 2)")
    parser.add_argument("--measured-ticks", type=int, default=40, help="evaluations of the bare trunk (default: 40)")


def measured(arguments: argparse.Namespace) -> Numbers:
    model, places = open_model(arguments), arguments.concurrency
    with server_of(arguments) as server:
        put_load(server.url, mixed_lengths(model.denoiser.length), Load(places, requests=places), "warm-up")
        turns = [measure(model, server.url, arguments) for _ in range(arguments.repeats)]
    of_trunk = median(each.trunk_seconds / each.server_seconds for each in turns)
    of_one = median(each.together / each.alone for each in turns)
    figures = [
        Figure("throughput, mixed lengths, of the bare trunk's at the same shapes", of_trunk, "at least", 0.8),
        Figure("throughput, canvases of 32 tokens, times one request at a time", of_one, "at least", 2.5),
    ]
    about = {"model": described(model), "concurrency": places, "requests": arguments.requests}
    return about | {"turns": turns, "figures": figures}
