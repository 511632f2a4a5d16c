"""What the transformers share: attention over packed canvases, and the kept features of blank ones."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor, nn
from unmask_kernels import attention, fixed_tile_linear, to_device

from unmask_diffusion.model import check_sub_tokens
from unmask_diffusion.networks.packing import QUERY_TILE, PackedLayout

# memory for the features of blank canvases, of all lengths together; one canvas of official size takes 3 MiB
BLANK_BYTES = 64 << 20

Rotary = tuple[Tensor, Tensor]


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    """Apply a layer in its own weights' dtype, every row's bits independent of the number of rows."""
    return fixed_tile_linear(x.to(layer.weight.dtype), layer.weight, layer.bias)


def rotary_tables(length: int, width: int, base: float) -> Rotary:
    """The rotary tables (cos, cos) and (-sin, sin), float32 [length, width] each."""
    half = width // 2
    frequencies = 1.0 / base ** (torch.arange(half).float() / half)
    angles = torch.outer(torch.arange(length).float(), frequencies)
    return torch.cat([angles.cos(), angles.cos()], dim=1), torch.cat([-angles.sin(), angles.sin()], dim=1)


def rotate_half_split(x: Tensor, rotary: Rotary) -> Tensor:
    """Rotary embedding of the half-split kind: (a, b) → (a cos - b sin, b cos + a sin) for the halves of x's last dim.

    Args:
        x: [R, …, heads, d].
        rotary: (cos, cos) and (-sin, sin), float32 [R, d].
    """
    cosines, sines = (part.view(len(x), *[1] * (x.ndim - 2), -1) for part in rotary)
    x = x.float()
    first, second = x.chunk(2, dim=-1)
    return (x * cosines).addcmul_(torch.cat([second, first], dim=-1), sines)


def attend(q: Tensor, k: Tensor, v: Tensor, layout: PackedLayout) -> Tensor:
    """Attend from every row of packed q, k, v [R, heads, d] to all rows of its canvas: [R, heads · d]."""
    outputs = []
    start = 0
    for run in layout.runs:
        rows = slice(start, start + run.length * run.count)
        parts = (part[rows].unflatten(0, (run.count, run.length)) for part in (q, k, v))
        outputs.append(attention(*parts).flatten(0, 1))
        start = rows.stop
    return torch.cat(outputs) if len(outputs) > 1 else outputs[0]


def attend_from_read(q: Tensor, k: Tensor, v: Tensor, layout: PackedLayout) -> Tensor:
    """Attend from the rows that are read, q [N, heads, d], to all rows of their canvases, k, v [R, heads, d]."""
    q = q[layout.queries]
    outputs = []
    start = first = 0
    for run in layout.runs:
        rows, queries = slice(start, start + run.length * run.count), slice(first, first + run.queries * run.count)
        keys, values = (part[rows].unflatten(0, (run.count, run.length)) for part in (k, v))
        tiles = q[queries].unflatten(0, (run.count, run.queries)).split(min(QUERY_TILE, run.length), dim=1)
        if run.queries:
            outputs.append(torch.cat([attention(tile, keys, values) for tile in tiles], dim=1).flatten(0, 1))
        start, first = rows.stop, queries.stop
    return torch.cat(outputs)[layout.places]


class Transformer(nn.Module, ABC):
    """A trunk over packed canvases with a head. Subclasses evaluate, and have the head's two forms.

    Every request without given tokens evaluates the blank (fully masked) canvas of its length first. With frozen
    weights (requires_grad is False) its features are kept: such weights must stay as they are after the first
    evaluation.
    """

    blank_bytes: int = BLANK_BYTES
    embedding: nn.Embedding

    def __init__(self, length: int, vocabulary_size: int, sub_tokens_per_token: int, base: int) -> None:
        super().__init__()
        self.length = length
        self.vocabulary_size = vocabulary_size
        self.sub_tokens_per_token = sub_tokens_per_token
        self.mask_id = base
        self._blank_features: OrderedDict[int, Tensor] = OrderedDict()  # by length, the least recently used first

    @abstractmethod
    def _evaluate(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        """Evaluate canvases, as `trunk` does, keeping nothing."""

    @abstractmethod
    def _all_logits(self, features: Tensor) -> Tensor:
        """The network's own logits of features [N, hidden], float32 [N, C]."""

    def trunk(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        """Evaluate canvases; features are the last normalised hidden rows, float32 [N, hidden]."""
        if self.embedding.weight.requires_grad:
            return self._evaluate(canvases, rows)
        blank = [bool((canvas == self.mask_id).all()) for canvas in canvases]
        if not any(blank):
            return self._evaluate(canvases, rows)
        known = [i for i, each in enumerate(blank) if each]
        indices = to_device([rows[i] for i in known], self.embedding.weight.device)
        parts = {i: self._blank(len(canvases[i]))[index] for i, index in zip(known, indices, strict=True)}
        if others := [i for i, each in enumerate(blank) if not each]:
            features = self._evaluate([canvases[i] for i in others], [rows[i] for i in others])
            parts |= dict(zip(others, features.split([len(rows[i]) for i in others]), strict=True))
        return torch.cat([parts[i] for i in range(len(canvases))])

    def _blank(self, length: int) -> Tensor:
        """The features of every position of a blank canvas, [length, hidden]."""
        known = self._blank_features
        if length not in known:
            canvas = torch.full((length, self.sub_tokens_per_token), self.mask_id)
            known[length] = self._evaluate([canvas], [torch.arange(length)])
        known.move_to_end(length)
        while len(known) > 1 and sum(each.nbytes for each in known.values()) > self.blank_bytes:
            known.popitem(last=False)
        return known[length]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Forget blank canvases where weights move to another device or dtype."""
        self._blank_features.clear()
        moved: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return moved

    def head(self, features: Tensor) -> Tensor:
        return self._all_logits(features)

    def joint_logits(self, sub_tokens: Tensor) -> Tensor:
        """The network's own logits, unfiltered: int64 [B, L, l] → float32 [B, L, C].

        Raises:
            ValueError: a shape or a digit does not fit the network.
        """
        check_sub_tokens(sub_tokens, self.length, self.sub_tokens_per_token, self.mask_id)
        batch, length, _ = sub_tokens.shape
        if batch == 0:
            return self.embedding.weight.new_zeros(0, length, self.vocabulary_size, dtype=torch.float32)
        features = self.trunk(list(sub_tokens), [torch.arange(length)] * batch)
        logits: Tensor = self._all_logits(features).unflatten(0, (batch, length))
        return logits
