from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from unmask_kernels import activation, gelu_tanh, linear_gelu_tanh
from unmask_kernels.activation import linear_gelu_tanh_reference


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


def layer(width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(width)
    shapes = ((300, width), (4 * width, width), (4 * width,))
    x, weight, bias = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    return x, weight, bias


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)], ids=["float32", "bfloat16"]
)
@pytest.mark.parametrize("width", [1, 20, 192])
def test_a_layer_and_gelu_are_the_two_in_turn(width: int, dtype: torch.dtype, tolerance: float) -> None:
    x, weight, bias = layer(width, dtype)
    expected = F.gelu(x.double() @ weight.double().T + bias.double(), approximate="tanh")
    with torch.inference_mode():
        found = linear_gelu_tanh(x, weight, bias)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("width", [12, 20, 192])
def test_a_row_of_a_layer_does_not_know_the_batch(width: int, dtype: torch.dtype, threads: int) -> None:  # noqa: ARG001
    x, weight, bias = layer(width, dtype)
    with torch.inference_mode():
        together = linear_gelu_tanh(x, weight, bias)
        for rows in (1, 2, 7, 64, 130):
            for start in (0, 1, 64, 300 - rows):
                alone = linear_gelu_tanh(x[start : start + rows], weight, bias)
                assert torch.equal(alone, together[start : start + rows]), (rows, start)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradients_flow_through_a_layer(dtype: torch.dtype) -> None:
    x, weight, bias = (part.requires_grad_() for part in layer(8, dtype))
    linear_gelu_tanh(x, weight, bias).sum().backward()
    assert x.grad is not None


def test_where_the_fused_operation_does_not_work_two_steps_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation, "FUSES_GELU", ())
    monkeypatch.setattr(torch.ops, "mkldnn", None)
    x, weight, bias = layer(20, torch.bfloat16)
    with torch.inference_mode():
        assert torch.equal(linear_gelu_tanh(x, weight, bias), linear_gelu_tanh_reference(x, weight, bias))


def missing(*_: object) -> Tensor:
    raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")


def refusing(*_: object) -> Tensor:
    raise RuntimeError("mkldnn::_linear_pointwise() expected at most 5 arguments")


def without_gelu(x: Tensor, weight: Tensor, bias: Tensor, *_: object) -> Tensor:
    return F.linear(x, weight, bias)


def exact_gelu(x: Tensor, weight: Tensor, bias: Tensor, *_: object) -> Tensor:
    return F.gelu(F.linear(x, weight, bias))


def in_float32(x: Tensor, weight: Tensor, bias: Tensor, *_: object) -> Tensor:
    return gelu_tanh(F.linear(x.float(), weight.float(), bias.float()))


def as_expected(x: Tensor, weight: Tensor, bias: Tensor, *_: object) -> Tensor:
    return in_float32(x, weight, bias).to(x.dtype)


@pytest.mark.parametrize(
    ("operation", "has_bfloat16", "fuses"),
    [
        (as_expected, True, True),
        (as_expected, False, False),
        (missing, True, False),
        (refusing, True, False),
        (without_gelu, True, False),
        (exact_gelu, True, False),
        (in_float32, True, False),
        (lambda *_: None, True, False),
    ],
)
def test_the_private_operation_is_tried_before_it_is_used(
    operation: Callable[..., Tensor], has_bfloat16: bool, fuses: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"_is_mkldnn_bf16_supported": lambda: has_bfloat16, "_linear_pointwise": operation}
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(**names))
    assert activation.can_fuse_gelu(torch.bfloat16) is fuses


def test_a_torch_without_the_namespace_does_not_fuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    assert activation.can_fuse_gelu(torch.float32) is False
