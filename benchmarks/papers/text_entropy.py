"""The unigram entropy of generated text when rare classes keep their mass, and when 24-bit noise takes it from them.

Two samplers, each with both kinds of noise:

  exact              ours, first-hitting; only the benchmark exchanges its noise
  mask among classes ancestral, as MDLM's code has it: in each of T steps a masked token draws from its classes, with
                     the share (t - s) / t, and the mask, with s / t. The share makes every class rare.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import hypot
from unittest.mock import patch

import torch
from rich.progress import track
from torch import Tensor
from unmask_diffusion import Model

from benchmarks.papers.drawing import EXACT, draw
from benchmarks.papers.rare_mass import gumbel_on_24_bits
from benchmarks.papers.text_quality import MeanAndError, unigram_entropy, with_error
from benchmarks.papers_reference import step_times

SEED = 1


@dataclass(frozen=True)
class Entropies:
    """Mean over samples of the entropy of a sample's own tokens, in nats, each with its standard error.

    Attributes:
        sampler: one of the two.
        steps: T, or None.
        samples: with each kind of noise.
        exact_noise, noise_24_bits: (mean, standard error).
        difference: 24 bits less exact, of pairs where the sampler has pairs (equal seeds), else of independent samples.
    """

    sampler: str
    steps: int | None
    samples: int
    exact_noise: MeanAndError
    noise_24_bits: MeanAndError
    difference: MeanAndError


def noise_of_24_bits() -> AbstractContextManager[object]:
    """The sampler's draws on a CPU make their noise from 24 random bits for as long as this lasts."""
    return patch("unmask_kernels.categorical.gumbel_from_words", gumbel_on_24_bits)


def exact_entropies(model: Model, samples: int) -> list[float]:
    """The entropies of samples of the exact sampler, on the model's whole canvas."""
    return [unigram_entropy(ids) for ids in draw(model, EXACT, samples, SEED).tokens]


def compare_exact(model: Model, samples: int) -> Entropies:
    """The exact sampler with both kinds of noise, from the same seeds: pairs differ from where 24 bits lose a class."""
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
