"""Philox and Gumbel noise for Triton kernels, and a kernel of Philox alone."""

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024


@triton.jit
def random_words(
    seed: tl.tensor,  # int64, the key
    event: tl.tensor,  # int64, counter words 1 and 2
    index: tl.tensor,  # any integer type, values in [0, 2**32), counter word 0
    purpose: tl.constexpr = 0,  # counter word 3
) -> tuple[tl.tensor, tl.tensor]:
    """Return 64 random bits as two uint32 words, high and low. The arguments are scalars or blocks that broadcast."""
    event_low, event_high = event.to(tl.uint32), (event >> 32).to(tl.uint32)
    high, low, _, _ = tl.philox(seed, index.to(tl.uint32), event_low, event_high, purpose)
    return high, low


@triton.jit
def gumbel_from_words(high: tl.tensor, low: tl.tensor) -> tl.tensor:
    """Map 64 random bits, two uint32 blocks, to standard Gumbel noise, float32 and always finite.

    g = -log(-log1p(-v)) with v = (bits + 1/2) / 2**64. Let t be the smaller of v and 1 - v: the complement of the
    bits says 1 - v as well as the bits say v, so t is right to 24 digits however small it is, and at least 2**-65.
    Where v is small, log1p(-v) is log(w) of the rounded w = 1 - v plus what the rounding lost (divided by w, which
    is 1 where it matters).
    """
    sign = high.to(tl.int32, bitcast=True) >> 31  # -1, all bits, where v >= 1/2
    upper, flip = sign != 0, sign.to(tl.uint32, bitcast=True)
    t = ((high ^ flip).to(tl.float32) + ((low ^ flip).to(tl.float32) + 0.5) * 2.0**-32) * 2.0**-32
    w = tl.where(upper, t, 1.0 - t)
    lost = tl.where(upper, 0.0, (1.0 - w) - t)
    return -tl.log(-(tl.log(w) + lost))


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
    offset = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = offset < count
    seed, event = tl.load(seeds + offset, mask=inside, other=0), tl.load(events + offset, mask=inside, other=0)
    high, low = random_words(seed, event, tl.load(indices + offset, mask=inside, other=0), purpose)
    tl.store(highs + offset, high.to(tl.int64), mask=inside)
    tl.store(lows + offset, low.to(tl.int64), mask=inside)


def random_words_on_gpu(seeds: Tensor, events: Tensor, indices: Tensor, purpose: int) -> tuple[Tensor, Tensor]:
    """Return `unmask_kernels.random_words`, bit for bit: int64 tensors that broadcast → two of their common shape."""
    each = [part.contiguous() for part in torch.broadcast_tensors(seeds, events, indices)]
    highs, lows = torch.empty_like(each[0]), torch.empty_like(each[0])
    grid = (triton.cdiv(highs.numel(), _BLOCK),)
    if highs.numel():
        _random_words_kernel[grid](*each, highs, lows, highs.numel(), purpose, _BLOCK)
    return highs, lows
