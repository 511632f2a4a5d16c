"""Matrix products that give a row the same bits whatever the batch."""

from torch import Tensor

from unmask_kernels import dispatch
from unmask_kernels.linear import reference
from unmask_kernels.linear.reference import TILE


def fixed_tile_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `x @ weight.T + bias`; a row's bits don't depend on the other rows, nor on how many there are.

    Args:
        x: [M, K], any floating dtype.
        weight: [N, K], of x's dtype.
        bias: [N] or None.

    Returns:
        [M, N], of x's dtype.
    """
    if dispatch.by_triton(x):
        from unmask_kernels.linear.triton import linear_in_tiles  # Triton is where GPUs are

        return linear_in_tiles(x, weight, bias)
    return reference.fixed_tile_linear(x, weight, bias)


__all__ = ["TILE", "fixed_tile_linear"]
