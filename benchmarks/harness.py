"""What all benchmarks share: the command line, tables, figures with their bounds, JSON.

A benchmark is a module with a docstring (its help), `add_options(parser)` and `measured(arguments)`, which prints its
tables and returns its numbers. Of these numbers "model" is a line, "figures" are `Figure`s and "not_held" lists what
did not hold. This module needs the standard library and torch alone: kernels are also measured where nothing else is
installed.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

Numbers = dict[str, Any]
STDOUT = Path("-")
CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Figure:
    """A ratio of two things that were measured side by side in one run, and the bound that is claimed for it."""

    measure: str
    value: float
    sense: Literal["at least", "at most"]
    bound: float

    @property
    def met(self) -> bool:
        return self.value >= self.bound if self.sense == "at least" else self.value <= self.bound


@dataclass(frozen=True)
class Table:
    """Rows of text under a title: `str` for a terminal, `markdown` for a document."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return "\n".join([f"{self.title}\n", *(f"| {' | '.join(line)} |" for line in lines)])

    def __str__(self) -> str:
        lines = [self.columns, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        first, *others = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
        return "\n".join([self.title, first, "─" * len(first), *others, ""])


def transposed(title: str, records: Sequence[Mapping[str, Any]]) -> Table:
    """A column for each record, headed by its first value; a line for each of the other keys."""
    first, *keys = records[0]
    cells = {
        key: [f"{v:.3f}" if isinstance(v, float) else str(v) for v in (each[key] for each in records)] for key in keys
    }
    rows = [[key.replace("_", " "), *values] for key, values in cells.items()]
    return Table(title, ["", *(str(each[first]) for each in records)], rows)


def figures_table(figures: Iterable[Figure]) -> Table:
    rows = [
        [each.measure, f"{each.value:.3g}", f"{each.sense} {each.bound:g}", "met" if each.met else "not met"]
        for each in figures
    ]
    return Table("Figures", ["measure", "measured", "claimed", ""], rows)


def read_figures(files: Sequence[Path]) -> list[Figure]:
    """The figures in JSON files; files without figures and files that were not written are skipped."""
    found: list[dict[str, Any]] = []
    for file in files:
        if file.suffix == ".json" and file.exists():
            found += json.loads(file.read_text()).get("figures", [])
    return [Figure(each["measure"], each["value"], each["sense"], each["bound"]) for each in found]


def machine() -> str:
    """What a figure was measured on: processor, cores, torch and its threads."""
    import torch

    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    return f"{processor}, {os.cpu_count()} cores, torch {torch.__version__}, {torch.get_num_threads()} threads"


def as_json(numbers: Mapping[str, Any]) -> str:
    """JSON of numbers, in which dataclasses stand as their fields."""

    def fields(each: Any) -> dict[str, Any]:  # noqa: ANN401 — any dataclass
        return asdict(each) | ({"met": each.met} if isinstance(each, Figure) else {})

    return json.dumps(numbers, indent=1, default=fields)


def run_benchmark(name: str, module: ModuleType, given: Sequence[str]) -> int:
    """Run a benchmark by its command line and write its numbers; return the exit code, 1 if something did not hold.

    With `--json` and no file the numbers alone go to stdout, and everything for people to stderr.
    """
    parser = argparse.ArgumentParser(
        f"python -m benchmarks {name}", description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--json", type=Path, nargs="?", const=STDOUT, metavar="FILE", help="write the numbers here, or to stdout"
    )
    module.add_options(parser)
    arguments = parser.parse_args(given)
    file: Path | None = arguments.json
    with redirect_stdout(sys.stderr) if file == STDOUT else nullcontext():
        numbers: Numbers = {**module.measured(arguments), "machine": machine()}
        if figures := numbers.get("figures"):
            print(figures_table(figures))
        print("; ".join(numbers[key] for key in ("model", "machine") if key in numbers))
    if file == STDOUT:
        print(as_json(numbers))
    elif file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(as_json(numbers) + "\n")
    if not_held := numbers.get("not_held"):
        print(f"did not hold: {'; '.join(not_held)}", file=sys.stderr)
    return bool(not_held)


def interpreter() -> list[str]:
    """The command of this Python with its -X options, for child processes."""
    options = [f"-X{name}" if value is True else f"-X{name}={value}" for name, value in sys._xoptions.items()]
    return [sys.executable, *options]
