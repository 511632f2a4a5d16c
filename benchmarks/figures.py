"""A figure that a benchmark measures, and the bound that is claimed for it."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """A ratio of two things that were measured side by side in one run.

    Attributes:
        measure: what it is.
        value: as measured.
        sense: on which side of the bound it should be.
        bound: what is claimed.
    """

    measure: str
    value: float
    sense: Literal["at least", "at most"]
    bound: float

    @property
    def met(self) -> bool:
        """Whether the claim holds."""
        return self.value >= self.bound if self.sense == "at least" else self.value <= self.bound

    def as_json(self) -> dict[str, Any]:
        """For a file of figures."""
        return asdict(self) | {"met": self.met}


def table_of(figures: Iterable[Figure], about: str = "") -> Table:
    """A line a figure."""
    table = Table("measure", title=about)
    for column in ("measured", "figure", ""):
        table.add_column(column, justify="right")
    for each in figures:
        sign = "≥" if each.sense == "at least" else "≤"
        verdict = "[green]met[/]" if each.met else "[red]not met[/]"
        table.add_row(each.measure, f"{each.value:.3g}", f"{sign} {each.bound:g}", verdict)
    return table


def read_figures(files: Sequence[Path]) -> list[Figure]:
    """The figures in files of JSON; files without any, and those that were not written, are passed over."""
    found: list[dict[str, Any]] = []
    for file in files:
        if file.suffix == ".json" and file.exists():
            found += json.loads(file.read_text()).get("figures", [])
    return [Figure(each["measure"], each["value"], each["sense"], each["bound"]) for each in found]
