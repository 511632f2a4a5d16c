"""The product in fixed tiles: right, and with bits that know nothing of the batch."""

import pytest
import torch
from torch import Tensor
from unmask_kernels import fixed_tile_linear
from unmask_kernels.triton.linear import TILES, linear_in_tiles

pytestmark = pytest.mark.triton

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# outputs and inputs: smaller than a tile, no multiple of anything, whole tiles, and many steps
SHAPES = [(1, 1), (77, 33), (144, 48), (128, 64), (500, 24), (33, 768)]
# how far the result's dtype moves a number; the interpreter cuts bfloat16 off where a GPU rounds it
UNIT = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-11}


def layer(rows: int, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    outputs, inputs = shape
    sizes = ((rows, inputs), (outputs, inputs), (outputs,))
    x, weight, bias = (torch.randn(*size, generator=generator).to(dtype).to(device) for size in sizes)
    return x, weight, bias


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rows", [0, 1, 17, 130])
def test_is_the_product(rows: int, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> None:
    """As near as sums in float32 come: of all orders none is further off than (K + 2) roundings of the magnitudes."""
    x, weight, bias = layer(rows, shape, dtype, device)
    exact = x.double() @ weight.double().T
    magnitude = x.double().abs() @ weight.double().abs().T + bias.double().abs()
    room = (shape[1] + 2) * 2.0**-24 * magnitude
    wide = linear_in_tiles(x, weight, bias, torch.float32)
    assert wide.dtype == torch.float32
    assert bool(((wide - (exact + bias.double())).abs() <= room).all())
    narrow = linear_in_tiles(x, weight)
    assert narrow.dtype == dtype
    assert bool(((narrow.double() - exact).abs() <= room + UNIT[dtype] * exact.abs() + 2.0**-24).all())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(77, 33), (144, 48), (33, 193)], ids=str)
def test_a_row_does_not_know_the_batch(shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> None:
    x, weight, bias = layer(150, shape, dtype, device)
    together = linear_in_tiles(x, weight, bias)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(1)).to(device)
    assert torch.equal(linear_in_tiles(x[order], weight, bias), together[order])
    for rows in (1, 2, 17, 64):
        for start in (0, 1, 150 - rows):
            # a view: its address has no alignment that the whole has
            part = linear_in_tiles(x[start : start + rows], weight, bias)
            assert torch.equal(part, together[start : start + rows]), (rows, start)


def test_a_row_does_not_see_its_neighbours(device: torch.device) -> None:
    x, weight, bias = layer(5, (77, 33), torch.float32, device)
    poisoned = x.clone()
    poisoned[[0, 4]] = torch.nan
    found = linear_in_tiles(poisoned, weight, bias)
    assert torch.equal(found[1:4], linear_in_tiles(x, weight, bias)[1:4])
    assert bool(found[[0, 4]].isnan().all())


def test_arguments_that_are_not_contiguous(device: torch.device) -> None:
    x, weight, bias = layer(17, (77, 33), torch.float32, device)
    assert torch.equal(linear_in_tiles(x.T.contiguous().T, weight[:, :], bias), linear_in_tiles(x, weight, bias))
    assert torch.equal(
        linear_in_tiles(x[:, ::2], weight[::3, ::2], bias[::3]),
        linear_in_tiles(x[:, ::2].contiguous(), weight[::3, ::2].contiguous(), bias[::3].contiguous()),
    )


def test_is_what_a_gpu_computes(device: torch.device) -> None:
    """And what it doesn't take goes another way."""
    x, weight, bias = layer(17, (77, 33), torch.float32, device)
    assert torch.equal(fixed_tile_linear(x, weight, bias), linear_in_tiles(x, weight, bias))
    assert torch.float64 not in TILES
    exact = x.double() @ weight.double().T + bias.double()
    assert torch.allclose(fixed_tile_linear(x.double(), weight.double(), bias.double()), exact, rtol=1e-12)
