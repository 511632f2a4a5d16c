"""The network of MDLM-Prime: a trunk (sub-tokens → hidden rows) and a head (hidden rows → joint logits).

Time is folded away. A masked diffusion model under the linear schedule never needs to know t ("Masked Diffusion
Models are Secretly Time-Agnostic…", ICLR 2025), so the official networks feed a constant in its place and their
adaLN modulations are constants too: scale and shift have become LayerNorm's weight and bias, the gates have become
factors of the projections that they gate. What is left is a plain pre-norm transformer over the L tokens
("Beyond Masked and Unmasked…", 2025, section 3: the trunk's length is L, not L·l).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from unmask_kernels import Draws, fixed_tile_linear, linear_gelu_tanh

from unmask_diffusion.networks.heads import IndependentHead, JointHead, Parameterization
from unmask_diffusion.networks.packing import PackedLayout
from unmask_diffusion.networks.transformer import (
    Rotary,
    Transformer,
    attend,
    attend_from_read,
    linear,
    rotary_tables,
    rotate_half_split,
)
from unmask_diffusion.sub_tokens import SubTokenizer

LAYER_NORM_EPSILON = 1e-5
ROTARY_BASE = 10000.0


@dataclass(frozen=True)
class NetworkShape:
    """The sizes that determine the network's parameters."""

    length: int  # the longest canvas L, in tokens
    vocabulary_size: int  # classes C
    sub_tokens_per_token: int  # l
    base: int  # b; a digit's embedding table has b + 1 rows, the last for the mask
    hidden_size: int  # width of the trunk, divisible by l and by 2 · heads
    blocks: int  # transformer blocks
    heads: int  # attention heads of a block
    # Whether a learned vector for its position is added to every token's embedding. The official networks have none.
    # Rotary attention sees differences of positions only: such a network cannot tell the beginning of a blank canvas
    # from its end.
    absolute_positions: bool = False
    parameterization: Parameterization = "joint"  # whether the head has a logit a class or a logit a digit

    def __post_init__(self) -> None:
        if self.hidden_size % self.sub_tokens_per_token:
            raise ValueError(f"hidden_size {self.hidden_size} is not divisible by l = {self.sub_tokens_per_token}")
        if self.hidden_size % (2 * self.heads):
            raise ValueError(f"hidden_size {self.hidden_size} is not divisible by 2 · heads = {2 * self.heads}")

    @property
    def outputs(self) -> int:
        """Numbers that the head gives for a row: C, or l · b."""
        return self.vocabulary_size if self.parameterization == "joint" else self.sub_tokens_per_token * self.base

    @property
    def parameters(self) -> int:
        hidden, width = self.hidden_size, self.hidden_size // self.sub_tokens_per_token
        a_block = 12 * hidden**2 + 9 * hidden  # qkv 3, out 1, MLP 4 + 4; two norms and two biases
        positions = self.length * hidden if self.absolute_positions else 0
        embeddings = (self.base + 1) * width + positions
        return embeddings + self.blocks * a_block + 2 * hidden + self.outputs * (hidden + 1)


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

    def forward(self, x: Tensor, layout: PackedLayout, rotary: Rotary) -> Tensor:
        """Map the packed residual stream x [R, hidden] to the next."""
        qkv = self._project(self.norm1(x), 0, 3)
        q, k = rotate_half_split(qkv[:, :2], rotary).unbind(1)
        return self._after_attention(x, attend(q, k, qkv[:, 2], layout))

    def read(self, x: Tensor, layout: PackedLayout, rotary: Rotary) -> Tensor:
        """Map x [R, hidden] to the next residual stream at the rows that are read, [N, hidden]."""
        normed, indices = self.norm1(x), layout.indices
        q = rotate_half_split(self._project(normed[indices], 0, 1), (rotary[0][indices], rotary[1][indices]))[:, 0]
        keys_values = self._project(normed, 1, 3)
        k = rotate_half_split(keys_values[:, 0], rotary)
        return self._after_attention(x[indices], attend_from_read(q, k, keys_values[:, 1], layout))

    def _project(self, normed: Tensor, first: int, stop: int) -> Tensor:
        """Queries (0), keys (1) and values (2), as many as wanted: [R, hidden] → [R, stop - first, heads, d]."""
        hidden = normed.shape[1]
        weight = self.attn_qkv.weight[first * hidden : stop * hidden]
        projected: Tensor = fixed_tile_linear(normed.to(weight.dtype), weight)
        return projected.view(len(normed), stop - first, self.heads, -1)

    def _after_attention(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + linear(attended, self.attn_out)
        inner: Tensor = self.norm2(x).to(self.mlp_in.weight.dtype)
        inner = linear_gelu_tanh(inner, self.mlp_in.weight, self.mlp_in.bias)
        return x + linear(inner, self.mlp_out)


def make_head(shape: NetworkShape, codes: Tensor | None = None) -> JointHead | IndependentHead:
    """Make the head of a network; the arguments are those of `PrimeDenoiser`."""
    if shape.parameterization == "joint":
        return JointHead(shape.hidden_size, shape.vocabulary_size)
    if codes is None:
        codes = SubTokenizer.from_base(shape.vocabulary_size, shape.sub_tokens_per_token, shape.base).codes
    return IndependentHead(shape.hidden_size, codes, shape.base)


class PrimeDenoiser(Transformer):
    """The MDLM-Prime network, l ≥ 1 (l = 1 is plain MDLM). Satisfies `Denoiser`."""

    cosines: Tensor
    sines: Tensor

    def __init__(self, shape: NetworkShape, codes: Tensor | None = None) -> None:
        """Allocate the parameters.

        Args:
            shape: the network's sizes.
            codes: int64 [C, l], the digits of every class, for an independent head; default: the base-b digits of the
                class id. A joint head does not use them.
        """
        super().__init__(shape.length, shape.vocabulary_size, shape.sub_tokens_per_token, shape.base)
        self.shape = shape
        width = shape.hidden_size // shape.sub_tokens_per_token
        self.embedding = nn.Embedding(shape.base + 1, width)
        self.blocks = nn.ModuleList(Block(shape.hidden_size, shape.heads) for _ in range(shape.blocks))
        self.norm_final = nn.LayerNorm(shape.hidden_size, eps=LAYER_NORM_EPSILON)
        self.output = make_head(shape, codes)
        self.position = nn.Embedding(shape.length, shape.hidden_size) if shape.absolute_positions else None
        tables = rotary_tables(shape.length, shape.hidden_size // shape.heads, ROTARY_BASE)
        for name, table in zip(("cosines", "sines"), tables, strict=True):
            self.register_buffer(name, table, persistent=False)

    @property
    def activation_bytes_per_token(self) -> int:
        return 64 * self.shape.hidden_size  # about 16 float32 vectors of the trunk's width are alive at once

    def serve_in(self, dtype: torch.dtype) -> "PrimeDenoiser":
        """Keep the blocks' projections in `dtype`; norms, embeddings and the head stay float32.

        The head's products are the logits themselves, and a draw that is exact to 2^-64 deserves float32 ones.
        """
        self._blank_features.clear()
        for block in self.blocks:
            for layer in block.children():
                if isinstance(layer, nn.Linear):
                    layer.to(dtype)
        return self

    def _evaluate(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        layout = PackedLayout([len(canvas) for canvas in canvases], rows)
        digits, positions = layout.load(canvases, self.embedding.weight.device)
        x = self.embedding(digits).flatten(1)
        if self.position is not None:
            x = x + self.position(positions)
        rotary = (self.cosines[positions], self.sines[positions])
        *earlier, last = [block for block in self.blocks if isinstance(block, Block)]
        for block in earlier:
            x = block(x, layout, rotary)
        features: Tensor = self.norm_final(last.read(x, layout, rotary))
        return features

    def _all_logits(self, features: Tensor) -> Tensor:
        return self.output.joint_logits(features)

    def draw(self, features: Tensor, codes: Tensor, draws: Draws) -> Tensor:
        return self.output.draw(features, codes, draws)
