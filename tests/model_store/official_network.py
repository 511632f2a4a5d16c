"""The official network as it is before time is folded away, in float64: what imported weights are held to."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.model_store.official_format import FREQUENCIES, Sizes


def official_logits(weights: dict[str, Tensor], sizes: Sizes, digits: Tensor) -> Tensor:
    """Logits float64 [B, L, columns] of canvases of digits, int64 [B, L, l]. Follows `models/dit.py` step by step."""
    w = {name: tensor.double() for name, tensor in weights.items()}
    x = w["vocab_embed.embedding"][digits].flatten(2)
    condition = F.silu(noise_level_embedding(w, torch.zeros(len(digits))))
    for i in range(sizes.blocks):
        x = block(w, f"blocks.{i}", x, condition, sizes.heads)
    shift, scale = modulations(w, "output_layer", condition, 2)
    x = norm(x, w["output_layer.norm_final.weight"]) * (1 + scale) + shift
    return F.linear(x, w["output_layer.linear.weight"], w["output_layer.linear.bias"])


def noise_level_embedding(w: dict[str, Tensor], levels: Tensor) -> Tensor:
    half = FREQUENCIES // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half) / half).double()
    angles = levels[:, None].double() * frequencies
    embedded = torch.cat([angles.cos(), angles.sin()], dim=-1)
    hidden = F.silu(F.linear(embedded, w["sigma_map.mlp.0.weight"], w["sigma_map.mlp.0.bias"]))
    return F.linear(hidden, w["sigma_map.mlp.2.weight"], w["sigma_map.mlp.2.bias"])


def modulations(w: dict[str, Tensor], layer: str, condition: Tensor, count: int) -> tuple[Tensor, ...]:
    out = F.linear(condition, w[f"{layer}.adaLN_modulation.weight"], w[f"{layer}.adaLN_modulation.bias"])
    return out[:, None].chunk(count, dim=2)


def norm(x: Tensor, weight: Tensor) -> Tensor:
    return F.layer_norm(x, [x.shape[-1]], eps=1e-5) * weight


def block(w: dict[str, Tensor], name: str, x: Tensor, condition: Tensor, heads: int) -> Tensor:
    shift1, scale1, gate1, shift2, scale2, gate2 = modulations(w, name, condition, 6)
    qkv = F.linear(norm(x, w[f"{name}.norm1.weight"]) * (1 + scale1) + shift1, w[f"{name}.attn_qkv.weight"])
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    scores = rotary(q) @ rotary(k).mT / math.sqrt(q.shape[-1])
    attended = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
    x = x + gate1 * F.linear(attended, w[f"{name}.attn_out.weight"])
    inner = F.linear(
        norm(x, w[f"{name}.norm2.weight"]) * (1 + scale2) + shift2, w[f"{name}.mlp.0.weight"], w[f"{name}.mlp.0.bias"]
    )
    inner = F.gelu(inner, approximate="tanh")
    return x + gate2 * F.linear(inner, w[f"{name}.mlp.2.weight"], w[f"{name}.mlp.2.bias"])


def rotary(x: Tensor) -> Tensor:
    """Half-split rotary embedding of [..., L, d]."""
    length, half = x.shape[-2], x.shape[-1] // 2
    angles = torch.arange(length)[:, None].double() * 10000.0 ** -(torch.arange(half).double() / half)
    first, second = x[..., :half], x[..., half:]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
