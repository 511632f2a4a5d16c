"""The loss curve as a small picture."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

from training.loop import History


def draw_loss_curve(history: History, path: Path, floor: float | None = None) -> None:
    """Write training losses and held-out bounds against tokens to a PNG.

    Args:
        history: of the run.
        path: of the picture.
        floor: the text's own entropy in nats a token, if it is known.
    """
    figure, axes = plt.subplots(figsize=(6.4, 3.4), dpi=90)
    axes.plot([t / 1e6 for _, t, _ in history.losses], _smooth([y for *_, y in history.losses]), label="training loss")
    bounds = [(t / 1e6, e["bound"]) for _, t, e in history.events if "bound" in e]
    if bounds:
        axes.plot(*zip(*bounds, strict=True), "o-", ms=3, label="held-out bound")
    if floor is not None:
        axes.axhline(floor, ls=":", c="gray", label="the text's own entropy")
    axes.set(xlabel="million tokens seen", ylabel="nats a token", yscale="log")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def _smooth(values: list[float], width: int = 9) -> list[float]:
    """A running mean over what lies behind."""
    return [sum(values[max(0, i - width + 1) : i + 1]) / (i + 1 - max(0, i - width + 1)) for i in range(len(values))]
