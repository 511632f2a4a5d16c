"""How well the server forecasts: `eta_ms` of the event `start` against the time of the event `done`.

Clients send requests in a closed loop (the next request follows the last answer) for 1/4, 2/4, 3/4 and 4/4 of the
model's length, one group for every four tokens. Three kinds of load: one client; `--concurrency` clients, who share
ticks; as many clients with ticks that have room for a quarter of them, so that requests wait. The first request of each
client and the requests after the first client has stopped are not counted. Then the same with a random deadline for
each request: how many answers came in time, and how much of the time was used.
"""

import argparse
import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from statistics import median, quantiles
from typing import Any

import httpx
import torch
from unmask_model_store import Bundle

from benchmarks.harness import Numbers, transposed
from benchmarks.models import add_model_options, described, open_model
from benchmarks.serving.server import ANSWER_SECONDS, server_of

TOKENS_A_GROUP = 4

Body = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What one request got."""

    deadline_ms: int | None  # of the request
    eta_ms: float  # of the event `start`
    took_ms: float  # until the last event, by the client's clock
    evaluations: int  # planned

    @property
    def error(self) -> float:
        """Relative error of the forecast, positive if the request took less time."""
        return self.eta_ms / self.took_ms - 1


def body_of(length: int, number: int) -> Body:
    tokens = max(1, length * (2, 4, 1, 3)[number % 4] // 4)
    sampler = {"steps": max(1, tokens // TOKENS_A_GROUP)}
    return {"max_tokens": tokens, "seed": number, "stream": True, "sampler": sampler}


async def ask(client: httpx.AsyncClient, body: Body) -> Answer | None:
    """Send a request and read its events; None if its deadline is too short for any answer."""
    begun = time.perf_counter()
    async with client.stream("POST", "/generate", json=body) as response:
        if response.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
            return None
        events = b"".join([chunk async for chunk in response.raise_for_status().aiter_raw()])
    took = 1000 * (time.perf_counter() - begun)
    start = json.loads(events.partition(b"event: start\ndata: ")[2].partition(b"\n")[0])
    deadline = body.get("deadline_ms")
    return Answer(deadline, start["eta_ms"], took, start["network_evaluations"])


async def closed_loop(url: str, clients: int, requests: int, make_body: Callable[[int], Body]) -> list[Answer | None]:
    """The answers to `requests` requests while all clients are busy."""
    answers: list[Answer | None] = []
    numbers = count()

    async def work(client: httpx.AsyncClient) -> None:
        while len(answers) < requests:
            number = next(numbers)
            answer = await ask(client, make_body(number))
            if number >= clients and len(answers) < requests:
                answers.append(answer)

    async with httpx.AsyncClient(base_url=url, timeout=ANSWER_SECONDS) as client:
        await asyncio.gather(*(work(client) for _ in range(clients)))
    return answers


def figures_of(load: str, free: Sequence[Answer], due: Sequence[Answer | None]) -> Numbers:
    """Errors of the forecasts for requests without deadlines, and outcomes of requests with deadlines."""
    errors = sorted(abs(each.error) for each in free)
    kept = [each for each in due if each is not None and each.deadline_ms is not None]
    used = [each.took_ms / each.deadline_ms for each in kept if each.deadline_ms]
    return {
        "load": load,
        "requests": len(free),
        "median_seconds": median(each.took_ms for each in free) / 1000,
        "median_absolute_error": median(errors),
        "p90_absolute_error": quantiles(errors, n=10)[-1] if len(errors) > 1 else errors[0],
        "median_error": median(each.error for each in free),
        "deadlines": len(due),
        "refused_as_too_short": len(due) - len(kept),
        "kept": sum(share <= 1 for share in used) / max(1, len(used)),
        "median_of_time_used": median(used) if used else None,
    }


def measure(model: Bundle, load: str, clients: int, places: int, arguments: argparse.Namespace) -> Numbers:
    """A load without deadlines and with; a tick has room for `places` canvases of the whole length."""
    length, requests = model.denoiser.length, arguments.requests
    room = str(places * length)
    with server_of(arguments, "--speculation", "auto", "--tokens-per-tick", room) as server:
        found = asyncio.run(closed_loop(server.url, clients, requests, lambda number: body_of(length, number)))
        free = [each for each in found if each is not None]
        usual = median(each.took_ms for each in free)
        chance = random.Random(0)

        def due(number: int) -> Body:
            return body_of(length, number) | {"deadline_ms": max(1, round(usual * chance.uniform(0.2, 1)))}

        return figures_of(load, free, asyncio.run(closed_loop(server.url, clients, requests, due)))


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser)
    parser.add_argument("--concurrency", type=int, default=16, help="clients at a time (default: 16)")
    parser.add_argument("--requests", type=int, default=48, help="counted requests of each kind of load (default: 48)")


def measured(arguments: argparse.Namespace) -> Numbers:
    model = open_model(arguments)
    arguments.threads = torch.get_num_threads()
    clients = arguments.concurrency
    loads = [
        measure(model, "one client", 1, clients, arguments),
        measure(model, f"{clients} clients", clients, clients, arguments),
        measure(model, f"{clients} clients, queueing", clients, max(1, clients // 4), arguments),
    ]
    print(transposed("Forecasts against the time taken", loads))
    return {"model": described(model), "concurrency": clients, "loads": loads}
