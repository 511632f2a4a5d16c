"""Attention on a CPU: short canvases in float32, long ones a head at a time in the dtype of the products."""

import torch
from torch import Tensor

from unmask_kernels.attention.fused import fused_attention

# From so many keys on attention is a large part of an evaluation, and bfloat16 products repay what they cost in
# accuracy. Below, torch's fused attention in float32 is as fast as any other way.
LONG = 512


def attention_on_cpu(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """See `unmask_kernels.attention`; how it is computed depends on the dtype of v and the number of keys alone."""
    if v.dtype == torch.bfloat16 and k.shape[1] >= LONG:
        return _a_head_at_a_time((q.float() * q.shape[-1] ** -0.5).bfloat16(), k.bfloat16(), v)
    return fused_attention(q.float(), k.float(), v.float())


def _a_head_at_a_time(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Queries scaled already. The scores of one head stay in cache, and their memory serves every head."""
    count, queries, heads, width = q.shape
    attended = q.new_empty(count, heads, queries, width)
    scores = q.new_empty(queries, k.shape[1])
    for canvas in range(count):
        for head in range(heads):
            torch.mm(q[canvas, :, head], k[canvas, :, head].T, out=scores)
            torch.softmax(scores, -1, out=scores)
            torch.mm(scores, v[canvas, :, head], out=attended[canvas, head])
    return attended.transpose(1, 2).flatten(2)
