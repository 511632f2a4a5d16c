"""top_k and top_p, without a floating-point sum: rows keep the same classes whatever the batch."""

import torch
from torch import Tensor

_WEIGHT_ONE = 2.0**40


def keep_likely(scores: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Say which classes top_k and then top_p leave.

    top_k keeps exactly k classes (equal ones: the lower index first). top_p keeps the likeliest of these until
    their share of the softmax over them reaches top_p, the class that crosses it included. One class is always
    kept.

    The shares are summed as integers, in units of 2**-40 of the likeliest class: integer sums are the same in
    every order, so no number of rows, padding or device can move a class across the border.

    Args:
        scores: float64 [N, K], unnormalised log-probabilities after temperature, at most 0, a 0 in every row;
            -inf for classes that are out already.
        top_k: int64 [N], 0 = off.
        top_p: [N], 1 = off.

    Returns:
        bool [N, K].
    """
    ordered, order = scores.sort(dim=1, descending=True, stable=True)
    rank = torch.arange(scores.shape[1], device=scores.device)
    in_k = rank < torch.where(top_k > 0, top_k, scores.shape[1])[:, None]
    weight = (ordered.exp() * _WEIGHT_ONE).round().to(torch.int64) * in_k
    before = weight.cumsum(1) - weight
    share = top_p.to(torch.float64)[:, None]
    in_p = (before < share * weight.sum(1, keepdim=True)) | (share >= 1) | (rank == 0)
    return torch.zeros_like(in_k).scatter_(1, order, in_k & in_p)
