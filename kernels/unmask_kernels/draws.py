"""The arguments of a draw besides its logits, the result of a draw, and its errors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unmask_kernels.transfer import to_device, to_host


class Offsets:
    """What is added to the logits of some classes before a draw; other classes stay as they are, or are out."""

    def __init__(self, values: dict[int, float], only: bool) -> None:
        """Keep class → what is added to its logit, of one class at least; `only`: no other class can be drawn."""
        self.only = only
        self.classes = torch.tensor(sorted(values), dtype=torch.int64)
        self.values = torch.tensor([values[each] for each in sorted(values)], dtype=torch.float64)

    def left_of(self, classes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Those of some classes, ascending, that can be drawn."""
        return np.intersect1d(classes, self.classes.numpy(), assume_unique=True) if self.only else classes

    def added_to(self, logits: npt.NDArray[np.floating], classes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The logits [K] of some classes with what is added to them."""
        own = self.classes.numpy()
        places = np.searchsorted(own, classes).clip(max=len(own) - 1)
        added: npt.NDArray[np.float64] = np.where(own[places] == classes, self.values.numpy()[places], 0.0)
        added += logits
        return added


def restricted(logits: Tensor, offsets: Sequence[Offsets | None]) -> Tensor:
    """Logits [N, C] with -inf for the classes that are out; the same tensor if none is."""
    if not any(each is not None and each.only for each in offsets):
        return logits
    logits = logits.clone()
    for row, each in enumerate(offsets):
        if each is not None and each.only:
            classes = each.classes.to(logits.device)
            kept = logits[row, classes]
            logits[row] = -torch.inf
            logits[row, classes] = kept
    return logits


def with_offsets(logits: Tensor, offsets: Sequence[Offsets | None]) -> Tensor:
    """Logits [N, C] with the offsets of each row; the same tensor if there are none."""
    if not any(offsets):
        return logits
    logits = restricted(logits, offsets).clone()
    for row, each in enumerate(offsets):
        if each is not None:
            logits[row, each.classes.to(logits.device)] += each.values.to(logits.device, logits.dtype)
    return logits


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
    offsets: tuple[Offsets | None, ...] = ()  # N of them, or none at all
    min_p: Tensor | None = None  # float64 [N], 0 = off; None: off in all rows

    def __len__(self) -> int:
        return len(self.seeds)

    @property
    def filtered(self) -> Tensor:
        """The rows that have top_k, top_p or min_p, as bool [N]."""
        found = (self.top_k > 0) | (self.top_p < 1)
        return found if self.min_p is None else found | (self.min_p > 0)

    def take(self, index: Tensor | slice) -> "Draws":
        """Return the rows of an index, int64 [n], or of a slice."""
        rows = range(len(self))[index] if isinstance(index, slice) else index.tolist()
        offsets = tuple(self.offsets[row] for row in rows) if self.offsets else ()
        return _draws([value[index] for value in self._tensors], offsets)

    def to(self, device: torch.device) -> "Draws":
        """Return the same rows on a device: one copy from host memory."""
        return _draws(to_device(self._tensors, device), self.offsets)

    @property
    def by_logits(self) -> Tensor:
        """The rows whose logits must be in memory on a GPU, as bool [N]: those with a filter or an offset."""
        if not self.offsets:
            return self.filtered
        return self.filtered | torch.tensor([each is not None for each in self.offsets], device=self.seeds.device)

    @property
    def _tensors(self) -> list[Tensor]:
        always = [self.revealed, self.seeds, self.events, self.temperature, self.top_k, self.top_p]
        return always if self.min_p is None else [*always, self.min_p]


def _draws(tensors: Sequence[Tensor], offsets: tuple[Offsets | None, ...]) -> Draws:
    revealed, seeds, events, temperature, top_k, top_p, *min_p = tensors
    return Draws(revealed, seeds, events, temperature, top_k, top_p, offsets, *min_p)


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
