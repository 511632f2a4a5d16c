"""Weights of `LlamaDenoiser` from those of the official networks: other names, and parts that lie side by side.

An official network is described by its `Names`: for each part of ours the official tensor that holds it. Shapes follow
from our network's sizes, so that every tensor is checked before the first is read.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from unmask_diffusion import LlamaShape

from unmask_model_store.importers.untrusted import ImportFailure
from unmask_model_store.weights import LazyTensor, find_fault

Change = Callable[[Tensor], Tensor]

# tensors of a block of ours that are several parts, one behind the other
_JOINED = {
    "attn_qkv.weight": ("q.weight", "k.weight", "v.weight"),
    "attn_qkv.bias": ("q.bias", "k.bias", "v.bias"),
    "mlp_in.weight": ("gate.weight", "up.weight"),
}


@dataclass(frozen=True)
class Names:
    """The official names of our network's parts; those of a block with {} for its number."""

    embedding: str
    norm_final: str
    head: str
    block: Mapping[str, str]  # our tensor, or a part of it → the official name
    change: Mapping[str, Change] = field(default_factory=dict)  # our part → what is done to the official tensor
    spare_rows: int = 0  # rows of the embedding and of the head that stand for nothing, at the end
    spare_columns: int = 0


def llama_tensors(
    shape: LlamaShape, names: Names, official: Mapping[str, LazyTensor], dtype: torch.dtype | None
) -> dict[str, LazyTensor]:
    """The tensors of our network, each read from the official ones when it is written.

    Args:
        shape: the network's sizes and switches.
        names: where its parts are.
        official: the official tensors, unread.
        dtype: of the blocks' projections; None: as they are stored. Others stay as they are stored.

    Raises:
        ImportFailure: a tensor is missing, is unknown, or has another shape.
    """
    if shape.blocks > len(official):
        raise ImportFailure(f"its configuration asks for {shape.blocks} blocks; it has only {len(official)} tensors")
    parts = _part_shapes(shape)
    table = (shape.embedding_shape[0] + names.spare_rows, shape.embedding_shape[1])
    expected = {names.embedding: table, names.norm_final: (shape.hidden_size,)}
    if not shape.tied_head:
        expected[names.head] = (shape.vocabulary_size + names.spare_columns, shape.hidden_size)
    for i in range(shape.blocks):
        expected |= {name.format(i): parts[part] for part, name in names.block.items()}
    if fault := find_fault(official, expected):
        raise ImportFailure(fault)
    rows, classes = shape.embedding_shape[0], shape.vocabulary_size
    tensors = {
        "embedding.weight": _lazy(official, [names.embedding], None, lambda t: t[:rows], rows=rows),
        "norm_final.weight": _lazy(official, [names.norm_final], None),
    }
    if not shape.tied_head:
        tensors["output.weight"] = _lazy(official, [names.head], None, lambda t: t[:classes], rows=classes)
    for i in range(shape.blocks):
        block = {part: name.format(i) for part, name in names.block.items()}
        for joined, some in _JOINED.items():
            if some[0] in block:
                own = [block.pop(part) for part in some]
                tensors[f"blocks.{i}.{joined}"] = _lazy(official, own, dtype)
        for part, name in block.items():
            wanted = None if part.startswith("norm") else dtype
            tensors[f"blocks.{i}.{part}"] = _lazy(official, [name], wanted, names.change.get(part))
    return tensors


def rows_by_head(shape: LlamaShape) -> Change:
    """Put rows that lie head by head, each with its queries, key and value, into all queries, all keys, all values."""
    group = shape.heads // shape.key_value_heads

    def sort(weight: Tensor) -> Tensor:
        heads = weight.unflatten(0, (shape.key_value_heads, group + 2, shape.head_width))
        parts = (heads[:, :group], heads[:, group : group + 1], heads[:, group + 1 :])
        return torch.cat([part.flatten(0, 2) for part in parts])

    return sort


def _part_shapes(shape: LlamaShape) -> dict[str, tuple[int, ...]]:
    """The shapes of all parts that a block may have, and of the tensors that they make up."""
    hidden, inner, width = shape.hidden_size, shape.inner_size, shape.head_width
    queries, keys = shape.heads * width, shape.key_value_heads * width
    return {
        "norm1.weight": (hidden,),
        "norm2.weight": (hidden,),
        "norm_q.weight": (width,),
        "norm_k.weight": (width,),
        "q.weight": (queries, hidden),
        "k.weight": (keys, hidden),
        "v.weight": (keys, hidden),
        "q.bias": (queries,),
        "k.bias": (keys,),
        "v.bias": (keys,),
        "attn_qkv.weight": (shape.projected, hidden),
        "attn_out.weight": (hidden, queries),
        "gate.weight": (inner, hidden),
        "up.weight": (inner, hidden),
        "mlp_in.weight": (2 * inner, hidden),
        "mlp_out.weight": (hidden, inner),
    }


def _lazy(
    official: Mapping[str, LazyTensor],
    names: list[str],
    dtype: torch.dtype | None,
    change: Change | None = None,
    rows: int | None = None,
) -> LazyTensor:
    """Official tensors one behind the other, or one that is changed."""
    stored = {official[name].dtype for name in names}
    wanted = dtype or (torch.bfloat16 if stored == {torch.bfloat16} else torch.float32)
    first = official[names[0]].shape
    height = sum(official[name].shape[0] for name in names) if rows is None else rows

    def read() -> Tensor:
        parts = [_finite(name, official[name].read()).to(wanted) for name in names]
        tensor = torch.cat(parts) if len(parts) > 1 else parts[0]
        return tensor if change is None else change(tensor)

    return LazyTensor((height, *first[1:]), wanted, read)


def _finite(name: str, tensor: Tensor) -> Tensor:
    """Raise `ImportFailure` if a tensor holds NaN or an infinity."""
    for part in tensor.split(max(1, (1 << 24) // max(1, tensor[:1].numel()))):
        if not bool(part.isfinite().all()):
            kind = "NaN" if bool(part.isnan().any()) else "an infinity"
            raise ImportFailure(f"tensor {name} holds {kind}")
    return tensor
