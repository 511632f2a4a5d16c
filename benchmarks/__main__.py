"""Every published figure, measured on this machine: tables to the terminal, JSON and plots into a folder.

  evaluation     milliseconds of a network evaluation and of its parts; exact sampling beside a thousand time steps
  http_overhead  the same samples through a server process and through the sampler alone
  tales_quality  the share of consistent tales against network evaluations
  sampler_error  each sampler's own error, against a Markov chain that is known

Each runs in a process of its own and can be run alone with more options: `python -m benchmarks.NAME --help`. On two
cores they should take some 2, 3, 12 and 20 minutes (an estimate); for figures worth publishing leave the machine alone
meanwhile. Not part of this: `benchmarks.import_checkpoint`, which writes 3 GiB.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from unmask_model_store import SHIPPED_MODEL

from benchmarks.options import interpreter

FIGURES = Path(__file__).parent.parent / "docs" / "figures"
PLOTTED = ("tales_quality", "sampler_error")
WITH_A_MODEL = ("evaluation", "http_overhead", "tales_quality")
# enough to see that everything works; the figures mean nothing
QUICK = {
    "evaluation": "--batches 1 2 --rounds 2 --sampler-batches 1 --steps 8 --reference-steps 2 --repeats 1",
    "http_overhead": "--concurrency 2 --requests 2 --repeats 1",
    "tales_quality": "--samples 2 --steps 4",
    "sampler_error": "--sequences 64 --steps 8",
}


def command_of(name: str, arguments: argparse.Namespace) -> tuple[list[str], list[Path]]:
    """How to run a benchmark, and the files that it writes."""
    files = {"--json": arguments.out / f"{name}.json"}
    if name in PLOTTED:
        files["--png"] = arguments.out / f"{name}.png"
    command = [*interpreter(), "-m", f"benchmarks.{name}"]
    for option, file in files.items():
        command += [option, str(file)]
    if name in WITH_A_MODEL:
        command += ["--model", arguments.model]
    return command + (QUICK[name].split() if arguments.quick else []), list(files.values())


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which to run (default: all): {', '.join(QUICK)}")
    parser.add_argument("--quick", action="store_true", help="sizes that only show that everything works")
    parser.add_argument("--out", type=Path, default=FIGURES, help="where files go (default: docs/figures)")
    parser.add_argument("--model", default=SHIPPED_MODEL, help="a bundle's name or folder (default: %(default)s)")
    return parser


def main(given: Sequence[str] | None = None) -> int:
    """Run benchmarks one after the other; the exit code says whether all of them came to an end."""
    parser = options()
    arguments = parser.parse_args(given)
    if unknown := sorted(set(arguments.names) - QUICK.keys()):
        parser.error(f"no benchmark is named {unknown[0]!r}; there are {', '.join(QUICK)}")
    written: list[Path] = []
    failed: list[str] = []
    for name in arguments.names or QUICK:
        print(f"── {name}", flush=True)
        command, files = command_of(name, arguments)
        begun = time.monotonic()
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
        else:
            written += files
            print(f"   {time.monotonic() - begun:.0f} s\n", flush=True)
    for file in written:
        print(f"wrote {file}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
