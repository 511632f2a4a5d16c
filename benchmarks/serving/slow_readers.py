"""Slow readers must not slow the server down.

200 streams at a time are read at once and, in turns, as slowly as over a bad connection (a small receive buffer, 256
bytes, a pause). The server's counter of evaluations says how much work it did. Plain sockets, because an HTTP library
would read ahead.
"""

import argparse
import asyncio
import itertools
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean
from urllib.parse import urlsplit

from rich.progress import track
from unmask_bench.load import Mix

from benchmarks.harness import Figure, Numbers
from benchmarks.models import add_model_options, described, open_model
from benchmarks.serving.server import evaluations_a_second, mixed_lengths, resident, server_of, settled, watching


@dataclass(frozen=True)
class Reading:
    """How readers read."""

    name: str
    size: int  # bytes read at a time
    pause: float  # seconds between two reads
    buffer: int  # bytes that the socket buffers


READINGS = (Reading("at once", 1 << 16, 0.0, 1 << 18), Reading("slowly", 256, 0.5, 2048))


class Readers:
    """Clients that each read one stream after the other."""

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
        # before connecting: it determines the window that TCP offers
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.reading.buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (self.address.hostname, self.address.port))
        return await asyncio.open_connection(sock=sock, limit=self.reading.size)

    def _request(self, body: bytes) -> bytes:
        lines = ("POST /generate HTTP/1.1", f"Host: {self.address.netloc}", "Content-Type: application/json")
        head = "\r\n".join((*lines, f"Content-Length: {len(body)}", "Connection: close", "", ""))
        return head.encode() + body


async def measure(url: str, mix: Mix, reading: Reading, readers: int, seconds: float) -> Numbers:
    """Read for some seconds, of which the first fifth does not count."""
    crowd = Readers(url, mix, reading)
    async with watching(url, every=min(1.0, seconds / 10)) as moments:
        crowding = asyncio.create_task(crowd.run(readers))
        await asyncio.wait({crowding}, timeout=seconds)
        if crowding.done():  # only after an error
            await crowding
        crowding.cancel()
        await asyncio.gather(crowding, return_exceptions=True)
    steady = settled(moments, seconds / 5)
    rates = {"evaluations_a_second": evaluations_a_second(steady), "resident": resident(steady)}
    return {"reading": reading.name, **rates, "bytes_read": crowd.bytes_read}


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser)
    parser.add_argument("--readers", type=int, default=200, help="at a time (default: 200)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each phase (default: 10)")
    parser.add_argument("--repeats", type=int, default=2, help="phases of each kind, in turns (default: 2)")


def measured(arguments: argparse.Namespace) -> Numbers:
    model = open_model(arguments)
    mix = mixed_lengths(model.denoiser.length)
    with server_of(arguments) as server:
        turns = track([*READINGS] * arguments.repeats, description="readers", transient=True)
        phases = [
            asyncio.run(measure(server.url, mix, reading, arguments.readers, arguments.seconds)) for reading in turns
        ]
    for each in phases:
        print(f"read {each['reading']}: {each['evaluations_a_second']:.0f} evaluations a second")
    prompt, slow = (
        mean(each["evaluations_a_second"] for each in phases if each["reading"] == way.name) for way in READINGS
    )
    measure_name = f"{arguments.readers} slow readers, throughput of prompt readers'"
    about = {"model": described(model), "readers": arguments.readers}
    return about | {"phases": phases, "figures": [Figure(measure_name, slow / prompt, "at least", 0.95)]}
