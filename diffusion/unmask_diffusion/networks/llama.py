"""One llama-shaped bidirectional network for MDM-Prime-v2, SMDM, LLaDA, Dream and a2d: their differences are switches.

Pre-norm blocks with RMS norms, rotary attention over the whole canvas (no causal mask, no time) and a SwiGLU. The
published networks differ in sizes, in how digits are embedded, in biases and norms of queries and keys, and in which
row speaks for a position; docs/checkpoints.md has the table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from unmask_kernels import Draws, draw_from_hidden, fixed_tile_linear, rms_norm, silu

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

TableDtype = Literal["float32", "bfloat16"]
DigitEmbeddings = Literal["concatenated", "summed"]


@dataclass(frozen=True)
class LlamaShape:
    """The sizes and switches that determine the network."""

    length: int  # the longest canvas L, in tokens
    vocabulary_size: int  # classes C: rows of the head
    sub_tokens_per_token: int  # l
    base: int  # b
    hidden_size: int  # width of the trunk
    blocks: int  # transformer blocks
    heads: int  # query heads of a block
    key_value_heads: int  # each serves heads / key_value_heads neighbouring query heads
    head_width: int  # of queries, keys and values; even
    inner_size: int  # width of the SwiGLU
    norm_epsilon: float = 1e-5
    rotary_base: float = 10_000.0
    rotary_tables: TableDtype = "float32"  # bfloat16: cosines and sines are rounded to it, as SMDM was trained
    # concatenated: one table of b + 1 rows, hidden / l wide; summed: a table for each digit, hidden wide
    digit_embeddings: DigitEmbeddings = "concatenated"
    query_key_value_bias: bool = False
    query_key_norm: bool = False  # RMS norms of queries and keys, over the head's width, before the rotation
    # the class whose row of the embedding the mask reads, where the mask is a token (l = 1); None: the mask has a row
    mask_class: int | None = None
    tied_head: bool = False  # the head is the embedding; needs mask_class
    shifted: bool = False  # the row of position i - 1 speaks for position i, as in Dream, and row 0 also for itself

    def __post_init__(self) -> None:
        if self.heads % self.key_value_heads:
            raise ValueError(f"heads {self.heads} is not divisible by key_value_heads {self.key_value_heads}")
        if self.head_width % 2:
            raise ValueError(f"head_width {self.head_width} is odd; rotary attention needs halves")
        if self.digit_embeddings == "concatenated" and self.hidden_size % self.sub_tokens_per_token:
            raise ValueError(f"hidden_size {self.hidden_size} is not divisible by l = {self.sub_tokens_per_token}")
        one = self.sub_tokens_per_token == 1 and self.base == self.vocabulary_size
        if self.mask_class is not None and not (one and 0 <= self.mask_class < self.vocabulary_size):
            raise ValueError(f"mask_class {self.mask_class} is for l = 1 in base C, and must be below C")
        if self.tied_head and self.mask_class is None:
            raise ValueError("tied_head needs mask_class: else the embedding has one row more than the head")

    @property
    def projected(self) -> int:
        """Width of queries, keys and values together."""
        return (self.heads + 2 * self.key_value_heads) * self.head_width

    @property
    def embedding_shape(self) -> tuple[int, int]:
        """Rows and width of the embedding: digit d of place j is row d, or j · (b + 1) + d where digits are summed."""
        rows, digits = self.base + (self.mask_class is None), self.sub_tokens_per_token
        summed = self.digit_embeddings == "summed"
        return (digits * rows, self.hidden_size) if summed else (rows, self.hidden_size // digits)

    @property
    def parameters(self) -> int:
        hidden, width = self.hidden_size, self.head_width
        a_block = hidden * (self.projected + self.heads * width + 3 * self.inner_size + 2)
        a_block += self.projected * self.query_key_value_bias + 2 * width * self.query_key_norm
        rows, columns = self.embedding_shape
        return rows * columns + self.blocks * a_block + hidden + self.vocabulary_size * hidden * (not self.tied_head)


class RMSNorm(nn.Module):
    """An RMS norm in float32."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.epsilon)


class LlamaBlock(nn.Module):
    """A pre-norm block; the residual stream stays float32 whatever the weights' dtype."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.shape = shape
        hidden, attended = shape.hidden_size, shape.heads * shape.head_width
        self.norm1 = RMSNorm(hidden, shape.norm_epsilon)
        self.attn_qkv = nn.Linear(hidden, shape.projected, bias=shape.query_key_value_bias)  # queries, keys, values
        if shape.query_key_norm:
            self.norm_q = RMSNorm(shape.head_width, shape.norm_epsilon)
            self.norm_k = RMSNorm(shape.head_width, shape.norm_epsilon)
        self.attn_out = nn.Linear(attended, hidden, bias=False)
        self.norm2 = RMSNorm(hidden, shape.norm_epsilon)
        self.mlp_in = nn.Linear(hidden, 2 * shape.inner_size, bias=False)  # gate, then what it multiplies
        self.mlp_out = nn.Linear(shape.inner_size, hidden, bias=False)

    def forward(self, x: Tensor, layout: PackedLayout, rotary: Rotary) -> Tensor:
        """Map the packed residual stream x [R, hidden] to the next."""
        projected = linear(self.norm1(x), self.attn_qkv).unflatten(1, (-1, self.shape.head_width))
        q, keys_values = projected[:, : self.shape.heads], projected[:, self.shape.heads :]
        k, v = self._keys_values(keys_values, rotary)
        return self._after_attention(x, attend(self._queries(q, rotary), k, v, layout))

    def read(self, x: Tensor, layout: PackedLayout, rotary: Rotary) -> Tensor:
        """Map x [R, hidden] to the next residual stream at the rows that are read, [N, hidden]."""
        normed, indices = self.norm1(x).to(self.attn_qkv.weight.dtype), layout.indices
        split = self.shape.heads * self.shape.head_width
        weight, bias = self.attn_qkv.weight, self.attn_qkv.bias
        parts = (slice(split), slice(split, None))
        q, keys_values = (
            fixed_tile_linear(rows, weight[part], None if bias is None else bias[part])
            .unflatten(1, (-1, self.shape.head_width))
            for rows, part in zip((normed[indices], normed), parts, strict=True)
        )  # fmt: skip
        k, v = self._keys_values(keys_values, rotary)
        q = self._queries(q, (rotary[0][indices], rotary[1][indices]))
        return self._after_attention(x[indices], attend_from_read(q, k, v, layout))

    def _queries(self, q: Tensor, rotary: Rotary) -> Tensor:
        return rotate_half_split(self.norm_q(q) if self.shape.query_key_norm else q, rotary)

    def _keys_values(self, keys_values: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
        """Keys and values of every query head, from those of the shared heads [R, 2 · key_value_heads, d]."""
        k, v = keys_values.chunk(2, dim=1)
        k = rotate_half_split(self.norm_k(k) if self.shape.query_key_norm else k, rotary)
        group = self.shape.heads // self.shape.key_value_heads
        return (k, v) if group == 1 else (k.repeat_interleave(group, 1), v.repeat_interleave(group, 1))

    def _after_attention(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + linear(attended, self.attn_out)
        gate, up = linear(self.norm2(x), self.mlp_in).chunk(2, dim=1)
        return x + linear(silu(gate) * up, self.mlp_out)


class LlamaDenoiser(Transformer):
    """The network. Satisfies `Denoiser`.

    Classes that are undrawable (the mask's own, rows of the head that name no token) have logit -inf in `head` and
    `draw`, before anything else; `joint_logits` are the network's own.
    """

    cosines: Tensor
    sines: Tensor
    barred: Tensor | None  # float32 [C]: 0, or -inf where a class is undrawable

    def __init__(self, shape: LlamaShape, undrawable: Sequence[int] = ()) -> None:
        """Allocate the parameters; `undrawable` are classes that are never drawn."""
        super().__init__(shape.length, shape.vocabulary_size, shape.sub_tokens_per_token, shape.base)
        self.shape = shape
        self.embedding = nn.Embedding(*shape.embedding_shape)
        self.blocks = nn.ModuleList(LlamaBlock(shape) for _ in range(shape.blocks))
        self.norm_final = RMSNorm(shape.hidden_size, shape.norm_epsilon)
        self.output = None if shape.tied_head else nn.Linear(shape.hidden_size, shape.vocabulary_size, bias=False)
        tables = rotary_tables(shape.length, shape.head_width, shape.rotary_base)
        for name, table in zip(("cosines", "sines"), tables, strict=True):
            rounded = table.bfloat16().float() if shape.rotary_tables == "bfloat16" else table
            self.register_buffer(name, rounded, persistent=False)
        barred = torch.zeros(shape.vocabulary_size) if len(undrawable) else None
        if barred is not None:
            barred[list(undrawable)] = -torch.inf
        self.register_buffer("barred", barred, persistent=False)

    @property
    def activation_bytes_per_token(self) -> int:
        """Float32 numbers that are alive at once: the stream and its norms, attention, and the SwiGLU."""
        shape = self.shape
        return 4 * (8 * shape.hidden_size + 12 * shape.heads * shape.head_width + 4 * shape.inner_size)

    def serve_in(self, dtype: torch.dtype) -> "LlamaDenoiser":
        """Keep the blocks' projections in `dtype`; norms and the head are float32, the embedding stays as it is stored.

        The head's products are the logits themselves, and a draw that is exact to 2^-64 deserves float32 ones.
        """
        self._blank_features.clear()
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.to(torch.float32 if module is self.output else dtype)
            elif isinstance(module, RMSNorm) or (module is self.embedding and self.output is None):
                module.float()
        return self

    def trunk(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        if self.shape.shifted:
            rows = [(each - 1).clamp(min=0) for each in rows]
        return super().trunk(canvases, rows)

    def _evaluate(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        layout = PackedLayout([len(canvas) for canvas in canvases], rows)
        digits, positions = layout.load(canvases, self.embedding.weight.device)
        x = self._embed(digits)
        rotary = (self.cosines[positions], self.sines[positions])
        *earlier, last = [block for block in self.blocks if isinstance(block, LlamaBlock)]
        for block in earlier:
            x = block(x, layout, rotary)
        features: Tensor = self.norm_final(last.read(x, layout, rotary))
        return features

    def _embed(self, digits: Tensor) -> Tensor:
        """Digits [R, l] → float32 [R, hidden]; summed ones are added from the first to the last."""
        rows = self.shape.base + 1
        if self.shape.mask_class is not None:
            digits = digits.masked_fill(digits == self.shape.base, self.shape.mask_class)
        if self.shape.digit_embeddings == "concatenated":
            concatenated: Tensor = self.embedding(digits).flatten(1).float()
            return concatenated
        x: Tensor = self.embedding(digits[:, 0]).float()
        for j in range(1, digits.shape[1]):
            x = x + self.embedding(digits[:, j] + j * rows)
        return x

    @property
    def _head_weight(self) -> Tensor:
        return self.embedding.weight if self.output is None else self.output.weight

    def _all_logits(self, features: Tensor) -> Tensor:
        logits: Tensor = fixed_tile_linear(features, self._head_weight)
        return logits

    def head(self, features: Tensor) -> Tensor:
        logits = self._all_logits(features)
        return logits if self.barred is None else logits + self.barred

    def draw(self, features: Tensor, codes: Tensor, draws: Draws) -> Tensor:
        return draw_from_hidden(features, self._head_weight, self.barred, codes, draws)
