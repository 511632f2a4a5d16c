"""Schedules: which sub-tokens are revealed together, in which order, drawn before the first network evaluation.

Under the linear schedule alpha_t = 1 - t every masked sub-token is unmasked at its own time, uniform on (0, 1) and
independent of all content. Both papers' samplers are one loop over different cuts of the same hitting times.

With blocks the holes are cut into runs of so many sub-tokens, from left to right. A block is revealed in the order of
its hitting times, and none before its turn. No step crosses a border between blocks.

In confidence order a step knows how many sub-tokens it reveals, and of which block; which ones, the network says then.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, groupby, pairwise
from typing import overload

import torch
from torch import Tensor
from unmask_kernels import Purpose, random_words

# far above the error of a root in float64 times the largest T
NEAR_A_BORDER = 1e-6


@dataclass(frozen=True, slots=True)
class Step:
    """What is known in advance of one network evaluation of a sample."""

    # Sub-tokens (position · l + j) to reveal, in the order of their hitting times. In confidence order: the sub-tokens
    # of its block, ascending, of which those that are still masked compete.
    reveal: tuple[int, ...]
    turns: tuple[int, ...] = ()  # of each of these, the number of its earlier draws; empty: it has none
    mask: tuple[int, ...] = ()  # sub-tokens to mask again once these are revealed, ascending; none of these

    def by_position(self, digits_a_token: int) -> dict[int, tuple[int, ...]]:
        """The positions of its sub-tokens, ascending, each with its digits j, ascending."""
        return by_position(self.reveal, digits_a_token)

    def undo(self, canvas: Tensor, mask_id: int) -> Tensor:
        """The canvas [L, l] before the step, from the one after it."""
        before = canvas.clone()
        before.view(-1)[list(self.reveal)] = mask_id
        return before


class Again:
    """What the steps of a sample mask again, in compact storage: 16 bytes for each time."""

    def __init__(self, masks: Iterable[int], ends: Iterable[int], turns: Iterable[int]) -> None:
        """Cut `masks`, the sub-tokens that all steps mask again, at `ends`, one a step.

        `turns` has, for each entry of the order of reveals, the number of that sub-token's earlier draws.
        """
        self.masks, self.ends, self.turns = array("q", masks), array("q", ends), array("q", turns)


class Steps(Sequence[Step]):
    """The steps of a sample in compact storage: 16 bytes a step, because thousands of plans may wait."""

    def __init__(
        self,
        order: Iterable[int],
        ends: Iterable[int],
        borders: Iterable[int] = (),
        by_confidence: bool = False,
        again: Again | None = None,
    ) -> None:
        """Cut `order`, the sub-tokens of all steps, at `ends`: ascending, the last one its length.

        `borders` are the first steps of all blocks but the first, ascending. In confidence order `order` says only
        which sub-tokens a block has. With `again`, sub-tokens that were masked again come more than once.
        """
        self.order = array("q", order)
        self.borders = array("q", borders)
        self.by_confidence = by_confidence
        self.again = again
        self._ends = array("q", ends)

    @property
    def sub_tokens(self) -> int:
        """Number of different sub-tokens that are revealed."""
        return len(self.order) - (len(self.again.masks) if self.again else 0)

    def size(self, step: int) -> int:
        """Number of sub-tokens that a step reveals."""
        return self._ends[step] - (self._ends[step - 1] if step else 0)

    def block_start(self, step: int) -> int:
        """The first step of the block that a step belongs to."""
        return self._block(step)[0]

    def _block(self, step: int) -> tuple[int, int]:
        """The first step of the block that a step belongs to, and the first behind the block."""
        place = bisect_right(self.borders, step)
        stop = self.borders[place] if place < len(self.borders) else len(self)
        return self.borders[place - 1] if place else 0, stop

    def share_before(self, step: int) -> float:
        """The share of the sub-tokens that are revealed before a step."""
        masked = self.again.ends[step - 1] if self.again and step else 0
        return (self._ends[step - 1] - masked) / self.sub_tokens if step else 0.0

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> Step: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Step, ...]: ...
    def __getitem__(self, index: int | slice) -> Step | tuple[Step, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        step = range(len(self))[index]
        first, stop = self._block(step) if self.by_confidence else (step, step + 1)
        own = slice(self._ends[first - 1] if first else 0, self._ends[stop - 1])
        if self.again is None:
            return Step(tuple(self.order[own]))
        masked = slice(self.again.ends[first - 1] if first else 0, self.again.ends[stop - 1])
        return Step(tuple(self.order[own]), tuple(self.again.turns[own]), tuple(self.again.masks[masked]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Steps) and self._parts == other._parts

    def __hash__(self) -> int:
        return hash(tuple(part.tobytes() for part in self._parts))

    def spread(self, groups: Mapping[int, Sequence[int]]) -> "Steps":
        """The same steps with a group of sub-tokens in the place of each entry of the order."""

        def spread_out(entries: Sequence[int], ends: Sequence[int]) -> tuple[list[int], list[int]]:
            counts = [0, *accumulate(len(groups[entry]) for entry in entries)]
            return [each for entry in entries for each in groups[entry]], [counts[end] for end in ends]

        order, ends = spread_out(self.order, self._ends)
        if self.again is None:
            return Steps(order, ends, self.borders)
        turns = (turn for entry, turn in zip(self.order, self.again.turns, strict=True) for _ in groups[entry])
        return Steps(order, ends, self.borders, again=Again(*spread_out(self.again.masks, self.again.ends), turns))

    @property
    def _parts(self) -> "tuple[array[int], ...]":
        again = (self.again.masks, self.again.ends, self.again.turns) if self.again else ()
        return self.order, self._ends, self.borders, array("q", [self.by_confidence]), *again


@dataclass(frozen=True)
class Schedule:
    """The steps of one sample."""

    steps: Steps  # one network evaluation each; none is empty
    idle_steps: int = 0  # time steps in which nothing would be revealed; they are skipped and cost nothing

    @property
    def sub_tokens(self) -> int:
        return self.steps.sub_tokens


def by_position(sub_tokens: Iterable[int], digits_a_token: int) -> dict[int, tuple[int, ...]]:
    """Group sub-tokens by their positions, ascending; each position with its digits j, ascending."""
    positions = groupby(sorted(sub_tokens), key=lambda sub_token: sub_token // digits_a_token)
    return {position: tuple(each % digits_a_token for each in own) for position, own in positions}


def event_of(sample: int, sub_token: int, turn: int = 0) -> int:
    """The counter of a draw: turn · 2^38 + sample · 2^32 + sub-token index.

    `turn`, below 2^25, tells several draws of one sub-token apart; `sample` is below 64.
    """
    return (turn << 38) + (sample << 32) + sub_token


def hitting_times(seed: int, sample: int | Tensor, sub_tokens: Tensor, turn: int = 0) -> Tensor:
    """Draw when each sub-token is unmasked, as 63-bit integers: int64 [n] → int64 [n]; 0 comes first.

    `sample` may be int64 [s, 1], for the times of several samples at once: [s, n]. Each `turn` has times of its own.

    A function of (seed, sample, sub-token) alone, from the schedule's own random numbers: an order that used the draw's
    numbers would bias it.
    """
    events = (turn << 38) + (sample << 32) + sub_tokens
    high, low = random_words(torch.full_like(events, seed), events, torch.zeros_like(events), Purpose.SCHEDULE)
    return (high << 31) | (low >> 1)


def first_hitting(
    times: Tensor, sub_tokens: Tensor, steps: int | None, block: int | None = None, clock: int = 1
) -> Schedule:
    """Reveal in the order of the hitting times, one sub-token a step (exact), or in k steps.

    Args:
        times: int64 [n], from `hitting_times`.
        sub_tokens: int64 [n], their indices, ascending.
        steps: k, at most one a sub-token and at least one a block; None for the exact first-hitting sampler.
        block: sub-tokens of a block, the last one may have fewer; None for one block.
        clock: n, see `near_equal_steps`.
    """
    order = sub_tokens[block_order(times, block)].tolist()
    return Schedule(near_equal_steps(order, len(order) if steps is None else steps, block, clock))


def block_order(times: Tensor, block: int | None) -> Tensor:
    """Where to find the sub-tokens in the order of their reveal: block after block, by hitting times within: [n]."""
    order = times.argsort(stable=True)
    return order if block is None else order[(order // block).argsort(stable=True)]


def near_equal_steps(
    order: Sequence[int], steps: int, block: int | None = None, clock: int = 1, by_confidence: bool = False
) -> Steps:
    """Cut an order of sub-tokens into `steps` steps whose sizes differ by one at most in a block; none is empty.

    With a clock n above 1 the sizes grow: of a block of m sub-tokens, m (i/T)^n are revealed after i of its T steps,
    rounded down, or i where that is more. The power is convex and T ≤ m, so it grows by more than one a step once it
    is above i, and no step is empty.

    Raises:
        ValueError: there are fewer steps than blocks.
    """
    count = len(order)
    borders = [*range(0, count, block or max(1, count)), count]
    shares = share_out(min(steps, count), borders)
    ends = [
        start + max(i, (stop - start) * i**clock // share**clock)
        for (start, stop), share in zip(pairwise(borders), shares, strict=True)
        for i in range(1, share + 1)
    ]
    return Steps(order, ends, list(accumulate(shares))[:-1], by_confidence)


def share_out(steps: int, borders: Sequence[int]) -> list[int]:
    """Share out steps over blocks in proportion to their sizes, at least one each.

    Block b reaches from borders[b] to borders[b + 1] of n sub-tokens, and after it floor(k · borders[b + 1] / n) steps
    are done. All blocks are of B sub-tokens but the last of at most B. With k ≤ n that is at most one step a sub-token,
    since k B / n ≤ B. It is at least one a block where k is at least their number m: n ≤ m B, so k B / n ≥ 1, and the
    last one gets what is left of k, rounded up.

    Raises:
        ValueError: there are fewer steps than blocks.
    """
    if steps < len(borders) - 1:
        raise ValueError(f"{steps} steps are too few for {len(borders) - 1} blocks")
    done = [steps * border // max(1, borders[-1]) for border in borders]
    return [after - before for before, after in pairwise(done)]


def ancestral(times: Tensor, sub_tokens: Tensor, steps: int, block: int | None = None, clock: int = 1) -> Schedule:
    """Bin the hitting times into T time steps and drop the empty ones (MDLM's and MDM-Prime's sampler).

    The expected number of idle steps is T (1 - 1/T)^n ("Beyond Masked and Unmasked…", Proposition A.1). With blocks the
    T steps are shared out over them, and a block's hitting times are binned into its own. Steps end at (i/T)^clock: at
    equal times with clock 1, and later and later ones after short first steps above it (MDM-Prime's image models).

    Raises:
        ValueError: there are fewer steps than blocks.
    """
    count = len(times)
    if not count:
        return Schedule(Steps((), ()), idle_steps=steps)
    first = torch.arange(0, count, block or count)
    shares = torch.tensor(share_out(steps, [*first.tolist(), count]))
    order = block_order(times, block)
    block_of = order // (block or count)
    bins = time_bins(times[order], shares[block_of], clock) + (shares.cumsum(0) - shares)[block_of]
    _, counts = torch.unique_consecutive(bins, return_counts=True)
    ends = counts.cumsum(0)
    found = Steps(
        sub_tokens[order].tolist(), ends.tolist(), torch.searchsorted(ends, first[1:], side="left").add(1).tolist()
    )
    return Schedule(found, idle_steps=steps - len(found))


def time_bins(times: Tensor, steps: Tensor, clock: int) -> Tensor:
    """The largest i with (i/T)^n ≤ t for hitting times t, int64 [n], each with its own T, int64 [n]."""
    # the upper 31 bits of a time decide its bin: times · T would overflow, and 2^-31 is far below any T's step
    times = times >> 32
    if clock == 1:
        return times * steps >> 31
    roots = steps * (times.double() / 2**31) ** (1 / clock)
    bins = roots.long()
    # where the last bits of a root decide, machines may differ: whole numbers decide instead
    for place in ((roots - roots.round()).abs() < NEAR_A_BORDER).nonzero().flatten().tolist():
        time, total, border = int(times[place]), int(steps[place]), round(float(roots[place]))
        bins[place] = border if border**clock << 31 <= time * total**clock else border - 1
    return bins


def steps_of_counts(sub_tokens: Sequence[int], counts: Sequence[Sequence[int]]) -> Schedule:
    """Leave the order to the network, with given numbers of reveals.

    Args:
        sub_tokens: their indices, ascending.
        counts: for each block, of so many sub-tokens as its counts sum to, how many each step reveals; a step without
            any is idle.
    """
    steps = [[count for count in block if count] for block in counts]
    ends = accumulate(chain.from_iterable(steps))
    borders = accumulate(map(len, steps[:-1]))
    return Schedule(Steps(sub_tokens, ends, borders, by_confidence=True), sum(map(len, counts)) - sum(map(len, steps)))
