"""High-order first-hitting: steps drawn from two predictions instead of one.

The sub-tokens of a step are drawn from the prediction p of the state before them, as if none of the others were there;
that is the price of fewer evaluations. p cannot know the others, but it differs from the prediction q one evaluation
earlier by what the step before has revealed, and that trend continues: where c times as many sub-tokens have been
revealed since p as between q and p, the prediction would be about p + c (p - q). The order of reveals is random, so
what a step lacks of dependence on itself, it gets as more dependence on the step before, and the law of what is drawn,
taken over all orders, is right to the second order in the size of the steps where plain steps are to the first.

This is paper 1's extrapolation (arXiv 2409.02908, section 4.3 and appendix G.1): every sub-token to its own time.

With blocks the first step of each is drawn like a sample's first, from one prediction. The compensation is one between
orders: of two sub-tokens in neighbouring steps either may come first. Across a border the order is fixed, so that a
trend carried over it would add a dependence that no other order takes away.

docs/samplers.md has the derivation, what else was tried, and figures.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unmask_diffusion.schedule import Steps


@dataclass(frozen=True, eq=False)
class Features:
    """A second prediction of a step's positions: one evaluation before the step's own, or without what was given."""

    step: int
    positions: Sequence[int]  # ascending
    features: Tensor  # [positions, F]

    def at(self, position: int) -> Tensor:
        """The features of a position, [F]."""
        return self.features[bisect_left(self.positions, position)]


def weights(steps: Steps, step: int) -> tuple[float, ...]:
    """How far each sub-token of a step is extrapolated, in distances between the two predictions.

    Steps of one sub-token need no extrapolation: the sampler is exact wherever plain steps are.

    Returns:
        A weight for each sub-token of steps[step], in its order; nothing where the step is drawn from one prediction.
    """
    size = len(steps[step].reveal)
    if step == steps.block_start(step) or size == 1:
        return ()
    before = len(steps[step - 1].reveal)
    return tuple(index / before for index in range(size))


def extrapolate(now: Tensor, earlier: Tensor, weight: Tensor) -> Tensor:
    """The logarithm of p + c (p - q) where that is positive, of 0 elsewhere.

    A class is at most 1 + c times as probable as before, impossible ones stay impossible, and at least one is left,
    since the sum of p + c (p - q) is 1. Extrapolated logarithms would not be bounded so.

    Args:
        now: log p, [N, C], normalised over the consistent classes, -inf elsewhere.
        earlier: log q of the same consistent classes; a row of -inf throughout changes nothing.
        weight: c, [N], at least 0.

    Returns:
        float64 [N, C], unnormalised. NaN in a row of `now` or `earlier` stays NaN.
    """
    p, q = now.double(), earlier.double()
    ratio = torch.where(p == -torch.inf, torch.zeros_like(p), q - p).exp()
    factor = 1 + weight.double()[:, None] * (1 - ratio)
    return p + factor.clamp(min=0).log()


def guided(given: Tensor, free: Tensor, weight: Tensor) -> Tensor:
    """Classifier-free guidance: u + (w + 1)(c - u); what is impossible in c stays impossible.

    Args:
        given: c, the logits [N, C] of a canvas.
        free: u, the logits of the same canvas with everything that was given masked.
        weight: w, [N].
    """
    return torch.where(given == -torch.inf, given, free + (weight[:, None] + 1) * (given - free))
