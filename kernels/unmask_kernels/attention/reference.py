"""Bidirectional attention as one would write it down."""

import math

from torch import Tensor


def attention_reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v of every head, in float32; shapes as for `unmask_kernels.attention`."""
    q, k, v = (part.float().transpose(1, 2) for part in (q, k, v))
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
