"""The network of MDLM-Prime: a trunk (sub-tokens → hidden rows) and a head (hidden rows → joint logits).

Time is folded away. A masked diffusion model under the linear schedule never needs to know t ("Masked Diffusion
Models are Secretly Time-Agnostic…", ICLR 2025), so the official networks feed a constant in its place and their
adaLN modulations are constants too: scale and shift have become LayerNorm's weight and bias, the gates have become
factors of the projections that they gate. What is left is a plain pre-norm transformer over the L tokens
("Beyond Masked and Unmasked…", 2025, section 3: the trunk's length is L, not L·l).
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from unmask_kernels import Draws, attention, fixed_tile_linear, linear_gelu_tanh

from unmask_diffusion.model import check_sub_tokens
from unmask_diffusion.networks.heads import IndependentHead, JointHead, Parameterization
from unmask_diffusion.networks.packing import QUERY_TILE, PackedLayout
from unmask_diffusion.sub_tokens import SubTokenizer

LAYER_NORM_EPSILON = 1e-5
ROTARY_BASE = 10000.0
# memory for the features of blank canvases, of all lengths together; one canvas of official size takes 3 MiB
BLANK_BYTES = 64 << 20

Rotary = tuple[Tensor, Tensor]


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


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    """Apply a layer in its own weights' dtype, every row's bits independent of the number of rows."""
    return fixed_tile_linear(x.to(layer.weight.dtype), layer.weight, layer.bias)


def rotate_half_split(x: Tensor, rotary: Rotary) -> Tensor:
    """Rotary embedding of the half-split kind: (a, b) → (a cos - b sin, b cos + a sin) for the halves of x's last dim.

    Args:
        x: [R, …, heads, d].
        rotary: (cos, cos) and (-sin, sin), float32 [R, d].
    """
    cosines, sines = (part.view(len(x), *[1] * (x.ndim - 2), -1) for part in rotary)
    x = x.float()
    first, second = x.chunk(2, dim=-1)
    return (x * cosines).add_(torch.cat([second, first], dim=-1).mul_(sines))


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
        outputs = []
        start = 0
        for run in layout.runs:
            rows = slice(start, start + run.length * run.count)
            parts = (part[rows].unflatten(0, (run.count, run.length)) for part in (q, k, qkv[:, 2]))
            outputs.append(attention(*parts).flatten(0, 1))
            start = rows.stop
        return self._after_attention(x, torch.cat(outputs) if len(outputs) > 1 else outputs[0])

    def read(self, x: Tensor, layout: PackedLayout, rotary: Rotary) -> Tensor:
        """Map x [R, hidden] to the next residual stream at the rows that are read, [N, hidden]."""
        normed, indices = self.norm1(x), layout.indices.to(x.device)
        q = rotate_half_split(self._project(normed[indices], 0, 1), (rotary[0][indices], rotary[1][indices]))[:, 0]
        keys_values = self._project(normed, 1, 3)
        q, k = q[layout.queries.to(x.device)], rotate_half_split(keys_values[:, 0], rotary)
        outputs = []
        start = first = 0
        for run in layout.runs:
            rows, queries = slice(start, start + run.length * run.count), slice(first, first + run.queries * run.count)
            keys, values = (part[rows].unflatten(0, (run.count, run.length)) for part in (k, keys_values[:, 1]))
            tiles = q[queries].unflatten(0, (run.count, run.queries)).split(min(QUERY_TILE, run.length), dim=1)
            if run.queries:
                outputs.append(torch.cat([attention(tile, keys, values) for tile in tiles], dim=1).flatten(0, 1))
            start, first = rows.stop, queries.stop
        return self._after_attention(x[indices], torch.cat(outputs)[layout.places.to(x.device)])

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


class PrimeDenoiser(nn.Module):
    """The MDLM-Prime network, l ≥ 1 (l = 1 is plain MDLM). Satisfies `Denoiser`.

    Every request without given tokens evaluates the blank (fully masked) canvas of its length first. With frozen
    weights (requires_grad is False) its features are kept: such weights must stay as they are after the first
    evaluation.
    """

    blank_bytes: int = BLANK_BYTES
    cosines: Tensor
    sines: Tensor

    def __init__(self, shape: NetworkShape, codes: Tensor | None = None) -> None:
        """Allocate the parameters.

        Args:
            shape: the network's sizes.
            codes: int64 [C, l], the digits of every class, for an independent head; default: the base-b digits of the
                class id. A joint head does not use them.
        """
        super().__init__()
        self.shape = shape
        self._blank_features: OrderedDict[int, Tensor] = OrderedDict()  # by length, the least recently used first
        width = shape.hidden_size // shape.sub_tokens_per_token
        self.embedding = nn.Embedding(shape.base + 1, width)
        self.blocks = nn.ModuleList(Block(shape.hidden_size, shape.heads) for _ in range(shape.blocks))
        self.norm_final = nn.LayerNorm(shape.hidden_size, eps=LAYER_NORM_EPSILON)
        self.output = make_head(shape, codes)
        self.position = nn.Embedding(shape.length, shape.hidden_size) if shape.absolute_positions else None
        half = shape.hidden_size // shape.heads // 2
        frequencies = 1.0 / ROTARY_BASE ** (torch.arange(half).float() / half)
        angles = torch.outer(torch.arange(shape.length).float(), frequencies)
        self.register_buffer("cosines", torch.cat([angles.cos(), angles.cos()], dim=1), persistent=False)
        self.register_buffer("sines", torch.cat([-angles.sin(), angles.sin()], dim=1), persistent=False)

    @property
    def length(self) -> int:
        return self.shape.length

    @property
    def vocabulary_size(self) -> int:
        return self.shape.vocabulary_size

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

    def trunk(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        """Evaluate canvases; features are the last normalised hidden rows, float32 [N, hidden]."""
        if self.embedding.weight.requires_grad:
            return self._evaluate(canvases, rows)
        blank = [bool((canvas == self.shape.base).all()) for canvas in canvases]
        if not any(blank):
            return self._evaluate(canvases, rows)
        parts = {i: self._blank(len(canvases[i]))[rows[i]] for i, known in enumerate(blank) if known}
        if others := [i for i, known in enumerate(blank) if not known]:
            features = self._evaluate([canvases[i] for i in others], [rows[i] for i in others])
            parts |= dict(zip(others, features.split([len(rows[i]) for i in others]), strict=True))
        return torch.cat([parts[i] for i in range(len(canvases))])

    def _blank(self, length: int) -> Tensor:
        """The features of every position of a blank canvas, [length, hidden]."""
        known = self._blank_features
        if length not in known:
            canvas = torch.full((length, self.shape.sub_tokens_per_token), self.shape.base)
            known[length] = self._evaluate([canvas], [torch.arange(length)])
        known.move_to_end(length)
        while len(known) > 1 and sum(each.nbytes for each in known.values()) > self.blank_bytes:
            known.popitem(last=False)
        return known[length]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PrimeDenoiser":
        """Forget blank canvases where weights move to another device or dtype."""
        self._blank_features.clear()
        moved: PrimeDenoiser = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return moved

    def _evaluate(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        layout = PackedLayout([len(canvas) for canvas in canvases], rows)
        device = self.embedding.weight.device
        positions = layout.positions().to(device)
        x = self.embedding(layout.pack(canvases).to(device)).flatten(1)
        if self.position is not None:
            x = x + self.position(positions)
        rotary = (self.cosines[positions], self.sines[positions])
        *earlier, last = [block for block in self.blocks if isinstance(block, Block)]
        for block in earlier:
            x = block(x, layout, rotary)
        features: Tensor = self.norm_final(last.read(x, layout, rotary))
        return features

    def head(self, features: Tensor) -> Tensor:
        return self.output.joint_logits(features)

    def draw(self, features: Tensor, codes: Tensor, draws: Draws) -> Tensor:
        return self.output.draw(features, codes, draws)

    def joint_logits(self, sub_tokens: Tensor) -> Tensor:
        """The network's own logits, unfiltered: int64 [B, L, l] → float32 [B, L, C].

        Raises:
            ValueError: a shape or a digit does not fit the network.
        """
        check_sub_tokens(sub_tokens, self.length, self.shape.sub_tokens_per_token, self.shape.base)
        batch, length, _ = sub_tokens.shape
        if batch == 0:
            return self.output.weight.new_zeros(0, length, self.vocabulary_size, dtype=torch.float32)
        features = self.trunk(list(sub_tokens), [torch.arange(length)] * batch)
        logits: Tensor = self.head(features).unflatten(0, (batch, length))
        return logits
