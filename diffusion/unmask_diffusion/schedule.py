"""Schedules: which sub-tokens are revealed together, in which order, drawn before the first network evaluation.

Under the linear schedule alpha_t = 1 - t every masked sub-token is unmasked at its own time, uniform on (0, 1) and
independent of all content. Both papers' samplers are one loop over different cuts of the same hitting times.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from unmask_kernels import Purpose, random_words

Groups = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Schedule:
    """The reveals of one sample.

    Attributes:
        groups: sub-token indices (position · l + j) that one network evaluation reveals, in order; none is empty.
        idle_steps: time steps in which nothing would have been revealed; they cost nothing.
    """

    groups: Groups
    idle_steps: int = 0


def event_of(sample: int, sub_token: int) -> int:
    """The counter of a draw: sample · 2^32 + sub-token index."""
    return (sample << 32) + sub_token


def hitting_times(seed: int, sample: int | Tensor, sub_tokens: Tensor) -> Tensor:
    """Draw when each sub-token is unmasked, as 63-bit integers: int64 [n] → int64 [n]; 0 comes first.

    `sample` may be int64 [s, 1], for the times of several samples at once: [s, n].

    A function of (seed, sample, sub-token) alone, from the schedule's own random numbers: an order that was taken
    from the draw's numbers would bias it.
    """
    events = (sample << 32) + sub_tokens
    high, low = random_words(torch.full_like(events, seed), events, torch.zeros_like(events), Purpose.SCHEDULE)
    return (high << 31) | (low >> 1)


def first_hitting(times: Tensor, sub_tokens: Tensor, groups: int | None) -> Schedule:
    """Reveal in the order of the hitting times, one a group (exact), or cut into k near-equal groups.

    Args:
        times: int64 [n], from `hitting_times`.
        sub_tokens: int64 [n], their indices.
        groups: k, at most one a sub-token; None for the exact first-hitting sampler.
    """
    order = sub_tokens[times.argsort(stable=True)].tolist()
    return Schedule(near_equal_groups(order, len(order) if groups is None else groups))


def near_equal_groups(order: Sequence[int], groups: int) -> Groups:
    """Cut an order of sub-tokens into `groups` parts whose sizes differ by one at most; none is empty."""
    count = len(order)
    k = min(groups, count)
    cuts = [count * i // k for i in range(k + 1)] if k else [0]
    return tuple(tuple(order[a:b]) for a, b in pairwise(cuts))


def ancestral(times: Tensor, sub_tokens: Tensor, steps: int) -> Schedule:
    """Bin the hitting times into T equal steps and drop the empty ones (MDLM's and MDM-Prime's sampler).

    The expected number of idle steps is T (1 - 1/T)^n ("Beyond Masked and Unmasked…", Proposition A.1).
    """
    order = times.argsort(stable=True)
    # the upper 31 bits of a time decide its bin: times · T would overflow, and 2^-31 is far below any T's step
    bins = (times[order] >> 32) * steps >> 31
    _, counts = torch.unique_consecutive(bins, return_counts=True)
    groups = tuple(tuple(group.tolist()) for group in sub_tokens[order].split(counts.tolist()))
    return Schedule(groups if len(order) else (), idle_steps=steps - len(counts))
