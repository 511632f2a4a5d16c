"""Weights in safetensors: one file, or several with an index. Each tensor is read alone, when it is asked for."""

import json
from collections.abc import Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from unmask_model_store.bundle import SHARDS_FILE, WEIGHTS_FILE, is_sharded
from unmask_model_store.config import printable
from unmask_model_store.importers.untrusted import ImportFailure, naming
from unmask_model_store.weights import LazyTensor

LARGEST_INDEX = 64 << 20
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def open_folder(folder: Path) -> tuple[dict[str, LazyTensor], list[Path]]:
    """The tensors of a folder in Hugging Face's layout by name, unread, and the files that hold them.

    Raises `ImportFailure`: a file is broken, or the index does not name every tensor once, in the file that has it.
    """
    if not is_sharded(folder):
        return open_file(folder / WEIGHTS_FILE), [folder / WEIGHTS_FILE]
    with naming(folder / SHARDS_FILE):
        where, total = _read_index(folder / SHARDS_FILE)
    files = [folder / name for name in sorted(set(where.values()))]
    tensors: dict[str, LazyTensor] = {}
    for file in files:
        if not file.is_file():
            raise ImportFailure(f"{folder / SHARDS_FILE}: names {printable(file.name)}, which is missing", named=True)
        for name, tensor in open_file(file).items():
            with naming(folder / SHARDS_FILE):
                if name not in where:
                    raise ImportFailure(f"does not name {printable(name)}, which {printable(file.name)} has")
                if where[name] != file.name:
                    also = f"{printable(where[name])} for {printable(name)}, which is in {printable(file.name)}"
                    raise ImportFailure(f"names {also}")
            tensors[name] = tensor
    with naming(folder / SHARDS_FILE):
        if missing := [name for name in where if name not in tensors]:
            raise ImportFailure(f"names {printable(missing[0])}, which {printable(where[missing[0]])} does not have")
        size = sum(prod(tensor.shape) * tensor.dtype.itemsize for tensor in tensors.values())
        if size != total:
            raise ImportFailure(f"its metadata.total_size is {total}; the tensors have {size} bytes")
    return tensors, files


def shards_of(folder: Path) -> list[str]:
    """The files that an index names."""
    with naming(folder / SHARDS_FILE):
        where, _ = _read_index(folder / SHARDS_FILE)
    return sorted(set(where.values()))


def open_file(file: Path) -> dict[str, LazyTensor]:
    """The tensors of one file by name, unread."""
    with naming(file):
        try:
            with safe_open(file, framework="pt") as opened:
                slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 — not a dict
                found = {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
        except SafetensorError as error:
            raise ImportFailure(f"is not a safetensors file: {printable(error)}") from error
        if strange := [name for name, (_, kind) in found.items() if kind not in _DTYPES]:
            kind = printable(found[strange[0]][1])
            raise ImportFailure(f"tensor {printable(strange[0])} has the type {kind}, which is not read")
    return {n: LazyTensor(shape, _DTYPES[kind], partial(_read, file, n)) for n, (shape, kind) in found.items()}


def _read(file: Path, name: str) -> Tensor:
    """One tensor. The file is mapped for this long: pages that were read do not add up."""
    with safe_open(file, framework="pt") as opened:
        tensor: Tensor = opened.get_tensor(name)
    return tensor


def _read_index(file: Path) -> tuple[dict[str, str], int]:
    """The file of each tensor, and the bytes of all."""
    if file.stat().st_size > LARGEST_INDEX:
        raise ImportFailure(f"has {file.stat().st_size:,} bytes; at most {LARGEST_INDEX:,} are read")
    try:
        content = json.loads(file.read_bytes(), object_pairs_hook=_each_key_once)
    except ImportFailure:
        raise
    except (ValueError, RecursionError) as error:
        raise ImportFailure("is not valid JSON") from error
    where = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(where, dict) or not where or not all(isinstance(name, str) for name in where.values()):
        raise ImportFailure("has no weight_map: tensor → file")
    for name in where.values():
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ImportFailure(f"names {printable(name)}; a shard is a .safetensors file beside the index")
    metadata = content.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    if not isinstance(total, int | float) or isinstance(total, bool) or total != int(total):
        raise ImportFailure("has no metadata.total_size, the bytes of all tensors")
    return where, int(total)


def _each_key_once(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise ImportFailure(f"names {printable(key)} twice")
        made[key] = value
    return made
