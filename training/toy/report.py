"""What was measured: as a table, as JSON and as the panels of the figure."""

import dataclasses
from collections.abc import Mapping

import torch
from rich.table import Table
from torch import Tensor
from unmask_diffusion.networks import Parameterization

from training.toy.experiment import BINS, EXACT, WHOLE_TOKENS, Measured, Options, counting_floor, truth_entropy
from training.toy.pictures import density

Outcome = Mapping[Parameterization, Measured]


def panels(options: Options, measured: Outcome) -> list[tuple[str, Tensor]]:
    """The figure's densities: the truth, then both heads under both ways to sample."""
    titles = {EXACT: "a digit at a time", WHOLE_TOKENS: "whole tokens"}
    shown = [
        (f"{head}, {title}", each.densities[sampler])
        for sampler, title in titles.items()
        for head, each in measured.items()
    ]
    return [("truth", density(options.picture)), *shown]


def figures(options: Options, measured: Outcome) -> dict[str, object]:
    """What is written beside the picture."""
    heads = {
        head: {
            "parameters": each.parameters,
            "steps": each.steps,
            "seconds": round(each.seconds, 1),
            "bound_nats_per_point": each.bound,
            "samplers": [dataclasses.asdict(row) for row in each.rows],
        }
        for head, each in measured.items()
    }
    return {
        "options": dataclasses.asdict(options),
        "bins": BINS,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "entropy_nats_per_point": truth_entropy(options),
        "counting_floor": counting_floor(options) if options.samples else None,
        "heads": heads,
    }


def table(options: Options, measured: Outcome) -> Table:
    """What is printed: total variation to the picture."""
    floor = f"; as many points of the picture itself: {counting_floor(options):.3f}" if options.samples else ""
    bounds = ", ".join(f"{head} {each.bound:.3f} ({each.steps} steps)" for head, each in measured.items())
    shown = Table(
        title=f"total variation to {options.picture}, l = {options.sub_tokens}",
        caption=f"valid bound, nats a point: {bounds}; entropy {truth_entropy(options):.3f}\n"
        f"squares: {BINS} x {BINS}{floor}",
    )
    for column in ("sampler", "evaluations", "head", "all points", "squares", "drawn, squares"):
        shown.add_column(column)
    for rows in zip(*(each.rows for each in measured.values()), strict=True):
        for head, row in zip(measured, rows, strict=True):
            drawn = "" if row.drawn is None else f"{row.drawn:.3f}"
            shown.add_row(row.sampler, str(row.evaluations), head, f"{row.points:.3f}", f"{row.squares:.3f}", drawn)
    return shown
