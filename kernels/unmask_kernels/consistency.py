"""Which classes agree with the digits that a token has revealed."""

from typing import NamedTuple

import torch
from torch import Tensor

from unmask_kernels.per_tensor import once_per_tensor


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


class CodeFacts(NamedTuple):
    """What kernels need to know of a table of codes before they start."""

    largest: int  # digit; greater ones mean masked
    base: int  # b where the codes are the base-b digits of the class, the most significant first; otherwise 0


@once_per_tensor
def code_facts(codes: Tensor) -> CodeFacts:
    """Return the facts of codes int64 [C, l], C > 0."""
    classes, length = codes.shape
    base = int(codes[:, -1].max()) + 1
    # so that with a digit revealed there are no more than C candidates, and int32 holds all that kernels compute
    if base > 0 and (length == 1 or base ** (length - 1) < classes) and base**length < 2**31:
        powers = base ** torch.arange(length - 1, -1, -1, device=codes.device)
        digits = torch.arange(classes, device=codes.device)[:, None] // powers % base
        if torch.equal(codes, digits):
            return CodeFacts(int(codes.max()), base)
    return CodeFacts(int(codes.max()), 0)
