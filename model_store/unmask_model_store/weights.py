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

from unmask_model_store.config import BundleError

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
    """A tensor with a known shape and dtype whose values are read later."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]  # reads the values; the result is not kept


def save_file(tensors: Mapping[str, Tensor | LazyTensor], file: Path) -> None:
    """Write tensors in the safetensors format; at most one lazy tensor is in memory at a time.

    Raises:
        OSError: the file cannot be written.
    """
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
    """Read all tensors of a file.

    Raises:
        BundleError: the file cannot be read or is not in the safetensors format.
    """
    try:
        return load_file(file)
    except OSError as error:
        raise BundleError(f"{file}: cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise BundleError(f"{file}: is not a safetensors file: {error}") from error


def check_tensors(file: Path, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Compare the tensors of a file with the names and shapes that its configuration asks for.

    Raises:
        BundleError: a tensor is missing, unknown, of another shape, not floating point, or holds NaN.
    """
    if missing := sorted(shapes.keys() - tensors.keys()):
        raise BundleError(f"{file}: tensor {missing[0]} is missing")
    if unknown := sorted(tensors.keys() - shapes.keys()):
        raise BundleError(f"{file}: tensor {unknown[0]} does not belong to this architecture")
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            found = list(tensors[name].shape)
            raise BundleError(f"{file}: tensor {name} has the shape {found}; the configuration asks for {list(shape)}")
        if not tensors[name].is_floating_point():
            raise BundleError(f"{file}: tensor {name} is {tensors[name].dtype}; it must be floating point")
        if bool(tensors[name].isnan().any()):
            raise BundleError(f"{file}: tensor {name} holds NaN")


def check_finite(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse infinite weights.

    Raises:
        BundleError: a tensor holds an infinity.
    """
    for name, tensor in tensors.items():
        if bool(tensor.isinf().any()):
            raise BundleError(f"{file}: tensor {name} holds inf")


def check_log_weights(file: Path, name: str, weights: Tensor) -> None:
    """Refuse log-probabilities [..., C] with a row that cannot be normalised; -inf is a probability of zero.

    Raises:
        BundleError: a row holds +inf, or -inf only.
    """
    highest = weights.amax(-1)
    if bool((highest == torch.inf).any()):
        raise BundleError(f"{file}: tensor {name} holds inf")
    if bool((highest == -torch.inf).any()):
        raise BundleError(f"{file}: tensor {name} has a row of -inf only: nothing is possible there")
