"""Head and loss in one pass over small chunks of rows, gradients included, so that logits never leave the cache.

With e = exp(logit) every loss of a row is a combination of logarithms of three kinds of sums of e: over all
consistent classes (Z), over those with the true digit at place j (Z_j), and over the true class alone (e_t):

    joint      log Z - log e_t
    marginals  sum over hidden j of (log Z - log Z_j)

Z and Z_j are dot products of e with indicator columns, so are their gradients: e_c · (sum of ±1/Z over the sums that
class c is part of). Written for l = 2, where the sums are four: everything, true first digit, true second digit,
true class. `token_losses` is the oracle.
"""

from typing import Any

import torch
from torch import Tensor

from training.objective import Objective

CHUNK = 512


class _FusedHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        target: Tensor,
        hidden: Tensor,
        codes: Tensor,
        row_weights: Tensor,
        joint: bool,
        dtype: torch.dtype,
    ) -> Tensor:
        cast = weight.to(dtype)
        grad_x, grad_weight, grad_bias = torch.empty_like(x), torch.zeros_like(weight), torch.zeros_like(bias)
        total = x.new_zeros(())
        first, second = codes.to(torch.int16).unbind(1)
        for start in range(0, len(x), CHUNK):
            part = slice(start, start + CHUNK)
            rows = x[part].to(dtype)
            logits = torch.addmm(bias, rows.float(), weight.T) if dtype == torch.float32 else (rows @ cast.T + bias)
            loss, grad = _loss_and_gradient(logits, target[part], hidden[part], first, second, joint)
            total += (loss * row_weights[part]).sum()
            grad = grad * row_weights[part, None]
            grad_bias += grad.sum(0)
            grad = grad.to(dtype)
            grad_x[part] = grad @ cast
            grad_weight += grad.T @ rows
        ctx.save_for_backward(grad_x, grad_weight, grad_bias)
        return total

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        gradients = tuple(g * grad_output for g in ctx.saved_tensors)
        return (*gradients, None, None, None, None, None, None)


def _loss_and_gradient(
    logits: Tensor, target: Tensor, hidden: Tensor, first: Tensor, second: Tensor, joint: bool
) -> tuple[Tensor, Tensor]:
    """Loss [N] and its gradient with respect to logits [N, C]."""
    e = (logits - logits.amax(1, keepdim=True)).exp_()
    same_first = first[None] == first[target][:, None]
    same_second = second[None] == second[target][:, None]
    sum_first, sum_second = (e * same_first).sum(1), (e * same_second).sum(1)
    sum_all, sum_true = e.sum(1), e.gather(1, target[:, None])[:, 0]
    first_hidden, second_hidden = hidden.unbind(1)
    both = first_hidden & second_hidden
    # a row with one hidden digit: log Z(the revealed digit) - log e_t
    only_second, only_first = second_hidden & ~first_hidden, first_hidden & ~second_hidden
    split = both & (not joint)
    in_all = both.float() + split.float()
    in_first = only_second.float() - split.float()
    in_second = only_first.float() - split.float()
    in_true = 1.0 - split.float()
    loss = in_all * sum_all.log() - in_true * sum_true.clamp_min(1e-30).log()
    loss = loss + in_first * sum_first.clamp_min(1e-30).log() + in_second * sum_second.clamp_min(1e-30).log()
    factor = same_first * (in_first / sum_first.clamp_min(1e-30))[:, None]
    factor += same_second * (in_second / sum_second.clamp_min(1e-30))[:, None]
    factor += (in_all / sum_all)[:, None]
    gradient = e.mul_(factor)
    gradient.scatter_add_(1, target[:, None], -in_true[:, None])
    return loss, gradient


def fused_loss(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    target: Tensor,
    hidden: Tensor,
    codes: Tensor,
    row_weights: Tensor,
    objective: Objective,
    dtype: torch.dtype,
) -> Tensor:
    """Weighted sum of the rows' losses.

    Args:
        x: features [N, hidden].
        weight: of the head, [C, hidden].
        bias: of the head, [C].
        target: int64 [N], rows of `codes`.
        hidden: bool [N, 2], which digits are masked.
        codes: int64 [C, 2].
        row_weights: [N].
        objective: which loss.
        dtype: of the matrix products.
    """
    joint = objective == "joint"
    loss: Tensor = _FusedHead.apply(x, weight, bias, target, hidden, codes, row_weights, joint, dtype)  # type: ignore[no-untyped-call]
    return loss
