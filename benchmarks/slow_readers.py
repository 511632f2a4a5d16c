"""Readers that are slower than the server writes must not slow it down.

Two hundred streams at a time, read at once and, in turns, as slowly as a bad connection would (a small receive buffer,
a few hundred bytes, a pause). The work is the same; what may differ is how much of it the server gets done, by its own
counter of evaluations. Plain sockets, because an HTTP library would read ahead.

    python -m benchmarks.slow_readers [--readers 200] [--seconds 10] [--json FILE]
"""

import argparse
import asyncio
import itertools
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import track
from unmask_bench.load import Mix

from benchmarks.figures import Figure, table_of
from benchmarks.machine import machine
from benchmarks.metrics import evaluations_a_second, resident, watching
from benchmarks.options import add_model_options, described, open_model, parser_of, run_benchmark
from benchmarks.overload import settled
from benchmarks.workloads import mixed_lengths, server_of


@dataclass(frozen=True)
class Reading:
    """How readers read: so many bytes, then a pause in seconds, through a receive buffer of so many bytes."""

    name: str
    size: int
    pause: float
    buffer: int


READINGS = (Reading("at once", 1 << 16, 0.0, 1 << 18), Reading("slowly", 256, 0.5, 2048))


@dataclass(frozen=True)
class Phase:
    """What the server did while its streams were read in one way; resident memory in MiB."""

    reading: str
    evaluations_a_second: float
    resident: float
    bytes_read: int


class Readers:
    """Clients that each read one stream after the other, forever."""

    def __init__(self, url: str, mix: Mix, reading: Reading) -> None:
        self.address = urlsplit(url)
        self.mix = mix
        self.reading = reading
        self.bytes_read = 0
        self._numbers: Iterator[int] = itertools.count()

    async def run(self, readers: int) -> None:
        """Read until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(readers):
                group.create_task(self._read_streams())

    async def _read_streams(self) -> None:
        while True:
            reader, writer = await self._connect()
            try:
                writer.write(self._request(self.mix.call(next(self._numbers)).body))
                while chunk := await reader.read(self.reading.size):
                    self.bytes_read += len(chunk)
                    await asyncio.sleep(self.reading.pause)
            finally:
                writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sock = socket.socket()
        # before connecting: the window that TCP offers follows from it
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.reading.buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (self.address.hostname, self.address.port))
        return await asyncio.open_connection(sock=sock, limit=self.reading.size)

    def _request(self, body: bytes) -> bytes:
        lines = ("POST /generate HTTP/1.1", f"Host: {self.address.netloc}", "Content-Type: application/json")
        head = "\r\n".join((*lines, f"Content-Length: {len(body)}", "Connection: close", "", ""))
        return head.encode() + body


async def measure(url: str, mix: Mix, reading: Reading, readers: int, seconds: float) -> Phase:
    """Let them read for a while; the first fifth of it counts for nothing."""
    crowd = Readers(url, mix, reading)
    async with watching(url, every=min(1.0, seconds / 10)) as moments:
        crowding = asyncio.create_task(crowd.run(readers))
        await asyncio.wait({crowding}, timeout=seconds)
        if crowding.done():  # only by an error
            await crowding
        crowding.cancel()
        await asyncio.gather(crowding, return_exceptions=True)
    steady = settled(moments, seconds / 5)
    return Phase(reading.name, evaluations_a_second(steady), resident(steady), crowd.bytes_read)


def figures_of(phases: Sequence[Phase], readers: int) -> list[Figure]:
    """The change of throughput."""
    rates = [mean(each.evaluations_a_second for each in phases if each.reading == way.name) for way in READINGS]
    return [Figure(f"{readers} slow readers, throughput of prompt readers'", rates[1] / rates[0], "at least", 0.95)]


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = parser_of(__doc__)
    add_model_options(parser)
    parser.add_argument("--readers", type=int, default=200, help="at a time (default: 200)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each phase (default: 10)")
    parser.add_argument("--repeats", type=int, default=2, help="phases of each kind, in turns (default: 2)")
    return parser


def main(given: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    run_benchmark(options(), measured, given)


def measured(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure and print; what is to be written."""
    model = open_model(arguments)
    mix = mixed_lengths(model.denoiser.length)
    with server_of(arguments) as server:
        turns = track([*READINGS] * arguments.repeats, description="readers", transient=True)
        phases = [
            asyncio.run(measure(server.url, mix, reading, arguments.readers, arguments.seconds)) for reading in turns
        ]
    figures = figures_of(phases, arguments.readers)
    console = Console(highlight=False)
    for each in phases:
        console.print(f"read {each.reading}: {each.evaluations_a_second:.0f} evaluations a second")
    console.print(table_of(figures, f"{arguments.readers} readers, {described(model)}; {machine()}"))
    about = {"model": described(model), "machine": machine(), "readers": arguments.readers}
    results = {"phases": [vars(each) for each in phases], "figures": [each.as_json() for each in figures]}
    return about | results


if __name__ == "__main__":
    main()
