"""What an experiment finds: tables in Markdown, a picture, the numbers as JSON."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import mean, stdev

from matplotlib import pyplot
from matplotlib.figure import Figure

from benchmarks.harness import Table, as_json

MeanAndError = tuple[float, float]  # a mean and its standard error


@dataclass(frozen=True)
class Finding:
    """What an experiment returns."""

    tables: Sequence[Table]
    numbers: Mapping[str, object]
    draw: Callable[[Figure], None]  # draws the picture on an empty figure
    inches: tuple[float, float] = (7.5, 4.5)

    def markdown(self) -> str:
        return "\n\n".join(table.markdown() for table in self.tables)


def write(finding: Finding, name: str, about: Mapping[str, str], out: Path) -> list[Path]:
    """Write papers_NAME.md, .png and .json into a folder; `about` stands below the tables and in the JSON."""
    out.mkdir(parents=True, exist_ok=True)
    text, picture, numbers = (out / f"papers_{name.replace('-', '_')}.{kind}" for kind in ("md", "png", "json"))
    footer = "\n".join(f"- {key}: `{value}`" for key, value in about.items())
    text.write_text(f"{finding.markdown()}\n\n{footer}\n")
    figure = pyplot.figure(figsize=finding.inches, layout="constrained")
    finding.draw(figure)
    figure.savefig(picture, dpi=130)
    pyplot.close(figure)
    numbers.write_text(as_json({**about, **finding.numbers}) + "\n")
    return [text, picture, numbers]


def with_error(values: Sequence[float]) -> MeanAndError:
    """Mean and standard error; the error of one value is 0."""
    return mean(values), stdev(values) / sqrt(len(values)) if len(values) > 1 else 0.0


def plus_minus(value: MeanAndError, digits: int = 3) -> str:
    number = round(value[0], digits) + 0.0  # no minus before a zero
    return f"{number:.{digits}f} ± {value[1]:.{digits}f}"
