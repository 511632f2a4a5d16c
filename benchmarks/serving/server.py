"""A real server process, the loads of the serving benchmarks, and what the server's metrics say."""

import argparse
import asyncio
import os
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import linear_regression, mean
from types import TracebackType
from typing import Self

import httpx
from prometheus_client.parser import text_string_to_metric_families
from unmask_bench.client import connect
from unmask_bench.load import Load, LoadRun, Mix, Range
from unmask_bench.report import run_with_progress

from benchmarks.harness import interpreter

START_SECONDS = 120.0
STOP_SECONDS = 20.0
ANSWER_SECONDS = 600.0
EVALUATIONS = "unmask_network_evaluations_total"
RESIDENT = "unmask_process_resident_memory_bytes"
MIB = 1 << 20


class Scrape:
    """One reading of /metrics."""

    def __init__(self, text: str) -> None:
        families = text_string_to_metric_families(text)
        self._samples = [(each.name, each.labels, each.value) for family in families for each in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum of a metric's lines with these labels; 0 if there is none, as of a counter that was never used."""
        return sum(value for each, own, value in self._samples if each == name and labels.items() <= own.items())

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """The sums of a metric's lines with these labels, by the values of another label."""
        values = {own[label] for each, own, _ in self._samples if each == name and labels.items() <= own.items()}
        return {value: self.value(name, **labels, **{label: value}) for value in values}


@dataclass(frozen=True)
class Moment:
    """Some metrics of a server at one time."""

    at: float  # seconds on the monotonic clock
    evaluations: float  # since the server started
    resident: float  # memory, MiB


@asynccontextmanager
async def watching(url: str, every: float = 1.0) -> AsyncIterator[list[Moment]]:
    """Read the server's metrics every `every` seconds in this context; the list grows."""
    moments: list[Moment] = []

    async def watch(http: httpx.AsyncClient) -> None:
        while True:
            scrape = Scrape((await http.get("/metrics")).raise_for_status().text)
            moments.append(Moment(time.monotonic(), scrape.value(EVALUATIONS), scrape.value(RESIDENT) / MIB))
            await asyncio.sleep(every)

    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        watcher = asyncio.create_task(watch(http))
        try:
            yield moments
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)


def settled(moments: Sequence[Moment], seconds: float) -> Sequence[Moment]:
    """The moments after the first `seconds`, but at least the last two."""
    first = next((i for i, each in enumerate(moments) if each.at >= moments[0].at + seconds), len(moments))
    return moments[min(first, len(moments) - 2) :]


def evaluations_a_second(moments: Sequence[Moment]) -> float:
    first, last = moments[0], moments[-1]
    return (last.evaluations - first.evaluations) / (last.at - first.at)


def growth(moments: Sequence[Moment]) -> float:
    """MiB by which resident memory grew from the first to the last moment, by linear regression."""
    slope, _ = linear_regression([each.at for each in moments], [each.resident for each in moments])
    return slope * (moments[-1].at - moments[0].at)


def resident(moments: Sequence[Moment]) -> float:
    """Mean resident memory in MiB."""
    return mean(each.resident for each in moments)


class ServerError(RuntimeError):
    """The server did not start; the message holds its output."""


class ServerProcess:
    """`unmask serve` at `url`, on a free port; ready when the context is entered."""

    def __init__(self, *options: str) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 — closed in `close`
        command = [*interpreter(), "-m", "unmask_service", "serve", "--port", "0", *options]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("UNMASK_")}
        self._process = subprocess.Popen(command, env=kept, stdout=self._log, stderr=self._log)
        self.url = ""

    def __enter__(self) -> Self:
        try:
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def metric(self, name: str) -> float:
        return Scrape(httpx.get(f"{self.url}/metrics", timeout=START_SECONDS).text).value(name)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self.url = self.url or self._address()
            if self.url and httpx.get(f"{self.url}/ready").status_code == 200:
                return
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        raise ServerError(f"the server did not become ready:\n{self._output()}")

    def _address(self) -> str:
        return next((line.split()[-1] for line in self._output().splitlines() if "listening on http" in line), "")

    def _output(self) -> str:
        # pread leaves the file's offset, which the process writes at, where it is
        return os.pread(self._log.fileno(), 1 << 20, 0).decode(errors="replace")


def mixed_lengths(length: int, samples: int = 1) -> Mix:
    """Streams of the exact sampler: 1/4 to 4/4 of the model's length, 1 to `samples` samples."""
    return Mix(max_tokens=Range(max(1, length // 4), length), n=Range(1, samples))


def mixed_samplers(length: int, leave_share: float = 0.0) -> Mix:
    """Mixed lengths and samplers, one sample or two, streams and whole answers, clients that disconnect."""
    samplers = (
        {"name": "first_hitting"},
        {"name": "first_hitting", "steps": max(1, length // 8)},
        {"name": "ancestral", "steps": max(1, length // 2)},
        {"name": "ancestral", "steps": 1},
    )
    tokens = Range(max(1, length // 8), length)
    return Mix(max_tokens=tokens, samplers=samplers, n=Range(1, 2), stream_share=0.75, leave_share=leave_share)


def server_of(arguments: argparse.Namespace, *options: str) -> ServerProcess:
    """A server on the CPU with the model, dtype and threads of a benchmark's options, and without speculation."""
    threads = [] if arguments.threads is None else ["--threads", str(arguments.threads)]
    named = ["--model", arguments.model, "--device", "cpu", "--dtype", arguments.dtype, "--speculation", "off"]
    return ServerProcess(*named, *threads, *options)


def put_load(url: str, mix: Mix, load: Load, label: str) -> LoadRun:
    """Put a load on a server until it ends, with a progress bar."""
    return asyncio.run(load_on(url, mix, load, label))


async def load_on(url: str, mix: Mix, load: Load, label: str) -> LoadRun:
    """`put_load` within a running event loop."""
    async with connect(url, ANSWER_SECONDS) as client:
        run = LoadRun(client, mix, load)
        await run_with_progress(run, label)
    return run
