from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from unmask_kernels import gelu_tanh


@pytest.fixture(params=[1, 2, 3, 5])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("width", [1, 48, 80, 768, 1000])
def test_an_element_does_not_know_its_place(width: int, dtype: torch.dtype, threads: int) -> None:  # noqa: ARG001
    x = torch.randn(300, width, generator=torch.Generator().manual_seed(width)).to(dtype)
    together = gelu_tanh(x)
    for rows in (1, 2, 7, 64, 130):
        for start in (0, 1, 64, 300 - rows):
            assert torch.equal(gelu_tanh(x[start : start + rows]), together[start : start + rows]), (rows, start)


@pytest.mark.parametrize("shape", [(0, 8), (1, 1), (3, 5, 7), (70000,)])
def test_is_gelu(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = F.gelu(x.double(), approximate="tanh")
    assert torch.allclose(gelu_tanh(x).double(), expected, atol=1e-6)


def test_gradients_flow() -> None:
    x = torch.randn(5, requires_grad=True)
    gelu_tanh(x).sum().backward()
    assert x.grad is not None
