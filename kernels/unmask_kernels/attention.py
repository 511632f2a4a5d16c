"""Bidirectional attention over canvases of one length, each by itself."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from unmask_kernels import dispatch

# From so many keys on attention is a large part of an evaluation, and bfloat16 products repay what they cost in
# accuracy. Below, torch's fused attention in float32 is as fast as any other way.
LONG = 512

# Heads are padded with zeros to a multiple of so many numbers. Otherwise rows begin at odd addresses: a CPU gives a
# query other bits in another place of its tile, and a GPU has no fast kernel.
_WIDTH_STEP = 8

# Fewer queries are padded with zeros: with less than 16 of them some processors give a query other bits in another
# place (seen with two and three).
_FEWEST_QUERIES = 16


def attention(
    q: Tensor,  # [canvases, queries, heads, d], any floating dtype
    k: Tensor,  # [canvases, L, heads, d]
    v: Tensor,  # [canvases, L, heads, d]; its dtype is that of the products, unless the device is faster in another
) -> Tensor:
    """Attend from every query to all keys of its canvas: [canvases, queries, heads · d], any floating dtype.

    A query's bits do not depend on the other canvases, nor on its place among its canvas's queries; they may depend on
    the number of queries.
    """
    return _attention_on_cpu(q, k, v) if v.device.type == "cpu" else _attention_on_gpu(q, k, v)


def attention_reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v of every head, in float32; shapes as for `attention`."""
    q, k, v = (part.float().transpose(1, 2) for part in (q, k, v))
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def _attention_on_cpu(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend in a form that depends on the processor, the dtype of v and the number of keys alone."""
    if v.dtype == torch.bfloat16 and k.shape[1] >= LONG and dispatch.CPU_HAS_BFLOAT16:
        return _attention_by_head((q.float() * q.shape[-1] ** -0.5).bfloat16(), k.bfloat16(), v)
    queries = q.shape[1]
    if missing := max(0, _FEWEST_QUERIES - queries):
        q = F.pad(q, (0, 0, 0, 0, 0, missing))
    return _fused_attention(q.float(), k.float(), v.float())[:, :queries]


def _attention_by_head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend with scaled queries. The scores of one head stay in cache, and their memory serves every head."""
    count, queries, heads, width = q.shape
    attended = q.new_empty(count, heads, queries, width)
    scores = q.new_empty(queries, k.shape[1])
    for canvas in range(count):
        for head in range(heads):
            torch.mm(q[canvas, :, head], k[canvas, :, head].T, out=scores)
            torch.softmax(scores, -1, out=scores)
            torch.mm(scores, v[canvas, :, head], out=attended[canvas, head])
    return attended.transpose(1, 2).flatten(2)


def _attention_on_gpu(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend in the dtype of v, with one kernel whatever the number of canvases.

    Flash attention shares the keys of a head out among programs where canvases, heads and queries are too few to fill
    the GPU: it would add in an order that depends on how many canvases there are. This kernel never does.
    """
    with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
        return _fused_attention(q.to(v.dtype), k.to(v.dtype), v)


def _fused_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend with torch's fused attention; q, k, v and the result have one dtype."""
    width = q.shape[-1]
    if missing := -width % _WIDTH_STEP:
        q, k, v = (F.pad(part, (0, missing)) for part in (q, k, v))
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))
    attended = F.scaled_dot_product_attention(q, k, v, scale=1 / math.sqrt(width))
    return attended[..., :width].transpose(1, 2).flatten(2)
