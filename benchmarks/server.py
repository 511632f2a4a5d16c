"""A real server process, and what its metrics say."""

import os
import subprocess
import tempfile
import time
from types import TracebackType
from typing import Self

import httpx

from benchmarks.metrics import Scrape
from benchmarks.options import interpreter

START_SECONDS = 120.0
STOP_SECONDS = 20.0


class ServerError(RuntimeError):
    """The server did not start; the message is what it said."""


class ServerProcess:
    """`unmask serve` on a free port, ready when the context is entered.

    Attributes:
        url: where it listens.
    """

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
        """End the process."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def metric(self, name: str) -> float:
        """The value of a metric, its lines in /metrics added up."""
        return self.scrape().value(name)

    def scrape(self) -> Scrape:
        """All metrics as they are now."""
        return Scrape(httpx.get(f"{self.url}/metrics", timeout=START_SECONDS).text)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self.url = self.url or self._address()
            if self.url and httpx.get(f"{self.url}/ready").status_code == 200:
                return
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        raise ServerError(f"the server did not get ready:\n{self._output()}")

    def _address(self) -> str:
        """The address in the log's line `listening on …`, once it is there."""
        return next((line.split()[-1] for line in self._output().splitlines() if "listening on http" in line), "")

    def _output(self) -> str:
        # pread leaves the file's offset, which the process writes at, where it is
        return os.pread(self._log.fileno(), 1 << 20, 0).decode(errors="replace")
