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

    Raises:
        ValueError: shapes that don't fit.
    """
    if revealed.ndim != 2 or codes.ndim != 2 or revealed.shape[1] != codes.shape[1]:
        msg = f"revealed [N, l] and codes [C, l] don't fit: {list(revealed.shape)} and {list(codes.shape)}"
        raise ValueError(msg)
    shown = revealed <= codes.max()
    result = torch.ones(len(revealed), len(codes), dtype=torch.bool, device=codes.device)
    for place in shown.any(0).nonzero()[:, 0].tolist():
        result &= (revealed[:, place, None] == codes[:, place]) | ~shown[:, place, None]
    return result
