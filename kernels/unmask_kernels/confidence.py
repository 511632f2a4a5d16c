"""How sure a distribution is of each masked digit of a token: what decides the order of reveals by confidence."""

from typing import Literal

import torch
from torch import Tensor

from unmask_kernels.categorical import keep_likely
from unmask_kernels.consistency import agrees

Measure = Literal["confidence", "top", "margin", "entropy"]

# Shares and terms of the entropy are summed as whole units: integer sums are the same in every order, so that no number
# of rows and no device changes them.
_UNITS = 2.0**40
# of the official samplers: keeps the logarithm of a class that is cut off finite
_EPSILON = 1e-10


@torch.no_grad()
def confidence(
    logits: Tensor,  # [N, C], any floating dtype; every row has a finite consistent logit, and no NaN or +inf
    revealed: Tensor,  # int64 [N, l]; a digit above `codes.max()`, as the mask id is, means masked
    codes: Tensor,  # int64 [C, l], the digits of every class
    classes: Tensor,  # int64 [N], the class that was drawn for each row
    measure: Measure,
    *,
    temperature: Tensor | float = 1.0,  # [N] or one number; 0 counts as 1
    top_k: Tensor | int = 0,  # int64 [N] or one number, 0 = off
    top_p: Tensor | float = 1.0,  # [N] or one number, 1 = off
    min_p: Tensor | float = 0.0,  # [N] or one number, 0 = off
) -> Tensor:
    """Return the confidence of every digit, float64 [N, l]; -inf where it is revealed.

    With m the distribution of a digit, the marginal of softmax(logits / temperature) over the consistent classes that
    top_k, top_p and min_p leave:

        confidence  m(the drawn digit)           "low_confidence" of LLaDA, "maskgit_plus" of Dream
        top         the largest m
        margin      the largest m less the next   "topk_margin"
        entropy     Σ m log(m + 1e-10)            the negative entropy

    A plain torch operation on every device, of float64 numbers: 16 bytes for each logit, so give it few rows at a time.
    """
    count = len(logits)
    temperature, top_k, top_p, min_p = (
        torch.as_tensor(value, dtype=dtype, device=logits.device).expand(count)
        for value, dtype in (
            (temperature, torch.float64),
            (top_k, torch.int64),
            (top_p, torch.float64),
            (min_p, torch.float64),
        )
    )
    scores = logits.double().masked_fill(~agrees(revealed, codes), -torch.inf)
    scores = (scores - scores.amax(1, keepdim=True)) / temperature.where(temperature > 0, 1.0)[:, None]
    if bool(((top_k > 0) | (top_p < 1) | (min_p > 0)).any()):
        scores = scores.masked_fill(~keep_likely(scores, top_k, top_p, min_p), -torch.inf)
    weights = (scores.exp() * _UNITS).round().to(torch.int64)
    total = weights.sum(1, keepdim=True).double()
    shown = revealed <= codes.max()
    result = torch.full(revealed.shape, -torch.inf, dtype=torch.float64, device=logits.device)
    for j in (~shown).any(0).nonzero()[:, 0].tolist():
        digits = codes[:, j]
        summed = torch.zeros(count, int(codes.max()) + 1, dtype=torch.int64, device=logits.device)
        marginal = summed.scatter_add_(1, digits.expand(count, -1), weights) / total
        if measure == "confidence":
            found = marginal.gather(1, digits[classes][:, None])[:, 0]
        elif measure == "top":
            found = marginal.amax(1)
        elif measure == "margin":
            first, *second = marginal.topk(min(2, marginal.shape[1]), dim=1).values.unbind(1)
            found = first - second[0] if second else first
        else:
            terms = marginal * (marginal + _EPSILON).log()
            found = (terms * _UNITS).round().to(torch.int64).sum(1) / _UNITS
        result[:, j] = torch.where(shown[:, j], -torch.inf, found)
    return result
