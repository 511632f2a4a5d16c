"""What several workers and a Redis between them give, and what they cost.

Throughput: the same load on one worker and on two, in turns, a thread each; evaluations a second while so many clients
wait, by the workers' own counters. API process, Redis and clients share the cores with the workers. While two work,
Redis is asked what it did: commands, processor time and bytes for each network evaluation of a sample, and what it
keeps of a generation. Latency: one client at a time through `unmask serve`, through Redis in memory, and through a
Redis that writes to its disk before it answers (appendfsync always, as the documentation asks for).

    python -m benchmarks.cluster [--clients 32] [--seconds 15] [--repeats 3] [--json FILE]
"""

import argparse
import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import httpx
from rich.console import Console
from rich.table import Table
from unmask_bench.load import Load, Mix, Range
from unmask_bench.report import summarise

from benchmarks.figures import Figure, table_of
from benchmarks.machine import machine
from benchmarks.metrics import EVALUATIONS, Scrape
from benchmarks.options import add_model_options, described, open_model, parser_of, run_benchmark
from benchmarks.redis_bill import Bill, kept
from benchmarks.workloads import load_on, mixed_lengths, put_load
from tests.helpers_cluster import Cluster
from tests.helpers_redis import Redis
from tests.helpers_server import Server

TICKS = "unmask_ticks_total"
CPU = "unmask_process_cpu_seconds_total"
# canvases that share a tick; two workers then have work while half of the clients' requests are enough for each
SAMPLES_A_TICK = 8
WARM_UP_SECONDS = 3.0
LATENCIES = ("median_ttft_ms", "median_itl_ms", "median_e2el_ms")


@dataclass(frozen=True)
class Window:
    """Some seconds of a steady load.

    Attributes:
        workers: how many.
        evaluations_a_second: network evaluations of samples, all workers.
        samples_a_tick: that shared an evaluation.
        cpu_shares: of a core, by each kind of process; the clients are this one.
        redis: what one evaluation of a sample costs there.
    """

    workers: int
    evaluations_a_second: float
    samples_a_tick: float
    cpu_shares: dict[str, float]
    redis: dict[str, object]


@dataclass(frozen=True)
class Reading:
    """Everybody's counters at one time."""

    at: float
    evaluations: float
    ticks: float
    cpu: dict[str, float]
    bill: Bill


async def read(http: httpx.AsyncClient, cluster: Cluster, redis: Redis) -> Reading:
    """Read them all, as nearly at once as can be."""
    urls = [f"{process.url}/metrics" for process in (*cluster.workers, *cluster.apis)]
    responses = await asyncio.gather(*(http.get(url) for url in urls))
    scrapes = [Scrape(response.raise_for_status().text) for response in responses]
    working = scrapes[: len(cluster.workers)]
    with redis.client() as client:
        bill = Bill.of(client)
    cpu = {
        "workers": sum(each.value(CPU) for each in working),
        "API": sum(each.value(CPU) for each in scrapes[len(working) :]),
        "Redis": bill.cpu_seconds,
    }
    evaluations, ticks = (sum(each.value(name) for each in working) for name in (EVALUATIONS, TICKS))
    return Reading(time.monotonic(), evaluations, ticks, cpu, bill)


async def watch(cluster: Cluster, redis: Redis, mix: Mix, clients: int, seconds: float) -> Window:
    """Put a load on, and look at some seconds of it once it is steady."""
    load = Load(clients, seconds=WARM_UP_SECONDS + seconds + 60, abandon=True)
    label = f"{len(cluster.workers)} workers, {load.label}"
    async with httpx.AsyncClient(timeout=60) as http:
        loading = asyncio.create_task(load_on(cluster.urls[0], mix, load, label))
        await asyncio.sleep(WARM_UP_SECONDS)
        before = await read(http, cluster, redis)
        await asyncio.sleep(seconds)
        after = await read(http, cluster, redis)
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
    return window_of(len(cluster.workers), before, after)


def window_of(workers: int, before: Reading, after: Reading) -> Window:
    """What happened between two readings."""
    seconds, evaluations = after.at - before.at, after.evaluations - before.evaluations
    return Window(
        workers,
        evaluations / seconds,
        evaluations / (after.ticks - before.ticks),
        {name: (after.cpu[name] - before.cpu[name]) / seconds for name in before.cpu},
        after.bill.since(before.bill).each(evaluations),
    )


def latencies(urls: Mapping[str, str], tokens: int, requests: int, repeats: int) -> dict[str, dict[str, float]]:
    """Medians over the repeats, in turns, of one client's medians: to the first unmask, between two, to the end."""
    mix = Mix(max_tokens=Range(tokens, tokens))
    for url in urls.values():
        put_load(url, mix, Load(1, requests=2), "warm-up")
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in urls}
    for _ in range(repeats):
        for name, url in urls.items():
            run = put_load(url, mix, Load(1, requests=requests), f"one client, {name}")
            seen[name].append({key: summarise(run)[key] for key in LATENCIES})
    return {name: {key: median(turn[key] for turn in turns) for key in LATENCIES} for name, turns in seen.items()}


def kept_of_a_generation(api: Server, redis: Redis, tokens: int) -> dict[str, object]:
    """What Redis keeps of one that has ended, a log entry and a token."""
    response = api.http.post("/generate", json={"max_tokens": tokens, "seed": 1, "detach": True})
    generation = response.raise_for_status().json()["id"]
    api.until_idle()
    with redis.client() as client:
        found = kept(client, generation)
    each = {
        "log_payload_bytes_an_entry": found.log_payload / found.entries,
        "log_payload_bytes_a_token": found.log_payload / tokens,
        "log_memory_bytes_a_token": found.log_memory / tokens,
    }
    return {"tokens": tokens, **asdict(found), **each}


def figures_of(windows: Sequence[Window], slower: Mapping[str, Mapping[str, float]]) -> list[Figure]:
    """Medians of the turns' ratios, and the latency that Redis adds."""
    one, two = ([each.evaluations_a_second for each in windows if each.workers == n] for n in (1, 2))
    faster = median(two[i] / one[i] for i in range(len(one)))
    serve, *others = slower.values()
    added = max(each["median_e2el_ms"] for each in others) / serve["median_e2el_ms"]
    return [
        Figure("throughput of two workers, times that of one", faster, "at least", 1.8),
        Figure("one client's seconds over Redis, times those of one process", added, "at most", 1.15),
    ]


def windows_table(windows: Sequence[Window], about: str) -> Table:
    """A line a turn."""
    table = Table("workers", title=about)
    columns = (
        "evaluations\na second",
        "samples\na tick",
        "cores:\nworkers",
        "API",
        "Redis",
        "commands\nan evaluation",
        "µs of\nRedis",
    )
    for column in columns:
        table.add_column(column, justify="right")
    for each in windows:
        shares = (f"{each.cpu_shares[name]:.2f}" for name in ("workers", "API", "Redis"))
        costs = (f"{each.redis['commands']:.2f}", f"{each.redis['cpu_microseconds']:.0f}")
        rates = (f"{each.evaluations_a_second:.1f}", f"{each.samples_a_tick:.1f}")
        table.add_row(str(each.workers), *rates, *shares, *costs)
    return table


def latencies_table(found: Mapping[str, Mapping[str, float]]) -> Table:
    """A line a way."""
    table = Table("one client, milliseconds", "first unmask", "between unmasks", "to the end")
    for name, values in found.items():
        table.add_row(name, *(f"{values[key]:.1f}" for key in LATENCIES))
    return table


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = parser_of(__doc__)
    add_model_options(parser)
    parser.add_argument("--clients", type=int, default=32, help="of the load (default: 32)")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each window (default: 15)")
    parser.add_argument("--stream-share", type=float, default=1.0, help="of the load's requests (default: 1)")
    parser.add_argument("--kept-tokens", type=int, default=64, help="of the generation that is weighed (default: 64)")
    parser.add_argument("--requests", type=int, default=8, help="of the one client, a turn and way (default: 8)")
    parser.add_argument("--repeats", type=int, default=3, help="turns (default: 3)")
    return parser


def main(given: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    run_benchmark(options(), measured, given)


def measured(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure and print; what is to be written."""
    model = open_model(arguments)
    length = model.denoiser.length
    room = {"tokens_per_tick": SAMPLES_A_TICK * length, "speculation": "off"}
    settings = {"device": "cpu", "dtype": arguments.dtype, "threads": 1, "lease_seconds": 10} | room
    with Redis() as redis:
        windows, taken = throughput(Path(model.path), redis, settings, arguments, mixed_lengths(length))
    slower = latency(Path(model.path), settings, arguments, max(1, length // 4))
    figures = figures_of(windows, slower)
    about = f"{arguments.clients} clients, {described(model)}; {machine()}"
    for table in (windows_table(windows, about), latencies_table(slower), table_of(figures)):
        Console().print(table)
    facts = {"model": described(model), "machine": machine(), "clients": arguments.clients}
    results = {"windows": [asdict(each) for each in windows], "kept": taken, "latencies": slower}
    return facts | results | {"figures": [each.as_json() for each in figures]}


def throughput(
    model: Path, redis: Redis, settings: Mapping[str, object], arguments: argparse.Namespace, mix: Mix
) -> tuple[list[Window], dict[str, object]]:
    """One worker and two, in turns; and what is kept of a generation."""
    mix = replace(mix, stream_share=arguments.stream_share)
    with (
        Cluster(model, redis.url, redis_prefix="one", **settings) as one,
        Cluster(model, redis.url, redis_prefix="two", **settings) as two,
    ):
        one.start(apis=1, workers=1)
        two.start(apis=1, workers=2)
        windows = [
            asyncio.run(watch(cluster, redis, mix, arguments.clients, arguments.seconds))
            for _ in range(arguments.repeats)
            for cluster in (one, two)
        ]
        return windows, kept_of_a_generation(two.apis[0], redis, arguments.kept_tokens)


def latency(
    model: Path, settings: Mapping[str, object], arguments: argparse.Namespace, tokens: int
) -> dict[str, dict[str, float]]:
    """One client, through one process and over Redis with and without a disk."""
    with ExitStack() as stack:
        serve = stack.enter_context(Server(model, settings=settings)).until_ready()
        urls = {"one process": serve.url}
        for name, persistent in (("Redis in memory", False), ("Redis, appendfsync always", True)):
            redis = stack.enter_context(Redis(persistent=persistent))
            cluster = stack.enter_context(Cluster(model, redis.url, **settings))
            urls[name] = cluster.start(apis=1, workers=1).urls[0]
        return latencies(urls, tokens, arguments.requests, arguments.repeats)


if __name__ == "__main__":
    main()
