"""The papers' network as their code computes it: float32, every row of every layer, torch's plain operations.

Written after `models/dit.py` of MDLM and MDM-Prime, with the weights of ours, so that both give the same logits. It is
spared the time embedding and the adaLN modulations, which that code computes anew in every evaluation; here they are
folded into the weights.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from unmask_diffusion import PrimeDenoiser
from unmask_diffusion.network import Block


class PapersNetwork:
    """Sub-tokens of canvases of one length → joint logits at all positions."""

    def __init__(self, network: PrimeDenoiser) -> None:
        """Take over the weights of a float32 network."""
        self.network = network
        half = network.shape.hidden_size // network.shape.heads // 2
        angles = torch.outer(torch.arange(network.shape.length), 10000.0 ** (-torch.arange(half) / half))
        self.rotary = angles.cos(), angles.sin()

    def joint_logits(self, sub_tokens: Tensor) -> Tensor:
        """int64 [B, L, l] → float32 [B, L, C]."""
        network, length = self.network, sub_tokens.shape[1]
        x = network.embedding(sub_tokens).flatten(2)
        if network.position is not None:
            x = x + network.position(torch.arange(length))
        cosines, sines = (part[:length] for part in self.rotary)
        for block in (each for each in network.blocks if isinstance(each, Block)):
            x = _block(block, x, cosines, sines)
        logits: Tensor = network.output(network.norm_final(x))
        return logits


def _block(block: Block, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """One block: x [B, L, hidden] → [B, L, hidden]."""
    qkv = block.attn_qkv(block.norm1(x)).unflatten(-1, (3, block.heads, -1))
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    attended = F.scaled_dot_product_attention(_rotate(q, cosines, sines), _rotate(k, cosines, sines), v)
    x = x + block.attn_out(attended.transpose(1, 2).flatten(2))
    inner = F.gelu(block.mlp_in(block.norm2(x)), approximate="tanh")
    out: Tensor = x + block.mlp_out(inner)
    return out


def _rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Half-split rotary embedding: x [B, heads, L, d] with cosines and sines [L, d/2]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)
