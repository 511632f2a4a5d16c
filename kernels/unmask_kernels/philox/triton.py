"""Philox for Triton kernels, and a kernel of it alone."""

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024


@triton.jit
def random_words(
    seed: tl.tensor, event: tl.tensor, index: tl.tensor, purpose: tl.constexpr = 0
) -> tuple[tl.tensor, tl.tensor]:
    """64 random bits as a (high, low) pair of uint32 words: `philox.random_words` inside a kernel.

    Args:
        seed: int64, the key.
        event: int64, counter words 1 and 2.
        index: any integer type, values in [0, 2**32), counter word 0. The three are scalars or blocks that broadcast.
        purpose: counter word 3.
    """
    event_low, event_high = event.to(tl.uint32), (event >> 32).to(tl.uint32)
    high, low, _, _ = tl.philox(seed, index.to(tl.uint32), event_low, event_high, purpose)
    return high, low


@triton.jit
def _random_words_kernel(
    seeds: tl.tensor,
    events: tl.tensor,
    indices: tl.tensor,
    highs: tl.tensor,
    lows: tl.tensor,
    count: tl.tensor,
    purpose: tl.constexpr,
    block: tl.constexpr,
) -> None:
    place = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = place < count
    seed, event = tl.load(seeds + place, mask=inside, other=0), tl.load(events + place, mask=inside, other=0)
    high, low = random_words(seed, event, tl.load(indices + place, mask=inside, other=0), purpose)
    tl.store(highs + place, high.to(tl.int64), mask=inside)
    tl.store(lows + place, low.to(tl.int64), mask=inside)


def random_words_of(seeds: Tensor, events: Tensor, indices: Tensor, purpose: int) -> tuple[Tensor, Tensor]:
    """Return `philox.random_words`, bit for bit: int64 tensors that broadcast → two of their common shape."""
    each = [part.contiguous() for part in torch.broadcast_tensors(seeds, events, indices)]
    highs, lows = torch.empty_like(each[0]), torch.empty_like(each[0])
    grid = (triton.cdiv(highs.numel(), _BLOCK),)
    if highs.numel():
        _random_words_kernel[grid](*each, highs, lows, highs.numel(), purpose, _BLOCK)
    return highs, lows
