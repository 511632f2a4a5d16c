"""Pictures and l: what partial masking does for an image model, on `faces` retrained briefly with each l.

Paper 2's images are tokens of a byte in 1, 2, 3, 4 or 8 digits. Here the 64 colours of `faces` are one token each, in l
digits of base 64^(1/l), by the same network, pictures and number of training steps for each l. Counted from the plans:
time steps of the ancestral sampler that reveal nothing, at clock 1 and 3. Drawn and judged: pictures by k groups at
clock 3. What is trained stays in OUT/images and is not trained again; an interrupted training goes on.
"""

import argparse
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from unmask_diffusion import GenerationRequest, Outline, Sampler, make_plan
from unmask_model_store import open_bundle

from benchmarks.frontier import FacesJudge
from benchmarks.harness import Table
from benchmarks.papers.drawing import draw as draw_pictures
from benchmarks.papers.finding import Finding
from training import run_faces
from training.faces.palette import PALETTE
from training.faces.sheet import sheet_of
from training.recipe import Budget
from training.session import Options

CLOCKS = (1, 3)
PLANS = 16  # whose idle steps are counted
SHOWN = 16  # pictures of a sampler in the figure
COMPOSED = 2_000  # other avatars, whose patches are looked up
# 96 has the divisors 1, 2, 3 and 6: every digit's embedding gets an equal part
QUICK = {
    "digits": [1, 3],
    "train_steps": 2,
    "hidden_size": 24,
    "blocks": 1,
    "samples": 2,
    "steps": [4],
    "times": [64],
    "avatars": 50,
}


@dataclass(frozen=True)
class IdleSteps:
    """Time steps of the ancestral sampler in which nothing is revealed."""

    sub_tokens_per_token: int
    clock: int
    steps: int
    counted: float  # mean of the plans
    expected: float  # the sum over steps of (1 - w)^n, w being a step's share of the time


@dataclass(frozen=True)
class Drawn:
    """Pictures of one l and one sampler."""

    sub_tokens_per_token: int
    bound: float  # of the model, nats a picture
    steps: int  # k groups
    network_evaluations: float
    whole: float  # share of pictures that some choice of parts draws
    unseen: float  # share of patches that composed avatars do not have


def base_of(digits: int) -> int:
    """The base in which the 64 colours have so many digits.

    Raises:
        ValueError: there is none.
    """
    base: int = round(len(PALETTE) ** (1 / digits))
    if base**digits != len(PALETTE):
        raise ValueError(f"64 colours are no power with exponent {digits}; l can be 1, 2, 3 or 6")
    return base


def train(digits: int, arguments: argparse.Namespace) -> tuple[Path, float]:
    """Train `faces` with so many digits; its bundle, and its bound in nats a picture."""
    recipe = replace(
        run_faces.RECIPE,
        sub_tokens_per_token=digits,
        base=base_of(digits),
        hidden_size=arguments.hidden_size,
        blocks=arguments.blocks,
    )
    folder = arguments.out / "images" / f"l{digits}"
    budget = Budget(minutes=1, steps=arguments.train_steps)
    options = Options(folder, budget, f"faces-l{digits}", resume=True, threads=arguments.threads)
    return folder / "bundle", run_faces.run(recipe, options).bound * recipe.length


def idle_steps(model: Outline, steps: int, clock: int) -> IdleSteps:
    """Count them in the server's own plans."""
    digits = model.sub_tokenizer.sub_tokens_per_token
    sampler = Sampler(name="ancestral", steps=steps, clock=clock)
    plan = make_plan(model, GenerationRequest(n=PLANS, seed=0, sampler=sampler))
    ends = (torch.arange(steps + 1, dtype=torch.float64) / steps) ** clock
    expected = float(((1 - ends.diff()) ** (model.denoiser.length * digits)).sum())
    return IdleSteps(digits, clock, steps, plan.idle_steps / PLANS, expected)


def idle_table(counts: Sequence[IdleSteps]) -> Table:
    cells = {(each.steps, each.clock, each.sub_tokens_per_token): each for each in counts}
    digits = sorted({each.sub_tokens_per_token for each in counts})
    rows = []
    for clock in CLOCKS:
        for steps in sorted({each.steps for each in counts}):
            line = [cells[steps, clock, each] for each in digits]
            shown = [f"{each.counted:.1f} / {each.expected:.1f} ({each.expected / steps:.0%})" for each in line]
            rows.append([str(clock), str(steps), *shown])
    title = f"Idle steps of 256 pixels, counted / expected (its share of T); means of {PLANS} plans"
    return Table(title, ["clock", "T", *(f"l = {each}" for each in digits)], rows)


def picture_table(drawn: Sequence[Drawn], unseen: float, steps: int) -> Table:
    rows = [
        [
            str(each.sub_tokens_per_token),
            f"{each.bound:.1f}",
            str(each.steps),
            f"{each.whole:.0%}",
            f"{each.unseen:.1%}",
        ]
        for each in drawn
    ]
    title = f"After {steps} training steps; k groups at clock 3; composed avatars have {unseen:.1%} unseen patches"
    return Table(title, ["l", "bound, nats a picture", "k", "whole", "unseen patches"], rows)


def draw(counts: Sequence[IdleSteps], drawn: Sequence[Drawn], pictures: Tensor, figure: Figure) -> None:
    axes = figure.subplot_mosaic([["idle", "unseen"], ["sheet", "sheet"]], height_ratios=[1, 2])
    for number, digits in enumerate(sorted({each.sub_tokens_per_token for each in counts})):
        for clock, style in zip(CLOCKS, ("o-", "s--"), strict=True):
            chosen = [each for each in counts if (each.sub_tokens_per_token, each.clock) == (digits, clock)]
            shares = [each.counted / each.steps for each in chosen]
            label = f"l = {digits}, clock {clock}"
            axes["idle"].plot([each.steps for each in chosen], shares, style, color=f"C{number}", label=label)
        found = [each for each in drawn if each.sub_tokens_per_token == digits]
        unseen = [each.unseen for each in found]
        axes["unseen"].plot(
            [each.network_evaluations for each in found], unseen, "o-", color=f"C{number}", label=f"l = {digits}"
        )
    axes["idle"].set(xscale="log", xlabel="time steps T", ylabel="share of idle steps")
    axes["unseen"].set(xscale="log", xlabel="evaluations", ylabel="unseen patches", ylim=(0, None))
    axes["idle"].legend(fontsize=7)
    axes["unseen"].legend(fontsize=7)
    axes["sheet"].imshow(Image.open(io.BytesIO(sheet_of(pictures, SHOWN))))
    rows = [f"l = {each.sub_tokens_per_token}, {each.steps} evaluations" for each in drawn]
    height = 17 * 4
    axes["sheet"].set_yticks([height * (row + 0.5) for row in range(len(rows))], rows, fontsize=7)
    axes["sheet"].set_xticks([])


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--digits", type=int, nargs="+", default=[1, 2, 6], metavar="l", help="of a colour: 1, 2, 3, 6")
    parser.add_argument("--train-steps", type=int, default=400, help="training steps of each l (default: 400)")
    parser.add_argument("--hidden-size", type=int, default=96, help="of the network, a multiple of 24 (default: 96)")
    parser.add_argument("--blocks", type=int, default=4, help="of the network (default: 4)")
    parser.add_argument("--steps", type=int, nargs="+", default=[8, 16, 32, 64], metavar="k", help="groups")
    parser.add_argument(
        "--times", type=int, nargs="+", default=[64, 128, 256, 512, 1024], metavar="T", help="time steps"
    )
    parser.add_argument("--samples", type=int, default=32, help="pictures a sampler (default: 32)")
    parser.add_argument("--temperature", type=float, default=0.7, help="(default: 0.7)")
    parser.add_argument("--avatars", type=int, default=20_000, help="composed ones whose patches are known")
    parser.add_argument("--threads", type=int, help="threads of the arithmetic (default: torch's choice)")


def measured(arguments: argparse.Namespace) -> Finding:
    judge = FacesJudge(arguments.avatars)
    unseen = judge.patches.unseen(judge.draw(COMPOSED, seed=1))
    counts, drawn, shown = [], [], []
    for digits in arguments.digits:
        folder, bound = train(digits, arguments)
        model = open_bundle(folder)
        counts += [idle_steps(model, steps, clock) for clock in CLOCKS for steps in arguments.times]
        for steps in arguments.steps:
            sampler, samples = Sampler(steps=steps, clock=3), arguments.samples
            made = draw_pictures(model, sampler, samples, temperature=arguments.temperature)
            values = judge.values(made.tokens)
            qualities = values["whole"][0], values["unseen patches"][0]
            drawn.append(Drawn(digits, bound, steps, made.network_evaluations, *qualities))
            shown.append(torch.cat([made.tokens, made.tokens[:1].expand(SHOWN, -1)])[:SHOWN])
    tables = [idle_table(counts), picture_table(drawn, unseen, arguments.train_steps)]
    numbers = {"idle_steps": counts, "pictures": drawn}
    return Finding(tables, numbers, lambda figure: draw(counts, drawn, torch.cat(shown), figure), (9, 10))
