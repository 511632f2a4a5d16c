"""Matrix products that give a row the same bits whatever the batch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask_kernels import dispatch

TILE = 64
# Rows begin at multiples of so many bytes: others would have another alignment in another place.
_ALIGNMENT = 16


def fixed_tile_linear(
    x: Tensor,  # [M, K], any floating dtype
    weight: Tensor,  # [N, K], of x's dtype
    bias: Tensor | None = None,  # [N]
) -> Tensor:
    """Return `x @ weight.T + bias`, [M, N] of x's dtype; a row's bits do not depend on the other rows."""
    if dispatch.by_triton(x):
        from unmask_kernels.triton.linear import linear_in_tiles  # only CUDA builds of torch bring Triton

        return linear_in_tiles(x, weight, bias)
    return fixed_tile_linear_reference(x, weight, bias)


def fixed_tile_linear_reference(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return what `fixed_tile_linear` does; a row's bits do not depend on its place either.

    Libraries pick another kernel, which adds in another order, for few rows and for rows at odd addresses: so x is
    padded. On a GPU the choice depends on larger counts too: there every product has exactly TILE rows.
    """
    if x.device.type == "cpu" and x.dtype == torch.bfloat16 and not dispatch.CPU_HAS_BFLOAT16:
        wide = fixed_tile_linear_reference(x.float(), weight.float(), None if bias is None else bias.float())
        return wide.to(x.dtype)
    filled, weight = padded(x, weight)
    if x.device.type == "cpu" or len(filled) == TILE:
        return F.linear(filled, weight, bias)[: len(x)]
    return torch.cat([F.linear(tile, weight, bias) for tile in filled.split(TILE)])[: len(x)]


def padded(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Pad x [M, K] with zeros to a multiple of TILE rows, and the rows of it and of weight [N, K] to 16 bytes."""
    rows, inner = -len(x) % TILE, -x.shape[1] % (_ALIGNMENT // x.element_size())
    filled = F.pad(x, (0, inner, 0, rows)) if rows or inner else x
    return filled, F.pad(weight, (0, inner)) if inner else weight
