"""Does this machine keep the promise? Libraries change with the processor, the threads and the version."""

from collections.abc import Iterable

import torch
from torch import Tensor

from unmask_kernels.linear.reference import TILE, fixed_tile_linear

_FEW = (1, 2, 3, 5, 7, 17)
_MANY = 2 * TILE + 9


def promise_holds(
    shapes: Iterable[tuple[int, int]], dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> bool:
    """Say whether `fixed_tile_linear` gives rows the same bits alone and among others, on this machine.

    Args:
        shapes: (K, N) of the products that a model makes.
        dtype: of the products.
        device: where they are made.
    """
    return all(_holds(inputs, outputs, dtype, device) for inputs, outputs in set(shapes))


def _holds(inputs: int, outputs: int, dtype: torch.dtype, device: torch.device | str) -> bool:
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device, dtype)

    x, weight, bias = noise(_MANY, inputs), noise(outputs, inputs), noise(outputs)
    together = fixed_tile_linear(x, weight, bias)
    places = [(start, count) for count in _FEW for start in (0, _MANY - count)]
    return all(
        torch.equal(fixed_tile_linear(x[start : start + count], weight, bias), together[start : start + count])
        for start, count in places
    )
