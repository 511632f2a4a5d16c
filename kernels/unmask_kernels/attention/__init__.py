"""Bidirectional attention over canvases of one length, each by itself."""

from torch import Tensor

from unmask_kernels.attention.cpu import attention_on_cpu
from unmask_kernels.attention.gpu import attention_on_gpu


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend from every query to all keys of its canvas.

    A query's bits don't depend on the other canvases, nor on its place among its canvas's queries; on the number of
    these they may.

    Args:
        q: [canvases, queries, heads, d], any floating dtype.
        k: [canvases, L, heads, d].
        v: [canvases, L, heads, d]; its dtype is that of the products, where the device is not better served by
            another.

    Returns:
        [canvases, queries, heads · d], any floating dtype.
    """
    return attention_on_cpu(q, k, v) if v.device.type == "cpu" else attention_on_gpu(q, k, v)


__all__ = ["attention"]
