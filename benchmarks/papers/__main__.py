"""The papers' experiments, repeated with this server's own samplers: what a paper says, what is measured here.

Paper 1 is "Masked Diffusion Models are Secretly Time-Agnostic Masked Models…" (arXiv 2409.02908), paper 2 is "Beyond
Masked and Unmasked…" (MDM-Prime, arXiv 2505.18495). An experiment prints its tables and writes three files into OUT:
papers_NAME.md (the tables), papers_NAME.png and papers_NAME.json (every number). docs/papers.md says what they mean.

    python -m benchmarks.papers idle-steps                 # seconds: needs no network
    python -m benchmarks.papers wall-clock --help          # what it compares, and its options
    python -m benchmarks.papers all --quick                # everything in a minute, to see that it works

For figures worth publishing leave the machine alone meanwhile.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from benchmarks.harness import machine
from benchmarks.papers import idle_steps, images, precision, published_integrand, wall_clock
from benchmarks.papers.finding import write

EXPERIMENTS: dict[str, ModuleType] = {
    "idle-steps": idle_steps,
    "images": images,
    "wall-clock": wall_clock,
    "precision": precision,
    "published-integrand": published_integrand,
}
COMMAND = "python -m benchmarks.papers"


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    experiments = parser.add_subparsers(dest="name", metavar="NAME", required=True, title="experiments")
    for name, module in EXPERIMENTS.items():
        text = str(module.__doc__)
        each = experiments.add_parser(
            name, help=text.splitlines()[0], description=text, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        _add_common_options(each)
        module.add_options(each)
    _add_common_options(experiments.add_parser("all", help="One after the other, at their default sizes."))
    return parser


def _add_common_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("runs/papers"), help="where files go (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="sizes that only show that everything works")


def run(arguments: argparse.Namespace, command: str) -> list[Path]:
    module = EXPERIMENTS[arguments.name]
    if arguments.quick:
        vars(arguments).update(module.QUICK)
    finding = module.measured(arguments)
    print(finding.markdown(), flush=True)
    return write(finding, arguments.name, {"command": command, "machine": machine()}, arguments.out)


def main(given: Sequence[str] | None = None) -> None:
    """Run the experiment that the command line names, or all."""
    given = sys.argv[1:] if given is None else given
    parser = options()
    arguments = parser.parse_args(given)
    names = list(EXPERIMENTS) if arguments.name == "all" else [arguments.name]
    for name in names:
        words = [name, *given[1:]]
        print(f"── {name}\n", flush=True)
        for file in run(parser.parse_args(words), f"{COMMAND} {shlex.join(words)}"):
            print(f"wrote {file}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
