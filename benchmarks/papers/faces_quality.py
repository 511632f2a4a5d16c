"""The share of whole pictures against network evaluations: what fewer evaluations cost, and what a clock gives back.

Avatars from nothing, judged by `training.faces.judge`: a picture is whole if some choice of parts and colours draws it
exactly. Exact first-hitting, the same order cut into k groups, and ancestral sampling with T time steps; groups and
steps at each clock, all at each temperature and with the same seeds. Beside the share stand its 95 % interval (Wilson)
and the share of patches of 3 × 3 pixels that 20,000 composed avatars do not have (other composed ones: see the table's
title). The sheet shows the first pictures of every sampler, a row each, in the table's order.

    python -m benchmarks faces_quality --steps 8 16 32 64 --clocks 1 3 --temperatures 1 0.8
"""

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor
from unmask_diffusion import MAX_SAMPLES, Model, Sampler

from benchmarks.harness import Numbers, Table
from benchmarks.models import add_model_options, described, open_model
from benchmarks.papers.drawing import draw, name_of
from benchmarks.papers.tales_quality import wilson
from training.faces.composition import Avatars
from training.faces.judge import Patches, is_whole
from training.faces.sheet import sheet_of

SHOWN = 16  # pictures of a sampler on the sheet


@dataclass(frozen=True)
class Quality:
    """One sampler's pictures."""

    sampler: str
    steps: int | None
    clock: int
    temperature: float
    samples: int
    network_evaluations: float  # mean of a picture
    whole: int  # pictures that some choice of parts draws; share, and its interval from low to high
    share: float
    low: float
    high: float
    unseen: float  # share of patches that composed avatars do not have
    different: int  # different pictures
    seconds: float  # for all samples


class Judge:
    """What is known of composed avatars."""

    def __init__(self, avatars: int = 20_000) -> None:
        source = Avatars()
        self.parts, self.patches = source.parts, Patches(source, avatars)
        self.unseen = self.patches.unseen(source.batch(random.Random("other avatars"), 2_000))

    def quality(self, sampler: Sampler, temperature: float, pictures: Tensor, cost: tuple[float, float]) -> Quality:
        """Judge pictures, int64 [N, 256], that cost (evaluations each, seconds in all)."""
        whole, samples = sum(is_whole(picture, self.parts) for picture in pictures), len(pictures)
        low, high = wilson(whole, samples)
        return Quality(
            sampler.name,
            sampler.steps,
            sampler.clock or 1,
            temperature,
            samples,
            cost[0],
            whole,
            whole / samples,
            low,
            high,
            self.patches.unseen(pictures),
            len(pictures.unique(dim=0)),
            cost[1],
        )


def samplers_of(steps: Sequence[int], clocks: Sequence[int], ancestral: Sequence[int]) -> list[Sampler]:
    """Groups and time steps at each clock; exact."""
    groups = [Sampler(steps=k, clock=clock) for clock in clocks for k in steps]
    return [*groups, *(Sampler(name="ancestral", steps=t, clock=clock) for clock in clocks for t in ancestral)]


def table_of(qualities: Sequence[Quality], about: str) -> Table:
    rows = [
        [
            name_of(Sampler.model_validate({"name": each.sampler, "steps": each.steps})),
            str(each.clock) if each.steps else "–",
            f"{each.temperature:g}",
            f"{each.network_evaluations:.1f}",
            f"{each.whole} ({each.share:.0%})",
            f"{each.low:.0%} – {each.high:.0%}",
            f"{each.unseen:.1%}",
            str(each.different),
        ]
        for each in qualities
    ]
    judged = ["whole", "95 % interval", "unseen patches", "different"]
    return Table(about, ["sampler", "clock", "temperature", "evaluations", *judged], rows)


def measure(model: Model, judge: Judge, sampler: Sampler, temperature: float, samples: int) -> tuple[Quality, Tensor]:
    """Draw pictures with one sampler and judge them."""
    drawn = draw(model, sampler, samples, together=MAX_SAMPLES, temperature=temperature)
    cost = (drawn.network_evaluations, drawn.seconds)
    return judge.quality(sampler, temperature, drawn.tokens, cost), drawn.tokens


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser)
    parser.set_defaults(model="faces")
    parser.add_argument("--samples", type=int, default=64, help="pictures a sampler (default: 64)")
    parser.add_argument("--steps", type=int, nargs="+", default=[16, 32, 64], help="k")
    parser.add_argument("--ancestral", type=int, nargs="*", default=[], help="T")
    parser.add_argument("--clocks", type=int, nargs="+", default=[1, 3], help="of groups and steps")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.8], help="(default: 0.8)")
    parser.add_argument("--exact", action="store_true", help="one sub-token an evaluation too: 512 of them")
    parser.add_argument("--avatars", type=int, default=20_000, help="composed ones whose patches are known")
    parser.add_argument("--png", type=Path, metavar="FILE", help="write the sheet here")


def measured(arguments: argparse.Namespace) -> Numbers:
    model, judge = open_model(arguments), Judge(arguments.avatars)
    samplers = samplers_of(arguments.steps, arguments.clocks, arguments.ancestral)
    samplers += [Sampler()] if arguments.exact else []
    pairs = [(each, temperature) for temperature in arguments.temperatures for each in samplers]
    found = [
        measure(model, judge, sampler, temperature, arguments.samples)
        for sampler, temperature in track(pairs, description="samplers")
    ]
    qualities = [quality for quality, _ in found]
    about = f"{arguments.samples} pictures a sampler, {described(model)}; composed avatars: {judge.unseen:.1%} unseen"
    print(table_of(qualities, about))
    if arguments.png:
        sheet = sheet_of(torch.cat([pictures[:SHOWN] for _, pictures in found]), columns=SHOWN)
        arguments.png.parent.mkdir(parents=True, exist_ok=True)
        arguments.png.write_bytes(sheet)
    return {"model": described(model), "samplers": qualities}
