"""The draw as Triton kernels: every tile of a row nominates a class, and the nominees meet once more."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from unmask_kernels.consistency import code_facts
from unmask_kernels.consistency_triton import candidates
from unmask_kernels.philox.triton import random_words

_TILE = 1024


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
def perturbed(
    logits: tl.tensor,
    highest: tl.tensor,
    temperature: tl.tensor,
    seed: tl.tensor,
    event: tl.tensor,
    classes: tl.tensor,
) -> tl.tensor:
    """Return (logits - highest) / temperature + noise, float32 in the shape of classes; at temperature 0 no noise.

    Args:
        logits: float32, in the shape of the result.
        highest: float32, what to subtract first: near 0 the sum with the noise is exact.
        temperature: float64, a scalar. Beyond 2**±126 it is as good as these.
        seed: int64, a scalar.
        event: int64, a scalar.
        classes: int32.
    """
    scores = logits - highest
    if temperature > 0:
        bounded = tl.minimum(tl.maximum(temperature, 2.0**-126), 2.0**126)
        # a step of Newton's from float32 to float64: exact division costs as much as the noise of many classes
        rough = (1.0 / bounded.to(tl.float32)).to(tl.float64)
        inverse = (rough + rough * (1.0 - bounded * rough)).to(tl.float32)
        high, low = random_words(seed, event, classes)
        scores = scores * inverse + gumbel_from_words(high, low)
    return scores


# One binary for all batches. `classes` too: Triton makes a constant of 1, which no branch may then overwrite.
_A_ROW = ["logits", "stride", "revealed", "seeds", "events", "temperatures", "classes"]


@triton.jit(do_not_specialize=_A_ROW)
def _nominate_kernel(
    logits: tl.tensor,  # [N, C]
    stride: tl.tensor,
    seeds: tl.tensor,  # int64 [N]
    events: tl.tensor,  # int64 [N]
    temperatures: tl.tensor,  # float64 [N]
    nominees: tl.tensor,  # → int32 [N, tiles]: C where a tile has none
    peaks: tl.tensor,  # → float32 [N, tiles]: the highest consistent logit, NaN counting as +inf
    revealed: tl.tensor,  # int64 [N, length]
    codes: tl.tensor,  # int64 [C, length]
    classes: tl.tensor,
    largest: tl.tensor,
    length: tl.constexpr,
    base: tl.constexpr,
    tile: tl.constexpr,
) -> None:
    """The winner of each tile of a row's slots, and the tile's highest logit."""
    row = tl.program_id(0).to(tl.int64)
    slots = tl.program_id(1) * tile + tl.arange(0, tile)
    found, consistent = candidates(slots, revealed + row * length, codes, classes, largest, length, base)
    values = tl.load(logits + row * stride + found, mask=consistent, other=-float("inf")).to(tl.float32)
    values = tl.where(values == values, values, float("inf"))
    peak = tl.max(values, 0)
    nominee = classes
    if peak > -float("inf"):
        temperature = tl.load(temperatures + row)
        scores = perturbed(values, peak, temperature, tl.load(seeds + row), tl.load(events + row), found)
        nominee = tl.min(tl.where(scores == tl.max(scores, 0), found, classes), 0)
    place = row * tl.num_programs(1) + tl.program_id(1)
    tl.store(nominees + place, nominee)
    tl.store(peaks + place, peak)


@triton.jit(do_not_specialize=_A_ROW)
def _elect_kernel(
    logits: tl.tensor,  # [N, C]
    stride: tl.tensor,
    seeds: tl.tensor,  # int64 [N]
    events: tl.tensor,  # int64 [N]
    temperatures: tl.tensor,  # float64 [N]
    nominees: tl.tensor,  # int32 [N, tiles]
    peaks: tl.tensor,  # float32 [N, tiles]
    drawn: tl.tensor,  # → int64 [N]: -1 where the highest logit is not finite
    highest: tl.tensor,  # → float32 [N]
    classes: tl.tensor,
    tiles: tl.constexpr,
    block: tl.constexpr,  # a power of 2, at least `tiles`
) -> None:
    """The winner among a row's nominees, all measured against the row's highest logit."""
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, block)
    peak = tl.max(tl.load(peaks + row * tiles + place, mask=place < tiles, other=-float("inf")), 0)
    found = tl.load(nominees + row * tiles + place, mask=place < tiles, other=classes)
    values = tl.load(logits + row * stride + found, mask=found < classes, other=-float("inf")).to(tl.float32)
    temperature = tl.load(temperatures + row)
    scores = perturbed(values, peak, temperature, tl.load(seeds + row), tl.load(events + row), found)
    winner = tl.min(tl.where(scores == tl.max(scores, 0), found, classes), 0)
    finite = (peak > -float("inf")) & (peak < float("inf"))
    tl.store(drawn + row, tl.where(finite, winner, -1).to(tl.int64))
    tl.store(highest + row, peak)


def draw_in_tiles(
    logits: Tensor, revealed: Tensor, codes: Tensor, seeds: Tensor, events: Tensor, temperature: Tensor
) -> tuple[Tensor, Tensor]:
    """Draw a class for every row, in float32 and without top_k and top_p: two launches, no synchronisation.

    Args:
        logits: float32, bfloat16 or float16 [N, C].
        revealed: int64 [N, l].
        codes: int64 [C, l]. The first draw with a table waits for the device; the table must not change.
        seeds: int64 [N].
        events: int64 [N].
        temperature: float64 [N].

    Returns:
        classes, int64 [N], and the highest consistent logit of each row, float32 [N], +inf for NaN: where this is
        not finite the class is -1.
    """
    logits = logits if logits.stride(1) == 1 else logits.contiguous()
    count, classes = logits.shape
    tile = min(_TILE, triton.next_power_of_2(classes))
    tiles = triton.cdiv(classes, tile)
    nominees = torch.empty(count, tiles, dtype=torch.int32, device=logits.device)
    peaks = torch.empty(count, tiles, device=logits.device)
    drawn, highest = torch.empty(count, dtype=torch.int64, device=logits.device), torch.empty_like(peaks[:, 0])
    revealed, seeds, events, temperature = (each.contiguous() for each in (revealed, seeds, events, temperature))
    largest, base = code_facts(codes)
    facts = classes, largest, codes.shape[1], base, tile
    if count:
        rows = logits, logits.stride(0), seeds, events, temperature, nominees, peaks
        _nominate_kernel[count, tiles](*rows, revealed, codes.contiguous(), *facts)
        _elect_kernel[count,](*rows, drawn, highest, classes, tiles, triton.next_power_of_2(tiles))
    return drawn, highest
