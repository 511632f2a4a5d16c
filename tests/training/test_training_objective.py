"""The objectives against brute force, the masks against their distribution, the fast paths against the plain ones."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor
from unmask_diffusion import NetworkShape, PrimeDenoiser, SubTokenizer

from training.fused_head import fused_loss
from training.network import features
from training.objective import Objective, corrupt, spread_rates, token_losses

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
        loss = token_losses(log_joint[None], torch.tensor([target]), torch.tensor([hidden]), codes, objective)
        # k = 1 (either digit, n / k = 2) and k = 2 (n / k = 1) are equally likely
        chance, weight = (0.5, 1.0) if all(hidden) else (0.25, 2.0)
        total += float(log_joint[target].exp() * chance * weight * loss)
    return total


def test_the_sum_of_marginals_is_a_bound_and_the_published_integrand_is_not() -> None:
    log_joint = oracle()
    entropy = -float((log_joint.exp() * log_joint).sum())
    assert integrated_loss(log_joint, "marginals") == pytest.approx(entropy, abs=1e-9)
    assert integrated_loss(log_joint, "joint") < entropy - 0.01


def test_the_published_integrand_misses_half_the_mutual_information() -> None:
    log_joint = oracle()
    joint = log_joint.exp().view(4, 4)
    entropy = -float((joint * joint.log()).sum())
    digits = [-float((m * m.log()).sum()) for m in (joint.sum(0), joint.sum(1))]
    assert integrated_loss(log_joint, "joint") == pytest.approx(entropy - (sum(digits) - entropy) / 2, abs=1e-9)
    # the same arithmetic gives the specification's figures: 2 · (2.3180 - 2.1814) nats of mutual information
    assert math.isclose(2 * (ORACLE_ENTROPY - ORACLE_PUBLISHED), 0.2732, abs_tol=1e-9)


@pytest.mark.parametrize("objective", ["joint", "marginals"])
def test_the_fused_head_equals_the_plain_loss_and_its_gradient(objective: Objective) -> None:
    generator = torch.Generator().manual_seed(1)
    codes = SubTokenizer.from_base(23, 2, 5, torch.randperm(25, generator=generator)[:23].tolist()).codes
    x, weight = torch.randn(1037, 8, generator=generator), torch.randn(23, 8, generator=generator)
    bias, row_weights = torch.randn(23, generator=generator), torch.rand(1037, generator=generator)
    target = torch.randint(23, (1037,), generator=generator)
    hidden = torch.tensor([[True, True], [True, False], [False, True]])[torch.randint(3, (1037,), generator=generator)]
    for tensor in (x, weight, bias):
        tensor.requires_grad_()
    plain = (token_losses(x @ weight.T + bias, target, hidden, codes, objective) * row_weights).sum()
    expected = torch.autograd.grad(plain, (x, weight, bias))
    fused = fused_loss(x, weight, bias, target, hidden, codes, row_weights, objective, torch.float32)
    assert fused.item() == pytest.approx(plain.item(), rel=1e-5)
    for got, want in zip(torch.autograd.grad(fused, (x, weight, bias)), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_mask_rates_are_spread_evenly_in_a_batch_and_over_steps() -> None:
    generator = torch.Generator().manual_seed(0)
    for step in range(50):
        rates = spread_rates(16, step, generator)
        assert (rates.sort().values * 16).long().tolist() == list(range(16))
    first_canvas = torch.stack([spread_rates(16, step, generator).min() for step in range(256)]) * 16
    assert float(torch.histc(first_canvas.float(), 16, 0, 1).max()) <= 18  # 256 / 16, and little more


def test_every_sub_token_is_hidden_equally_often_and_weights_are_n_over_k() -> None:
    generator = torch.Generator().manual_seed(0)
    digits = torch.randint(7, (4000, 3, 2), generator=generator)
    corrupted = corrupt(digits, 7, spread_rates(4000, 0, generator), generator)
    assert torch.equal(corrupted.digits, digits.masked_fill(corrupted.hidden, 7))
    counts = corrupted.hidden.flatten(1).sum(1)
    assert counts.bincount()[1:].tolist() == pytest.approx([4000 / 6] * 6, abs=2)
    torch.testing.assert_close(corrupted.weights, 2.0 / (4000 * counts))
    share = corrupted.hidden.float().mean(0)
    assert float((share - 3.5 / 6).abs().max()) < 5 * math.sqrt(0.25 / 4000)


@pytest.mark.parametrize("absolute_positions", [False, True])
def test_the_training_forward_equals_the_served_network(absolute_positions: bool) -> None:
    torch.manual_seed(3)
    network = PrimeDenoiser(NetworkShape(32, 81, 2, 9, 24, 3, 2, absolute_positions))
    digits = torch.randint(10, (5, 17, 2))
    rows = torch.tensor([0, 3, 16, 17, 84])
    served = network.joint_logits(digits).flatten(0, 1)[rows]
    torch.testing.assert_close(
        network.head(features(network, digits, rows, torch.float32)), served, rtol=1e-5, atol=1e-5
    )
