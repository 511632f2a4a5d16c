"""Each sampler's own error against network evaluations: on a known Markov chain, and on the shipped model.

  markov   The denoiser is the chain's exact posterior, so every difference from the chain is the sampler's error or
           counting noise, which is measured with as many sequences of the chain itself. Two errors: KL(bigrams drawn ‖
           bigrams of the chain), and -log p of the sequences above the chain's own, in nats a token.
  shipped  Texts without a prompt at temperature 1: the model's own bound of them in nats a token, the entropy of their
           tokens, and the rules that a tale breaks. The exact sampler's texts are the model's own: more nats than
           theirs are incoherence, fewer a loss of variety.

Groups of k and ancestral steps draw digits of different positions independently; this is their error, and it vanishes
as the evaluations approach the number of sub-tokens. The high orders (`sampler.high_order`: paper 1's extrapolation,
and a predictor–corrector) use the predictions of the last two states to correct a part of it. Confidence orders have an
error of another kind, which does not vanish: they reveal what happens to be likely.
"""

import argparse
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import get_args

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.progress import track
from unmask_diffusion import MAX_SAMPLES, Model, Sampler
from unmask_diffusion.request import HighOrder
from unmask_kernels import Measure

from benchmarks.harness import Table
from benchmarks.models import add_model_options, described, open_model
from benchmarks.papers.chain import CLASSES, LENGTH, random_chain
from benchmarks.papers.drawing import TextQuality, draw, family_of, name_of, samplers_of, text_quality
from benchmarks.papers.finding import Finding, plus_minus

DIGITS = (1, 2, 3)
STEPS = (8, 16, 32, 64)
TEXT_STEPS = (4, 16, 64)
HIGH_ORDERS: tuple[HighOrder, ...] = get_args(HighOrder)
ORDERS: tuple[Measure, ...] = ("confidence", "entropy")
STYLES = {
    "exact": "*",
    "groups, k": "o-",
    "ancestral, T": "s--",
    "extrapolation, k": "^:",
    "predictor-corrector, k": "v:",
    "confidence, k": "D-.",
    "entropy, k": "x-.",
}
QUICK = {"sequences": 32, "digits": [1], "steps": [4], "texts": 2, "text_steps": [4], "scored": 4, "processes": 1}


@dataclass(frozen=True)
class ChainPoint:
    """One sampler's error on the chain."""

    sub_tokens_per_token: int
    family: str
    sampler: str
    steps: int | None
    network_evaluations: float  # mean of a sequence
    idle_steps: float  # mean of a sequence
    divergence: float  # of bigrams, nats
    nats_above: float  # -log p of the sequences, less the chain's own, nats a token


@dataclass(frozen=True)
class TextPoint:
    """One sampler's texts by the shipped model."""

    family: str
    sampler: str
    steps: int | None
    network_evaluations: float
    idle_steps: float
    quality: TextQuality


def chain_point(digits: int, sampler: Sampler, sequences: int) -> ChainPoint:
    """Draw sequences from the chain's exact posterior and compare them with the chain; sets torch's threads to one."""
    torch.set_num_threads(1)  # the products are tiny: threads would spend their time waiting for each other
    chain = random_chain()
    drawn = draw(chain.model(digits), sampler, sequences, together=MAX_SAMPLES)
    error = chain.divergence(drawn.tokens)
    names = family_of(sampler), name_of(sampler)
    above = float(chain.nats(drawn.tokens).mean()) / LENGTH - chain.entropy_a_token()
    return ChainPoint(digits, *names, sampler.steps, drawn.network_evaluations, drawn.idle_steps, error, above)


def chain_points(jobs: Sequence[tuple[int, Sampler]], sequences: int, processes: int | None) -> list[ChainPoint]:
    """One point for each job (l and a sampler), in several processes unless `processes` is 1."""
    if processes == 1:
        return [chain_point(*job, sequences) for job in track(jobs, description="samplers on the chain")]
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        running = [pool.submit(chain_point, *job, sequences) for job in jobs]
        return [job.result() for job in track(running, description="samplers on the chain")]


def text_point(model: Model, sampler: Sampler, texts: int, scored: int) -> TextPoint:
    drawn = draw(model, sampler, texts)
    names = family_of(sampler), name_of(sampler)
    quality = text_quality(model, drawn.tokens, scored)
    return TextPoint(*names, sampler.steps, drawn.network_evaluations, drawn.idle_steps, quality)


def chain_table(points: Sequence[ChainPoint], sequences: int, floor: tuple[float, float]) -> Table:
    digits = sorted({each.sub_tokens_per_token for each in points})
    cells = {(each.sampler, each.sub_tokens_per_token): each for each in points}
    rows = []
    for name in dict.fromkeys(each.sampler for each in points):
        line = [cells[name, each] for each in digits]
        errors = [f"{each.divergence:.4f}, {each.nats_above:+.3f} ({each.network_evaluations:.1f})" for each in line]
        rows.append([name, *errors])
    title = (
        f"Bigram divergence in nats, -log p a token above the chain's {random_chain().entropy_a_token():.3f} (network "
        f"evaluations a sequence); C {CLASSES}, L {LENGTH}, {sequences} sequences; divergence of as many sequences of "
        f"the chain itself: {plus_minus(floor, 4)} (deviation)"
    )
    return Table(title, ["sampler", *(f"l = {each}" for each in digits)], rows)


def text_table(points: Sequence[TextPoint], about: str) -> Table:
    columns = ["sampler", "evaluations", "nats a token", "entropy of its tokens", "broken rules a tale"]
    rows = []
    for each in points:
        quality = each.quality
        broken = "" if quality.broken_rules is None else plus_minus(quality.broken_rules, 2)
        values = plus_minus(quality.nats_per_token), plus_minus(quality.unigram_entropy)
        rows.append([each.sampler, f"{each.network_evaluations:.0f}", *values, broken])
    return Table(about, columns, rows)


def draw_chain(axes: Axes, points: Sequence[ChainPoint], floor: tuple[float, float]) -> None:
    for number, (family, style) in enumerate(STYLES.items()):
        chosen = sorted((each for each in points if each.family == family), key=lambda each: each.network_evaluations)
        xs, ys = [each.network_evaluations for each in chosen], [each.divergence for each in chosen]
        axes.plot(xs, ys, style, color=f"C{number}", label=family, markersize=12 if family == "exact" else 4)
    axes.axhspan(floor[0] - 2 * floor[1], floor[0] + 2 * floor[1], color="grey", alpha=0.3, label="counting noise")
    axes.set(xscale="log", yscale="log", xlabel="network evaluations a sequence", ylabel="bigram divergence, nats")
    axes.set_title(f"Markov chain, l = {points[0].sub_tokens_per_token}")


def draw_texts(axes: Axes, points: Sequence[TextPoint]) -> None:
    for number, (family, style) in enumerate(STYLES.items()):
        chosen = sorted((e for e in points if e.family == family), key=lambda each: each.network_evaluations)
        xs, ys = [each.network_evaluations for each in chosen], [each.quality.nats_per_token for each in chosen]
        means, errors = [mean for mean, _ in ys], [2 * error for _, error in ys]
        size = 12 if family == "exact" else 4
        axes.errorbar(xs, means, errors, fmt=style, color=f"C{number}", markersize=size, capsize=2, label=family)
    axes.set(xscale="log", xlabel="network evaluations a text", ylabel="nats a token by the model's own bound")
    axes.set_title("shipped model")
    axes.legend(fontsize=8)


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser)
    parser.add_argument("--sequences", type=int, default=320, help="of the chain, a sampler (default: 320)")
    parser.add_argument("--digits", type=int, nargs="+", default=DIGITS, metavar="l", help="on the chain")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS, help="groups k, and time steps T, on the chain")
    parser.add_argument("--texts", type=int, default=64, help="of the shipped model, a sampler (default: 64)")
    parser.add_argument("--text-steps", type=int, nargs="+", default=TEXT_STEPS, help="k, and T, of the texts")
    parser.add_argument("--scored", type=int, default=16, help="evaluations that score a text (default: 16)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="on the chain (default: one a core)")


def measured(arguments: argparse.Namespace) -> Finding:
    model = open_model(arguments)
    on_chain = samplers_of(arguments.steps, arguments.steps, HIGH_ORDERS, ORDERS)
    jobs = [(digits, each) for digits in arguments.digits for each in on_chain]
    chain = chain_points(jobs, arguments.sequences, arguments.processes)
    floor = random_chain().floor(arguments.sequences)
    to_write = samplers_of(arguments.text_steps, arguments.text_steps, HIGH_ORDERS, ORDERS)
    texts = [
        text_point(model, each, arguments.texts, arguments.scored) for each in track(to_write, description="texts")
    ]
    about = f"{arguments.texts} texts a sampler, {described(model)}"

    def draw_panels(figure: Figure) -> None:
        *left, right = figure.subplots(1, len(arguments.digits) + 1)
        for axes, each in zip(left, sorted(arguments.digits), strict=True):
            draw_chain(axes, [point for point in chain if point.sub_tokens_per_token == each], floor)
        draw_texts(right, texts)

    numbers = {"sequences": arguments.sequences, "floor": floor, "chain": chain, "model": described(model)}
    numbers |= {"texts": arguments.texts, "text_samplers": texts}
    tables = [chain_table(chain, arguments.sequences, floor), text_table(texts, about)]
    return Finding(tables, numbers, draw_panels, inches=(4.0 * (len(arguments.digits) + 1), 4.5))
