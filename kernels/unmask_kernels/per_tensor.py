"""What is found out once for a tensor that stays, as a table of codes does: a GPU has to be waited for."""

from collections.abc import Callable, MutableMapping
from functools import wraps
from typing import TypeVar

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

Found = TypeVar("Found")


def once_per_tensor(find: Callable[[Tensor], Found]) -> Callable[[Tensor], Found]:
    """Make a function remember what it found for a tensor, as long as this lives and is not written to.

    Tensors of inference mode don't count writes: these must not change.
    """
    known: MutableMapping[Tensor, tuple[int, Found]] = WeakTensorKeyDictionary()

    @wraps(find)
    def remembered(tensor: Tensor) -> Found:
        version = 0 if tensor.is_inference() else tensor._version
        entry = known.get(tensor)
        if entry is None or entry[0] != version:
            entry = known[tensor] = version, find(tensor)
        return entry[1]

    return remembered


__all__ = ["once_per_tensor"]
