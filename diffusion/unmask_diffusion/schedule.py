"""Schedules: which sub-tokens are revealed together, in which order, drawn before the first network evaluation.

Under the linear schedule alpha_t = 1 - t every masked sub-token is unmasked at its own time, uniform on (0, 1) and
independent of all content. Both papers' samplers are one loop over different cuts of the same hitting times.
"""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import overload

import torch
from torch import Tensor
from unmask_kernels import Purpose, random_words


@dataclass(frozen=True, slots=True)
class Step:
    """What is known in advance of one network evaluation of a sample."""

    reveal: tuple[int, ...]  # sub-tokens (position · l + j) to reveal, in the order of their hitting times

    def by_position(self, digits_a_token: int) -> dict[int, tuple[int, ...]]:
        """The positions whose logits the step needs, ascending, each with the digits j to reveal, ascending."""
        positions = groupby(sorted(self.reveal), key=lambda sub_token: sub_token // digits_a_token)
        return {position: tuple(each % digits_a_token for each in own) for position, own in positions}

    def undo(self, canvas: Tensor, mask_id: int) -> Tensor:
        """The canvas [L, l] before the step, from the one after it."""
        before = canvas.clone()
        before.view(-1)[list(self.reveal)] = mask_id
        return before


class Steps(Sequence[Step]):
    """The steps of a sample in compact storage: 16 bytes a step, because thousands of plans may wait."""

    def __init__(self, order: Iterable[int], ends: Iterable[int]) -> None:
        """Cut `order`, the sub-tokens of all steps, at `ends`: ascending, the last one its length."""
        self.order = array("q", order)
        self._ends = array("q", ends)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> Step: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Step, ...]: ...
    def __getitem__(self, index: int | slice) -> Step | tuple[Step, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        place = range(len(self))[index]
        return Step(tuple(self.order[self._ends[place - 1] if place else 0 : self._ends[place]]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Steps) and (self.order, self._ends) == (other.order, other._ends)

    def __hash__(self) -> int:
        return hash((self.order.tobytes(), self._ends.tobytes()))


@dataclass(frozen=True)
class Schedule:
    """The steps of one sample."""

    steps: Steps  # one network evaluation each; none is empty
    idle_steps: int = 0  # time steps in which nothing would be revealed; they are skipped and cost nothing

    @property
    def sub_tokens(self) -> int:
        return len(self.steps.order)


def event_of(sample: int, sub_token: int) -> int:
    """The counter of a draw: sample · 2^32 + sub-token index."""
    return (sample << 32) + sub_token


def hitting_times(seed: int, sample: int | Tensor, sub_tokens: Tensor) -> Tensor:
    """Draw when each sub-token is unmasked, as 63-bit integers: int64 [n] → int64 [n]; 0 comes first.

    `sample` may be int64 [s, 1], for the times of several samples at once: [s, n].

    A function of (seed, sample, sub-token) alone, from the schedule's own random numbers: an order that used the draw's
    numbers would bias it.
    """
    events = (sample << 32) + sub_tokens
    high, low = random_words(torch.full_like(events, seed), events, torch.zeros_like(events), Purpose.SCHEDULE)
    return (high << 31) | (low >> 1)


def first_hitting(times: Tensor, sub_tokens: Tensor, steps: int | None) -> Schedule:
    """Reveal in the order of the hitting times, one sub-token a step (exact), or in k steps of nearly equal size.

    Args:
        times: int64 [n], from `hitting_times`.
        sub_tokens: int64 [n], their indices.
        steps: k, at most one a sub-token; None for the exact first-hitting sampler.
    """
    order = sub_tokens[times.argsort(stable=True)].tolist()
    return Schedule(near_equal_steps(order, len(order) if steps is None else steps))


def near_equal_steps(order: Sequence[int], steps: int) -> Steps:
    """Cut an order of sub-tokens into `steps` steps whose sizes differ by one at most; none is empty."""
    count = len(order)
    k = min(steps, count)
    return Steps(order, (count * i // k for i in range(1, k + 1)))


def ancestral(times: Tensor, sub_tokens: Tensor, steps: int) -> Schedule:
    """Bin the hitting times into T equal time steps and drop the empty ones (MDLM's and MDM-Prime's sampler).

    The expected number of idle steps is T (1 - 1/T)^n ("Beyond Masked and Unmasked…", Proposition A.1).
    """
    order = times.argsort(stable=True)
    # the upper 31 bits of a time decide its bin: times · T would overflow, and 2^-31 is far below any T's step
    bins = (times[order] >> 32) * steps >> 31
    _, counts = torch.unique_consecutive(bins, return_counts=True)
    found = Steps(sub_tokens[order].tolist(), accumulate(counts.tolist()))
    return Schedule(found, idle_steps=steps - len(found))
