"""The objectives against brute force, the masks against their distribution, the fast paths against the plain ones."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor
from training.fused_head import fused_loss
from training.network import features
from training.objective import Objective, corrupt, spread_rates, token_losses
from unmask_diffusion import NetworkShape, PrimeDenoiser, SubTokenizer

# spec: one token with two dependent base-4 digits; what a perfect model's losses integrate to
ORACLE_ENTROPY = 2.3180
ORACLE_PUBLISHED = 2.1814


def oracle() -> Tensor:
    """A joint over 16 classes whose two digits depend on each other."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(16, generator=generator, dtype=torch.float64).mul(1.0).log_softmax(0)


def integrated_loss(log_joint: Tensor, objective: Objective) -> float:
    """The expected loss of a perfect model of one token, over tokens and mask sets: k uniform, weight n / k."""
    codes = SubTokenizer.from_base(16, 2, 4).codes
    total = 0.0
    for target, hidden in product(range(16), ([True, True], [True, False], [False, True])):
        loss = token_losses(
            log_joint[None], torch.tensor([target]), torch.tensor([hidden]), codes, objective
        )
        # k = 1 (either digit, n / k = 2) and k = 2 (n / k = 1) are equally likely
        chance, weight = (0.5, 1.0) if all(hidden) else (0.25, 2.0)
        total += float(log_joint[target].exp() * chance * weight * loss)
    return total


def test_the_sum_of_marginals_is_a_bound_and_the_published_integrand_is_not() -> None:
    log_joint = oracle()
    entropy = -float((log_joint.exp() * log_joint).sum())
    assert integrated_loss(log_joint, "marginals") == pytest.approx(entropy, abs=1e-9)
    assert integrated_loss(log_joint, "joint") < entropy - 0.01
