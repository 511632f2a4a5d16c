"""Grafana's boards as files: what each panel asks."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "docker" / "grafana" / "boards"


@dataclass(frozen=True)
class Query:
    expression: str
    legend: str

    def over(self, rate_seconds: float) -> str:
        """As Grafana asks it."""
        return self.expression.replace("$__rate_interval", f"{round(1000 * rate_seconds)}ms")

    def name(self, labels: dict[str, str]) -> str:
        """Of one of its series."""
        return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), self.legend)


@dataclass(frozen=True)
class Panel:
    """A panel; `place` is x, y, width and height in Grafana's grid of 24 columns."""

    id: int
    kind: str
    title: str
    description: str
    source: str  # of its data
    unit: str
    place: tuple[int, int, int, int]
    stacked: bool
    bounds: tuple[float | None, float | None]
    queries: tuple[Query, ...]


@dataclass(frozen=True)
class Board:
    name: str
    title: str
    panels: tuple[Panel, ...]
    variables: dict[str, str]  # name → kind


def boards() -> list[Board]:
    """All boards, by name."""
    return [_board(file) for file in sorted(FOLDER.glob("*.json"))]


def _board(file: Path) -> Board:
    found = json.loads(file.read_text())
    variables = {each["name"]: each["type"] for each in found["templating"]["list"]}
    return Board(file.stem, found["title"], tuple(_panel(each) for each in found["panels"]), variables)


def _panel(found: dict[str, Any]) -> Panel:
    place, defaults = found["gridPos"], found["fieldConfig"]["defaults"]
    return Panel(
        id=found["id"],
        kind=found["type"],
        title=found["title"],
        description=found["description"],
        source=found["datasource"]["uid"],
        unit=defaults["unit"],
        place=(place["x"], place["y"], place["w"], place["h"]),
        stacked="stacking" in defaults.get("custom", {}),
        bounds=(defaults.get("min"), defaults.get("max")),
        queries=tuple(Query(target["expr"], target["legendFormat"]) for target in found["targets"]),
    )
