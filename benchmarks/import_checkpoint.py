"""How long the import of an official checkpoint takes, and how much memory.

Makes a synthetic checkpoint of the official size in the official format (131 M parameters, their EMA and Adam's two
moments: about 2 GiB), imports it in a process of its own, and deletes both.

    python -m benchmarks.import_checkpoint [--directory DIR] [--json FILE]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.machine import machine
from benchmarks.official_format import OFFICIAL, checkpoint, save

MAKE = """
import sys, torch
from pathlib import Path
from benchmarks.import_checkpoint import make
make(Path(sys.argv[1]))
"""

IMPORT = """
import json, resource, sys, time
from pathlib import Path
started = time.perf_counter()
from unmask_model_store.importers import Request, import_checkpoint
imported = time.perf_counter()
import_checkpoint(Request(Path(sys.argv[1]), Path(sys.argv[2])))
seconds = time.perf_counter() - imported
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"start_seconds": imported - started, "seconds": seconds, "peak_bytes": peak}))
"""


@dataclass(frozen=True)
class Figures:
    """What was measured; bytes, seconds. `peak_bytes` is the importing process's largest resident set."""

    checkpoint_bytes: int
    bundle_bytes: int
    start_seconds: float
    seconds: float
    peak_bytes: int
    machine: str


def make(file: Path) -> None:
    """Write the synthetic checkpoint."""
    save(checkpoint(OFFICIAL, optimizer=True), file)


def measure(directory: Path) -> Figures:
    """Make, import and count, each step in its own process."""
    file, bundle = directory / "synthetic.ckpt", directory / "bundle"
    subprocess.run([sys.executable, "-c", MAKE, str(file)], check=True)
    command = [sys.executable, "-c", IMPORT, str(file), str(bundle)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    size = sum(each.stat().st_size for each in bundle.iterdir())
    return Figures(checkpoint_bytes=file.stat().st_size, bundle_bytes=size, machine=machine(), **found)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, help="where 3 GiB may be written for a while; default: the system's")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        figures = measure(Path(directory))
    gib = 2**30
    Console(highlight=False).print(
        f"{figures.machine}\n"
        f"checkpoint {figures.checkpoint_bytes / gib:.2f} GiB → bundle {figures.bundle_bytes / gib:.2f} GiB\n"
        f"{figures.seconds:.1f} s (and {figures.start_seconds:.1f} s to start Python), "
        f"peak resident memory {figures.peak_bytes / gib:.2f} GiB"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(figures), indent=2) + "\n")


if __name__ == "__main__":
    main()
