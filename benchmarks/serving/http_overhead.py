"""What HTTP costs: the same samples through a server process and through the sampler alone.

The same requests (no prompt; 1/4, 2/4, 3/4 and 4/4 of the model's length; exact sampler) go through `unmask serve`, at
most `--concurrency` at a time, streamed and not, and through `unmask_diffusion.evaluate` in this process with as many
active samples. Both use the same dtype and number of threads, and all answers must have the same tokens. The clients
(this process) run on the same processor as the server. The wall clock outside the network evaluations is what HTTP,
queue, log, metrics and SSE cost together.
"""

import argparse
import asyncio
import json
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import mean

import httpx
import torch
from rich.progress import track
from unmask_diffusion import ActiveSample, GenerationRequest, Model, SampleError, evaluate, make_plan, read_sample

from benchmarks.harness import Figure, Numbers, transposed
from benchmarks.models import add_model_options, described, open_model
from benchmarks.serving.server import ANSWER_SECONDS, ServerProcess, server_of

WAYS = ("in process", "HTTP", "HTTP, streamed")

Body = dict[str, int]
Tokens = list[int]
Ask = Callable[[httpx.AsyncClient, Body], Awaitable[Tokens]]


@dataclass(frozen=True)
class Pass:
    """One way through all requests."""

    way: str  # one of `WAYS`
    seconds: float  # wall-clock time
    ticks: int  # shared network evaluations
    tick_seconds: float  # time in these evaluations
    answers: list[Tokens]  # the tokens of every request


def bodies_of(model: Model, count: int) -> list[Body]:
    length = model.denoiser.length
    lengths = [max(1, length * quarters // 4) for quarters in (2, 4, 1, 3)]
    return [{"max_tokens": lengths[i % 4], "seed": i} for i in range(count)]


def in_process(model: Model, bodies: Sequence[Body], places: int) -> Pass:
    waiting = deque(enumerate(bodies))
    active: dict[int, ActiveSample] = {}
    answers: list[Tokens] = [[] for _ in bodies]
    ticks, tick_seconds, begun = 0, 0.0, time.perf_counter()
    while waiting or active:
        while waiting and len(active) < places:
            number, body = waiting.popleft()
            active[number] = ActiveSample.start(model, make_plan(model, GenerationRequest.model_validate(body)), 0)
        tick_begun = time.perf_counter()
        outcomes = evaluate(model, list(active.values()))
        tick_seconds += time.perf_counter() - tick_begun
        ticks += 1
        for (number, each), outcome in zip(list(active.items()), outcomes, strict=True):
            (entry,) = each.apply(outcome)
            if isinstance(entry, SampleError):
                raise ValueError(entry.message)
            if each.finished:
                answers[number] = list(read_sample(model, each.plan, 0, each.digits).token_ids)
                del active[number]
    return Pass(WAYS[0], time.perf_counter() - begun, ticks, tick_seconds, answers)


async def ask(client: httpx.AsyncClient, body: Body) -> Tokens:
    response = await client.post("/generate", json=body)
    return tokens_of(response.raise_for_status().content)


async def ask_streamed(client: httpx.AsyncClient, body: Body) -> Tokens:
    async with client.stream("POST", "/generate", json=body | {"stream": True}) as response:
        events = b"".join([chunk async for chunk in response.raise_for_status().aiter_raw()])
    return tokens_of(events.rpartition(b"event: done\ndata: ")[2])


def tokens_of(answer: bytes) -> Tokens:
    tokens: Tokens = json.loads(answer)["choices"][0]["token_ids"]
    return tokens


async def through_http(url: str, bodies: Sequence[Body], places: int, asking: Ask) -> tuple[float, list[Tokens]]:
    """Send all requests, `places` at a time; return the seconds and the answers."""
    answers: list[Tokens] = [[] for _ in bodies]
    waiting: Iterator[tuple[int, Body]] = iter(enumerate(bodies))

    async def work(client: httpx.AsyncClient) -> None:
        for number, body in waiting:
            answers[number] = await asking(client, body)

    async with httpx.AsyncClient(base_url=url, timeout=ANSWER_SECONDS) as client:
        begun = time.perf_counter()
        await asyncio.gather(*(work(client) for _ in range(places)))
        return time.perf_counter() - begun, answers


def over_http(server: ServerProcess, bodies: Sequence[Body], places: int, streamed: bool) -> Pass:
    names = ("unmask_evaluation_seconds_count", "unmask_evaluation_seconds_sum")
    before = [server.metric(name) for name in names]
    asking = ask_streamed if streamed else ask
    seconds, answers = asyncio.run(through_http(server.url, bodies, places, asking))
    ticks, tick_seconds = (server.metric(name) - value for name, value in zip(names, before, strict=True))
    return Pass(WAYS[1 + streamed], seconds, round(ticks), tick_seconds, answers)


def compare(model: Model, server: ServerProcess, bodies: Sequence[Body], places: int, repeats: int) -> list[Pass]:
    """Run all ways in turns, after one warm-up of each."""
    warm_up = bodies[-1:]
    in_process(model, warm_up, places)
    passes = []
    for streamed in (False, True):
        over_http(server, warm_up, places, streamed)
    for _ in track(range(repeats), description="passes"):
        passes.append(in_process(model, bodies, places))
        passes += [over_http(server, bodies, places, streamed) for streamed in (False, True)]
    return passes


def summarise(passes: Sequence[Pass], evaluations: int) -> list[Numbers]:
    """Means of each way; `evaluations` is the number of network evaluations of all requests, sample by sample."""
    truth = passes[0].answers
    baseline = mean(each.seconds for each in passes if each.way == WAYS[0])
    rows = []
    for way in WAYS:
        chosen = [each for each in passes if each.way == way]
        seconds, ticks = mean(each.seconds for each in chosen), mean(each.ticks for each in chosen)
        rows.append(
            {
                "way": way,
                "seconds": seconds,
                "times_in_process": seconds / baseline,
                "requests_a_second": len(truth) / seconds,
                "evaluations_a_second": evaluations / seconds,
                "samples_a_tick": evaluations / ticks,
                "milliseconds_a_tick": 1000 * seconds / ticks,
                "milliseconds_evaluating_a_tick": 1000 * mean(each.tick_seconds for each in chosen) / ticks,
                "share_outside_evaluations": 1 - mean(each.tick_seconds for each in chosen) / seconds,
                "answers_that_differ": sum(a != b for each in chosen for a, b in zip(each.answers, truth, strict=True)),
            }
        )
    return rows


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser)
    parser.add_argument("--concurrency", type=int, default=16, help="requests at a time (default: 16)")
    parser.add_argument("--requests", type=int, default=48, help="requests of one pass (default: 48)")
    parser.add_argument("--repeats", type=int, default=2, help="passes of each way, in turns (default: 2)")


def measured(arguments: argparse.Namespace) -> Numbers:
    model, places = open_model(arguments), arguments.concurrency
    bodies = bodies_of(model, arguments.requests)
    plans = [make_plan(model, GenerationRequest.model_validate(body)) for body in bodies]
    arguments.threads = torch.get_num_threads()
    with server_of(arguments, "--tokens-per-tick", str(places * model.denoiser.length)) as server:
        passes = compare(model, server, bodies, places, arguments.repeats)
    rows = summarise(passes, sum(plan.network_evaluations for plan in plans))
    print(transposed(f"{len(bodies)} requests, {places} at a time", rows))
    share = rows[2]["share_outside_evaluations"]
    figure = Figure("HTTP, queue, metrics and SSE together, share of the wall clock", share, "at most", 0.05)
    about = {"model": described(model), "concurrency": places, "requests": len(bodies), "repeats": arguments.repeats}
    return about | {"ways": rows, "figures": [figure]}
