"""What is learnt: how canvases are masked, and the two losses.

Masking. The bound of an order-agnostic model over n sub-tokens is the mean over k = 1 … n of
`(n / k) · sum over the k masked sub-tokens of -log p(digit | the rest)`, the k chosen uniformly. It equals the integral
over the mask rate t with its weight 1/t, but fixing the *number* removes the variance of the weight: every canvas
counts with the mean over what it has masked. The k of a batch are spread evenly (low discrepancy).

Most of the noise that is left comes from nearly complete canvases, whose few masked sub-tokens weigh most (the variance
goes like 1/k), and they are the easy ones: half of the variance from the lowest sixteenth of the rates. So training,
not evaluation, weighs them as if a share of n (`weight_floor`) were masked.

Losses, for a position whose token is not fully known:

- `marginals`: -log of the marginal of each masked digit. Its mean is a valid upper bound on the negative
  log-likelihood under the exact first-hitting sampler.
- `joint`: -log of the token's probability among the classes that agree with its revealed digits (MDM-Prime's
  published objective). Not a bound where digits depend on each other, but a sound training signal.

They differ only where two or more digits of one token are masked.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Objective = Literal["joint", "marginals"]
GOLDEN_RATIO = 0.6180339887498949


@dataclass(frozen=True)
class Corrupted:
    """A batch after masking.

    Attributes:
        digits: int64 [B, L, l], the mask id where a digit is hidden.
        hidden: bool [B, L, l], which are.
        weights: float32 [B], what a hidden sub-token of a canvas counts, so that the weighted sum over the batch
            estimates the bound in nats a token.
    """

    digits: Tensor
    hidden: Tensor
    weights: Tensor


def spread_rates(count: int, step: int, generator: torch.Generator) -> Tensor:
    """Mask rates in (0, 1), float64 [count]: one in each of `count` equal intervals, in random order.

    The offset inside the intervals moves by the golden ratio with every step, so that rates are even over time too.
    """
    offset = (step * GOLDEN_RATIO) % 1.0
    rates = (torch.arange(count, dtype=torch.float64) + offset) / count
    return rates[torch.randperm(count, generator=generator)]


def corrupt(
    digits: Tensor, mask_id: int, rates: Tensor, generator: torch.Generator, weight_floor: float = 0.0
) -> Corrupted:
    """Hide `k = 1 + floor(rate · n)` of the n sub-tokens of each canvas [L, l], every subset being equally likely.

    A hidden sub-token's weight is that of `max(k, weight_floor · n)` hidden ones.
    """
    batch, length, digits_a_token = digits.shape
    total = length * digits_a_token
    counts = 1 + (rates * total).long().clamp(max=total - 1)
    ranks = torch.rand(batch, total, generator=generator).argsort(1).argsort(1)
    hidden = (ranks < counts[:, None]).view_as(digits)
    weights = digits_a_token / (batch * counts.clamp_min(weight_floor * total)).float()
    return Corrupted(digits.masked_fill(hidden, mask_id), hidden, weights)


def token_losses(logits: Tensor, target: Tensor, hidden: Tensor, codes: Tensor, objective: Objective) -> Tensor:
    """The loss of each row by plain log-sum-exps: the reference for `fused_head`, and what evaluations use.

    Args:
        logits: float [N, C], joint logits.
        target: int64 [N], the row's true class.
        hidden: bool [N, l], which of its digits are masked.
        codes: int64 [C, l], the digits of each class.
        objective: which loss.

    Returns:
        [N], nats.
    """
    agrees = codes[None] == codes[target][:, None]  # [N, C, l]: class c has the true digit at place j
    consistent = logits.masked_fill(~(agrees | hidden[:, None]).all(-1), -torch.inf)
    normalizer = consistent.logsumexp(-1)
    if objective == "joint":
        return normalizer - logits.gather(1, target[:, None])[:, 0]
    loss = torch.zeros_like(normalizer)
    for j in range(codes.shape[1]):
        marginal = consistent.masked_fill(~agrees[:, :, j], -torch.inf).logsumexp(-1)
        loss = loss + torch.where(hidden[:, j], normalizer - marginal, 0.0)
    return loss
