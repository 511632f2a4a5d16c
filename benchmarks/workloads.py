"""The loads of the serving benchmarks, and how they are put on a server."""

import argparse
import asyncio
import json

from unmask_bench.client import connect
from unmask_bench.load import Load, LoadRun, Mix, Range
from unmask_bench.report import run_with_progress
from unmask_diffusion import Model

from benchmarks.server import ServerProcess

ANSWER_SECONDS = 600.0


def mixed_lengths(length: int, samples: int = 1) -> Mix:
    """Streams of the exact sampler, a quarter of the model's length to the whole, of 1 to so many samples."""
    return Mix(max_tokens=Range(max(1, length // 4), length), n=Range(1, samples))


def mixed_samplers(length: int, leave_share: float = 0.0) -> Mix:
    """Lengths, samplers, one sample or two, streams and whole answers, and clients that go away."""
    samplers = (
        {"name": "first_hitting"},
        {"name": "first_hitting", "steps": max(1, length // 8)},
        {"name": "ancestral", "steps": max(1, length // 2)},
        {"name": "ancestral", "steps": 1},
    )
    tokens = Range(max(1, length // 8), length)
    return Mix(max_tokens=tokens, samplers=samplers, n=Range(1, 2), stream_share=0.75, leave_share=leave_share)


def lengths_of(mix: Mix, requests: int) -> list[int]:
    """The tokens that each of the first requests asks for."""
    return [json.loads(mix.call(number).body)["max_tokens"] for number in range(requests)]


def evaluations_a_request(model: Model, mix: Mix) -> float:
    """Mean network evaluations of the exact sampler's requests, all samples."""
    bodies = [json.loads(mix.call(number).body) for number in range(1000)]
    tokens = [float(body["max_tokens"] * body["n"]) for body in bodies]
    return model.sub_tokenizer.sub_tokens_per_token * sum(tokens) / len(tokens)


def server_of(arguments: argparse.Namespace, *options: str) -> ServerProcess:
    """A server on the CPU with the model, dtype and threads that a benchmark's options name.

    Without speculation, unless an option says otherwise: its ratios are those of one lane a sample and tick.
    """
    threads = [] if arguments.threads is None else ["--threads", str(arguments.threads)]
    named = ["--model", arguments.model, "--device", "cpu", "--dtype", arguments.dtype, "--speculation", "off"]
    return ServerProcess(*named, *threads, *options)


def put_load(url: str, mix: Mix, load: Load, label: str) -> LoadRun:
    """Put a load on a server until it ends, with a progress bar."""
    return asyncio.run(load_on(url, mix, load, label))


async def load_on(url: str, mix: Mix, load: Load, label: str) -> LoadRun:
    """The same, within a loop that runs already."""
    async with connect(url, ANSWER_SECONDS) as client:
        run = LoadRun(client, mix, load)
        await run_with_progress(run, label)
    return run
