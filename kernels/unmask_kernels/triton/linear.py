"""The matrix product in tiles that are the same for one row as for ten thousand."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

# Triton compiles another binary for addresses that are not multiples of so many bytes.
_ALIGNMENT = 16
# The interpreter multiplies bfloat16 words as integers; float32 ones have the same exact products.
_INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


class Tile(NamedTuple):
    """The part of the product that one program computes, and how it runs. Never autotuned: `step` decides the bits."""

    rows: int
    columns: int
    step: int
    warps: int
    stages: int


# Chosen by the dtype alone. Half precision feeds the tensor cores (two warp groups of Hopper, 96 KiB of shared memory,
# so two programs an SM); float32 without TF32 runs on the other cores, where a greater tile would spill.
TILES = {
    torch.bfloat16: Tile(rows=128, columns=128, step=64, warps=8, stages=3),
    torch.float16: Tile(rows=128, columns=128, step=64, warps=8, stages=3),
    torch.float32: Tile(rows=64, columns=64, step=32, warps=4, stages=3),
}


def linear_in_tiles(
    x: Tensor,  # [M, K], float32, bfloat16 or float16
    weight: Tensor,  # [N, K], of x's dtype
    bias: Tensor | None = None,  # [N], any of these dtypes; added in float32
    dtype: torch.dtype | None = None,  # of the result; x's if None
) -> Tensor:
    """Return `x @ weight.T + bias`, [M, N]; a row's bits do not depend on the other rows, nor on how many there are.

    Every output element is one program's sum over K in steps of `TILES[x.dtype].step`, first to last, in one float32
    accumulator: no split of K, no atomics, and no choice or compilation by M.
    """
    tile = TILES[x.dtype]
    (rows, inner), columns = x.shape, len(weight)
    x, weight, bias = aligned(x), aligned(weight), None if bias is None else bias.contiguous()
    y = x.new_empty(rows, columns, dtype=dtype)
    if y.numel():
        # columns go fastest: programs that run together share their rows of x, and the weight stays in L2
        grid = (triton.cdiv(columns, tile.columns), triton.cdiv(rows, tile.rows))
        _linear_kernel[grid](
            *(x, weight, bias, y, rows, columns, inner),
            tile_rows=tile.rows,
            tile_columns=tile.columns,
            step=tile.step,
            num_warps=tile.warps,
            num_stages=tile.stages,
        )
    return y


def aligned(x: Tensor) -> Tensor:
    """Return x contiguous and at an aligned address, so that one binary serves every batch."""
    x = x.contiguous()
    return x if x.data_ptr() % _ALIGNMENT == 0 else x.clone()


@triton.jit
def product_of_tiles(
    a_rows: tl.tensor,  # pointers to the first elements of A rows, [A, 1]
    b_rows: tl.tensor,  # the same of B rows, [1, B]; unused rows may point to any row that exists
    inner: tl.constexpr,  # number of elements of a row
    step: tl.constexpr,  # a power of two; the only thing that decides the order of the sum
) -> tl.tensor:
    """Return the float32 sums over k of a[i, k] * b[j, k], [A, B], in steps of step, first to last."""
    total = tl.zeros((a_rows.shape[0], b_rows.shape[1]), tl.float32)
    for start in range(0, inner, step):
        k = start + tl.arange(0, step)
        a = tl.load(a_rows + k[None, :], mask=k[None, :] < inner, other=0)
        b = tl.load(b_rows + k[:, None], mask=k[:, None] < inner, other=0)
        if _INTERPRETED:
            a, b = a.to(tl.float32), b.to(tl.float32)
        total = tl.dot(a, b, total, input_precision="ieee")
    return total


@triton.jit(do_not_specialize=["rows"])
def _linear_kernel(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor | None,
    y: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    inner: tl.constexpr,
    tile_rows: tl.constexpr,
    tile_columns: tl.constexpr,
    step: tl.constexpr,
) -> None:
    row = tl.program_id(1).to(tl.int64) * tile_rows + tl.arange(0, tile_rows)
    column = tl.program_id(0).to(tl.int64) * tile_columns + tl.arange(0, tile_columns)
    x_rows = x + tl.minimum(row, rows - 1)[:, None] * inner
    weight_rows = weight + tl.minimum(column, columns - 1)[None, :] * inner
    total = product_of_tiles(x_rows, weight_rows, inner, step)
    if bias is not None:
        total += tl.load(bias + column, mask=column < columns, other=0).to(tl.float32)[None, :]
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    tl.store(y + row[:, None] * columns + column[None, :], total.to(y.dtype.element_ty), mask=inside)
