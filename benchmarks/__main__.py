"""Measure the published figures on this machine: tables on the terminal, JSON and plots in a folder.

    python -m benchmarks                 what serving costs: some 8 minutes on two cores
    python -m benchmarks --all           everything marked with * below: some 40 minutes
    python -m benchmarks NAME --help     what one benchmark measures, and its options
    python -m benchmarks NAME ...        run one benchmark

Leave the machine alone meanwhile if you want figures worth publishing.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from benchmarks.harness import figures_table, interpreter, read_figures, run_benchmark

FIGURES = Path(__file__).parent.parent / "docs" / "figures"


@dataclass(frozen=True)
class Benchmark:
    """Where a benchmark is, and how the commands that run many of them run it."""

    module: str
    quick: str = ""  # options that only show that everything works; --all runs the benchmarks that have them
    short: str = ""  # options with which all of serving takes minutes
    model: bool = True  # whether it takes --model
    plot: bool = False  # whether it takes --png

    @property
    def name(self) -> str:
        return f"benchmarks.{self.module}"

    @property
    def about(self) -> str:
        """The first line of the module's docstring, read without importing it."""
        source = Path(__file__).parent.joinpath(*self.module.split(".")).with_suffix(".py").read_text()
        return source.partition("\n")[0].strip('"')


BENCHMARKS = {
    "throughput": Benchmark("serving.throughput", "--concurrency 2 --requests 3 --repeats 1 --measured-ticks 4"),
    "http_overhead": Benchmark(
        "serving.http_overhead", "--concurrency 2 --requests 2 --repeats 1", "--requests 16 --repeats 1"
    ),
    "mixed_load": Benchmark("serving.mixed_load", "--levels 1 2 --seconds 0.5", plot=True),
    "eta": Benchmark("serving.eta", "--concurrency 2 --requests 2", "--requests 24"),
    "overload": Benchmark("serving.overload", "--seconds 2 --concurrency 8"),
    "slow_readers": Benchmark("serving.slow_readers", "--readers 8 --seconds 2 --repeats 1"),
    "speculation_served": Benchmark(
        "speculation.served", "--tokens 4 --alone 1 --concurrency 2 --requests 2 --repeats 1"
    ),
    "evaluation": Benchmark("evaluation.evaluation", "--size small --rounds 1 --reference-rounds 1", "--size both"),
    "sampler_cost": Benchmark("evaluation.sampler_cost", "--batches 1 2 --rounds 2"),
    "kernels": Benchmark("kernels.__main__", "--rows 2 --classes 101 --seconds 0", model=False),
    "speculation": Benchmark(
        "speculation.speculation",
        "--tokens 12 4 --samples 1 --lanes 1 8 --distances 1 4 --timed-lanes 1 4 --turns 1 --requests 4",
        plot=True,
    ),
    "high_order": Benchmark("papers.high_order", model=False),
    "uncertain_remasking": Benchmark("uncertain_remasking", model=False),
    "import_checkpoint": Benchmark("import_checkpoint", model=False),
    "cluster": Benchmark("cluster.cluster"),
    "chaos": Benchmark("cluster.chaos"),
    "soak": Benchmark("serving.soak"),
}
IN_ALL = [name for name, each in BENCHMARKS.items() if each.quick]
SERVING = IN_ALL[: IN_ALL.index("evaluation")]


def run_one(name: str, given: Sequence[str]) -> int:
    """Run one benchmark by its own command line; return the exit code."""
    return run_benchmark(name, import_module(BENCHMARKS[name].name), given)


# with command lines of their own
OTHERS = {"papers": "the papers' experiments", "frontier": "every sampler against the truth, at equal evaluations"}


def command_of(name: str, arguments: argparse.Namespace) -> tuple[list[str], list[Path]]:
    """The command that runs a benchmark, and the files that it writes."""
    benchmark = BENCHMARKS[name]
    files = {"--json": arguments.out / f"{name}.json"}
    if benchmark.plot:
        files["--png"] = arguments.out / f"{name}.png"
    command = [*interpreter(), "-m", "benchmarks", name, *(str(word) for item in files.items() for word in item)]
    if benchmark.model and arguments.model:
        command += ["--model", arguments.model]
    sizes = benchmark.quick if arguments.quick else benchmark.short
    return command + sizes.split(), list(files.values())


def options() -> argparse.ArgumentParser:
    listed = [f"  {name:20}{'*' if name in IN_ALL else ' '} {each.about}" for name, each in BENCHMARKS.items()]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="\n".join(["benchmarks:", *listed, *(f"  {name:20}  {about}" for name, about in OTHERS.items())]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--all", action="store_true", help="run everything marked with *")
    which.add_argument("--only", nargs="+", choices=IN_ALL, metavar="NAME", help="run these, of those marked with *")
    parser.add_argument("--quick", action="store_true", help="sizes that only show that everything works")
    parser.add_argument("--out", type=Path, default=FIGURES, help="folder of the files (default: docs/figures)")
    parser.add_argument("--model", help="name or folder of a bundle (default: the model that ships)")
    return parser


def run_many(arguments: argparse.Namespace) -> int:
    """Run benchmarks one after the other, each in its own process; return 1 if one of them failed."""
    written: list[Path] = []
    failed: list[str] = []
    names = arguments.only or (IN_ALL if arguments.all else SERVING)
    for number, name in enumerate(names, 1):
        print(f"── {name} ({number} of {len(names)})", flush=True)
        command, files = command_of(name, arguments)
        begun = time.monotonic()
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
        else:
            written += files
            print(f"   {time.monotonic() - begun:.0f} s\n", flush=True)
    for file in written:
        print(f"wrote {file}")
    if figures := read_figures(written):
        print(figures_table(figures))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


def main(given: Sequence[str] | None = None) -> int:
    """Run one benchmark, if one is named first, or many; return the exit code."""
    words = sys.argv[1:] if given is None else given
    if words and words[0] in OTHERS:
        if words[0] == "papers":
            from benchmarks.papers.__main__ import main as other
        else:
            from benchmarks.frontier import main as other
        other(words[1:])
        return 0
    if words and words[0] in BENCHMARKS:
        return run_one(words[0], words[1:])
    return run_many(options().parse_args(words))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
