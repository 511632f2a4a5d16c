"""A matrix product whose rows don't know how many they are."""

import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 64


def fixed_tile_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `x @ weight.T + bias`; a row's bits don't depend on the other rows, nor on how many there are.

    Libraries pick another kernel for few rows, and another kernel adds in another order. So the rows are filled
    up with zeros to a multiple of TILE. On a GPU the choice depends on larger counts too: there every product
    has exactly TILE rows.

    Args:
        x: [M, K].
        weight: [N, K], of x's dtype.
        bias: [N] or None.

    Returns:
        [M, N].
    """
    missing = -len(x) % TILE
    padded = torch.cat([x, x.new_zeros(missing, x.shape[1])]) if missing else x
    if x.device.type == "cpu" or len(padded) == TILE:
        return F.linear(padded, weight, bias)[: len(x)]
    return torch.cat([F.linear(tile, weight, bias) for tile in padded.split(TILE)])[: len(x)]
