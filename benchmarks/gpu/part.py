"""A part of the run: a process of its own that writes each result as soon as it has it. Needs torch alone."""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Result:
    """A line of the table."""

    name: str
    value: float | None = None
    unit: str = ""
    held: bool | None = None  # whether what must hold held; None: a figure
    note: str = ""


@dataclass(frozen=True)
class Options:
    """What all parts are told."""

    device: torch.device
    small: bool  # sizes that only show that everything works

    @property
    def gpu(self) -> bool:
        return self.device.type == "cuda"

    def wait(self) -> None:
        """Wait for the device."""
        if self.gpu:
            torch.cuda.synchronize(self.device)

    def seconds(self, run: Callable[[], object], times: int = 5) -> float:
        """The median of some runs, after one that warms up."""
        run()
        found = []
        for _ in range(times):
            self.wait()
            begun = time.perf_counter()
            run()
            self.wait()
            found.append(time.perf_counter() - begun)
        return sorted(found)[times // 2]


def run_part(results: Callable[[Options], Iterator[Result]]) -> None:
    """Run a part by its command line; a line of JSON a result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", required=True)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    device = torch.device(given.device, 0) if given.device == "cuda" else torch.device(given.device)
    with given.out.open("w") as file:
        for result in results(Options(device, given.small)):
            print(json.dumps(asdict(result)), file=file, flush=True)
