"""A matrix product whose rows don't know how many they are."""

import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 64
# Rows begin at multiples of so many bytes: others would have another alignment in another place.
_ALIGNMENT = 16


def fixed_tile_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `x @ weight.T + bias`; a row's bits don't depend on the other rows, on its place or on how many there are.

    Libraries pick another kernel for few rows, and another kernel adds in another order; so they do for rows that
    begin at odd addresses. So `filled_up` is multiplied. On a GPU the choice depends on larger counts too: there every
    product has exactly TILE rows.

    Args:
        x: [M, K].
        weight: [N, K], of x's dtype.
        bias: [N] or None.

    Returns:
        [M, N].
    """
    filled, weight = filled_up(x, weight)
    if x.device.type == "cpu" or len(filled) == TILE:
        return F.linear(filled, weight, bias)[: len(x)]
    return torch.cat([F.linear(tile, weight, bias) for tile in filled.split(TILE)])[: len(x)]


def filled_up(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Fill x [M, K] up with zeros to a multiple of TILE rows, and the rows of it and of weight [N, K] to 16 bytes."""
    rows, inner = -len(x) % TILE, -x.shape[1] % (_ALIGNMENT // x.element_size())
    filled = F.pad(x, (0, inner, 0, rows)) if rows or inner else x
    return filled, F.pad(weight, (0, inner)) if inner else weight
