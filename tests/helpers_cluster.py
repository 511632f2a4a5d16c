"""`unmask api` and `unmask worker` as processes over one Redis, and a client that comes back until its stream ends."""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Self

import httpx

from tests.helpers_server import (
    ANSWER_SECONDS,
    NO_CERTIFICATES,
    Body,
    Event,
    Server,
    Stream,
    event_of,
    parse_events,
    wait_for,
)

# so short that a test can wait until a worker's work is another's
LEASE_SECONDS = 1.0
# of a client that found nobody, before it asks the next
PAUSE_SECONDS = 0.05
# no answer in so long: the connection is as good as gone (an open stream says something every 15 s)
SILENCE_SECONDS = 30.0


class Cluster:
    """API processes and workers of one model.

    Args:
        model: the bundle.
        redis_url: where they meet.
        settings: of every process. A tick is one evaluation of each sample where they say nothing else.
    """

    def __init__(self, model: Path, redis_url: str, **settings: object) -> None:
        self.model = model
        own = {"redis_url": redis_url, "lease_seconds": LEASE_SECONDS, "speculation": "off"}
        self.settings: dict[str, object] = own | settings
        self.apis: list[Server] = []
        self.workers: list[Server] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in (*self.apis, *self.workers):
            process.kill()  # they are killed all the time; to end in good order takes each a second
            process.close()

    @property
    def urls(self) -> list[str]:
        return [api.url for api in self.apis]

    def start(self, apis: int, workers: int) -> Self:
        """Start so many of each, and wait for all of them."""
        for _ in range(apis):
            self.start_api()
        for _ in range(workers):
            self.start_worker()
        return self.until_ready()

    def start_api(self, *options: str, port: int | None = None) -> Server:
        self.apis.append(Server(self.model, *options, command="api", port=port, settings=self.settings))
        return self.apis[-1]

    def start_worker(self, *options: str, program: Sequence[str | Path] = ()) -> Server:
        """Start a worker that speaks of itself on a port of its own."""
        self.workers.append(Server(self.model, *options, command="worker", program=program, settings=self.settings))
        return self.workers[-1]

    def until_ready(self) -> Self:
        for process in (*self.workers, *self.apis):
            process.until_ready()
        return self

    def replace(self, process: Server) -> None:
        """Put a fresh process in the place of one that has ended; an API keeps its address."""
        process.close()
        if process in self.apis:
            self.apis.remove(process)
            self.start_api(port=process.port)
        else:
            self.workers.remove(process)
            self.start_worker()

    def dismiss(self, worker: Server) -> None:
        """Do without it."""
        worker.close()
        self.workers.remove(worker)

    def heal(self) -> None:
        """Replace all that have ended, and wait until nothing is left to do and everybody is ready."""
        for process in (*self.apis, *self.workers):
            if process.process.poll() is not None:
                self.replace(process)
            else:
                process.resume()
        self.until_ready()
        self.apis[0].until_idle()

    def counted(self, name: str) -> float:
        """The sum of a counter of the workers that run."""
        return sum(counted(worker, name) for worker in self.workers if worker.process.poll() is None)


def counted(process: Server, name: str) -> float:
    """The sum of a metric's lines; 0 where it has never been counted, or the process answers no more."""
    try:
        response = httpx.get(f"{process.url}/metrics", timeout=ANSWER_SECONDS, verify=NO_CERTIFICATES)
    except httpx.TransportError:
        return 0.0
    lines = response.text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


class Follower:
    """A client of a generation that goes on without it: it asks one API after the other until the stream has ended.

    It holds what it is told to the contract: event ids only increase, over all of its connections.

    Attributes:
        events: all that it has seen.
        connections: how often it was answered with events.
        refusals: how often it was told to come again.
    """

    def __init__(self, urls: Sequence[str], body: Body) -> None:
        self._urls = urls
        self._body = body | {"stream": True, "detach": True}
        # so that a request whose answer was lost can be sent again
        self._key = secrets.token_hex(8)
        self._turn = 0
        self.events: list[Event] = []
        self.connections = 0
        self.refusals = 0

    @property
    def id(self) -> str:
        found: str = self.events[0].data["id"]
        return found

    @property
    def ended(self) -> bool:
        return bool(self.events) and self.events[-1].name in ("done", "error")

    @property
    def stream(self) -> Stream:
        return Stream(self.events)

    @property
    def unmasks(self) -> int:
        return sum(event.name == "unmask" for event in self.events)

    async def follow(self, http: httpx.AsyncClient) -> None:
        """Come back until the end."""
        while not self.ended:
            with contextlib.suppress(httpx.TransportError):
                await self._connect(http)
            if not self.ended:
                self._turn += 1
                await asyncio.sleep(PAUSE_SECONDS)

    async def _connect(self, http: httpx.AsyncClient) -> None:
        response = await http.send(self._question(http), stream=True)
        try:
            if response.status_code in (429, 503):
                assert int(response.headers["retry-after"]) >= 1
                self.refusals += 1
            else:
                assert response.status_code == 200, (response.status_code, await response.aread())
                self.connections += 1
                await self._read(response)
        finally:
            await response.aclose()

    def _question(self, http: httpx.AsyncClient) -> httpx.Request:
        url = self._urls[self._turn % len(self._urls)]
        if not self.events:
            return http.build_request(
                "POST", f"{url}/generate", json=self._body, headers={"Idempotency-Key": self._key}
            )
        seen = {"Last-Event-ID": str(self.events[-1].id)}
        return http.build_request("GET", f"{url}/generate/{self.id}/events", headers=seen)

    async def _read(self, response: httpx.Response) -> None:
        """As a browser's EventSource does: an event counts once its empty line has come."""
        fields: list[tuple[str, str]] = []
        async for line in response.aiter_lines():
            if line == "":
                if fields:
                    self.take(event_of(fields))
                fields = []
            elif not line.startswith(":"):
                name, _, value = line.partition(":")
                fields.append((name, value.removeprefix(" ")))

    def take(self, event: Event) -> None:
        """Hold an event to what has been seen, and keep it."""
        assert not self.ended, f"{event} came after the end"
        assert (event.name == "start") == (not self.events), f"{event} came out of turn"
        assert not self.events or event.id > self.events[-1].id, f"{event} came after {self.events[-1]}"
        self.events.append(event)


Meanwhile = Callable[[list[Follower]], Awaitable[None]]


def follow_all(urls: Sequence[str], bodies: Sequence[Body], meanwhile: Meanwhile | None = None) -> list[Follower]:
    """Follow a generation of each body to its end, all at once, while something happens."""

    async def run() -> list[Follower]:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        followers = [Follower(urls, body) for body in bodies]
        async with (
            asyncio.timeout(ANSWER_SECONDS),
            httpx.AsyncClient(limits=limits, timeout=SILENCE_SECONDS, verify=NO_CERTIFICATES) as http,
            asyncio.TaskGroup() as tasks,
        ):
            for follower in followers:
                tasks.create_task(follower.follow(http))
            if meanwhile is not None:
                await meanwhile(followers)
        return followers

    return asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    """`wait_for` beside others on the loop; the condition may take its time."""
    await asyncio.to_thread(wait_for, condition, ANSWER_SECONDS)


async def until_seen(followers: Sequence[Follower], unmasks: int) -> None:
    """Wait until so many unmask events have been seen, by all followers together."""
    while sum(follower.unmasks for follower in followers) < unmasks:
        await asyncio.sleep(0.01)


def whole_log(url: str, generation: str) -> list[Event]:
    """All events of a generation that has ended, read from the start."""
    path = f"{url}/generate/{generation}/events"
    with httpx.stream("GET", path, timeout=ANSWER_SECONDS, verify=NO_CERTIFICATES) as response:
        assert response.status_code == 200, response.read()
        return list(parse_events(response.iter_lines()))


def check_logs(urls: Sequence[str], followers: Sequence[Follower]) -> None:
    """What each client has seen is the log: nothing lost, nothing doubled, the same from every API."""
    for follower in followers:
        for url in urls:
            assert whole_log(url, follower.id) == follower.events
