"""Everything fails under load at random moments: every request must end, with the tokens of a run without faults.

A longer tests/system/test_faults.py: two API processes and some workers over a Redis that writes every command to its
disk. Each client follows one detached generation after the other and reconnects, with the id of the last event that it
saw, to whichever API process answers. Meanwhile one fault follows the other, in random order at random moments:

  worker killed    kill -9; a new worker takes its place
  worker paused    SIGSTOP for longer than its lease, then SIGCONT: other workers have taken over its jobs
  API killed       kill -9; a new API process listens on the same port
  Redis killed     kill -9; a new Redis starts with the data on the disk
  Redis paused     SIGSTOP until the API processes report it as down, then SIGCONT: it may run old commands late

Then an undisturbed `unmask serve` gets the same requests, and every client's stream is compared with the log. The exit
code is 1 if a token differs, an event was lost or doubled, or a request did not end with its answer.
"""

import argparse
import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import Progress
from unmask_bench.load import Mix

from benchmarks.harness import Numbers, Table
from benchmarks.models import add_model_options, described, open_model
from benchmarks.serving.server import mixed_samplers
from tests.helpers_cluster import LEASE_SECONDS, SILENCE_SECONDS, Cluster, Follower, counted, whole_log
from tests.helpers_redis import Redis
from tests.helpers_server import Body, Event, Server, generate_together, token_ids, wait_for

PAUSE_SECONDS = 3.0  # at most, from the end of a fault to the next
READY_SECONDS = 120.0  # timeout of all waiting
# counters that are lost with a killed process, and so are read before
COUNTERS = ("unmask_takeovers_total", "unmask_late_writes_refused_total", "unmask_network_evaluations_total")


class TimedFollower(Follower):
    """A client that measures its longest time without a new event, in seconds."""

    def __init__(self, urls: Sequence[str], body: Body) -> None:
        super().__init__(urls, body)
        self.longest_silence = 0.0
        self._heard = time.perf_counter()

    def take(self, event: Event) -> None:
        super().take(event)
        now = time.perf_counter()
        self.longest_silence = max(self.longest_silence, now - self._heard)
        self._heard = now


@dataclass
class Chaos:
    """A cluster under load, and its faults."""

    cluster: Cluster
    redis: Redis
    mix: Mix
    chance: random.Random
    bodies: list[Body] = field(default_factory=list)
    # the clients of all requests, in the order of `bodies`
    followers: list[TimedFollower] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)  # of processes that are no more

    async def run(self, faults: Sequence[str], clients: int) -> None:
        """Put load on the cluster until the last fault is over, and wait for the last answers."""
        calm = asyncio.Event()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx.AsyncClient(limits=limits, timeout=SILENCE_SECONDS) as http, asyncio.TaskGroup() as tasks:
            numbers = itertools.count()
            for _ in range(clients):
                tasks.create_task(self._client(http, numbers, calm))
            await self._cause(faults)
            calm.set()

    async def _client(self, http: httpx.AsyncClient, numbers: Iterator[int], calm: asyncio.Event) -> None:
        while not calm.is_set():
            number = next(numbers)
            body = json.loads(self.mix.call(number).body) | {"stream": False}
            follower = TimedFollower(sorted(self.cluster.urls, reverse=bool(number % 2)), body)
            self.bodies.append(body)
            self.followers.append(follower)
            await follower.follow(http)

    async def _cause(self, faults: Sequence[str]) -> None:
        causes: dict[str, Callable[[], None]] = {
            "worker killed": self.kill_worker,
            "worker paused": self.pause_worker,
            "API killed": self.kill_api,
            "Redis killed": self.kill_redis,
            "Redis paused": self.pause_redis,
        }
        with Progress(transient=True, console=Console(stderr=True)) as bar:
            for fault in bar.track(faults, description="faults"):
                await asyncio.sleep(self.chance.uniform(0.2, PAUSE_SECONDS))
                await asyncio.to_thread(causes[fault])

    def kill_worker(self) -> None:
        victim = self._any_worker()
        self._remember(victim)
        victim.kill()
        self.cluster.replace(victim)

    def pause_worker(self) -> None:
        sleeper = self._any_worker()
        sleeper.pause()
        time.sleep(LEASE_SECONDS * self.chance.uniform(1.5, 3.0))
        sleeper.resume()

    def _any_worker(self) -> Server:
        """A ready worker, once two are ready."""
        wait_for(lambda: len(self._ready_workers()) > 1, READY_SECONDS)
        return self.chance.choice(self._ready_workers())

    def _ready_workers(self) -> list[Server]:
        return [worker for worker in self.cluster.workers if worker.status_of("/ready") == 200]

    def kill_api(self) -> None:
        victim = self.chance.choice(self.cluster.apis)
        victim.kill()
        self.cluster.replace(victim)
        wait_for(lambda: any(api.status_of("/ready") == 200 for api in self.cluster.apis), READY_SECONDS)

    def kill_redis(self) -> None:
        self.redis.kill()
        time.sleep(self.chance.uniform(0.0, PAUSE_SECONDS))
        self.redis.start()

    def pause_redis(self) -> None:
        self.redis.pause()
        wait_for(lambda: all(api.status_of("/ready") in (503, None) for api in self.cluster.apis), READY_SECONDS)
        self.redis.resume()

    def _remember(self, process: Server) -> None:
        self.counts.update({name: round(counted(process, name)) for name in COUNTERS})

    def total(self, name: str) -> int:
        """A counter of all workers, killed ones included (but for their last moments)."""
        return self.counts[name] + round(self.cluster.counted(name))


def findings(chaos: Chaos, calm: Sequence[Body]) -> dict[str, int]:
    """Counts that must be 0."""
    followers = chaos.followers
    unanswered = [each for each in followers if each.stream.last.name != "done"]
    differing = [
        each
        for each, answer in zip(followers, calm, strict=True)
        if each not in unanswered and token_ids(each.stream.done) != token_ids(answer)
    ]
    doubled = [each for each in followers if each.unmasks != len({_reveal(event) for event in each.events[1:-1]})]
    logs = [each for each in followers if any(whole_log(url, each.id) != each.events for url in chaos.cluster.urls)]
    counts = {
        "requests without an answer": len(unanswered),
        "answers with other tokens than in calm": len(differing),
        "streams with a doubled reveal": len(doubled),
        "streams that differ from the log": len(logs),
        "requests left in the queue": _left_over(chaos.cluster),
    }
    return counts | Counter(f"error {each.stream.last.data['error']['code']}" for each in unanswered)


def _reveal(event: Event) -> tuple[int, int]:
    return event.data["index"], event.data["step"]


def _left_over(cluster: Cluster) -> int:
    cluster.apis[0].until_idle()
    return round(max(counted(api, "unmask_network_evaluations_at_hand") for api in cluster.apis))


def facts_of(chaos: Chaos, faults: Sequence[str], seconds: float) -> dict[str, float]:
    followers = chaos.followers
    return {
        **{f"faults: {name}": count for name, count in sorted(Counter(faults).items())},
        "seconds": round(seconds, 1),
        "requests": len(followers),
        "events": sum(len(each.events) for each in followers),
        "connections of clients": sum(each.connections for each in followers),
        "times a client was told to come again": sum(each.refusals for each in followers),
        "generations taken over": chaos.total(COUNTERS[0]),
        "late writes refused": chaos.total(COUNTERS[1]),
        "network evaluations done": chaos.total(COUNTERS[2]),
        "longest silence in a stream, seconds": round(max(each.longest_silence for each in followers), 2),
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser)
    parser.add_argument("--kills", type=int, default=20, help="of workers (default: 20)")
    parser.add_argument("--others", type=int, default=3, help="of each other fault (default: 3)")
    parser.add_argument("--workers", type=int, default=3, help="at a time (default: 3)")
    parser.add_argument("--clients", type=int, default=16, help="requests at a time (default: 16)")
    parser.add_argument("--seed", type=int, default=0, help="of requests, faults and moments (default: 0)")


def measured(arguments: argparse.Namespace) -> Numbers:
    model, chance = open_model(arguments), random.Random(arguments.seed)
    others = ("worker paused", "API killed", "Redis killed", "Redis paused")
    faults = ["worker killed"] * arguments.kills + [each for each in others for _ in range(arguments.others)]
    chance.shuffle(faults)
    settings = {"device": "cpu", "dtype": arguments.dtype, "threads": arguments.threads or 1, "keep_seconds": 7200}
    mix = mixed_samplers(model.denoiser.length)
    with Redis() as redis, Cluster(Path(model.path), redis.url, **settings) as cluster:
        chaos = Chaos(cluster.start(apis=2, workers=arguments.workers), redis, mix, chance)
        begun = time.perf_counter()
        asyncio.run(chaos.run(faults, arguments.clients))
        facts = facts_of(chaos, faults, time.perf_counter() - begun)
        with Server(Path(model.path), settings=settings) as server:
            calm = generate_together(server.until_ready().url, chaos.bodies)
        found = findings(chaos, calm)
    rows = [[name, f"{value:,}", ""] for name, value in facts.items()]
    rows += [[name, str(value), "fails" if value else "holds"] for name, value in found.items()]
    print(Table(f"{arguments.workers} workers, {arguments.clients} clients", ["what", "count", ""], rows))
    not_held = [f"{name}: {count}" for name, count in found.items() if count]
    about = {"model": described(model), "seed": arguments.seed}
    return about | {"facts": facts, "findings": found, "not_held": not_held}
