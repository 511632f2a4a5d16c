"""Latency against load, as a picture."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from unmask_service.load.errors import LoadError
from unmask_service.load.summary import Figures

PANELS = (("ttft", "to the first unmask"), ("itl", "between unmasks"), ("e2el", "end to end"))
PERCENTILES = (("p50", "-", 1.0), ("p90", "--", 0.75), ("p99", ":", 0.6))


def check_plotting() -> None:
    """Say before an hour of load that the picture cannot be drawn.

    Raises:
        LoadError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise LoadError("--plot needs matplotlib, which is not installed: pip install 'unmask[lab]'")


def plot(points: Sequence[Figures], file: Path) -> None:
    """Draw the percentiles of latencies, and the rate of evaluations, against the load; write a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    closed = points[0]["max_concurrency"] is not None
    loads = [point["max_concurrency"] if closed else point["request_rate"] for point in points]
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 1 + len(PANELS))
    for axes, (name, title) in zip(panels, PANELS, strict=False):
        for percentile, style, alpha in PERCENTILES:
            values = [point[f"{percentile}_{name}_ms"] or float("nan") for point in points]
            axes.plot(loads, values, f"o{style}", color="tab:blue", alpha=alpha, label=percentile, markersize=3)
        axes.set(title=title, ylabel="milliseconds")
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
