"""The head's product and the draw in one pass: no logits in memory but those of filtered rows."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from unmask_kernels.categorical import draw_on_gpu as draw_logits_on_gpu
from unmask_kernels.consistency import ClassTable, class_table
from unmask_kernels.draws import Drawn, Draws
from unmask_kernels.transfer import to_device
from unmask_kernels.triton.consistency import code_in_slots
from unmask_kernels.triton.linear import aligned, linear_in_tiles, product_of_tiles
from unmask_kernels.triton.philox import gumbel_from_words, random_words

_INFINITY = tl.constexpr(float("inf"))
_NO_CLASS = tl.constexpr(2**31 - 1)  # greater than every class
_COLDEST, _HOTTEST = tl.constexpr(2.0**-100), tl.constexpr(2.0**100)


class Tile(NamedTuple):
    """The part of the logits that one program computes, and how it runs. Never autotuned: `step` decides the bits."""

    classes: int
    rows: int
    share: int  # rows that get their noise together; a share without a row gets none
    step: int  # elements of the inner dimension that are multiplied at once
    warps: int
    stages: int

    def launch(self) -> dict[str, int]:
        """Return the arguments of a kernel that the tile decides."""
        sizes = {"tile_classes": self.classes, "tile_rows": self.rows, "share": self.share, "step": self.step}
        return {**sizes, "num_warps": self.warps, "num_stages": self.stages}


class Tiles(NamedTuple):
    """The tiles of the two kernels, chosen by the weight's dtype alone."""

    dense: Tile
    sparse: Tile


# In half precision the classes are the long side of a warp group's product, so 16 rows waste no tensor core; 72 and
# 60 KiB of shared memory leave room for three programs an SM: while one makes noise, others can read weights.
_HALF = Tiles(
    Tile(classes=128, rows=64, share=16, step=64, warps=4, stages=3),
    Tile(classes=64, rows=16, share=8, step=128, warps=4, stages=3),
)
_FLOAT32 = Tiles(
    Tile(classes=64, rows=64, share=64, step=32, warps=4, stages=3),
    Tile(classes=64, rows=16, share=16, step=32, warps=4, stages=3),
)
TILES = {torch.bfloat16: _HALF, torch.float16: _HALF, torch.float32: _FLOAT32}


class Head(NamedTuple):
    """The arguments of the head's product."""

    hidden: Tensor  # [N, H]
    weight: Tensor  # [C, H], of hidden's dtype
    bias: Tensor | None  # [C]


class Ordered(NamedTuple):
    """The rows sorted by pattern; the fields from `seeds` on are in the order of the rows themselves."""

    patterns: Tensor  # int64 [N], ascending; 0 where no digit is revealed
    order: Tensor  # int64 [N], the row at each place of the sorted rows
    seeds: Tensor  # int64 [N]
    events: Tensor  # int64 [N]
    temperatures: Tensor  # float64 [N]


class Winners(NamedTuple):
    """What each tile stores for each row."""

    highest: Tensor  # float32 [N, tiles]: the highest logit, +inf for NaN, -inf where there is no class
    scores: Tensor  # float32 [N, tiles]: (logit - highest) / temperature + noise of the winner
    classes: Tensor  # int32 [N, tiles]: the winner


def draw_on_gpu(
    hidden: Tensor,  # [N, H], any floating dtype; cast to the weight's
    weight: Tensor,  # [C, H], float32, bfloat16 or float16; products are added in float32, without TF32
    bias: Tensor | None,  # [C]
    codes: Tensor,  # int64 [C, l]
    draws: Draws,  # N rows
) -> Drawn:
    """Draw a class for every row.

    Rows without a revealed digit are multiplied with all classes, rows with some with their consistent classes alone.
    A tile subtracts its own highest logit, and the choice among tiles puts all on one scale: the README shows why that
    is accurate, and why a row's bits do not depend on the other rows. Temperatures outside 2**-100 … 2**100 count as
    these bounds; 0 is the lower one, without noise. NaN counts as +inf.

    If classes share a code or most codes name no class, all rows are drawn from logits in memory, as are rows with
    top_k, top_p or offsets.
    """
    head = Head(aligned(hidden.to(weight.dtype)), aligned(weight), None if bias is None else bias.contiguous())
    table = class_table(codes)
    if table is None:
        return _draw_by_logits(head, codes, draws)
    drawn = draw_in_tiles(head, table, draws)
    rows = draws.by_logits.nonzero()[:, 0]
    if len(rows):
        (places,) = to_device([rows], hidden.device)
        some = head._replace(hidden=head.hidden[places])
        drawn.classes[places], drawn.highest[places] = _draw_by_logits(some, codes, draws.take(rows))
    return drawn


def _draw_by_logits(head: Head, codes: Tensor, draws: Draws) -> Drawn:
    return draw_logits_on_gpu(linear_in_tiles(*head, dtype=torch.float32), codes, draws)


def draw_in_tiles(head: Head, table: ClassTable, draws: Draws) -> Drawn:
    """Draw rows without filters. Nothing waits for the device: no shape or grid depends on what is revealed."""
    (count, inner), (dense, sparse) = head.hidden.shape, TILES[head.weight.dtype]
    patterns, order = table.patterns(draws.revealed).sort(stable=True)
    begins = torch.searchsorted(patterns, patterns)
    each_row = patterns, order, draws.seeds, draws.events, draws.temperature, draws.revealed, begins
    *ordered, revealed, begins = map(aligned, to_device(each_row, head.hidden.device))
    rows = Ordered(*ordered)
    dense_tiles = triton.cdiv(len(head.weight), dense.classes)
    sparse_tiles = triton.cdiv(len(table.classes) // table.base, sparse.classes)
    width = max(dense_tiles, sparse_tiles)
    highest = head.hidden.new_full((count, width), -torch.inf, dtype=torch.float32)
    winners = Winners(highest, torch.empty_like(highest), torch.empty_like(highest, dtype=torch.int32))
    _dense_kernel[triton.cdiv(count, dense.rows), dense_tiles](
        *(head, rows, winners, count, len(head.weight), inner, width), **dense.launch()
    )
    _sparse_kernel[count, sparse_tiles](
        *(head, rows, winners, count, revealed, begins, table.classes, table.base, table.places, inner, width),
        **sparse.launch(),
    )
    drawn, top = torch.empty_like(rows.order), highest.new_empty(count)
    _row_winner_kernel[count,](winners, rows, drawn, top, width, triton.next_power_of_2(width))
    return Drawn(drawn, top)


@triton.jit(do_not_specialize=["rows", "count"])
def _dense_kernel(
    head: Head,
    rows: Ordered,
    winners: Winners,
    count: tl.tensor,
    classes: tl.tensor,
    inner: tl.constexpr,
    width: tl.constexpr,
    tile_classes: tl.constexpr,
    tile_rows: tl.constexpr,
    share: tl.constexpr,
    step: tl.constexpr,
) -> None:
    """Find the winners of a tile of all classes and of rows of pattern 0, which come first."""
    first, tile = tl.program_id(0) * tile_rows, tl.program_id(1)
    if tl.load(rows.patterns + first) != 0:
        return
    some = tile * tile_classes + tl.arange(0, tile_classes)
    some = tl.where(some < classes, some, -1)
    logits = _logits(head, rows, some, first, 0, count, inner, tile_rows, step)
    _store_winners(winners, logits, some, rows, first, 0, count, tile, width, share)


@triton.jit(do_not_specialize=["rows", "count", "revealed"])
def _sparse_kernel(
    head: Head,
    rows: Ordered,
    winners: Winners,
    count: tl.tensor,
    revealed: tl.tensor,  # int64 [N, places]
    begins: tl.tensor,  # int64 [N]: the first place of the pattern that has this place
    table: tl.tensor,  # int32 [base ** places]
    base: tl.constexpr,
    places: tl.constexpr,
    inner: tl.constexpr,
    width: tl.constexpr,
    tile_classes: tl.constexpr,
    tile_rows: tl.constexpr,
    share: tl.constexpr,
    step: tl.constexpr,
) -> None:
    """Find the winners of a tile of the classes that a pattern leaves, and of its rows from a place on."""
    first, tile = tl.program_id(0), tl.program_id(1)
    pattern = tl.load(rows.patterns + first)
    # Most programs have nothing to do: they belong to a dense row, or to a row in the middle of a tile.
    if (pattern == 0) | ((first - tl.load(begins + first)) % tile_rows != 0):
        return
    slots = tile * tile_classes + tl.arange(0, tile_classes)
    code, possible = code_in_slots(slots, revealed + tl.load(rows.order + first) * places, places, base)
    some = tl.load(table + code, mask=possible, other=-1)  # -1 for none
    # Or the pattern has too few classes for this tile.
    if tl.max(some, 0) < 0:
        return
    logits = _logits(head, rows, some, first, pattern, count, inner, tile_rows, step)
    _store_winners(winners, logits, some, rows, first, pattern, count, tile, width, share)


@triton.jit
def _rows_of(
    rows: Ordered, first: tl.tensor, pattern: tl.tensor, count: tl.tensor, many: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """Return the rows from a place on, int64 [many], and which of them have the pattern; row 0 stands for others."""
    place = first + tl.arange(0, many)
    ours = tl.load(rows.patterns + place, mask=place < count, other=-1) == pattern
    return tl.load(rows.order + place, mask=ours, other=0), ours


@triton.jit
def _logits(
    head: Head,
    rows: Ordered,
    some: tl.tensor,
    first: tl.tensor,
    pattern: tl.tensor,
    count: tl.tensor,
    inner: tl.constexpr,
    tile_rows: tl.constexpr,
    step: tl.constexpr,
) -> tl.tensor:
    """Return the logits of some classes int32 [A], float32 [A, tile_rows]: -inf for class -1, +inf for NaN."""
    row, _ = _rows_of(rows, first, pattern, count, tile_rows)
    known = tl.maximum(some, 0).to(tl.int64)
    logits = product_of_tiles(head.weight + known[:, None] * inner, head.hidden + row[None, :] * inner, inner, step)
    if head.bias is not None:
        logits += tl.load(head.bias + known).to(tl.float32)[:, None]
    logits = tl.where(logits == logits, logits, _INFINITY)
    return tl.where((some < 0)[:, None], -_INFINITY, logits)


@triton.jit
def _store_winners(
    winners: Winners,
    logits: tl.tensor,
    some: tl.tensor,
    rows: Ordered,
    first: tl.tensor,
    pattern: tl.tensor,
    count: tl.tensor,
    tile: tl.tensor,
    width: tl.constexpr,
    share: tl.constexpr,
) -> None:
    """Store the winner among some classes [A] for each row of logits [A, B], a share of the rows at a time."""
    shares: tl.constexpr = logits.shape[1] // share
    split = tl.reshape(logits, (logits.shape[0], shares, share))
    for one in range(shares):
        place = first + one * share
        if tl.load(rows.patterns + place, mask=place < count, other=-1) == pattern:
            row, ours = _rows_of(rows, place, pattern, count, share)
            part = tl.sum(tl.where(tl.arange(0, shares)[None, :, None] == one, split, 0.0), 1)
            highest, score, winner = _winners_of(part, some, rows, row)
            at = row * width + tile
            tl.store(winners.highest + at, highest, mask=ours)
            tl.store(winners.scores + at, score, mask=ours)
            tl.store(winners.classes + at, winner, mask=ours)


@triton.jit
def _winners_of(
    logits: tl.tensor, some: tl.tensor, rows: Ordered, row: tl.tensor
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Return the highest of logits [A, B] in each column, the winner's score relative to it, and the winner."""
    temperature = tl.load(rows.temperatures + row)
    inverse = 1.0 / tl.minimum(tl.maximum(temperature, _COLDEST), _HOTTEST).to(tl.float32)
    seed, event = tl.load(rows.seeds + row), tl.load(rows.events + row)
    noise = gumbel_from_words(*random_words(seed[None, :], event[None, :], some[:, None]))
    highest = tl.max(logits, 0)
    origin = tl.where(tl.abs(highest) < _INFINITY, highest, 0.0)
    scores = (logits - origin[None, :]) * inverse[None, :] + tl.where(temperature[None, :] > 0, noise, 0.0)
    score = tl.max(scores, 0)
    winner = tl.min(tl.where(scores == score[None, :], some[:, None], _NO_CLASS), 0)
    return highest, score, winner


@triton.jit(do_not_specialize=["rows"])
def _row_winner_kernel(
    winners: Winners, rows: Ordered, drawn: tl.tensor, top: tl.tensor, width: tl.constexpr, block: tl.constexpr
) -> None:
    """Find the winner of a row among those of its tiles, and the row's highest logit."""
    row = tl.program_id(0).to(tl.int64)
    tile = tl.arange(0, block)
    highest = tl.load(winners.highest + row * width + tile, mask=tile < width, other=-_INFINITY)
    exists = highest > -_INFINITY
    score = tl.load(winners.scores + row * width + tile, mask=exists, other=0)
    winner = tl.load(winners.classes + row * width + tile, mask=exists, other=_NO_CLASS)
    best = tl.max(highest, 0)
    finite = tl.abs(best) < _INFINITY
    origin = tl.where(finite, best, 0.0).to(tl.float64)
    temperature = tl.minimum(tl.maximum(tl.load(rows.temperatures + row), _COLDEST), _HOTTEST)
    scores = (highest.to(tl.float64) - origin) / temperature + score
    chosen = tl.min(tl.where(exists & (scores == tl.max(scores, 0)), winner, _NO_CLASS), 0)
    tl.store(drawn + row, tl.where(finite, chosen, -1).to(tl.int64))
    tl.store(top + row, best)
