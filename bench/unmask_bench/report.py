"""What a load test measured: figures, tables for people, a picture, and a progress bar while it runs."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from unmask_bench import LoadError
from unmask_bench.client import COMPLETED, LEFT, Record
from unmask_bench.load import LoadRun

PERCENTILES = (50, 90, 99)
Figures = dict[str, Any]

# what an objective may bound, by the names that users may write
OBJECTIVES = {
    "first_unmask": "ttft",
    "ttft": "ttft",
    "between_unmasks": "itl",
    "itl": "itl",
    "e2e": "e2el",
    "e2el": "e2el",
}
LATENCIES = {
    "ttft": "to the first unmask",
    "itl": "between unmasks",
    "e2el": "end to end",
    "queue": "in the server's queue",
}
# above this share of a core the client itself may limit the figures
BUSY_CLIENT = 0.7
# drawing the progress bar costs the client some milliseconds a frame
FRAMES_PER_SECOND = 4


@dataclass(frozen=True)
class Objective:
    """An upper bound on a latency, which a good request keeps."""

    metric: str  # ttft, itl (the mean within the request) or e2el
    milliseconds: float

    @classmethod
    def parse(cls, text: str) -> "Objective":
        """Read "first_unmask:500"; raises LoadError for anything else."""
        name, _, value = text.partition(":")
        try:
            found = cls(OBJECTIVES[name], float(value))
        except (KeyError, ValueError):
            known = ", ".join(OBJECTIVES)
            raise LoadError(f"--goodput: {text!r} is not NAME:MILLISECONDS with one of {known}") from None
        if not 0 <= found.milliseconds < float("inf"):
            raise LoadError(f"--goodput: {text!r} must be a finite number of milliseconds, 0 or more")
        return found

    def kept(self, record: Record) -> bool:
        """Whether a completed request keeps the bound. A request that did not stream has no unmasks and keeps none."""
        values: Mapping[str, Sequence[float]] = {
            "ttft": [] if record.first_unmask is None else [record.first_unmask],
            "itl": record.between_unmasks,
            "e2el": [record.seconds],
        }
        seen = values[self.metric]
        if not seen:  # a stream with a single unmask has no time between two
            return self.metric == "itl" and record.first_unmask is not None
        return 1000 * sum(seen) / len(seen) <= self.milliseconds


def summarise(run: LoadRun, objectives: Sequence[Objective] = ()) -> Figures:
    """Compute the figures of a run, finished or not; None where nothing could be measured.

    They have the names of `vllm bench serve --save-result` where they mean the same.
    """
    completed = [record for record in run.records if record.completed]
    seconds = run.seconds
    totals = {name: _total(completed, *place) for name, place in _TOTALS.items()}
    good = sum(all(objective.kept(record) for objective in objectives) for record in completed)
    return {
        "request_rate": "inf" if run.load.request_rate is None else run.load.request_rate,
        "burstiness": 1.0,
        "max_concurrency": run.load.concurrency,
        "duration": seconds,
        **outcomes(run.records),
        **totals,
        "request_throughput": len(completed) / seconds,
        "request_goodput": good / seconds if objectives else None,
        "output_throughput": totals["total_output_tokens"] / seconds,
        "total_token_throughput": (totals["total_input_tokens"] + totals["total_output_tokens"]) / seconds,
        "evaluation_throughput": totals["total_network_evaluations"] / seconds,
        "max_concurrent_requests": run.peak,
        **latencies(completed),
        "median_eta_error_percent": eta_error(completed),
        "client_cpu_share": run.cpu_seconds / seconds,
        "max_client_lag_ms": 1000 * run.lag,
    }


_TOTALS = {
    "total_input_tokens": ("usage", "prompt_tokens"),
    "total_output_tokens": ("usage", "completion_tokens"),
    "total_network_evaluations": ("sampling", "network_evaluations"),
    "total_sub_tokens": ("sampling", "sub_tokens"),
}


def _total(records: Iterable[Record], part: str, name: str) -> int:
    return round(sum(record.counted(part, name) for record in records))


def outcomes(records: Sequence[Record]) -> Figures:
    """Count how requests ended, and keep the first message of each error. Those left on purpose are not failures."""
    kinds = Counter(record.outcome for record in records)
    completed, left = sum(record.completed for record in records), kinds.pop(LEFT, 0)
    kinds.pop(COMPLETED, None)
    return {
        "num_prompts": len(records),
        "completed": completed,
        "failed": kinds.total(),
        "left": left,
        "errors_by_kind": dict(sorted(kinds.items())),
        "error_messages": {record.outcome: record.message for record in reversed(records) if record.message},
    }


def latencies(completed: Sequence[Record]) -> Figures:
    """Latencies in milliseconds, by the names in LATENCIES; itl is between unmasks of the same sample."""
    values = {
        "ttft": [record.first_unmask for record in completed if record.first_unmask is not None],
        "itl": chain.from_iterable(record.between_unmasks for record in completed),
        "e2el": [record.seconds for record in completed],
        "queue": [record.counted("timings", "queue_ms") / 1000 for record in completed],
    }
    return {key: value for name, seconds in values.items() for key, value in distribution(name, seconds).items()}


def distribution(name: str, seconds: Iterable[float]) -> dict[str, float | None]:
    """mean_NAME_ms, median_NAME_ms, std_NAME_ms and the percentiles, interpolated linearly as numpy does."""
    values = 1000 * np.fromiter(seconds, dtype=np.float64)
    keys = [f"mean_{name}_ms", f"median_{name}_ms", f"std_{name}_ms", *(f"p{p}_{name}_ms" for p in PERCENTILES)]
    if not len(values):
        return dict.fromkeys(keys)
    found = (values.mean(), np.median(values), values.std(), *np.percentile(values, PERCENTILES))
    return dict(zip(keys, map(float, found), strict=True))


def eta_error(completed: Sequence[Record]) -> float | None:
    """Median error of the ETA in `start`, in percent; None where no stream had one."""
    errors = [
        abs(record.eta - (record.seconds - record.planned_at)) / (record.seconds - record.planned_at)
        for record in completed
        if record.eta is not None and record.planned_at is not None and record.seconds > record.planned_at
    ]
    return 100 * float(np.median(errors)) if errors else None


# --- tables ----------------------------------------------------------------------------------------------------------


def report(figures: Figures) -> RenderableType:
    """Tables of one run: outcomes, rates, latencies."""
    return Group(_rates(figures), "", _latencies(figures), *_remarks(figures))


def sweep_report(points: Sequence[Figures]) -> RenderableType:
    """A table of several runs, a line each."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    closed = points[0]["max_concurrency"] is not None
    rates, times = ("request", "output", "evaluation"), ("ttft", "itl", "e2el")
    counts = ("at a\ntime" if closed else "a\nsecond", "failed", "requests\na second", "tokens\na second")
    latencies = ("evaluations\na second", "first\nunmask", "between\nunmasks", "end to\nend")
    for column in (*counts, *latencies):
        table.add_column(column, justify="right")
    for each in points:
        load = f"{each['max_concurrency' if closed else 'request_rate']:g}"
        shown = (_rate(each[f"{name}_throughput"]) for name in rates)
        ranges = (f"{_short(each[f'p50_{name}_ms'])}/{_short(each[f'p99_{name}_ms'])}" for name in times)
        table.add_row(load, str(each["failed"]), *shown, *ranges)
    return Group(table, Text("times in milliseconds: p50/p99", style="dim"), *_remarks(points[-1]))


def _rates(figures: Figures) -> Table:
    open_loop = figures["max_concurrency"] is None
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    rows = {
        "load": f"{figures['request_rate']:g} a second" if open_loop else f"{figures['max_concurrency']} at a time",
        "seconds": f"{figures['duration']:.1f}",
        "requests completed": str(figures["completed"]),
        "failed": str(figures["failed"]),
        **{f"  {kind}": str(count) for kind, count in figures["errors_by_kind"].items()},
        "requests a second": _rate(figures["request_throughput"]),
        "within the objectives, a second": _rate(figures["request_goodput"]),
        "tokens a second": _rate(figures["output_throughput"]),
        "network evaluations a second": _rate(figures["evaluation_throughput"]),
    }
    for name, value in rows.items():
        if value != "–":
            table.add_row(name, value)
    return table


def _latencies(figures: Figures) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("milliseconds")
    columns = ("mean", *(f"p{percentile}" for percentile in PERCENTILES), "std")
    for column in columns:
        table.add_column(column, justify="right", min_width=9)
    for name, words in LATENCIES.items():
        values = (figures[f"{column}_{name}_ms"] for column in columns)
        table.add_row(words, *("–" if value is None else f"{value:,.1f}" for value in values))
    return table


def _remarks(figures: Figures) -> list[RenderableType]:
    remarks = [f"{kind}: {message}" for kind, message in figures["error_messages"].items()]
    if figures["client_cpu_share"] > BUSY_CLIENT:
        share = f"{100 * figures['client_cpu_share']:.0f} %"
        remarks.append(f"this client used {share} of a core: the figures may be its own limit, not the server's")
    if figures.get("interrupted"):
        remarks.append("interrupted: requests that were still running are not counted")
    return [Text(remark, style="yellow") for remark in remarks]


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:,.2f}"


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


# --- the picture and the progress bar --------------------------------------------------------------------------------


def check_plotting() -> None:
    """Raise LoadError, before an hour of load, when matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise LoadError("--plot needs matplotlib, which is not installed: pip install 'unmask[lab]'")


def plot(points: Sequence[Figures], file: Path) -> None:
    """Write a PNG: the percentiles of latencies, and the rate of evaluations, against the load."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    closed = points[0]["max_concurrency"] is not None
    loads = [point["max_concurrency"] if closed else point["request_rate"] for point in points]
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 4)
    for axes, name in zip(panels, ("ttft", "itl", "e2el"), strict=False):
        for percentile, style, alpha in zip(PERCENTILES, ("-", "--", ":"), (1.0, 0.75, 0.6), strict=True):
            values = [point[f"p{percentile}_{name}_ms"] or float("nan") for point in points]
            label = f"p{percentile}"
            axes.plot(loads, values, f"o{style}", color="tab:blue", alpha=alpha, label=label, markersize=3)
        axes.set(title=LATENCIES[name], ylabel="milliseconds")
        axes.legend(fontsize=8)
    rates = [point["evaluation_throughput"] for point in points]
    panels[-1].plot(loads, rates, "o-", color="tab:orange", markersize=3)
    panels[-1].set(title="throughput", ylabel="network evaluations a second")
    for axes in panels:
        axes.set(xlabel="requests at a time" if closed else "requests a second")
        axes.set_ylim(bottom=0)
        axes.title.set_fontsize(10)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130, format="png")


async def run_with_progress(run: LoadRun, label: str) -> None:
    """Run a load test, with a progress bar on stderr where that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"), TimeElapsedColumn())
    shown = Progress(*columns, console=console, transient=True, auto_refresh=False, disable=not console.is_terminal)
    with shown as bar:
        drawing = asyncio.create_task(_draw(run, bar, bar.add_task(label, total=1.0, state="")))
        try:
            await run.run()
        finally:
            drawing.cancel()


async def _draw(run: LoadRun, bar: Progress, task: TaskID) -> None:
    while True:
        ended = len(run.records)
        state = f"{ended} ended, {run.running} running, {ended / max(run.seconds, 1e-9):.1f} a second"
        bar.update(task, completed=run.share, state=state, refresh=True)
        await asyncio.sleep(1 / FRAMES_PER_SECOND)
