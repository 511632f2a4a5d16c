"""What noise of 24 random bits costs: the mass of rare classes, the temperature of draws, the variety of text.

Paper 1 traced the low entropy of generated text to categorical draws from float32 uniforms. None of these experiments
is a setting of the server:

  rare mass    50,000 classes of probability eps each beside a common one: the probability that a rare class is drawn,
               computed and counted with the words that `unmask_kernels.draw` uses. Noise does not depend on eps, so a
               row's noise serves every eps, and of equal classes only the greatest noise matters.
  temperature  the temperature that bounded noise is equivalent to (few_bits.py derives it), where class and mask come
               from one draw with T steps: for Zipf's law over GPT-2's vocabulary, and for the shipped model's
               prediction on an empty canvas
  entropy      of the tokens of a text, with 24-bit noise and without: by the exact sampler, and by MDLM's, where the
               mask is one more class of each draw and T time steps make all others T times rarer
"""

import argparse
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby
from math import hypot, sqrt
from unittest.mock import patch

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.progress import track
from torch import Tensor
from unmask_diffusion import Model

from benchmarks.evaluation.papers_sampler import step_times
from benchmarks.harness import Table
from benchmarks.models import add_model_options, described, open_model
from benchmarks.papers.drawing import EXACT, draw, unigram_entropy
from benchmarks.papers.few_bits import (
    NOISES,
    RARE,
    Doubles,
    Lowered,
    RareMass,
    gumbel_on_24_bits,
    lowered,
    measure_rare_mass,
)
from benchmarks.papers.finding import Finding, MeanAndError, plus_minus, with_error

SEED = 1
EPSILONS = (1e-9, 3e-9, 1e-8, 3e-8, 1e-7, 3e-7, 1e-6, 3e-6, 1e-5)
TEMPERATURE_STEPS = (64, 256, 1024, 4096, 16384)
ZIPF_CLASSES = 50257
QUICK = {"epsilons": [1e-6], "rows": 64, "temperature_steps": [64], "samples": 2, "steps": 8, "processes": 1}


@dataclass(frozen=True)
class Entropies:
    """Mean over samples of the entropy of a sample's own tokens, in nats."""

    sampler: str  # one of the two
    steps: int | None  # T
    samples: int  # with each kind of noise
    exact_noise: MeanAndError
    noise_24_bits: MeanAndError
    difference: MeanAndError  # 24 bits less exact: of pairs if the samples are paired by seed, else independent


def noise_of_24_bits() -> AbstractContextManager[object]:
    """In this context the sampler's draws on a CPU use noise of 24 random bits."""
    return patch("unmask_kernels.categorical.gumbel_from_words", gumbel_on_24_bits)


def exact_entropies(model: Model, samples: int) -> list[float]:
    return [unigram_entropy(ids) for ids in draw(model, EXACT, samples, SEED).tokens]


def compare_exact(model: Model, samples: int) -> Entropies:
    """The exact sampler with both kinds of noise and the same seeds: a pair differs once 24 bits lose a class."""
    ours = exact_entropies(model, samples)
    with noise_of_24_bits():
        cut = exact_entropies(model, samples)
    difference = with_error([b - a for a, b in zip(ours, cut, strict=True)])
    return Entropies("exact", None, samples, with_error(ours), with_error(cut), difference)


def compare_mask_among_classes(model: Model, samples: int, steps: int) -> Entropies:
    """MDLM's sampler with float64 and with float32 uniforms, independent samples."""
    exact, cut = (
        with_error([unigram_entropy(ids) for ids in MaskAmongClasses(model, dtype, steps).sample(samples)])
        for dtype in (torch.float64, torch.float32)
    )
    difference = cut[0] - exact[0], hypot(cut[1], exact[1])
    return Entropies("mask among classes", steps, samples, exact, cut, difference)


class MaskAmongClasses:
    """MDLM's ancestral sampler: each masked token draws from its classes and the mask together, in every step.

    The noise is torch's uniform of a dtype: float32 has 24 bits, float64 has 53. Samples whose canvas did not change
    keep their logits.
    """

    def __init__(self, model: Model, dtype: torch.dtype, steps: int) -> None:
        self.model = model
        self.dtype = dtype
        self.steps = steps
        self.generator = torch.Generator().manual_seed(SEED)

    @torch.inference_mode()
    def sample(self, count: int) -> Tensor:
        """Token ids, int64 [count, L]."""
        mask_id = self.model.sub_tokenizer.mask_id
        digits = self.model.sub_tokenizer.masked(self.model.denoiser.length).repeat(count, 1, 1)
        changed = torch.ones(count, dtype=torch.bool)
        classes = torch.empty(count, digits.shape[1], self.model.denoiser.vocabulary_size)
        for time, next_time in track(step_times(self.steps), description=f"T = {self.steps}, {self.dtype}"):
            if changed.any():
                classes[changed] = self.model.denoiser.joint_logits(digits[changed]).softmax(-1)
            masked = (digits[..., 0] == mask_id).nonzero(as_tuple=True)
            drawn = self.draw(classes[masked], (time - next_time) / time)
            shown = drawn >= 0
            sample, position = (each[shown] for each in masked)
            digits[sample, position] = self.model.sub_tokenizer.encode(drawn[shown])
            changed = torch.zeros_like(changed).index_fill_(0, sample, True)
        return self.model.sub_tokenizer.decode(digits)

    def draw(self, classes: Tensor, share: float) -> Tensor:
        """A class or -1, the mask, for each row of probabilities [N, C]: the exponential race, int64 [N]."""
        uniform = torch.rand(len(classes), classes.shape[1] + 1, dtype=self.dtype, generator=self.generator)
        times = uniform.clamp_(min=torch.finfo(self.dtype).tiny).log_().neg_()
        best, drawn = (classes.to(self.dtype) * share).div_(times[:, :-1]).max(1)
        return drawn.masked_fill_(best <= (1 - share) / times[:, -1], -1)


def zipf(classes: int = ZIPF_CLASSES) -> Doubles:
    """Probabilities that fall as one over the rank, roughly the distribution of words."""
    shares = 1 / np.arange(1, classes + 1)
    law: Doubles = shares / shares.sum()
    return law


@torch.inference_mode()
def of_an_empty_canvas(model: Model) -> Doubles:
    """The classes' probabilities at the middle of a masked canvas."""
    digits = model.sub_tokenizer.masked(model.denoiser.length)
    logits = model.denoiser.joint_logits(digits[None])[0, model.denoiser.length // 2]
    law: Doubles = logits.double().softmax(-1).numpy()
    return law


def mass_table(masses: Sequence[RareMass]) -> Table:
    of_bits = [f"{bits} bits, {how}" for bits in (24, 64) for how in ("computed", "drawn")]
    columns = ["eps", "true", "cut off at 16.64", *of_bits]
    rows = []
    for each in masses:
        of_24, of_64 = (each.computed_24_bits, each.drawn_24_bits), (each.computed_64_bits, each.drawn_64_bits)
        rows.append([f"{each.eps:.0e}", *(f"{value:.3g}" for value in (each.true, each.truncated, *of_24, *of_64))])
    return Table(f"Mass of {RARE} rare classes, {masses[0].rows} rows drawn", columns, rows)


def temperature_table(found: Sequence[Lowered]) -> Table:
    columns = ["classes", "T", "their entropy", *(f"{noise}: temperature (entropy, mass moved)" for noise in NOISES)]
    rows = []
    for (name, steps), group in groupby(found, lambda each: (each.classes, each.steps)):
        line = list(group)
        cells = [f"{each.temperature:.5f} ({each.entropy_drawn:.4f}, {each.moved:.2%})" for each in line]
        rows.append([name, str(steps), f"{line[0].entropy:.4f}", *cells])
    return Table("The temperature that bounded noise is equivalent to; entropies in nats", columns, rows)


def entropy_table(entropies: Sequence[Entropies], about: str) -> Table:
    rows = []
    for one in entropies:
        name = one.sampler if one.steps is None else f"{one.sampler}, T = {one.steps}"
        values = [plus_minus(each, 4) for each in (one.exact_noise, one.noise_24_bits, one.difference)]
        rows.append([name, str(one.samples), *values])
    columns = ["sampler", "texts", "exact noise", "24 bits", "difference"]
    return Table(f"Unigram entropy of a text, nats; {about}", columns, rows)


def draw_masses(axes: Axes, masses: Sequence[RareMass]) -> None:
    true = [each.true for each in masses]
    axes.plot(true, true, color="grey", linewidth=4, alpha=0.4, label="as it should be")
    axes.plot(true, [each.truncated for each in masses], ":", color="tab:orange", label="noise cut off at 16.64")
    for bits, colour, marker in ((24, "tab:orange", "s"), (64, "tab:blue", "o")):
        label = "uniform of 24 bits" if bits == 24 else "our draw (64 bits)"
        axes.plot(true, [getattr(each, f"computed_{bits}_bits") for each in masses], color=colour, label=label)
        drawn = [(each.true, getattr(each, f"drawn_{bits}_bits"), each.rows) for each in masses]
        seen = [(x, y, sqrt(y / rows)) for x, y, rows in drawn if y > 0]  # none: below the plot
        if seen:
            x, y, errors = zip(*seen, strict=True)
            axes.errorbar(x, y, errors, fmt=marker, color=colour, markersize=5, capsize=2, label=f"{label}, drawn")
    axes.set(xscale="log", yscale="log", ylim=(min(true) / 3, 1), xlabel="true rare mass", ylabel="rare mass drawn")
    axes.legend(fontsize=8)


def draw_temperatures(axes: Axes, found: Sequence[Lowered]) -> None:
    for number, name in enumerate(dict.fromkeys(each.classes for each in found)):
        for noise, style in zip(NOISES, (":", "s-", "o--"), strict=True):
            chosen = [each for each in found if (each.classes, each.noise) == (name, noise)]
            xs, ys = [each.steps for each in chosen], [each.temperature for each in chosen]
            axes.plot(xs, ys, style, color=f"C{number + 2}", markersize=4, label=f"{name}, {noise}")
    axes.set(xscale="log", xlabel="time steps T", ylabel="effective temperature")
    axes.legend(fontsize=8)


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser)
    parser.add_argument("--epsilons", type=float, nargs="+", default=EPSILONS, metavar="eps", help="of the rare mass")
    parser.add_argument("--rows", type=int, default=40_000, help="of 50,001 classes (default: 40000)")
    parser.add_argument(
        "--temperature-steps", type=int, nargs="+", default=TEMPERATURE_STEPS, metavar="T", help="of the temperature"
    )
    parser.add_argument("--samples", type=int, default=64, help="texts of each sampler (default: 64)")
    parser.add_argument("--steps", type=int, default=1024, help="T of MDLM's sampler (default: 1024)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="that draw rows (default: one a core)")


def measured(arguments: argparse.Namespace) -> Finding:
    model = open_model(arguments)
    entropies = [
        compare_exact(model, arguments.samples),
        compare_mask_among_classes(model, arguments.samples, arguments.steps),
    ]
    laws = {f"Zipf's law, C {ZIPF_CLASSES}": zipf(), "the shipped model, empty canvas": of_an_empty_canvas(model)}
    temperatures = [
        lowered(name, law, steps, noise)
        for name, law in laws.items()
        for steps in arguments.temperature_steps
        for noise in NOISES
    ]
    masses = measure_rare_mass(arguments.epsilons, arguments.rows, arguments.processes)

    def draw_both(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        draw_masses(left, masses)
        draw_temperatures(right, temperatures)

    numbers = {
        "model": described(model),
        "rare_classes": RARE,
        "rare_mass": masses,
        "temperatures": temperatures,
        "unigram_entropy_nats": entropies,
    }
    tables = [mass_table(masses), temperature_table(temperatures), entropy_table(entropies, described(model))]
    return Finding(tables, numbers, draw_both, inches=(12, 5))
