"""Code number → class: which rows of the head a partly revealed token leaves, without a list for every pattern."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unmask_kernels.per_tensor import once_per_tensor

# Codes that name no class cost a look each; a table mostly of these (a great base, many places) isn't worth having.
_MOST_CODES_A_CLASS = 8


@dataclass(frozen=True)
class ClassTable:
    """The inverse of `codes`: the number of a code is Σ_j digit_j · base^(l-1-j)."""

    base: int  # above every digit, so the least digit that means masked
    places: int
    classes: Tensor  # int32 [base ** places], -1 where a code names no class
    pattern_powers: Tensor  # int64 [l]: a pattern is a number in base + 2

    def patterns(self, revealed: Tensor) -> Tensor:
        """Return int64 [N]: equal where the same places show the same digits, 0 where no place shows any."""
        # masked → 0; negative → 1, a digit that no class has; the others follow
        letters = (revealed.clamp(-1, self.base) + 2) % (self.base + 2)
        return (letters * self.pattern_powers).sum(1)


@once_per_tensor
def class_table(codes: Tensor) -> ClassTable | None:
    """Return the table of codes [C, l]; None where classes share a code or codes are too many.

    Making it waits for the device; every later call doesn't.
    """
    count, places = codes.shape
    base = int(codes.max()) + 1
    too_many = base**places > _MOST_CODES_A_CLASS * count or (base + 2) ** places >= 2**63
    if too_many or int(codes.min()) < 0:
        return None
    code_powers, pattern_powers = (_powers(number, places).to(codes.device) for number in (base, base + 2))
    classes = torch.full((base**places,), -1, dtype=torch.int32, device=codes.device)
    classes[(codes * code_powers).sum(1)] = torch.arange(count, dtype=torch.int32, device=codes.device)
    distinct = int((classes >= 0).sum()) == count
    return ClassTable(base, places, classes, pattern_powers) if distinct else None


def _powers(base: int, places: int) -> Tensor:
    return torch.tensor([base**place for place in reversed(range(places))])
