"""The arguments of a draw besides its logits, the result of a draw, and its errors."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from unmask_kernels.transfer import to_device, to_host


@dataclass(frozen=True)
class Draws:
    """What the draw of each row depends on besides its logits; every field has one entry for each row.

    The fields lie in host memory, whatever device draws: `filtered` is asked there. They may also lie on the device,
    which then has to be waited for.
    """

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

    def take(self, index: Tensor | slice) -> "Draws":
        """Return the rows of an index, int64 [n], or of a slice."""
        return Draws(**{name: value[index] for name, value in vars(self).items()})

    def to(self, device: torch.device) -> "Draws":
        """Return the same rows on a device: one copy from host memory."""
        return Draws(*to_device([*vars(self).values()], device))


class Drawn(NamedTuple):
    """The result of a draw, before invalid rows become errors."""

    classes: Tensor  # int64 [N]; -1 where `highest` is not finite
    highest: Tensor  # floating [N], the highest consistent logit: -inf without a candidate, NaN or +inf if invalid


class DrawError(ValueError):
    """No class could be drawn for some rows."""

    def __init__(self, no_candidate: list[int], invalid: list[int], classes: Tensor) -> None:
        self.no_candidate = no_candidate  # rows without a consistent class of positive probability
        self.invalid = invalid  # rows with NaN or +inf among the logits of their consistent classes
        self.rows = sorted([*no_candidate, *invalid])
        self.classes = classes  # int64 [N], the classes of the other rows; -1 in `rows`
        parts = [f"NaN or +inf among the logits of rows {_listed(invalid)}"] if invalid else []
        parts += [f"no class is possible in rows {_listed(no_candidate)}"] if no_candidate else []
        super().__init__("; ".join(parts))


class NoCandidateError(DrawError):
    """Some rows have no candidate, and no row is invalid."""


class InvalidLogitsError(DrawError):
    """At least one row has NaN or +inf; other rows may have no candidate."""


def _listed(rows: list[int], limit: int = 10) -> str:
    listed = ", ".join(map(str, rows[:limit]))
    return listed if len(rows) <= limit else f"{listed}, … ({len(rows)} rows)"


def checked_classes(drawn: Drawn) -> Tensor:
    """Return the classes of a draw, int64 [N] in host memory, after one copy to it.

    Raises:
        NoCandidateError: some rows have no candidate.
        InvalidLogitsError: some rows have NaN or +inf.
    """
    classes, highest = to_host(drawn.classes, drawn.highest)
    finite = highest.isfinite()
    if bool(finite.all()):
        return classes
    empty = highest == -torch.inf
    no_candidate, invalid = (rows.nonzero()[:, 0].tolist() for rows in (empty, ~finite & ~empty))
    kind = InvalidLogitsError if invalid else NoCandidateError
    raise kind(no_candidate, invalid, classes.masked_fill(~finite, -1))
