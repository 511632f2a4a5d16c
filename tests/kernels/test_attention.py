import pytest
import torch
from torch import Tensor
from unmask_kernels import attention
from unmask_kernels.attention import LONG, attention_reference


def parts(canvases: int, queries: int, length: int, heads: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(length)
    shapes = ((canvases, size, heads, width) for size in (queries, length, length))
    q, k, v = (torch.randn(shape, generator=generator) for shape in shapes)
    return q, k, v


@pytest.mark.parametrize("length", [1, 7, 128, LONG, LONG + 37])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 4e-2)], ids=["float32", "bfloat16"]
)
def test_equals_the_reference(length: int, dtype: torch.dtype, tolerance: float) -> None:
    q, k, v = parts(2, length, length, 3, 16)
    v = v.to(dtype)
    found = attention(q, k, v).float()
    torch.testing.assert_close(found, attention_reference(q, k, v), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("length", [5, 64, LONG])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_canvas_does_not_know_its_company(length: int, dtype: torch.dtype) -> None:
    q, k, v = parts(5, 32, length, 2, 24)
    v = v.to(dtype)
    together = attention(q, k, v)
    for one in range(5):
        alone = attention(*(part[one : one + 1].contiguous() for part in (q, k, v)))
        assert torch.equal(alone[0], together[one])


@pytest.mark.triton
@pytest.mark.parametrize("queries", [32, 1024])
def test_a_canvas_does_not_know_how_full_the_gpu_is(queries: int, device: torch.device) -> None:
    """Kernels that share keys out among programs do it by the number of canvases."""
    q, k, v = (part.bfloat16().to(device) for part in parts(3, queries, 1024, 2, 64))
    together = attention(q, k, v)
    for one in range(3):
        assert torch.equal(attention(q[one : one + 1], k[one : one + 1], v[one : one + 1])[0], together[one])


@pytest.mark.parametrize("width", [6, 10, 14, 24, 32, 48, 64])
@pytest.mark.parametrize("length", [2, 3, 9, 40, LONG])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_query_does_not_know_its_place(length: int, width: int, dtype: torch.dtype) -> None:
    """What else is read of a canvas decides where in a tile a query comes to lie."""
    q, k, v = parts(1, min(32, length), length, 3, width)
    v = v.to(dtype)
    order = torch.randperm(q.shape[1], generator=torch.Generator().manual_seed(1))
    assert torch.equal(attention(q[:, order].contiguous(), k, v), attention(q, k, v)[:, order])


@pytest.mark.parametrize("length", [64, LONG])
def test_keys_and_values_may_be_views_into_projections(length: int) -> None:
    _, k, v = parts(2, 32, length, 2, 8)
    packed = torch.stack([k, v], 2).bfloat16()
    q = k[:, :32]
    views = attention(q, packed[:, :, 0], packed[:, :, 1])
    assert torch.equal(views, attention(q, packed[:, :, 0].contiguous(), packed[:, :, 1].contiguous()))
