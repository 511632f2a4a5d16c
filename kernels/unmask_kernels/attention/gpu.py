"""Attention on a GPU: one kernel whatever the number of canvases."""

from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from unmask_kernels.attention.fused import fused_attention


def attention_on_gpu(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """See `unmask_kernels.attention`; computed in the dtype of v.

    Flash attention shares the keys of a head out among programs where canvases, heads and queries are too few to fill
    the GPU: it would add in an order that depends on how many canvases there are. This kernel never does.
    """
    with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
        return fused_attention(q.to(v.dtype), k.to(v.dtype), v)
