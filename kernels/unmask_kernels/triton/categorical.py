"""The draw as Triton kernels: the winner of each tile of a row, then the winner among these."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from unmask_kernels.consistency import code_facts
from unmask_kernels.draws import Drawn, Draws
from unmask_kernels.triton.consistency import consistent_in_slots
from unmask_kernels.triton.philox import gumbel_from_words, random_words

_TILE = 1024


@triton.jit
def perturbed(
    logits: tl.tensor,  # float32, in the shape of classes
    highest: tl.tensor,  # float32, subtracted first: near 0 the sum with the noise is exact
    temperature: tl.tensor,  # float64, a scalar. Beyond 2**±126 it counts as these bounds.
    seed: tl.tensor,  # int64, a scalar
    event: tl.tensor,  # int64, a scalar
    classes: tl.tensor,  # int32
) -> tl.tensor:
    """Return (logits - highest) / temperature + noise, float32 in the shape of classes; at temperature 0 no noise."""
    scores = logits - highest
    if temperature > 0:
        bounded = tl.minimum(tl.maximum(temperature, 2.0**-126), 2.0**126)
        # one Newton step from float32 to float64: exact division costs as much as the noise of many classes
        rough = (1.0 / bounded.to(tl.float32)).to(tl.float64)
        inverse = (rough + rough * (1.0 - bounded * rough)).to(tl.float32)
        high, low = random_words(seed, event, classes)
        scores = scores * inverse + gumbel_from_words(high, low)
    return scores


# One binary for all batches. `classes` too: Triton makes 1 a constant, which no branch may then overwrite.
_NOT_SPECIALIZED = ["logits", "stride", "revealed", "seeds", "events", "temperatures", "classes"]


@triton.jit(do_not_specialize=_NOT_SPECIALIZED)
def _tile_winner_kernel(
    logits: tl.tensor,  # [N, C]
    stride: tl.tensor,
    seeds: tl.tensor,  # int64 [N]
    events: tl.tensor,  # int64 [N]
    temperatures: tl.tensor,  # float64 [N]
    tile_winners: tl.tensor,  # → int32 [N, tiles]: C where a tile has none
    peaks: tl.tensor,  # → float32 [N, tiles]: the highest consistent logit, NaN counting as +inf
    revealed: tl.tensor,  # int64 [N, length]
    codes: tl.tensor,  # int64 [C, length]
    classes: tl.tensor,
    largest: tl.tensor,
    length: tl.constexpr,
    base: tl.constexpr,
    tile: tl.constexpr,
) -> None:
    """Find the winner of a tile of a row's slots, and the tile's highest logit."""
    row = tl.program_id(0).to(tl.int64)
    slots = tl.program_id(1) * tile + tl.arange(0, tile)
    found, consistent = consistent_in_slots(slots, revealed + row * length, codes, classes, largest, length, base)
    values = tl.load(logits + row * stride + found, mask=consistent, other=-float("inf")).to(tl.float32)
    values = tl.where(values == values, values, float("inf"))
    peak = tl.max(values, 0)
    winner = classes
    if peak > -float("inf"):
        temperature = tl.load(temperatures + row)
        scores = perturbed(values, peak, temperature, tl.load(seeds + row), tl.load(events + row), found)
        winner = tl.min(tl.where(scores == tl.max(scores, 0), found, classes), 0)
    offset = row * tl.num_programs(1) + tl.program_id(1)
    tl.store(tile_winners + offset, winner)
    tl.store(peaks + offset, peak)


@triton.jit(do_not_specialize=_NOT_SPECIALIZED)
def _row_winner_kernel(
    logits: tl.tensor,  # [N, C]
    stride: tl.tensor,
    seeds: tl.tensor,  # int64 [N]
    events: tl.tensor,  # int64 [N]
    temperatures: tl.tensor,  # float64 [N]
    tile_winners: tl.tensor,  # int32 [N, tiles]
    peaks: tl.tensor,  # float32 [N, tiles]
    drawn: tl.tensor,  # → int64 [N]: -1 where the highest logit is not finite
    highest: tl.tensor,  # → float32 [N]
    classes: tl.tensor,
    tiles: tl.constexpr,
    block: tl.constexpr,  # a power of 2, at least `tiles`
) -> None:
    """Find the winner of a row among those of its tiles, with all scores relative to the row's highest logit."""
    row = tl.program_id(0).to(tl.int64)
    number = tl.arange(0, block)
    peak = tl.max(tl.load(peaks + row * tiles + number, mask=number < tiles, other=-float("inf")), 0)
    found = tl.load(tile_winners + row * tiles + number, mask=number < tiles, other=classes)
    values = tl.load(logits + row * stride + found, mask=found < classes, other=-float("inf")).to(tl.float32)
    temperature = tl.load(temperatures + row)
    scores = perturbed(values, peak, temperature, tl.load(seeds + row), tl.load(events + row), found)
    winner = tl.min(tl.where(scores == tl.max(scores, 0), found, classes), 0)
    finite = (peak > -float("inf")) & (peak < float("inf"))
    tl.store(drawn + row, tl.where(finite, winner, -1).to(tl.int64))
    tl.store(highest + row, peak)


def draw_in_tiles(logits: Tensor, codes: Tensor, draws: Draws) -> Drawn:
    """Draw a class for every row of float32, bfloat16 or float16 logits [N, C], in float32 and without top_k and top_p.

    This takes two launches and no synchronisation, but the first draw with codes [C, l] waits for the device; the codes
    must not change. `highest` is float32, +inf for NaN.
    """
    logits = logits if logits.stride(1) == 1 else logits.contiguous()
    count, classes = logits.shape
    tile = min(_TILE, triton.next_power_of_2(classes))
    tiles = triton.cdiv(classes, tile)
    tile_winners = torch.empty(count, tiles, dtype=torch.int32, device=logits.device)
    peaks = torch.empty(count, tiles, device=logits.device)
    drawn, highest = torch.empty(count, dtype=torch.int64, device=logits.device), torch.empty_like(peaks[:, 0])
    each_row = (part.contiguous() for part in (draws.seeds, draws.events, draws.temperature))
    largest, base = code_facts(codes)
    facts = classes, largest, codes.shape[1], base, tile
    if count:
        rows = logits, logits.stride(0), *each_row, tile_winners, peaks
        _tile_winner_kernel[count, tiles](*rows, draws.revealed.contiguous(), codes.contiguous(), *facts)
        _row_winner_kernel[count,](*rows, drawn, highest, classes, tiles, triton.next_power_of_2(tiles))
    return Drawn(drawn, highest)
