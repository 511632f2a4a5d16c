"""GELU that gives an element the same bits wherever it lies, alone or behind a linear layer."""

from torch import Tensor

from unmask_kernels.activation.cpu import fuses, linear_gelu_tanh_fused
from unmask_kernels.activation.reference import gelu_tanh, linear_gelu_tanh_reference


def linear_gelu_tanh(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return `gelu_tanh(x @ weight.T + bias)`; a row's bits don't depend on the other rows.

    Args:
        x: [M, K].
        weight: [N, K], of x's dtype.
        bias: [N].

    Returns:
        [M, N], of x's dtype.
    """
    return (linear_gelu_tanh_fused if fuses(x) else linear_gelu_tanh_reference)(x, weight, bias)


__all__ = ["gelu_tanh", "linear_gelu_tanh"]
