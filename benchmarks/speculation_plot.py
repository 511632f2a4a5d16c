"""Rounds, evaluations and acceptance, drawn."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import pyplot
from matplotlib.axes import Axes

from benchmarks.speculation_rounds import Acceptance, Rounds

STYLES = (("o-", "black"), ("s--", "tab:orange"), ("^--", "tab:blue"), ("v--", "tab:green"))


def plot(rounds: Sequence[Rounds], acceptance: Sequence[Acceptance], about: str, file: Path) -> None:
    """Draw three panels: rounds and evaluations against lanes, right guesses against their distance."""
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(11, 4), layout="constrained")
    for name, style in zip(dict.fromkeys(each.model for each in rounds), STYLES, strict=False):
        _draw_rounds(left, middle, [each for each in rounds if each.model == name], style)
        _draw_acceptance(right, [each for each in acceptance if each.model == name], style)
    lanes = sorted({each.lanes for each in rounds})
    left.plot(lanes, [1 / each for each in lanes], color="grey", linewidth=1, label="every guess right")
    left.set(xscale="log", yscale="log", xlabel="lanes a round", ylabel="rounds, of the evaluations planned")
    middle.set(xscale="log", xlabel="lanes a round", ylabel="evaluations, of those planned", ylim=(0, None))
    right.set(xscale="log", xlabel="reveals between guess and draw", ylabel="share of guesses that are right")
    right.set_ylim(0, 1.02)
    for axes, ticks in ((left, lanes), (middle, lanes), (right, sorted({each.distance for each in acceptance}))):
        axes.set_xticks(ticks, map(str, ticks))
        axes.set_xticks([], minor=True)
    left.legend(fontsize=8)
    figure.suptitle(about, fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130)
    pyplot.close(figure)


def _draw_rounds(left: Axes, middle: Axes, rounds: Sequence[Rounds], style: tuple[str, str]) -> None:
    """One model's curves in the first two panels."""
    lanes = [each.lanes for each in rounds]
    marker, colour = style
    shares = [each.rounds / each.planned for each in rounds]
    left.plot(lanes, shares, marker, color=colour, label=rounds[0].model, markersize=4)
    middle.plot(lanes, [each.evaluations / each.planned for each in rounds], marker, color=colour, markersize=4)


def _draw_acceptance(right: Axes, acceptance: Sequence[Acceptance], style: tuple[str, str]) -> None:
    """One model's curve in the last panel."""
    marker, colour = style
    distances, shares = [each.distance for each in acceptance], [each.share for each in acceptance]
    right.plot(distances, shares, marker, color=colour, markersize=4)
