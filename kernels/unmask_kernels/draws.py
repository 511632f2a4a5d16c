"""The arguments of a draw besides its logits, their checks, and the result of a draw."""

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from unmask_kernels.errors import InvalidLogitsError, NoCandidateError


@dataclass(frozen=True)
class Draws:
    """What the draw of each row depends on besides its logits; every field has one entry for each row."""

    revealed: Tensor  # int64 [N, l]; a digit above the greatest of the codes means masked
    seeds: Tensor  # int64 [N]
    events: Tensor  # int64 [N]
    temperature: Tensor  # float64 [N], finite and not negative; 0 = the most probable class
    top_k: Tensor  # int64 [N], 0 = off
    top_p: Tensor  # float64 [N], 1 = off

    def __len__(self) -> int:
        return len(self.seeds)

    @property
    def filtered(self) -> Tensor:
        """The rows that have top_k or top_p, as bool [N]."""
        return (self.top_k > 0) | (self.top_p < 1)

    def take(self, index: Tensor) -> "Draws":
        """Return the rows of an index, int64 [n]."""
        return Draws(*(getattr(self, field.name)[index] for field in fields(self)))

    def to(self, device: torch.device) -> "Draws":
        """Return the same rows on a device."""
        return Draws(*(getattr(self, field.name).to(device) for field in fields(self)))


class Drawn(NamedTuple):
    """The result of a draw, before invalid rows become errors."""

    classes: Tensor  # int64 [N]; -1 where `highest` is not finite
    highest: Tensor  # floating [N], the highest consistent logit: -inf without a candidate, NaN or +inf if invalid


def checked_draws(
    count: int,
    device: torch.device,
    revealed: Tensor,
    codes: Tensor,
    seeds: Tensor,
    events: Tensor,
    temperature: Tensor | float,
    top_k: Tensor | int | None,
    top_p: Tensor | float | None,
) -> Draws:
    """Check the arguments of `unmask_kernels.draw` for `count` rows and give each row its own.

    Raises:
        ValueError: shapes or dtypes that do not fit, or a temperature that is negative or not finite.
    """
    if revealed.shape != (count, codes.shape[1]):
        msg = f"revealed must be [{count}, {codes.shape[1]}], not {list(revealed.shape)}"
        raise ValueError(msg)
    if seeds.dtype != torch.int64 or events.dtype != torch.int64:
        msg = f"seeds and events must be int64, not {seeds.dtype} and {events.dtype}"
        raise ValueError(msg)
    given = {"seeds": seeds, "events": events, "temperature": temperature, "top_k": top_k, "top_p": top_p}
    for name, value in given.items():
        if isinstance(value, Tensor) and value.ndim and value.shape != (count,):
            msg = f"{name} must be [{count}], not {list(value.shape)}"
            raise ValueError(msg)

    def for_each_row(value: Tensor | float, dtype: torch.dtype) -> Tensor:
        return torch.as_tensor(value, dtype=dtype, device=device).expand(count)

    temperatures = for_each_row(temperature, torch.float64)
    if not bool((temperatures.isfinite() & (temperatures >= 0)).all()):
        msg = f"temperatures must be finite and not negative: {temperatures.tolist()}"
        raise ValueError(msg)
    return Draws(
        revealed,
        seeds,
        events,
        temperatures,
        for_each_row(0 if top_k is None else top_k, torch.int64),
        for_each_row(1 if top_p is None else top_p, torch.float64),
    )


def checked_classes(drawn: Drawn) -> Tensor:
    """Return the classes of a draw, int64 [N].

    Raises:
        NoCandidateError: some rows have no candidate.
        InvalidLogitsError: some rows have NaN or +inf among their consistent logits.
    """
    classes, highest = drawn
    if not len(classes) or bool(highest.isfinite().all()):
        return classes
    empty = highest == -torch.inf
    invalid = ~highest.isfinite() & ~empty
    kind = InvalidLogitsError if bool(invalid.any()) else NoCandidateError
    raise kind(
        empty.nonzero()[:, 0].tolist(), invalid.nonzero()[:, 0].tolist(), classes.masked_fill(empty | invalid, -1)
    )
