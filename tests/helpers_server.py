"""A real server process on a real port, and a client that takes nothing on trust."""

import asyncio
import atexit
import contextlib
import functools
import json
import multiprocessing.context
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, Self
from unittest import mock

import httpx
from unmask_service.cli import main

UNMASK = Path(sys.executable).with_name("unmask")
# guards against a hanging server, not measures of a good one
START_SECONDS = 120.0
ANSWER_SECONDS = 120.0

# The servers speak plain HTTP. A client that is given no context reads all of the system's certificates: 80 ms each.
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

Body = dict[str, Any]


def environment(**settings: object) -> dict[str, str]:
    """This process's, with these settings and no others, and with one thread for the arithmetic."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UNMASK_")}
    own = {f"UNMASK_{name.upper()}": str(value) for name, value in settings.items()}
    return kept | {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"} | own


def free_port() -> int:
    """A port that nobody listens on, and that no other process of a parallel run is given: each takes its own share."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        # pairs of ports: the kernel may prefer odd ones
        if port // 2 % workers == worker:
            return port


def unmask(*arguments: str | Path, seconds: float = START_SECONDS) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(
        [UNMASK, *arguments], env=environment(), capture_output=True, text=True, timeout=seconds, check=False
    )


class Mortal:
    """A process that may be hit at any moment."""

    process: "subprocess.Popen[bytes] | Forked"

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """Stand still from here on, without knowing it: connections stay open and nothing answers."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)


class Forked:
    """A process of Unmask, forked from one that has imported everything: imports take seconds of a processor.

    It has what the tests use of `subprocess.Popen`.
    """

    def __init__(self, words: Sequence[str], variables: Mapping[str, str], output: str) -> None:
        # not left over where the tests are interrupted
        self._process = _forkserver().Process(target=_command, args=(words, variables, output), daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired("unmask", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@functools.cache
def _forkserver() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.helpers_server", "unmask_service.app", "uvicorn"])
    with mock.patch.dict(os.environ, environment(), clear=True):
        forkserver.ensure_running()
    return context


def _command(words: Sequence[str], variables: Mapping[str, str], output: str) -> None:
    """Be the command line: in the forked process."""
    os.environ.clear()
    os.environ.update(variables)
    descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
    sys.argv = [*words]
    atexit._clear()
    try:
        main()
    finally:
        atexit._run_exitfuncs()  # a forked process does not by itself


class Server(Mortal):
    """A process of Unmask that answers over HTTP: `unmask serve`, or the command that is named.

    A worker answers on its metrics' port. `program` is what takes the place of `unmask` itself; without one the process
    is forked. Settings go by the environment, options by the command line.
    """

    def __init__(
        self,
        model: Path,
        *options: str,
        command: str = "serve",
        program: Sequence[str | Path] = (),
        port: int | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._output = tempfile.NamedTemporaryFile("w+")  # noqa: SIM115 — closed in `close`
        port_option = "--metrics-port" if command == "worker" else "--port"
        words = [command, "--model", str(model), port_option, str(self.port), *options]
        variables = environment(**(settings or {}))
        if program:
            self.process = subprocess.Popen([*program, *words], env=variables, stdout=self._output, stderr=self._output)
        else:
            self.process = Forked([str(UNMASK), *words], variables, self._output.name)
        self.http = httpx.Client(base_url=self.url, timeout=ANSWER_SECONDS, verify=NO_CERTIFICATES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.http.close()
        if self.process.poll() is None:
            self.resume()
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        self._output.close()

    def output(self) -> str:
        self._output.seek(0)
        return self._output.read()

    def until_ready(self) -> Self:
        wait_for(lambda: self.status_of("/ready") == 200, START_SECONDS, self.check_alive)
        return self

    def status_of(self, path: str) -> int | None:
        """The status of a GET on a connection of its own; None where nobody answers."""
        try:
            return httpx.get(self.url + path, timeout=ANSWER_SECONDS, verify=NO_CERTIFICATES).status_code
        except httpx.TransportError:
            return None

    def check_alive(self) -> None:
        assert self.process.poll() is None, f"exit code {self.process.returncode}: {self.output()}"

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def generate(self, **body: Any) -> Body:  # noqa: ANN401 — JSON
        """The answer to a request that must succeed."""
        response = self.http.post("/generate", json=body)
        assert response.status_code == 200, response.text
        answer: Body = response.json()
        return answer

    def post_raw(self, content: bytes | Iterator[bytes], **headers: str) -> httpx.Response:
        sent = {"content-type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
        return self.http.post("/generate", content=content, headers=sent)

    def stream(self, **body: Any) -> "Stream":  # noqa: ANN401 — JSON
        """All events of a request that must succeed."""
        with self.http.stream("POST", "/generate", json=body | {"stream": True}) as response:
            assert response.status_code == 200, response.read()
            assert response.headers["content-type"].partition(";")[0] == "text/event-stream"
            return Stream(list(parse_events(response.iter_lines())))

    def metric(self, name: str) -> float:
        return self.metrics(name)[0]

    def metrics(self, *names: str) -> list[float]:
        """Metrics of one moment."""
        lines = [line.split() for line in self.http.get("/metrics").text.splitlines()]
        found = [[words[1] for words in lines if words[0] == name] for name in names]
        assert all(len(values) == 1 for values in found), f"{names} in /metrics: {found}"
        return [float(value) for (value,) in found]

    def until_idle(self) -> None:
        """Wait until no request runs or waits."""
        gauges = ("unmask_requests_running", "unmask_requests_waiting")
        wait_for(lambda: not any(self.metrics(*gauges)), ANSWER_SECONDS, self.check_alive)


@dataclass(frozen=True)
class Event:
    id: int
    name: str
    data: Body


@dataclass(frozen=True)
class Stream:
    events: list[Event]

    @property
    def start(self) -> Body:
        assert self.events[0].name == "start"
        return self.events[0].data

    @property
    def unmasks(self) -> list[Body]:
        return [event.data for event in self.events if event.name == "unmask"]

    @property
    def last(self) -> Event:
        return self.events[-1]

    @property
    def done(self) -> Body:
        assert self.last.name == "done", self.last
        return self.last.data

    def canvases(self) -> list[list[list[int | None]]]:
        """For each sample the digits of its canvas after all `unmask` events, None where nothing was revealed."""
        digits = self.start["sub_tokens_per_token"]
        canvases: list[list[list[int | None]]] = [
            [[None] * digits for _ in range(self.start["length"])] for _ in self.start["canvas"]
        ]
        for unmask in self.unmasks:
            for position, j, digit in unmask["sub_tokens"]:
                place = canvases[unmask["index"]][position]
                assert place[j] is None, "a sub-token was revealed twice"
                place[j] = digit
            for position, j in unmask.get("masked", ()):
                assert canvases[unmask["index"]][position][j] is not None, "what is masked was masked again"
                canvases[unmask["index"]][position][j] = None
        return canvases

    def tokens(self) -> list[dict[int, int]]:
        """For each sample {position: id}: what `start` gives and what `unmask` events complete."""
        tokens = [{position: token for position, token, _ in given} for given in self.start["canvas"]]
        for unmask in self.unmasks:
            for position, token, _ in unmask["tokens"]:
                assert position not in tokens[unmask["index"]], "a token was completed twice"
                tokens[unmask["index"]][position] = token
            for position, _ in unmask.get("masked", ()):
                tokens[unmask["index"]].pop(position, None)
        return tokens


def parse_events(lines: Iterable[str]) -> Iterator[Event]:
    """Read an event stream strictly: every event has one id, one event name and one line of JSON."""
    fields: list[tuple[str, str]] = []
    for line in lines:
        if line == "":
            if fields:
                yield event_of(fields)
            fields = []
        elif not line.startswith(":"):
            name, separator, value = line.partition(":")
            assert separator, f"no field: {line!r}"
            fields.append((name, value.removeprefix(" ")))
    assert not fields, f"the stream ended within an event: {fields}"


def event_of(fields: Sequence[tuple[str, str]]) -> Event:
    by_name = dict(fields)
    assert sorted(name for name, _ in fields) == ["data", "event", "id"], fields
    return Event(int(by_name["id"]), by_name["event"], json.loads(by_name["data"], parse_constant=_no_constant))


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def wait_for(condition: Callable[[], bool], seconds: float, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Look again and again until something holds; the time is a guard only."""
    deadline = time.monotonic() + seconds
    while not condition():
        meanwhile()
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.03)


# --- many clients at once ------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def crowd(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client that may have any number of connections."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, timeout=ANSWER_SECONDS, limits=limits, verify=NO_CERTIFICATES) as client:
        yield client


def post_together(url: str, bodies: Sequence[Body], at_once: int = 64) -> list[httpx.Response]:
    """Post all bodies, many at a time; the responses in the order of the bodies."""

    async def run() -> list[httpx.Response]:
        places = asyncio.Semaphore(at_once)
        async with crowd(url) as client:

            async def post(body: Body) -> httpx.Response:
                async with places:
                    return await client.post("/generate", json=body)

            return await asyncio.gather(*(post(body) for body in bodies))

    return asyncio.run(run())


def generate_together(url: str, bodies: Sequence[Body], at_once: int = 64) -> list[Body]:
    """The answers of requests that must all succeed."""
    responses = post_together(url, bodies, at_once)
    assert {response.status_code for response in responses} == {200}, [r.text for r in responses if r.is_error][:3]
    return [response.json() for response in responses]


@dataclass(frozen=True)
class OpenStream:
    """A stream whose first event has been read."""

    response: httpx.Response
    rest: AsyncIterator[bytes]  # an iterator that nobody holds would close the response

    async def leave(self) -> None:
        await self.response.aclose()


async def open_stream(client: httpx.AsyncClient, body: Body) -> OpenStream:
    posting = client.build_request("POST", "/generate", json=body | {"stream": True})
    response = await client.send(posting, stream=True)
    assert response.status_code == 200, await response.aread()
    chunks = response.aiter_raw()
    while b"event" not in await anext(chunks):
        pass
    return OpenStream(response, chunks)


def with_open_streams(
    url: str, bodies: Sequence[Body], then: Callable[[httpx.AsyncClient, list[OpenStream]], Awaitable[None]]
) -> None:
    """Open a stream for every body, call `then`, and go away."""

    async def run() -> None:
        async with crowd(url) as client:
            streams = await asyncio.gather(*(open_stream(client, body) for body in bodies))
            try:
                await then(client, streams)
            finally:
                for stream in streams:
                    await stream.leave()

    asyncio.run(run())


def token_ids(answer: Body) -> list[list[int]]:
    return [choice["token_ids"] for choice in answer["choices"]]
