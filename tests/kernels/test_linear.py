import pytest
import torch
from unmask_kernels import dispatch, fixed_tile_linear

DTYPES = [torch.float32, torch.bfloat16]
SHAPES = [(48, 144), (33, 77), (256, 768), (256, 4096)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_a_row_does_not_know_the_batch(inputs: int, outputs: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(inputs)
    x = torch.randn(300, inputs, generator=generator).to(dtype)
    weight = torch.randn(outputs, inputs, generator=generator).to(dtype)
    bias = torch.randn(outputs, generator=generator).to(dtype)
    together = fixed_tile_linear(x, weight, bias)
    for rows in (1, 2, 3, 5, 7, 17, 63, 64, 65, 130):
        for start in (0, 1, 64, 300 - rows):
            part = fixed_tile_linear(x[start : start + rows].clone(), weight, bias)
            assert torch.equal(part, together[start : start + rows]), (rows, start)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
@pytest.mark.parametrize(("inputs", "outputs"), [(5, 5), (10, 10), (33, 6), (33, 77), (50, 8), (192, 77)])
def test_a_row_does_not_know_its_place(inputs: int, outputs: int, dtype: torch.dtype) -> None:
    """Rows whose length is no multiple of 16 bytes lie at other alignments in other places."""
    generator = torch.Generator().manual_seed(inputs)
    x = torch.randn(200, inputs, generator=generator, dtype=torch.float64).to(dtype)
    weight = torch.randn(outputs, inputs, generator=generator, dtype=torch.float64).to(dtype)
    together = fixed_tile_linear(x, weight)
    for rows in (1, 30, 200):
        places = torch.randperm(200, generator=generator)[:rows]
        assert torch.equal(fixed_tile_linear(x[places], weight), together[places]), rows


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-12)], ids=str)
@pytest.mark.parametrize("rows", [0, 1, 64, 65])
def test_is_the_product(rows: int, dtype: torch.dtype, tolerance: float) -> None:
    x, weight, bias = (torch.randn(*shape, dtype=dtype) for shape in ((rows, 33), (77, 33), (77,)))
    assert torch.allclose(fixed_tile_linear(x, weight, bias), x @ weight.T + bias, atol=tolerance)
    assert torch.allclose(fixed_tile_linear(x, weight), x @ weight.T, atol=tolerance)


def test_bfloat16_is_multiplied_in_float32_where_the_processor_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "CPU_HAS_BFLOAT16", False)
    generator = torch.Generator().manual_seed(1)
    x, weight, bias = (torch.randn(shape, generator=generator).bfloat16() for shape in ((70, 64), (48, 64), (48,)))
    wide = fixed_tile_linear(x.float(), weight.float(), bias.float())
    assert torch.equal(fixed_tile_linear(x, weight, bias), wide.bfloat16())
