"""Which classes agree with the digits that a token has revealed."""

import torch
from torch import Tensor


def agrees(revealed: Tensor, codes: Tensor) -> Tensor:
    """Say which classes agree with every revealed digit.

    Args:
        revealed: int64 [N, l]; a digit above `codes.max()`, as the mask id is, means masked.
        codes: int64 [C, l], the digits of every class.

    Returns:
        bool [N, C]; a row without revealed digits is all true.
    """
    masked = revealed > codes.max()
    result = torch.ones(len(revealed), len(codes), dtype=torch.bool, device=codes.device)
    for digits, shown, hidden in zip(codes.T.contiguous(), revealed.T, masked.T, strict=True):
        result &= (shown[:, None] == digits) | hidden[:, None]
    return result
