"""What HTTP costs: the same samples through a server process and through the sampler alone.

A set of requests (prompts empty, canvases of a quarter, a half, three quarters and the whole of the model's length,
the exact sampler) goes through `unmask serve`, never more than `--concurrency` at a time, streamed and not; and
through `unmask_diffusion.evaluate` in this process, with as many active samples, the next joining when one ends.
Both plan, evaluate and read out the same samples, with the same dtype and number of threads, and every answer is
compared: tokens must be the same. The server has its clients (this process) beside it on the same processor.
What HTTP, queue, log, metrics and SSE cost together is the wall clock outside the network evaluations.

    python -m benchmarks.http_overhead [--concurrency 16] [--requests 48] [--json FILE]
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
from rich.console import Console
from rich.progress import track
from rich.table import Table
from unmask_diffusion import ActiveSample, GenerationRequest, Model, SampleError, evaluate, make_plan, read_sample

from benchmarks.figures import Figure, table_of
from benchmarks.machine import machine
from benchmarks.options import add_model_options, described, open_model, parser_of, run_benchmark
from benchmarks.server import ServerProcess

ANSWER_SECONDS = 600.0
WAYS = ("in process", "HTTP", "HTTP, streamed")

Body = dict[str, int]
Tokens = list[int]
Ask = Callable[[httpx.AsyncClient, Body], Awaitable[Tokens]]


@dataclass(frozen=True)
class Pass:
    """One way through all requests.

    Attributes:
        way: one of `WAYS`.
        seconds: wall-clock time.
        ticks: shared network evaluations; `tick_seconds` is the time in them.
        answers: the tokens of every request.
    """

    way: str
    seconds: float
    ticks: int
    tick_seconds: float
    answers: list[Tokens]


def bodies_of(model: Model, count: int) -> list[Body]:
    """The requests."""
    length = model.denoiser.length
    lengths = [max(1, length * quarters // 4) for quarters in (2, 4, 1, 3)]
    return [{"max_tokens": lengths[i % 4], "seed": i} for i in range(count)]


def in_process(model: Model, bodies: Sequence[Body], places: int) -> Pass:
    """Drive the samples through `evaluate`."""
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
            if isinstance(outcome, SampleError):
                raise ValueError(outcome.message)
            each.reveal(outcome)
            if each.finished:
                answers[number] = list(read_sample(model, each.plan, 0, each.digits).token_ids)
                del active[number]
    return Pass(WAYS[0], time.perf_counter() - begun, ticks, tick_seconds, answers)


async def ask(client: httpx.AsyncClient, body: Body) -> Tokens:
    """One request, one answer."""
    response = await client.post("/generate", json=body)
    return tokens_of(response.raise_for_status().content)


async def ask_streamed(client: httpx.AsyncClient, body: Body) -> Tokens:
    """One request whose events are read as they come."""
    async with client.stream("POST", "/generate", json=body | {"stream": True}) as response:
        events = b"".join([chunk async for chunk in response.raise_for_status().aiter_raw()])
    return tokens_of(events.rpartition(b"event: done\ndata: ")[2])


def tokens_of(answer: bytes) -> Tokens:
    """The tokens of an answer's only sample."""
    tokens: Tokens = json.loads(answer)["choices"][0]["token_ids"]
    return tokens


async def through_http(url: str, bodies: Sequence[Body], places: int, asking: Ask) -> tuple[float, list[Tokens]]:
    """Send all requests, `places` at a time; the seconds it took and the answers."""
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
    """The same through the server."""
    names = ("unmask_evaluation_seconds_count", "unmask_evaluation_seconds_sum")
    before = [server.metric(name) for name in names]
    asking = ask_streamed if streamed else ask
    seconds, answers = asyncio.run(through_http(server.url, bodies, places, asking))
    ticks, tick_seconds = (server.metric(name) - value for name, value in zip(names, before, strict=True))
    return Pass(WAYS[1 + streamed], seconds, round(ticks), tick_seconds, answers)


def compare(model: Model, server: ServerProcess, bodies: Sequence[Body], places: int, repeats: int) -> list[Pass]:
    """All ways in turns, after one warm-up of each."""
    warm_up = bodies[-1:]
    in_process(model, warm_up, places)
    passes = []
    for streamed in (False, True):
        over_http(server, warm_up, places, streamed)
    for _ in track(range(repeats), description="passes"):
        passes.append(in_process(model, bodies, places))
        passes += [over_http(server, bodies, places, streamed) for streamed in (False, True)]
    return passes


def summarise(passes: Sequence[Pass], evaluations: int) -> list[dict[str, object]]:
    """Means a way: `evaluations` counts those of single samples, all requests together."""
    truth = passes[0].answers
    baseline = mean(each.seconds for each in passes if each.way == WAYS[0])
    rows: list[dict[str, object]] = []
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


def figure_of(passes: Sequence[Pass]) -> Figure:
    """The share of streamed requests' wall clock that is no network evaluation."""
    streamed = [each for each in passes if each.way == WAYS[2]]
    share = 1 - sum(each.tick_seconds for each in streamed) / sum(each.seconds for each in streamed)
    return Figure("HTTP, queue, metrics and SSE together, share of the wall clock", share, "at most", 0.05)


def ways_table(rows: Sequence[dict[str, object]], about: str) -> Table:
    """A column a way."""
    table = Table("", *WAYS, title=about)
    for name in list(rows[0])[1:]:
        values = (row[name] for row in rows)
        shown = (f"{value:.3f}" if isinstance(value, float) else str(value) for value in values)
        table.add_row(name.replace("_", " "), *shown)
    return table


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = parser_of(__doc__)
    add_model_options(parser)
    parser.add_argument("--concurrency", type=int, default=16, help="requests at a time (default: 16)")
    parser.add_argument("--requests", type=int, default=48, help="of one pass (default: 48)")
    parser.add_argument("--repeats", type=int, default=2, help="passes of each way, in turns (default: 2)")
    return parser


def main(given: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    run_benchmark(options(), measured, given)


def measured(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure and print; what is to be written."""
    model, places = open_model(arguments), arguments.concurrency
    bodies = bodies_of(model, arguments.requests)
    plans = [make_plan(model, GenerationRequest.model_validate(body)) for body in bodies]
    serving = {
        "--model": str(model.path),
        "--device": "cpu",
        "--dtype": arguments.dtype,
        "--threads": str(torch.get_num_threads()),
        "--tokens-per-tick": str(places * model.denoiser.length),
        "--speculation": "off",
    }
    with ServerProcess(*(word for option in serving.items() for word in option)) as server:
        passes = compare(model, server, bodies, places, arguments.repeats)
    rows = summarise(passes, sum(plan.network_evaluations for plan in plans))
    about = f"{len(bodies)} requests, {places} at a time, {described(model)}; {machine()}"
    Console().print(ways_table(rows, about))
    figures = [figure_of(passes)]
    Console().print(table_of(figures))
    facts = {"model": described(model), "machine": machine(), "concurrency": places, "requests": len(bodies)}
    results = {"repeats": arguments.repeats, "ways": rows, "figures": [each.as_json() for each in figures]}
    return facts | results


if __name__ == "__main__":
    main()
