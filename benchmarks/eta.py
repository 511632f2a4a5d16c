"""How well the server forecasts: `eta_ms` of the event `start` against the time at which `done` came.

Clients ask in a closed loop (the next request follows the last answer) for canvases of a quarter, a half, three
quarters and the whole of the model's length, a group for every four tokens. There is one client; there are
`--concurrency`, who share ticks; and as many with a server whose ticks have room for a quarter of them, so that
requests wait. The first requests of all clients are not counted, nor are those after which clients are missing. Then
the same with a random deadline for each request: how many answers came in time, and how much of the time was used.

    python -m benchmarks.eta [--concurrency 16] [--requests 48] [--json FILE]
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
from rich.console import Console
from rich.table import Table
from unmask_model_store import Bundle

from benchmarks.machine import machine
from benchmarks.options import add_model_options, described, open_model, parser_of, run_benchmark
from benchmarks.server import ServerProcess

ANSWER_SECONDS = 600.0
TOKENS_A_GROUP = 4

Body = dict[str, Any]


@dataclass(frozen=True)
class Told:
    """One request.

    Attributes:
        deadline_ms: that it asked for; None: none.
        eta_ms: that it was told.
        took_ms: until its end, by the client's clock.
        evaluations: it took.
    """

    deadline_ms: int | None
    eta_ms: float
    took_ms: float
    evaluations: int

    @property
    def error(self) -> float:
        """Of the forecast, against what it took: positive if it took less."""
        return self.eta_ms / self.took_ms - 1


@dataclass(frozen=True)
class Way:
    """A kind of load.

    Attributes:
        name: for the table.
        clients: at a time.
        places: canvases of the whole length in a tick.
    """

    name: str
    clients: int
    places: int


def ways(concurrency: int) -> list[Way]:
    """The kinds of load."""
    return [
        Way("one client", 1, concurrency),
        Way(f"{concurrency} clients", concurrency, concurrency),
        Way(f"{concurrency} clients, queueing", concurrency, max(1, concurrency // 4)),
    ]


def body_of(length: int, number: int) -> Body:
    """The request with this number."""
    tokens = max(1, length * (2, 4, 1, 3)[number % 4] // 4)
    sampler = {"steps": max(1, tokens // TOKENS_A_GROUP)}
    return {"max_tokens": tokens, "seed": number, "stream": True, "sampler": sampler}


async def ask(client: httpx.AsyncClient, body: Body) -> Told | None:
    """Ask, and read to the end; None where the deadline is too short for any answer."""
    begun = time.perf_counter()
    async with client.stream("POST", "/generate", json=body) as response:
        if response.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
            return None
        events = b"".join([chunk async for chunk in response.raise_for_status().aiter_raw()])
    took = 1000 * (time.perf_counter() - begun)
    start = json.loads(events.partition(b"event: start\ndata: ")[2].partition(b"\n")[0])
    deadline = body.get("deadline_ms")
    return Told(deadline, start["eta_ms"], took, start["network_evaluations"])


async def closed_loop(url: str, clients: int, requests: int, make_body: Callable[[int], Body]) -> list[Told | None]:
    """What so many requests were told, while all clients are busy."""
    told: list[Told | None] = []
    numbers = count()

    async def work(client: httpx.AsyncClient) -> None:
        while len(told) < requests:
            number = next(numbers)
            answer = await ask(client, make_body(number))
            if number >= clients and len(told) < requests:
                told.append(answer)

    async with httpx.AsyncClient(base_url=url, timeout=ANSWER_SECONDS) as client:
        await asyncio.gather(*(work(client) for _ in range(clients)))
    return told


def figures_of(way: Way, told: Sequence[Told], due: Sequence[Told | None]) -> dict[str, object]:
    """Errors of the forecasts, and what became of the deadlines."""
    errors = sorted(abs(each.error) for each in told)
    kept = [each for each in due if each is not None and each.deadline_ms is not None]
    used = [each.took_ms / each.deadline_ms for each in kept if each.deadline_ms]
    return {
        "load": way.name,
        "requests": len(told),
        "median_seconds": median(each.took_ms for each in told) / 1000,
        "median_absolute_error": median(errors),
        "p90_absolute_error": quantiles(errors, n=10)[-1] if len(errors) > 1 else errors[0],
        "median_error": median(each.error for each in told),
        "deadlines": len(due),
        "refused_as_too_short": len(due) - len(kept),
        "kept": sum(share <= 1 for share in used) / max(1, len(used)),
        "median_of_time_used": median(used) if used else None,
    }


def measure(model: Bundle, way: Way, requests: int, dtype: str) -> dict[str, object]:
    """One kind of load, without deadlines and with."""
    length = model.denoiser.length
    options = {
        "--model": str(model.path),
        "--device": "cpu",
        "--dtype": dtype,
        "--threads": str(torch.get_num_threads()),
        "--tokens-per-tick": str(way.places * length),
    }
    with ServerProcess(*(word for option in options.items() for word in option)) as server:
        told = asyncio.run(closed_loop(server.url, way.clients, requests, lambda number: body_of(length, number)))
        asked = [each for each in told if each is not None]
        usual = median(each.took_ms for each in asked)
        draw = random.Random(0)

        def due(number: int) -> Body:
            return body_of(length, number) | {"deadline_ms": max(1, round(usual * draw.uniform(0.2, 1)))}

        return figures_of(way, asked, asyncio.run(closed_loop(server.url, way.clients, requests, due)))


def table_of(rows: Sequence[dict[str, object]], about: str) -> Table:
    """A column a kind of load."""
    table = Table("", *(str(row["load"]) for row in rows), title=about)
    for name in list(rows[0])[1:]:
        values = (row[name] for row in rows)
        table.add_row(name.replace("_", " "), *(f"{v:.3f}" if isinstance(v, float) else str(v) for v in values))
    return table


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = parser_of(__doc__)
    add_model_options(parser)
    parser.add_argument("--concurrency", type=int, default=16, help="clients at a time (default: 16)")
    parser.add_argument("--requests", type=int, default=48, help="that count, of each kind of load (default: 48)")
    return parser


def main(given: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    run_benchmark(options(), measured, given)


def measured(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure, print and plot; what is to be written."""
    model = open_model(arguments)
    rows = [measure(model, way, arguments.requests, arguments.dtype) for way in ways(arguments.concurrency)]
    about = f"{described(model)}; {machine()}"
    Console().print(table_of(rows, about))
    figures = {"model": described(model), "machine": machine(), "concurrency": arguments.concurrency}
    return figures | {"loads": rows}


if __name__ == "__main__":
    main()
