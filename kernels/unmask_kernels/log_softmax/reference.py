"""The consistent joint distribution, with the [N, C] mask in memory."""

import torch
from torch import Tensor

from unmask_kernels.consistency import agrees


def consistent_log_softmax(logits: Tensor, revealed: Tensor, codes: Tensor) -> Tensor:
    """Return log-probabilities over the classes that agree with the revealed digits.

    Args:
        logits: [N, C], any floating dtype; computed in float32 at least.
        revealed: int64 [N, l]; a digit above `codes.max()`, as the mask id is, means masked.
        codes: int64 [C, l], the digits of every class.

    Returns:
        [N, C], float32 (float64 for float64 logits); -inf where a class contradicts a revealed digit. A row
        without a candidate is -inf throughout. NaN or +inf among a row's consistent logits make these NaN.

    Raises:
        ValueError: shapes that don't fit.
    """
    if logits.shape != (len(revealed), len(codes)):
        msg = f"logits must be [{len(revealed)}, {len(codes)}], not {list(logits.shape)}"
        raise ValueError(msg)
    wide = logits if logits.dtype == torch.float64 else logits.float()
    consistent = agrees(revealed, codes)
    filtered = wide.masked_fill(~consistent, -torch.inf)
    empty = (filtered == -torch.inf).all(1, keepdim=True)
    # log_softmax of a row with NaN is NaN in its inconsistent classes too, and NaN without a candidate
    return filtered.log_softmax(1).masked_fill(~consistent | empty, -torch.inf)
