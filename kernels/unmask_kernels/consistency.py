"""Consistent classes: those that agree with the digits that a token has revealed; and what forms keep of the codes."""

from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass
from functools import wraps
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

Classes = npt.NDArray[np.int64]
T = TypeVar("T")

# Codes without a class cost a load each, so a table that is mostly empty (a great base, many digits) is not worth it.
_MOST_CODES_PER_CLASS = 8


def agrees(
    revealed: Tensor,  # int64 [N, l]; a digit above `codes.max()`, as the mask id is, means masked
    codes: Tensor,  # int64 [C, l], the digits of every class
) -> Tensor:
    """Say which classes agree with every revealed digit: bool [N, C], all true in a row without revealed digits."""
    if revealed.ndim != 2 or codes.ndim != 2 or revealed.shape[1] != codes.shape[1]:
        raise ValueError(f"revealed [N, l] and codes [C, l] don't fit: {list(revealed.shape)} and {list(codes.shape)}")
    shown = revealed <= codes.max()
    result = torch.ones(len(revealed), len(codes), dtype=torch.bool, device=codes.device)
    for place in shown.any(0).nonzero()[:, 0].tolist():
        result &= (revealed[:, place, None] == codes[:, place]) | ~shown[:, place, None]
    return result


def once_per_tensor(function: Callable[[Tensor], T]) -> Callable[[Tensor], T]:
    """Cache a function's result for each tensor, as long as the tensor lives and is not written to.

    Facts about a table of codes are computed once, because reading them from a GPU waits for it. Tensors of inference
    mode do not count writes, so they must not change.
    """
    cache: MutableMapping[Tensor, tuple[int, T]] = WeakTensorKeyDictionary()

    @wraps(function)
    def cached(tensor: Tensor) -> T:
        version = 0 if tensor.is_inference() else tensor._version
        entry = cache.get(tensor)
        if entry is None or entry[0] != version:
            entry = cache[tensor] = version, function(tensor)
        return entry[1]

    return cached


class ConsistentClasses:
    """Lists the consistent classes of a row, for codes int64 [C, l] on a CPU."""

    def __init__(self, codes: Tensor) -> None:
        self.every: Classes = np.arange(len(codes))
        self._codes = codes.numpy().copy()  # a view would keep the tensor alive, and with it its cache entry
        self._greatest = int(codes.max())
        self._with_digit: dict[tuple[int, int], Classes] = {}

    def of(self, revealed: Iterable[int]) -> Classes:
        """Return the consistent classes, ascending; `every` itself where no digit is revealed.

        The array is shared: do not write to it.
        """
        classes = self.every
        for place, digit in enumerate(revealed):
            if digit > self._greatest:
                continue
            if classes is not self.every:
                classes = classes[self._codes[classes, place] == digit]
                continue
            if (place, digit) not in self._with_digit:
                self._with_digit[place, digit] = np.flatnonzero(self._codes[:, place] == digit)
            classes = self._with_digit[place, digit]
        return classes


consistent_classes = once_per_tensor(ConsistentClasses)


class CodeFacts(NamedTuple):
    """What Triton kernels need to know of codes before they start."""

    largest: int  # the greatest digit; greater ones mean masked
    base: int  # b where the codes are the base-b digits of the class, the most significant first; otherwise 0


@once_per_tensor
def code_facts(codes: Tensor) -> CodeFacts:
    """Return the facts of codes int64 [C, l], C > 0."""
    classes, length = codes.shape
    base = int(codes[:, -1].max()) + 1
    # so that with a digit revealed there are no more than C candidates, and int32 holds all that kernels compute
    if base > 0 and (length == 1 or base ** (length - 1) < classes) and base**length < 2**31:
        digits = torch.arange(classes, device=codes.device)[:, None] // _powers(base, length).to(codes.device) % base
        if torch.equal(codes, digits):
            return CodeFacts(int(codes.max()), base)
    return CodeFacts(int(codes.max()), 0)


@dataclass(frozen=True)
class ClassTable:
    """The inverse of `codes`, for the GPU's head: the number of a code is Σ_j digit_j · base^(l-1-j)."""

    base: int  # above every digit, so the least digit that means masked
    places: int  # l
    classes: Tensor  # int32 [base ** l], -1 where a code names no class
    pattern_powers: Tensor  # int64 [l], in host memory: a pattern is a number in base + 2

    def patterns(self, revealed: Tensor) -> Tensor:
        """Return int64 [N]: equal where the same places show the same digits, 0 where no place shows any."""
        # masked → 0; negative → 1, a digit that no class has; the others follow
        letters = (revealed.clamp(-1, self.base) + 2) % (self.base + 2)
        return (letters * self.pattern_powers.to(revealed.device)).sum(1)


@once_per_tensor
def class_table(codes: Tensor) -> ClassTable | None:
    """Return the table of codes [C, l]; None where classes share a code or too few codes name a class."""
    count, places = codes.shape
    base = int(codes.max()) + 1
    too_many = base**places > _MOST_CODES_PER_CLASS * count or (base + 2) ** places >= 2**63
    if too_many or int(codes.min()) < 0:
        return None
    code_powers = _powers(base, places).to(codes.device)
    classes = torch.full((base**places,), -1, dtype=torch.int32, device=codes.device)
    classes[(codes * code_powers).sum(1)] = torch.arange(count, dtype=torch.int32, device=codes.device)
    distinct = int((classes >= 0).sum()) == count
    return ClassTable(base, places, classes, _powers(base + 2, places)) if distinct else None


def _powers(base: int, places: int) -> Tensor:
    return torch.tensor([base**place for place in reversed(range(places))])
