"""Random numbers as a function of (seed, event, index, purpose), without a generator's state."""

from enum import IntEnum

import torch
from torch import Tensor

from unmask_kernels import dispatch
from unmask_kernels.philox.cpu import first_two_words
from unmask_kernels.philox.reference import halves, philox_4x32


class Purpose(IntEnum):
    """What a number is for: the last counter word, which keeps the streams of one seed apart."""

    DRAW = 0
    SCHEDULE = 1


def random_words(
    seeds: Tensor, events: Tensor, indices: Tensor, purpose: Purpose = Purpose.DRAW
) -> tuple[Tensor, Tensor]:
    """Return 64 random bits as a (high, low) pair of 32-bit words.

    Args:
        seeds: int64, the key: its low half is key word 0, its high half key word 1.
        events: int64, counter words 1 (low half) and 2 (high half).
        indices: int64 in [0, 2**32), counter word 0: the class of a draw. The three broadcast.
        purpose: counter word 3.

    Returns:
        Two int64 tensors of the broadcast shape, values in [0, 2**32).
    """
    if dispatch.on_gpu(events):
        from unmask_kernels.philox.triton import random_words_of  # Triton is where GPUs are

        return random_words_of(seeds, events, indices, int(purpose))
    event_low, event_high = halves(events)
    tag = torch.full((), int(purpose), dtype=torch.int64, device=events.device)
    counter, key = (indices, event_low, event_high, tag), halves(seeds)
    if dispatch.on_cpu(events):
        return first_two_words(counter, key)
    return philox_4x32(counter, key)[:2]


def uniform_from_words(high: Tensor, low: Tensor) -> Tensor:
    """Map 64 random bits to (bits + 1/2) / 2**64 in float64, strictly inside (0, 1).

    Small values are exact to 53 bits: the least is 2**-65. The 2**10 largest would round to 1 and become
    1 - 2**-53.
    """
    value = high.to(torch.float64).mul_(2.0**32).add_(low.to(torch.float64).add_(0.5))
    return value.mul_(2.0**-64).clamp_(max=1 - 2.0**-53)


def random_uniform(seeds: Tensor, events: Tensor, indices: Tensor, purpose: Purpose = Purpose.DRAW) -> Tensor:
    """Return float64 numbers in the open interval (0, 1), one for each (seed, event, index, purpose)."""
    return uniform_from_words(*random_words(seeds, events, indices, purpose))


__all__ = ["Purpose", "philox_4x32", "random_uniform", "random_words", "uniform_from_words"]
