"""Writing `model.safetensors` one tensor at a time, so that no more than one needs to be in memory."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

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
    """A tensor whose sizes are known before its values are.

    Attributes:
        shape: its sizes.
        dtype: of its elements.
        read: makes the values; called when they are needed, and the result is not kept.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]


def save_file(tensors: Mapping[str, Tensor | LazyTensor], file: Path) -> None:
    """Write tensors in the safetensors format, reading lazy ones in turn.

    Raises:
        OSError: the disk refuses.
    """
    # wide elements first: then every tensor is aligned to its own element size, as readers expect
    names = sorted(tensors, key=lambda name: -tensors[name].dtype.itemsize)
    header: dict[str, object] = {}
    end = 0
    for name in names:
        tensor = tensors[name]
        start, end = end, end + prod(tensor.shape) * tensor.dtype.itemsize
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
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
