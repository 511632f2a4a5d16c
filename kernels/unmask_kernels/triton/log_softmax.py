"""The consistent log-softmax as Triton kernels: consistent logits are read once to add up, once to write."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from unmask_kernels.consistency import code_facts
from unmask_kernels.triton.consistency import agrees, consistent_in_slots

_TILE = 1024
# One binary for all batches: where a row begins must not decide how a sum is laid out among threads.
_NOT_SPECIALIZED = ["logits", "stride", "revealed"]


@triton.jit(do_not_specialize=_NOT_SPECIALIZED)
def _sums_kernel(
    logits: tl.tensor,  # [N, C]
    stride: tl.tensor,
    revealed: tl.tensor,  # int64 [N, length]
    codes: tl.tensor,  # int64 [C, length]
    peaks: tl.tensor,  # → float32 [N, tiles]: the highest consistent logit, NaN counting as +inf
    sums: tl.tensor,  # → float32 [N, tiles]: of exp(logit - peak)
    classes: tl.tensor,
    largest: tl.tensor,
    length: tl.constexpr,
    base: tl.constexpr,
    tile: tl.constexpr,
) -> None:
    """Compute the two numbers of the online softmax for a tile of a row's slots."""
    row = tl.program_id(0).to(tl.int64)
    slots = tl.program_id(1) * tile + tl.arange(0, tile)
    found, consistent = consistent_in_slots(slots, revealed + row * length, codes, classes, largest, length, base)
    values = tl.load(logits + row * stride + found, mask=consistent, other=-float("inf")).to(tl.float32)
    values = tl.where(values == values, values, float("inf"))
    peak = tl.max(values, 0)
    offset = row * tl.num_programs(1) + tl.program_id(1)
    tl.store(peaks + offset, peak)
    tl.store(sums + offset, tl.sum(tl.exp(values - tl.where(peak == -float("inf"), 0.0, peak)), 0))


@triton.jit(do_not_specialize=_NOT_SPECIALIZED)
def _write_kernel(
    logits: tl.tensor,  # [N, C]
    stride: tl.tensor,
    revealed: tl.tensor,  # int64 [N, length]
    codes: tl.tensor,  # int64 [C, length]
    peaks: tl.tensor,  # float32 [N, tiles]
    sums: tl.tensor,  # float32 [N, tiles]
    result: tl.tensor,  # → float32 [N, C]
    classes: tl.tensor,
    largest: tl.tensor,
    length: tl.constexpr,
    base: tl.constexpr,
    tile: tl.constexpr,
    tiles: tl.constexpr,
    block: tl.constexpr,  # a power of 2, at least `tiles`
) -> None:
    """Write a tile of the result; every program adds up the row's few sums for itself."""
    row = tl.program_id(0).to(tl.int64)
    number = tl.arange(0, block)
    tops = tl.load(peaks + row * tiles + number, mask=number < tiles, other=-float("inf"))
    parts = tl.load(sums + row * tiles + number, mask=number < tiles, other=0.0)
    peak = tl.max(tops, 0)
    empty = peak == -float("inf")
    peak = tl.where(empty, 0.0, peak)
    total = tl.sum(parts * tl.exp(tops - peak), 0)  # NaN if the peak is +inf
    log_total = tl.where(empty, 0.0, tl.log(total))
    column = tl.program_id(1) * tile + tl.arange(0, tile)
    consistent = agrees(column, revealed + row * length, codes, classes, largest, length, base)
    values = tl.load(logits + row * stride + column, mask=consistent, other=0.0).to(tl.float32)
    values = tl.where(consistent, values - peak - log_total, -float("inf"))
    tl.store(result + row * classes + column, values, mask=column < classes)


def log_softmax_in_tiles(logits: Tensor, revealed: Tensor, codes: Tensor) -> Tensor:
    """Return `consistent_log_softmax` for float32, bfloat16 or float16 logits [N, C] on a GPU: float32 [N, C].

    A row's bits depend on that row alone: tiles are cut by C, not by N.
    """
    logits = logits if logits.stride(1) == 1 else logits.contiguous()
    count, classes = logits.shape
    tile = min(_TILE, triton.next_power_of_2(classes))
    tiles = triton.cdiv(classes, tile)
    largest, base = code_facts(codes)
    peaks, sums = torch.empty(2, count, tiles, device=logits.device).unbind()
    result = torch.empty(count, classes, device=logits.device)
    rows = logits, logits.stride(0), revealed.contiguous(), codes.contiguous(), peaks, sums
    facts = classes, largest, codes.shape[1], base, tile
    if count:
        _sums_kernel[count, tiles](*rows, *facts)
        _write_kernel[count, tiles](*rows, result, *facts, tiles, triton.next_power_of_2(tiles))
    return result
