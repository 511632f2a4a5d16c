"""The training-time forward pass: the same parameters as the served network, arranged for speed.

`PrimeDenoiser` is written for serving (ragged canvases, bits that do not depend on the batch). Training has one
length a batch and no such promise to keep, so it may use plain matrix products and plain softmax attention, which
on a CPU is faster forwards and backwards than the fused kind. A test holds the two equal.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from unmask_diffusion.networks import LAYER_NORM_EPSILON, Block, PrimeDenoiser

FUSED_FROM = 192  # tokens of a canvas from which fused attention is faster on a CPU


def features(network: PrimeDenoiser, digits: Tensor, rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Evaluate the trunk on canvases of one length.

    Args:
        network: whose parameters are used; gradients flow into them.
        digits: int64 [B, L, l], the mask id where a digit is hidden.
        rows: int64 [N], the positions to read, as indices into B · L.
        dtype: of the matrix products (the residual stream stays float32).

    Returns:
        The last normalised hidden rows, float32 [N, hidden].
    """
    batch, length, _ = digits.shape
    x = network.embedding(digits).flatten(2)
    if network.position is not None:
        x = x + network.position.weight[:length]
    x = x.flatten(0, 1)
    half = network.cosines.shape[1] // 2
    rotary = (network.cosines[:length, half:].to(dtype), network.sines[:length, half:].to(dtype))
    blocks = [block for block in network.blocks if isinstance(block, Block)]
    for block in blocks:
        attended = _attention(_linear(_norm(x, block.norm1, dtype), block.attn_qkv), batch, block.heads, rotary)
        if block is blocks[-1]:
            x, attended = x[rows], attended[rows]
        x = x + _linear(attended, block.attn_out)
        inner = F.gelu(_linear(_norm(x, block.norm2, dtype), block.mlp_in), approximate="tanh")
        x = x + _linear(inner, block.mlp_out)
    return _norm(x, network.norm_final, torch.float32)


def _linear(x: Tensor, layer: nn.Linear) -> Tensor:
    bias = None if layer.bias is None else layer.bias.to(x.dtype)
    return F.linear(x, layer.weight.to(x.dtype), bias)


def _norm(x: Tensor, layer: nn.LayerNorm, dtype: torch.dtype) -> Tensor:
    normed = F.layer_norm(x, layer.normalized_shape, layer.weight, layer.bias, LAYER_NORM_EPSILON)
    return normed.to(dtype)


def _attention(qkv: Tensor, batch: int, heads: int, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Bidirectional attention: qkv [B·L, 3·hidden] → [B·L, hidden]."""
    split = qkv.view(batch, -1, 3, heads, qkv.shape[1] // (3 * heads)).permute(2, 0, 3, 1, 4)
    query, key = _rotate(split[:2], *rotary).unbind(0)
    if query.is_cuda or query.shape[2] >= FUSED_FROM:
        attended = F.scaled_dot_product_attention(query, key, split[2])
    else:
        scores = (query * (1 / math.sqrt(query.shape[-1]))) @ key.transpose(-1, -2)
        attended = scores.softmax(-1) @ split[2]
    return attended.transpose(1, 2).reshape(len(qkv), -1)


def _rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)
