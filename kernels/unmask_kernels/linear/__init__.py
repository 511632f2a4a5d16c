"""Matrix products that give a row the same bits whatever the batch."""

from unmask_kernels.linear.reference import TILE, fixed_tile_linear

__all__ = ["TILE", "fixed_tile_linear"]
