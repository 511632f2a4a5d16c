"""What was found, for people: the best sampler of each budget, tables, and a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table

from unmask_service.frontier.grid import CLEAR, Cell, Frontier
from unmask_service.frontier.measures import ENTROPY, Criterion, Value
from unmask_service.frontier.samplers import REFERENCE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# a budget may be exceeded by this share: samplers that decide themselves meet it on average only
SLACK = 0.02
MARKERS = {"random order": "o", "by certainty": "s", "remasking": "^", "model's own": "P"}


@dataclass(frozen=True)
class Best:
    """What to take for a budget."""

    budget: int  # network evaluations a sample
    cell: Cell | None  # the best that is no colder than the truth
    as_good: tuple[Cell, ...]  # those that the noise does not tell from it, by their measure
    colder: tuple[Cell, ...]  # those that are clearly ahead, but at a lower temperature


def best_within(frontier: Frontier, budget: int) -> Best:
    """The best sampler among those that spend at most a budget, and no lower temperature."""
    within = ranked(frontier, [each for each in frontier.cells if _spends(each, budget)])
    honest = [each for each in within if not frontier.is_colder(each)]
    if not honest:
        return Best(budget, None, (), ())
    first = honest[0]
    as_good = tuple(each for each in honest[1:] if not _ahead(frontier, first, each))
    colder = tuple(each for each in within if frontier.is_colder(each) and _ahead(frontier, each, first))
    return Best(budget, first, as_good, colder)


def ranked(frontier: Frontier, cells: Sequence[Cell]) -> list[Cell]:
    """Cells by the first criterion, the best first."""
    criterion = frontier.criteria[0]
    return sorted(cells, key=lambda each: each.values[criterion.name][0], reverse=criterion.better == "high")


def _spends(cell: Cell, budget: int) -> bool:
    return cell.sampler != REFERENCE and cell.impossible is None and cell.evaluations <= budget * (1 + SLACK)


def _ahead(frontier: Frontier, one: Cell, other: Cell) -> bool:
    """Whether one cell is better than another by more than the noise."""
    criterion = frontier.criteria[0]
    (a, error), (b, noise) = one.values[criterion.name], other.values[criterion.name]
    lead = a - b if criterion.better == "high" else b - a
    return lead > CLEAR * float((error**2 + noise**2) ** 0.5)


def verdicts(frontier: Frontier, budgets: Sequence[int]) -> list[str]:
    """A sentence for each budget."""
    return [_verdict(frontier, best_within(frontier, budget)) for budget in budgets]


def _verdict(frontier: Frontier, best: Best) -> str:
    if best.cell is None:
        return f"{best.budget} evaluations: no sampler"
    name = frontier.criteria[0].name
    said = f"{best.budget} evaluations: {called(best.cell, best.budget)} ({name} {shown(best.cell.values[name])})"
    groups = ("not told from it by the noise", best.as_good), ("ahead, but colder", best.colder)
    for words, cells in groups:
        if cells:
            said += f"; {words}: {', '.join(called(each, best.budget) for each in cells)}"
    return said


def called(cell: Cell, budget: int) -> str:
    """A sampler, with its evaluations where these are clearly fewer than a budget."""
    return cell.sampler if cell.evaluations > 0.8 * budget else f"{cell.sampler} at {cell.evaluations:.0f}"


def shown(value: Value) -> str:
    """A value and its standard error."""
    return f"{round(value[0], 3) + 0.0:.3f} ± {value[1]:.3f}"


def tables_of(frontier: Frontier, budgets: Sequence[int]) -> list[Table]:
    """A table for each budget, the best first, each with the truth's own samples and the exact sampler above."""
    cells = [each for each in frontier.cells if each.sampler != REFERENCE]
    below, tables = 0.0, []
    for budget in budgets:
        # of a sampler that decides itself: what lies between this budget and the one before
        own = [
            each
            for each in cells
            if each.setting == f"steps {budget}"
            or (each.impossible is None and not each.setting.startswith("steps") and below < each.evaluations <= budget)
        ]
        tables.append(_table(frontier, f"{budget} evaluations", own))
        below = float(budget)
    return tables


def _table(frontier: Frontier, title: str, cells: Sequence[Cell]) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    criteria = [each for each in frontier.criteria if each.name != ENTROPY]
    table.add_column("sampler", no_wrap=True)
    for name in ("evaluations", *map(_header, criteria), f"{ENTROPY} − truth's"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    if frontier.truth is not None:
        table.add_row("the truth itself", "", *(shown(frontier.truth[each.name]) for each in criteria), style="dim")
    exact = [each for each in frontier.cells if each.sampler == REFERENCE and each.impossible is None]
    possible = [each for each in cells if each.impossible is None]
    for cell in [*exact, *ranked(frontier, possible)]:
        values = (shown(cell.values[each.name]) for each in criteria)
        gap, error = frontier.entropy_gap(cell)
        colder = "colder" if frontier.is_colder(cell) else ""
        style = "dim" if cell in exact else "yellow" if colder else ""
        table.add_row(
            cell.sampler, f"{cell.evaluations:.1f}", *values, f"{gap:+.3f} ± {error:.3f}", colder, style=style
        )
    impossible = [f"{each.sampler}: {each.impossible}" for each in cells if each.impossible is not None]
    table.caption, table.caption_justify = "\n".join(impossible) or None, "left"
    return table


def _header(criterion: Criterion) -> str:
    arrow = {"low": " ↓", "high": " ↑", None: ""}[criterion.better]
    return criterion.name + arrow


def draw_figure(frontier: Frontier, figure: "Figure") -> None:
    """Draw quality against evaluations, and against temperature, on an empty figure of matplotlib."""
    left, right = figure.subplots(1, 2, sharey=True)
    criterion = frontier.criteria[0]
    possible = [each for each in frontier.cells if each.impossible is None]
    names = dict.fromkeys(each.sampler for each in possible if each.sampler != REFERENCE)
    for number, name in enumerate(names):
        _draw_sampler(frontier, left, right, [each for each in possible if each.sampler == name], number)
    for cell in possible:
        if cell.sampler == REFERENCE:
            left.axhline(cell.values[criterion.name][0], color="black", lw=1, ls=":", label=f"{REFERENCE}, exact")
    if frontier.truth is not None:
        left.axhline(frontier.truth[criterion.name][0], color="black", lw=1, label="the truth itself")
    left.set(xscale="log", xlabel="network evaluations a sample", ylabel=_header(criterion))
    steps = sorted({int(each.setting.split()[1]) for each in frontier.cells if each.setting.startswith("steps")})
    left.set_xticks(steps, [str(each) for each in steps])
    if criterion.better == "low" and all(each.values[criterion.name][0] > 0 for each in possible):
        left.set_yscale("log")
        low, high = left.get_ylim()
        ticks = [digit * 10.0**power for power in range(-6, 7) for digit in (1, 2, 5)]
        left.set_yticks([each for each in ticks if low <= each <= high])
        left.yaxis.set_major_formatter("{x:g}")
    left.minorticks_off()
    right.axvline(0, color="black", lw=1)
    right.set(xlabel="← colder    entropy of the samples − the truth's, nats    hotter →")
    samples = f"{frontier.settings.samples} samples each, bars: one standard error"
    figure.suptitle(f"{frontier.settings.model}: {criterion.about}; {samples}", fontsize=9)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", fontsize=7, frameon=False)


def _draw_sampler(frontier: Frontier, left: "Axes", right: "Axes", cells: Sequence[Cell], number: int) -> None:
    name, marker = frontier.criteria[0].name, MARKERS.get(cells[0].family, "o")
    ordered = sorted(cells, key=lambda each: each.evaluations)
    heights = [each.values[name][0] for each in ordered]
    errors = [each.values[name][1] for each in ordered]
    look: dict[str, Any] = {
        "color": f"C{number % 10}",
        "marker": marker,
        "ls": ("-", "--", ":")[number // 10 % 3],
        "lw": 1,
        "ms": 4,
    }
    evaluations = [each.evaluations for each in ordered]
    left.errorbar(evaluations, heights, errors, capsize=2, label=cells[0].sampler, **look)
    right.plot([frontier.entropy_gap(each)[0] for each in ordered], heights, **look)
