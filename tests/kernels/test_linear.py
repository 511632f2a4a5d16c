import pytest
import torch
import torch.nn.functional as F
from unmask_kernels import fixed_tile_linear, promise_holds

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


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-12)], ids=str)
@pytest.mark.parametrize("rows", [0, 1, 64, 65])
def test_is_the_product(rows: int, dtype: torch.dtype, tolerance: float) -> None:
    x, weight, bias = (torch.randn(*shape, dtype=dtype) for shape in ((rows, 33), (77, 33), (77,)))
    assert torch.allclose(fixed_tile_linear(x, weight, bias), x @ weight.T + bias, atol=tolerance)
    assert torch.allclose(fixed_tile_linear(x, weight), x @ weight.T, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_promise_holds_here(dtype: torch.dtype) -> None:
    assert promise_holds(SHAPES, dtype)


def test_a_broken_promise_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A product that depends on how many rows there are."""

    def faulty(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return F.linear(x, weight, bias) * (1 + 1e-6 * len(x))

    monkeypatch.setattr("unmask_kernels.linear.self_check.fixed_tile_linear", faulty)
    assert not promise_holds([(48, 144)])
