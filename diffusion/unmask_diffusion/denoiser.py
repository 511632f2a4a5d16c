"""The network of MDLM-Prime: a trunk (sub-tokens → hidden rows) and a head (hidden rows → joint logits).

Time is folded away. A masked diffusion model under the linear schedule never needs to know t ("Masked Diffusion
Models are Secretly Time-Agnostic…", ICLR 2025), so the official networks feed a constant in its place and their
adaLN modulations are constants too: scale and shift have become LayerNorm's weight and bias, the gates have become
factors of the projections that they gate. What is left is a plain pre-norm transformer over the L tokens
("Beyond Masked and Unmasked…", 2025, section 3: the trunk's length is L, not L·l).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from unmask_kernels import fixed_tile_linear, gelu_tanh

LAYER_NORM_EPSILON = 1e-5
ROTARY_BASE = 10000.0


class Denoiser(Protocol):
    """What the sampler needs of a model: joint logits for chosen rows of canvases that may differ in length."""

    @property
    def length(self) -> int:
        """The longest canvas, in tokens."""

    @property
    def vocabulary_size(self) -> int:
        """The number of classes C."""

    def trunk(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        """Evaluate canvases together and return the features of the rows that are asked for.

        Args:
            canvases: one int64 tensor [L_i, l] of digits a canvas, the mask id where a digit is not known.
            rows: for each canvas an int64 tensor of the positions to read.

        Returns:
            [N, features], N = the number of positions asked for, in the order of the canvases.
        """

    def head(self, features: Tensor) -> Tensor:
        """Turn features [N, features] into joint logits, float32 [N, C]."""

    def joint_logits(self, sub_tokens: Tensor) -> Tensor:
        """The model's own logits, unfiltered: int64 [B, L, l] → float32 [B, L, C]."""


@dataclass(frozen=True)
class NetworkShape:
    """The sizes that determine the network's parameters.

    Attributes:
        length: the longest canvas L, in tokens.
        vocabulary_size: classes C.
        sub_tokens_per_token: l.
        base: b; a digit's embedding table has b + 1 rows, the last for the mask.
        hidden_size: width of the trunk, divisible by l and by 2 · heads.
        blocks: transformer blocks.
        heads: attention heads of a block.
        absolute_positions: whether a learned vector is added to every token's embedding for its place. The official
            networks have none. Rotary attention sees differences of positions only, so that on a fully masked canvas
            such a network cannot tell the beginning from the end.
    """

    length: int
    vocabulary_size: int
    sub_tokens_per_token: int
    base: int
    hidden_size: int
    blocks: int
    heads: int
    absolute_positions: bool = False

    def __post_init__(self) -> None:
        if self.hidden_size % self.sub_tokens_per_token:
            raise ValueError(f"hidden_size {self.hidden_size} is not divisible by l = {self.sub_tokens_per_token}")
        if self.hidden_size % (2 * self.heads):
            raise ValueError(f"hidden_size {self.hidden_size} is not divisible by 2 · heads = {2 * self.heads}")

    @property
    def parameters(self) -> int:
        """Numbers in the network's tensors."""
        hidden, width = self.hidden_size, self.hidden_size // self.sub_tokens_per_token
        a_block = 12 * hidden**2 + 9 * hidden  # qkv 3, out 1, MLP 4 + 4; two norms and two biases
        positions = self.length * hidden if self.absolute_positions else 0
        embeddings = (self.base + 1) * width + positions
        return embeddings + self.blocks * a_block + 2 * hidden + self.vocabulary_size * (hidden + 1)


class PackedLayout:
    """Where ragged canvases lie when their rows are concatenated, shortest canvas first.

    Sorting makes canvases of one length neighbours, so that attention over them is one batched call on a view.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        self.order = sorted(range(len(lengths)), key=lambda i: lengths[i])
        self.offsets = [0] * len(lengths)
        start = 0
        for i in self.order:
            self.offsets[i] = start
            start += lengths[i]
        self.total = start
        self.runs = [(length, len(list(run))) for length, run in groupby(lengths[i] for i in self.order)]

    def pack(self, canvases: Sequence[Tensor]) -> Tensor:
        """Concatenate canvases [L_i, l] to [sum L_i, l] in this layout's order."""
        return torch.cat([canvases[i] for i in self.order])

    def indices(self, rows: Sequence[Tensor]) -> Tensor:
        """Packed indices [N] of the positions asked for, in the order of the canvases."""
        return torch.cat([r + offset for r, offset in zip(rows, self.offsets, strict=True)])

    def positions(self, device: torch.device) -> Tensor:
        """The position in its own canvas of every packed row, int64 [sum L_i]."""
        return torch.cat([torch.arange(length, device=device).repeat(count) for length, count in self.runs])


def check_sub_tokens(sub_tokens: Tensor, length: int, digits_a_token: int, base: int) -> None:
    """Hold sub-tokens, int64 [B, L, l], to a model's sizes.

    Raises:
        ValueError: the shape is another, the canvas too long, or a digit above the mask id.
    """
    if sub_tokens.ndim != 3 or sub_tokens.shape[2] != digits_a_token or not 1 <= sub_tokens.shape[1] <= length:
        raise ValueError(
            f"sub_tokens must be [B, L, {digits_a_token}] with L at most {length} tokens, not {list(sub_tokens.shape)}"
        )
    if sub_tokens.numel() and (int(sub_tokens.min()) < 0 or int(sub_tokens.max()) > base):
        raise ValueError(f"sub_tokens must lie in 0 … {base}, the last being the mask id")


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    """Apply a layer in its own weights' dtype, every row's bits independent of the number of rows."""
    return fixed_tile_linear(x.to(layer.weight.dtype), layer.weight, layer.bias)


def rotate_half_split(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotary embedding of the half-split kind: x [R, heads, d], cosines and sines [R, 1, d/2], float32."""
    first, second = x.float().chunk(2, dim=-1)
    rotated = torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)
    return rotated.to(x.dtype)


def attention_per_sequence(q: Tensor, k: Tensor, v: Tensor, layout: PackedLayout) -> Tensor:
    """Bidirectional attention inside each packed canvas: [R, heads, d] each → [R, heads · d]."""
    outputs = []
    start = 0
    for length, count in layout.runs:
        stop = start + length * count
        q_run, k_run, v_run = (part[start:stop].unflatten(0, (count, length)).transpose(1, 2) for part in (q, k, v))
        attended = F.scaled_dot_product_attention(q_run, k_run, v_run)
        outputs.append(attended.transpose(1, 2).reshape(stop - start, -1))
        start = stop
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


class Block(nn.Module):
    """A pre-norm transformer block; the residual stream stays float32 whatever the weights' dtype."""

    def __init__(self, hidden_size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(hidden_size, eps=LAYER_NORM_EPSILON)
        self.attn_qkv = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        self.attn_out = nn.Linear(hidden_size, hidden_size, bias=False)
        self.norm2 = nn.LayerNorm(hidden_size, eps=LAYER_NORM_EPSILON)
        self.mlp_in = nn.Linear(hidden_size, 4 * hidden_size)
        self.mlp_out = nn.Linear(4 * hidden_size, hidden_size)

    def forward(self, x: Tensor, layout: PackedLayout, rotary: tuple[Tensor, Tensor], rows: Tensor | None) -> Tensor:
        """Map the packed residual stream x [R, hidden] to the next; with `rows` [N], to those rows only."""
        qkv = linear(self.norm1(x), self.attn_qkv).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.unbind(1)
        attended = attention_per_sequence(rotate_half_split(q, *rotary), rotate_half_split(k, *rotary), v, layout)
        if rows is not None:
            x, attended = x[rows], attended[rows]
        x = x + linear(attended, self.attn_out)
        return x + linear(gelu_tanh(linear(self.norm2(x), self.mlp_in)), self.mlp_out)


class PrimeDenoiser(nn.Module):
    """The MDLM-Prime network, l ≥ 1 (l = 1 is plain MDLM). Satisfies `Denoiser`."""

    cosines: Tensor
    sines: Tensor

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.hidden_size // shape.sub_tokens_per_token
        self.embedding = nn.Embedding(shape.base + 1, width)
        self.blocks = nn.ModuleList(Block(shape.hidden_size, shape.heads) for _ in range(shape.blocks))
        self.norm_final = nn.LayerNorm(shape.hidden_size, eps=LAYER_NORM_EPSILON)
        self.output = nn.Linear(shape.hidden_size, shape.vocabulary_size)
        self.position = nn.Embedding(shape.length, shape.hidden_size) if shape.absolute_positions else None
        half = shape.hidden_size // shape.heads // 2
        frequencies = 1.0 / ROTARY_BASE ** (torch.arange(half).float() / half)
        angles = torch.outer(torch.arange(shape.length).float(), frequencies)
        self.register_buffer("cosines", angles.cos()[:, None, :], persistent=False)
        self.register_buffer("sines", angles.sin()[:, None, :], persistent=False)

    @property
    def length(self) -> int:
        """The longest canvas, in tokens."""
        return self.shape.length

    @property
    def vocabulary_size(self) -> int:
        """The number of classes C."""
        return self.shape.vocabulary_size

    def serve_in(self, dtype: torch.dtype) -> "PrimeDenoiser":
        """Keep the blocks' projections in `dtype`; norms, embeddings and the head stay float32.

        The head's products are the logits themselves, and a draw that is exact to 2^-64 deserves float32 ones.
        """
        for block in self.blocks:
            for layer in block.children():
                if isinstance(layer, nn.Linear):
                    layer.to(dtype)
        return self

    def trunk(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        """See `Denoiser.trunk`. Features are the last normalised hidden rows, float32 [N, hidden]."""
        layout = PackedLayout([len(canvas) for canvas in canvases])
        device = self.embedding.weight.device
        x = self.embedding(layout.pack(canvases).to(device)).flatten(1)
        positions = layout.positions(device)
        if self.position is not None:
            x = x + self.position(positions)
        rotary = (self.cosines[positions], self.sines[positions])
        indices = layout.indices(rows).to(device)
        for block in self.blocks[:-1]:
            x = block(x, layout, rotary, None)
        x = self.blocks[-1](x, layout, rotary, indices)
        features: Tensor = self.norm_final(x)
        return features

    def head(self, features: Tensor) -> Tensor:
        """See `Denoiser.head`."""
        return linear(features, self.output).float()

    def joint_logits(self, sub_tokens: Tensor) -> Tensor:
        """See `Denoiser.joint_logits`.

        Raises:
            ValueError: a shape or a digit that does not fit the network.
        """
        check_sub_tokens(sub_tokens, self.length, self.shape.sub_tokens_per_token, self.shape.base)
        batch, length, _ = sub_tokens.shape
        if batch == 0:
            return self.output.weight.new_zeros(0, length, self.vocabulary_size, dtype=torch.float32)
        every_row = torch.arange(length, device=sub_tokens.device)
        features = self.trunk(list(sub_tokens), [every_row] * batch)
        logits: Tensor = self.head(features).unflatten(0, (batch, length))
        return logits
