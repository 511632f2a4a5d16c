"""Bidirectional attention over canvases of one length, each by itself."""

import torch.nn.functional as F
from torch import Tensor

from unmask_kernels.attention.cpu import attention_on_cpu


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend from every query to all keys of its canvas.

    A canvas's bits don't depend on the other canvases; on the number of its queries they may.

    Args:
        q: [canvases, queries, heads, d], any floating dtype.
        k: [canvases, L, heads, d].
        v: [canvases, L, heads, d]; its dtype is that of the products, where the device is not better served by
            another.

    Returns:
        [canvases, queries, heads · d], any floating dtype.
    """
    if v.device.type == "cpu":
        return attention_on_cpu(q, k, v)
    q, k, v = (part.to(v.dtype).transpose(1, 2) for part in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


__all__ = ["attention"]
