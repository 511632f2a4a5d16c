"""Kernels around the device functions, one for each: what a larger kernel would compute."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from unmask_kernels.triton.categorical import perturbed
from unmask_kernels.triton.philox import gumbel_from_words

_BLOCK = 1024
_DRAWS = 32


@triton.jit
def _gumbel_kernel(highs: tl.tensor, lows: tl.tensor, noise: tl.tensor, count: tl.tensor, block: tl.constexpr) -> None:
    place = tl.program_id(0) * block + tl.arange(0, block)
    high = tl.load(highs + place, mask=place < count, other=0).to(tl.uint32)
    low = tl.load(lows + place, mask=place < count, other=0).to(tl.uint32)
    tl.store(noise + place, gumbel_from_words(high, low), mask=place < count)


def gumbel(high: Tensor, low: Tensor) -> Tensor:
    """Words, int64 [K] → noise, float32 [K]."""
    noise = torch.empty(high.shape, device=high.device)
    block = _BLOCK if high.is_cuda else triton.next_power_of_2(len(high))
    _gumbel_kernel[triton.cdiv(len(high), block),](high.contiguous(), low.contiguous(), noise, len(high), block)
    return noise


@triton.jit
def _races_kernel(
    logits: tl.tensor,
    temperature: tl.tensor,
    seed: tl.tensor,
    winners: tl.tensor,
    classes: tl.constexpr,
    block: tl.constexpr,
) -> None:
    event = tl.program_id(0) * block + tl.arange(0, block)
    number = tl.arange(0, classes)
    values = tl.broadcast_to(tl.load(logits + number)[None, :], (block, classes))
    highest = tl.max(values, 1)[:, None]
    one = tl.load(temperature)
    scores = perturbed(values, highest, one, seed, event.to(tl.int64)[:, None], number[None, :])
    first = tl.where(scores == tl.max(scores, 1)[:, None], number[None, :], classes)
    tl.store(winners + event, tl.min(first, 1))


def races(logits: Tensor, temperature: float, seed: int, events: int) -> Tensor:
    """Logits float32 [C], C a power of 2 → the winner of each event from 0 on, int64 [events], a multiple of 32."""
    winners = torch.empty(events, dtype=torch.int64, device=logits.device)
    block = _DRAWS if logits.is_cuda else events & -events
    temperatures = torch.tensor(temperature, dtype=torch.float64, device=logits.device)
    _races_kernel[events // block,](logits, temperatures, seed, winners, len(logits), block)
    return winners
