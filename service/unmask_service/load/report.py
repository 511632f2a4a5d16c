"""Figures for people: tables."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from unmask_service.load.summary import PERCENTILES, Figures

LATENCIES = {
    "ttft": "to the first unmask",
    "itl": "between unmasks",
    "e2el": "end to end",
    "queue": "in the server's queue",
}
# beyond this part of a core the client may be what limits the figures
BUSY_CLIENT = 0.7


def report(figures: Figures) -> RenderableType:
    """One run: how it ended, rates, latencies."""
    return Group(_rates(figures), "", _latencies(figures), *_remarks(figures))


def sweep_report(points: Sequence[Figures]) -> RenderableType:
    """Several runs: a line each."""
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


def load_of(figures: Figures) -> str:
    """The load of a run in words."""
    if figures["max_concurrency"] is None:
        return f"{figures['request_rate']:g} a second"
    return f"{figures['max_concurrency']} at a time"


def _rates(figures: Figures) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    rows = {
        "load": load_of(figures),
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
    columns = {"mean": "mean", **{f"p{p}": f"p{p}" for p in PERCENTILES}, "std": "std"}
    for column in columns.values():
        table.add_column(column, justify="right", min_width=9)
    for name, words in LATENCIES.items():
        table.add_row(words, *(_milliseconds(figures[f"{column}_{name}_ms"]) for column in columns))
    return table


def _remarks(figures: Figures) -> list[RenderableType]:
    """What a reader must know before believing the figures."""
    remarks = [f"{kind}: {message}" for kind, message in figures["error_messages"].items()]
    if figures["client_cpu_share"] > BUSY_CLIENT:
        share = f"{100 * figures['client_cpu_share']:.0f} %"
        remarks.append(f"this client used {share} of a core: the figures may be its own limit, not the server's")
    if figures.get("interrupted"):
        remarks.append("interrupted: what was on its way is not counted")
    return [Text(remark, style="yellow") for remark in remarks]


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:,.2f}"


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f}"


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"
