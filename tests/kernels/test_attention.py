import pytest
import torch
from torch import Tensor
from unmask_kernels import attention
from unmask_kernels.attention.cpu import LONG
from unmask_kernels.attention.reference import attention_reference


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


@pytest.mark.parametrize("length", [64, LONG])
def test_keys_and_values_may_be_views_into_projections(length: int) -> None:
    _, k, v = parts(2, 32, length, 2, 8)
    packed = torch.stack([k, v], 2).bfloat16()
    q = k[:, :32]
    views = attention(q, packed[:, :, 0], packed[:, :, 1])
    assert torch.equal(views, attention(q, packed[:, :, 0].contiguous(), packed[:, :, 1].contiguous()))
