"""MDM-Prime-v2's C4 models in Megatron's formats: one `.pt` file, or a `torch_dist` folder.

A `torch_dist` folder has `common.pt` with the arguments of the training command, `.metadata`, a pickle that says of
which chunks every tensor consists, and `*.distcp`, in which each chunk is a small file as `torch.save` writes it. The
layers of a tensor are stacked. All of it is read by the reader that executes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from unmask_diffusion import LlamaShape

from unmask_model_store.bundle import DTYPES
from unmask_model_store.config import printable
from unmask_model_store.importers.lit_gpt import check_codes, numbers_of
from unmask_model_store.importers.llama import Names, llama_tensors, rows_by_head
from unmask_model_store.importers.source import Request, Source
from unmask_model_store.importers.torch_file import (
    LARGEST_PICKLE,
    MOST_DIMENSIONS,
    TensorRecord,
    TorchFile,
    open_torch_file,
    open_torch_part,
    read_pickle,
)
from unmask_model_store.importers.untrusted import Global, ImportFailure, Literals, Recorded, entries, naming
from unmask_model_store.weights import LazyTensor

METADATA, COMMON = ".metadata", "common.pt"
EMBEDDING, PERMUTATION = "embedding.word_embeddings.weight", "subtokenizer.perm"
LAYERS = "encoder.layers."
# the values of arguments that our network computes; None among them: the argument may be absent
ALLOWED: Mapping[str, tuple[object, ...]] = {
    "position_embedding_type": ("rope",),
    "rotary_percent": (1.0, 1),
    "swiglu": (True,),
    "normalization": ("RMSNorm",),
    "add_bias_linear": (False,),
    "untie_embeddings_and_output_weights": (True,),
    "embedding_type": ("cat-share",),
    "subtokenizer_type": ("baseb_shuffle",),
    "rotary_interleaved": (False, None),
}
BLOCK = {
    "attn_qkv.weight": "self_attention.linear_qkv.weight",
    "attn_out.weight": "self_attention.linear_proj.weight",
    "mlp_in.weight": "mlp.linear_fc1.weight",  # gate, then what it multiplies
    "mlp_out.weight": "mlp.linear_fc2.weight",
}
# the norms of a block are called after the layer behind them, or have names of their own
NORMS = {
    "norm1.weight": ("self_attention.linear_qkv.layer_norm_weight", "input_layernorm.weight"),
    "norm2.weight": ("mlp.linear_fc1.layer_norm_weight", "pre_mlp_layernorm.weight"),
}
HEAD_NORMS = {f"norm_{part}.weight": f"self_attention.{part}_layernorm.weight" for part in "qk"}


def folder_of(path: Path) -> Path | None:
    """The `torch_dist` folder that a path stands for: itself, or its newest iteration; None if it is another folder."""
    if (path / METADATA).is_file() and (path / COMMON).is_file():
        return path
    newest = path / "latest_checkpointed_iteration.txt"
    if newest.is_file():
        number = newest.read_text(encoding="utf-8", errors="replace").strip()
        if number.isascii() and number.isdigit() and len(number) < 12:
            return folder_of(path / f"iter_{int(number):07d}")
    return None


def is_known(content: object) -> bool:
    """Whether a file's content is a checkpoint of Megatron."""
    found = entries(content) or {}
    return "args" in found and EMBEDDING in (entries(found.get("model")) or {})


def read_file(opened: TorchFile, file: Path, request: Request) -> Source:
    """Read a `.pt` file; its tensors can be read as long as it is open."""
    content = entries(opened.content) or {}
    state = entries(content["model"]) or {}
    tensors = {
        name: LazyTensor(each.shape, each.storage.dtype, partial(opened.read_tensor, each))
        for name, each in state.items()
        if isinstance(name, str) and isinstance(each, TensorRecord)
    }
    return _source(tensors, content, [file], request, opened.ignored)


def read_folder(folder: Path, request: Request) -> Source:
    """Read a `torch_dist` folder."""
    with naming(folder / COMMON), open_torch_file(folder / COMMON) as opened:
        content, ignored = entries(opened.content) or {}, opened.ignored
    with naming(folder / METADATA):
        size = (folder / METADATA).stat().st_size
        if size > LARGEST_PICKLE:
            raise ImportFailure(f"has {size:,} bytes; at most {LARGEST_PICKLE:,} are read")
        metadata, unexpected = read_pickle((folder / METADATA).read_bytes())
        stored = _stored(metadata, folder)
    tensors: dict[str, LazyTensor] = {}
    for name, tensor in stored.items():
        if not name.startswith(LAYERS):
            tensors[name] = LazyTensor(tensor.shape, tensor.dtype, tensor.read)
            continue
        for i in range(tensor.shape[0]):
            lazy = LazyTensor(tensor.shape[1:], tensor.dtype, partial(tensor.read, i))
            tensors[f"{LAYERS}{i}.{name.removeprefix(LAYERS)}"] = lazy
    files = sorted({chunk.file for tensor in stored.values() for chunk in tensor.chunks})
    classes = ("torch.distributed.", "megatron.core.", "torch.")  # which the metadata is made of
    ignored = tuple(sorted({*ignored, *(name for name in unexpected if not name.startswith(classes))}))
    with naming(folder):
        return _source(tensors, content, files, request, ignored)


def _source(
    tensors: Mapping[str, LazyTensor],
    content: Mapping[Any, Any],
    files: Sequence[Path],
    request: Request,
    ignored: tuple[str, ...],
) -> Source:
    request.takes("a Megatron checkpoint of MDM-Prime-v2, which says so itself", "length")
    if request.weights == "raw":
        raise ImportFailure("has one set of weights; --weights raw cannot be chosen")
    arguments = content.get("args")
    args = Literals(arguments.state if isinstance(arguments, Recorded) else arguments)
    for key, values in ALLOWED.items():
        value = args.value(key)
        if not any(type(value) is type(each) and value == each for each in values):
            raise ImportFailure(
                f"its argument {key} is {printable(repr(value), 60)}; only {str(values[0])!r} is supported"
            )
    shape = _shape(args, request)
    own = {name for name in tensors if not name.startswith("subtokenizer.") and "_extra_state" not in name}
    first = f"{LAYERS}0."
    norms = {part: next((name for name in names if first + name in own), names[0]) for part, names in NORMS.items()}
    block = {**BLOCK, **norms, **(HEAD_NORMS if shape.query_key_norm else {})}
    names = Names(
        EMBEDDING,
        "encoder.final_layernorm.weight",
        "output_layer.weight",
        {part: f"{LAYERS}{{}}.{name}" for part, name in block.items()},
        change={"attn_qkv.weight": rows_by_head(shape)},
        spare_rows=_padding(args, "padded_input"),
        spare_columns=_padding(args, "padded_output"),
    )
    weights = {name: tensors[name] for name in tensors if name in own}
    made = llama_tensors(shape, names, weights, DTYPES[request.dtype] if request.dtype else None)
    if (table := tensors.get(PERMUTATION)) is None:
        raise ImportFailure(f"has no {PERMUTATION}, the table that shuffles token ids")
    space = shape.base**shape.sub_tokens_per_token
    codes = check_codes(numbers_of(table.shape, table.dtype, table.read), shape.vocabulary_size, space)
    keys: dict[str, Any] = {**vars(shape), "architecture": "llama", "carry_over": False, "codes": codes}
    keys["canvas"] = request.canvas or "as_requested"
    provenance = {"format": "megatron", "family": "MDM-Prime-v2"}
    if isinstance(content.get("iteration"), int):
        provenance["global_step"] = content["iteration"]
    return Source(files, keys, made, provenance, ignored)


def _shape(args: Literals, request: Request) -> LlamaShape:
    heads, hidden = args.integer("num_attention_heads"), args.integer("hidden_size")
    grouped = args.given("group_query_attention") and args.boolean("group_query_attention")
    try:
        return LlamaShape(
            length=request.length or args.integer("seq_length"),
            vocabulary_size=args.integer("vocab_size", least=2),
            sub_tokens_per_token=args.integer("target_length"),
            base=args.integer("base", least=2),
            hidden_size=hidden,
            blocks=args.integer("num_layers"),
            heads=heads,
            key_value_heads=args.integer("num_query_groups") if grouped else heads,
            head_width=args.integer("kv_channels") if args.given("kv_channels") else hidden // heads,
            inner_size=args.integer("ffn_hidden_size"),
            norm_epsilon=args.number("norm_epsilon"),
            rotary_base=args.number("rotary_base"),
            query_key_norm=args.boolean("qk_layernorm"),
        )
    except ValueError as error:
        if isinstance(error, ImportFailure):
            raise
        raise ImportFailure(f"its sizes do not fit each other: {error}") from error


def _padding(args: Literals, key: str) -> int:
    return args.integer(key, least=0) if args.given(key) else 0


# --- the chunks of a torch_dist folder --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chunk:
    """A part of a tensor, and where it is."""

    start: tuple[int, ...]  # its first element in the tensor
    sizes: tuple[int, ...]
    file: Path
    offset: int  # bytes
    length: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a folder: its chunks cover it, each element once."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    chunks: tuple[Chunk, ...]

    def read(self, layer: int | None = None) -> Tensor:
        """Read it, or one of its layers (the first dimension)."""
        whole = torch.empty(self.shape if layer is None else self.shape[1:], dtype=self.dtype)
        for chunk in self.chunks:
            if layer is not None and not chunk.start[0] <= layer < chunk.start[0] + chunk.sizes[0]:
                continue
            part = self._read_chunk(chunk)
            start, sizes = chunk.start, chunk.sizes
            if layer is not None:
                part, start, sizes = part[layer - start[0]], start[1:], sizes[1:]
            whole[tuple(slice(first, first + size) for first, size in zip(start, sizes, strict=True))] = part
        return whole

    def _read_chunk(self, chunk: Chunk) -> Tensor:
        with naming(chunk.file), open_torch_part(chunk.file, chunk.offset, chunk.length) as opened:
            record = opened.content
            expected = (chunk.sizes, self.dtype)
            if not isinstance(record, TensorRecord) or (record.shape, record.storage.dtype) != expected:
                raise ImportFailure(f"holds something else than the chunk of {printable(self.name)} at {chunk.offset}")
            return opened.read_tensor(record)


def _stored(metadata: object, folder: Path) -> dict[str, StoredTensor]:
    """The tensors that `.metadata` describes."""
    content = _state(metadata)
    described, places = entries(content.get("state_dict_metadata")), entries(content.get("storage_data"))
    if described is None or places is None:
        raise ImportFailure("is not the metadata of a torch_dist checkpoint")
    where: dict[tuple[object, ...], Mapping[str, Any]] = {}
    for index, info in places.items():
        key = _state(index)
        where[(key.get("fqn"), _sizes(key.get("offset")))] = _state(info)
    found: dict[str, StoredTensor] = {}
    for name, record in described.items():
        if not isinstance(record, Recorded) or not record.name.endswith(".TensorStorageMetadata"):
            continue  # the state of a layer that has no tensors
        state = _state(record)
        shape, dtype = _sizes(state.get("size")), _dtype(state.get("properties"))
        chunks = state.get("chunks")
        if shape is None or dtype is None or not isinstance(chunks, list):
            raise ImportFailure(f"does not say what tensor {printable(name)} is")
        found[name] = StoredTensor(
            name, shape, dtype, tuple(_chunk(name, shape, _state(each), where, folder) for each in chunks)
        )
        if sum(prod(chunk.sizes) for chunk in found[name].chunks) != prod(shape) or _overlap(found[name].chunks):
            raise ImportFailure(f"its chunks of tensor {printable(name)} do not cover it, each element once")
    return found


def _chunk(
    name: str,
    shape: tuple[int, ...],
    state: Mapping[str, Any],
    where: Mapping[tuple[object, ...], Mapping[str, Any]],
    folder: Path,
) -> Chunk:
    start, sizes = _sizes(state.get("offsets")), _sizes(state.get("sizes"))
    if start is None or sizes is None or not len(start) == len(sizes) == len(shape):
        raise ImportFailure(f"does not say where a chunk of tensor {printable(name)} lies")
    if any(first + size > whole for first, size, whole in zip(start, sizes, shape, strict=True)):
        raise ImportFailure(f"a chunk of tensor {printable(name)} reaches beyond it")
    place = where.get((name, start))
    file, offset, length = (place or {}).get("relative_path"), (place or {}).get("offset"), (place or {}).get("length")
    if not isinstance(file, str) or Path(file).name != file or type(offset) is not int or type(length) is not int:
        raise ImportFailure(f"does not say in which file a chunk of tensor {printable(name)} is")
    if offset < 0 or length <= 0 or not (folder / file).is_file():
        raise ImportFailure(f"names {printable(file)} for tensor {printable(name)}, which is missing or too short")
    return Chunk(start, sizes, folder / file, offset, length)


def _overlap(chunks: Sequence[Chunk]) -> bool:
    """Whether two chunks begin at the same element: with the right total, no others can overlap in a grid."""
    return len({chunk.start for chunk in chunks}) != len(chunks)


def _state(record: object) -> Mapping[str, Any]:
    state = record.state if isinstance(record, Recorded) else None
    return state if isinstance(state, dict) else {}


def _sizes(value: object) -> tuple[int, ...] | None:
    """A `torch.Size`, which is pickled as a call with a tuple."""
    if isinstance(value, Recorded) and value.name == "torch.Size" and isinstance(value.args, tuple) and value.args:
        value = value.args[0]
    if not isinstance(value, tuple | list) or len(value) > MOST_DIMENSIONS:
        return None
    return tuple(value) if all(type(each) is int and 0 <= each < 2**40 for each in value) else None


def _dtype(properties: object) -> torch.dtype | None:
    state = properties.state if isinstance(properties, Recorded) else None
    first = state[0] if isinstance(state, tuple | list) and state else None
    if isinstance(state, dict):
        first = state.get("dtype")
    name = first.name if isinstance(first, Global) else None
    return {f"torch.{kind}": getattr(torch, kind) for kind in _KINDS}.get(name or "")


_KINDS = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
