"""What several workers over a Redis give, and what they cost.

Throughput: the same load on one worker and on two, in turns, one thread each; evaluations a second by the workers' own
counters. API process, Redis and clients share the cores with the workers. Redis reports its commands, processor time
and bytes for each network evaluation of a sample, and what it keeps of a generation. Latency: one client at a time
through `unmask serve`, through Redis in memory, and through a Redis that writes to its disk before it answers
(appendfsync always, as the documentation asks for).
"""

import argparse
import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import redis
from unmask_bench.load import Load, Mix, Range
from unmask_bench.report import summarise

from benchmarks.harness import Figure, Numbers, Table
from benchmarks.models import add_model_options, described, open_model
from benchmarks.serving.server import EVALUATIONS, Scrape, load_on, mixed_lengths, put_load
from tests.helpers_cluster import Cluster
from tests.helpers_redis import Redis
from tests.helpers_server import Server


@dataclass(frozen=True)
class Bill:
    """Redis' counters at one time, or the difference of two."""

    commands: Counter[str]  # calls by command, those within scripts included
    cpu_seconds: float
    received: int  # bytes
    sent: int  # bytes

    @classmethod
    def of(cls, client: redis.Redis) -> "Bill":
        info: dict[str, Any] = client.info("everything")
        commands = {
            name.removeprefix("cmdstat_"): stat["calls"] for name, stat in info.items() if name.startswith("cmdstat_")
        }
        received, sent = info["total_net_input_bytes"], info["total_net_output_bytes"]
        return cls(Counter(commands), info["used_cpu_sys"] + info["used_cpu_user"], received, sent)

    def since(self, earlier: "Bill") -> "Bill":
        """The difference to an earlier reading, without the commands that read."""
        commands = self.commands - earlier.commands - Counter(info=self.commands["info"])
        cpu = self.cpu_seconds - earlier.cpu_seconds
        return Bill(commands, cpu, self.received - earlier.received, self.sent - earlier.sent)

    def each(self, count: float) -> dict[str, object]:
        """The bill divided by `count`."""
        return {
            "commands": self.commands.total() / count,
            "by_command": {name: calls / count for name, calls in self.commands.most_common()},
            "cpu_microseconds": 1e6 * self.cpu_seconds / count,
            "bytes_received": self.received / count,
            "bytes_sent": self.sent / count,
        }


@dataclass(frozen=True)
class Kept:
    """What Redis keeps of one generation, in bytes."""

    entries: int  # of its log
    log_payload: int  # names and values of the log's entries
    log_memory: int
    rest_memory: int  # of all other keys of the generation


def kept(client: redis.Redis, generation: str) -> Kept:
    """Measure every key that names a generation; its log is the only stream among them."""
    memory: dict[str, int] = {}
    streams: list[str] = []
    for key in map(str, client.scan_iter(f"*{generation}*")):
        memory[key] = client.memory_usage(key, samples=0) or 0
        if client.type(key) in ("stream", b"stream"):
            streams.append(key)
    (log,) = streams
    entries: list[tuple[str, dict[str, str]]] = client.xrange(log)  # type: ignore[assignment]
    payload = sum(len(name) + len(value) for _, fields in entries for name, value in fields.items())
    return Kept(len(entries), payload, memory.pop(log), sum(memory.values()))


TICKS = "unmask_ticks_total"
CPU = "unmask_process_cpu_seconds_total"
# canvases that share a tick; two workers then have work while half of the clients' requests are enough for each
SAMPLES_A_TICK = 8
WARM_UP_SECONDS = 3.0
LATENCIES = ("median_ttft_ms", "median_itl_ms", "median_e2el_ms")


@dataclass(frozen=True)
class Window:
    """Some seconds of a steady load."""

    workers: int
    evaluations_a_second: float  # network evaluations of samples, all workers
    samples_a_tick: float
    cpu_shares: dict[str, float]  # of a core, by kind of process; the clients are this process
    redis: dict[str, object]  # cost of one evaluation of a sample there


@dataclass(frozen=True)
class Reading:
    """The counters of all processes at one time."""

    at: float
    evaluations: float
    ticks: float
    cpu: dict[str, float]
    bill: Bill


async def read(http: httpx.AsyncClient, cluster: Cluster, redis: Redis) -> Reading:
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
    """Start a load, and measure some seconds of it once it is steady."""
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
    seconds, evaluations = after.at - before.at, after.evaluations - before.evaluations
    return Window(
        workers,
        evaluations / seconds,
        evaluations / (after.ticks - before.ticks),
        {name: (after.cpu[name] - before.cpu[name]) / seconds for name in before.cpu},
        after.bill.since(before.bill).each(evaluations),
    )


def latencies(urls: Mapping[str, str], tokens: int, requests: int, repeats: int) -> dict[str, dict[str, float]]:
    """Medians over the turns of one client's medians, by `LATENCIES`."""
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
    """What Redis keeps of a finished generation, for each log entry and token."""
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
    one, two = ([each.evaluations_a_second for each in windows if each.workers == n] for n in (1, 2))
    faster = median(two[i] / one[i] for i in range(len(one)))
    serve, *others = slower.values()
    added = max(each["median_e2el_ms"] for each in others) / serve["median_e2el_ms"]
    return [
        Figure("throughput of two workers, times that of one", faster, "at least", 1.8),
        Figure("one client's seconds over Redis, times those of one process", added, "at most", 1.15),
    ]


def tables(windows: Sequence[Window], latency: Mapping[str, Mapping[str, float]]) -> list[Table]:
    rows = [
        [
            str(each.workers),
            f"{each.evaluations_a_second:.1f}",
            f"{each.samples_a_tick:.1f}",
            *(f"{each.cpu_shares[name]:.2f}" for name in ("workers", "API", "Redis")),
            f"{each.redis['commands']:.2f}",
            f"{each.redis['cpu_microseconds']:.0f}",
        ]
        for each in windows
    ]
    cores = [f"cores: {name}" for name in ("workers", "API", "Redis")]
    rates = ["evaluations a second", "samples a tick", *cores, "commands an evaluation", "µs of Redis"]
    milliseconds = [[name, *(f"{values[key]:.1f}" for key in LATENCIES)] for name, values in latency.items()]
    return [
        Table("Throughput, a line a turn", ["workers", *rates], rows),
        Table("One client, milliseconds", ["", "first unmask", "between unmasks", "to the end"], milliseconds),
    ]


def throughput(
    model: Path, redis: Redis, settings: Mapping[str, object], arguments: argparse.Namespace, mix: Mix
) -> tuple[list[Window], dict[str, object]]:
    """One worker and two, in turns; and what Redis keeps of a generation."""
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


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser)
    parser.add_argument("--clients", type=int, default=32, help="clients of the load (default: 32)")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each window (default: 15)")
    parser.add_argument("--stream-share", type=float, default=1.0, help="of the load's requests (default: 1)")
    parser.add_argument("--kept-tokens", type=int, default=64, help="of the generation kept in Redis (default: 64)")
    parser.add_argument("--requests", type=int, default=8, help="of the one client, a turn and way (default: 8)")
    parser.add_argument("--repeats", type=int, default=3, help="turns (default: 3)")


def measured(arguments: argparse.Namespace) -> Numbers:
    model = open_model(arguments)
    length = model.denoiser.length
    room = {"tokens_per_tick": SAMPLES_A_TICK * length, "speculation": "off"}
    settings = {"device": "cpu", "dtype": arguments.dtype, "threads": 1, "lease_seconds": 10} | room
    with Redis() as redis:
        windows, taken = throughput(Path(model.path), redis, settings, arguments, mixed_lengths(length))
    found = latency(Path(model.path), settings, arguments, max(1, length // 4))
    for table in tables(windows, found):
        print(table)
    about = {"model": described(model), "clients": arguments.clients}
    return about | {"windows": windows, "kept": taken, "latencies": found, "figures": figures_of(windows, found)}
