"""`model.safetensors`: reading and checking its tensors, and writing them one at a time."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unmask_model_store.config import BundleError, printable

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
}


@dataclass(frozen=True)
class LazyTensor:
    """A tensor with a known shape and dtype; its values are read later."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]  # reads the values; the result is not kept


def save_file(tensors: Mapping[str, Tensor | LazyTensor], file: Path) -> None:
    """Write tensors in the safetensors format; at most one lazy tensor is in memory at a time."""
    # wide elements first: then every tensor is aligned to its own element size, as readers expect
    names = sorted(tensors, key=lambda name: -tensors[name].dtype.itemsize)
    header: dict[str, object] = {}
    end = 0
    for name in names:
        tensor = tensors[name]
        start, end = end, end + prod(tensor.shape) * tensor.dtype.itemsize
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            out.write(_bytes_of(name, tensors[name]))


def _bytes_of(name: str, promised: Tensor | LazyTensor) -> memoryview:
    tensor = promised if isinstance(promised, Tensor) else promised.read()
    if (tuple(tensor.shape), tensor.dtype) != (tuple(promised.shape), promised.dtype):
        raise RuntimeError(f"{name} was promised as {promised.dtype} {list(promised.shape)}; it is {tensor.dtype}")
    data: np.ndarray[tuple[int], np.dtype[np.uint8]] = tensor.detach().contiguous().flatten().view(torch.uint8).numpy()
    return data.data


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Read all tensors of a file, or raise `BundleError`."""
    try:
        return load_file(file)
    except OSError as error:
        raise BundleError(f"{file}: cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise BundleError(f"{file}: is not a safetensors file: {error}") from error


def find_fault(tensors: Mapping[str, Tensor | LazyTensor], shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Say which tensor is missing, unknown, of another shape than expected, or not floating point, if one is."""
    if missing := [name for name in shapes if name not in tensors]:
        return f"tensor {missing[0]} is missing"
    if unknown := [name for name in tensors if name not in shapes]:
        return f"tensor {printable(unknown[0])} does not belong to this network"
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            found = printable(list(tensors[name].shape), 60)
            return f"tensor {name} has the shape {found}; the configuration asks for {list(shape)}"
        if not tensors[name].dtype.is_floating_point:
            return f"tensor {name} is {tensors[name].dtype}; it must be floating point"
    return None


def check_tensors(file: Path, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise `BundleError` for a tensor that is not as expected or holds NaN."""
    if fault := find_fault(tensors, shapes):
        raise BundleError(f"{file}: {fault}")
    for name, tensor in tensors.items():
        if bool(tensor.isnan().any()):
            raise BundleError(f"{file}: tensor {name} holds NaN")


def check_finite(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise `BundleError` for a tensor that holds an infinity."""
    for name, tensor in tensors.items():
        if bool(tensor.isinf().any()):
            raise BundleError(f"{file}: tensor {name} holds inf")


def check_log_weights(file: Path, name: str, weights: Tensor) -> None:
    """Raise `BundleError` for log-probabilities [..., C] with a row that holds +inf, or only -inf (zero)."""
    highest = weights.amax(-1)
    if bool((highest == torch.inf).any()):
        raise BundleError(f"{file}: tensor {name} holds inf")
    if bool((highest == -torch.inf).any()):
        raise BundleError(f"{file}: tensor {name} has a row of -inf only: nothing is possible there")
