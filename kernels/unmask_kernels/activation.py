"""GELU and SiLU that give an element the same bits wherever it lies, alone or after a linear layer."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask_kernels import dispatch
from unmask_kernels.linear import fixed_tile_linear, padded

# a multiple of the number of elements that an iteration of torch's vector loops takes, in every dtype
_VECTOR = 64


def gelu_tanh(x: Tensor) -> Tensor:
    """Return GELU in its tanh form, shape and dtype of x."""
    return _in_whole_vectors(partial(F.gelu, approximate="tanh"), x)


def silu(x: Tensor) -> Tensor:
    """Return x · sigmoid(x), shape and dtype of x."""
    return _in_whole_vectors(F.silu, x)


def _in_whole_vectors(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply an elementwise function so that an element's bits do not depend on its place.

    torch's vector loop and the scalar code that finishes each thread's piece give different bits on a CPU, and where
    a piece ends depends on the number of elements. Pieces are equal shares of the elements, so these are padded until
    every share is whole iterations of the vector loop.
    """
    x = x.contiguous()
    missing = -x.numel() % (_VECTOR * torch.get_num_threads())
    if x.device.type != "cpu" or not missing:
        return function(x)
    flat = torch.cat([x.reshape(-1), x.new_zeros(missing)])
    return function(flat)[: x.numel()].view(x.shape)


def linear_gelu_tanh(
    x: Tensor,  # [M, K]
    weight: Tensor,  # [N, K], of x's dtype
    bias: Tensor,  # [N]
) -> Tensor:
    """Return `gelu_tanh(x @ weight.T + bias)`, [M, N] of x's dtype; a row's bits do not depend on the other rows.

    A CPU does both in one pass of oneDNN, which still has the products in registers; GELU then sees the float32 sums.
    """
    fused = x.dtype in FUSES_GELU and x.device.type == "cpu" and not torch.is_grad_enabled()
    return _linear_gelu_tanh_fused(x, weight, bias) if fused else linear_gelu_tanh_reference(x, weight, bias)


def linear_gelu_tanh_reference(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return what `linear_gelu_tanh` does, in two steps; in bfloat16 GELU sees the rounded sums."""
    return gelu_tanh(fixed_tile_linear(x, weight, bias))


def _linear_gelu_tanh_fused(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    filled, weight = padded(x, weight)
    activated: Tensor = torch.ops.mkldnn._linear_pointwise(filled, weight, bias, "gelu", [], "tanh")
    return activated[: len(x)]


@torch.no_grad()
def can_fuse_gelu(dtype: torch.dtype) -> bool:
    """Say whether oneDNN multiplies in a dtype on this processor and torch's private operation does what we expect.

    The operation may change with any version of torch, so a small product is compared with the reference. Where this
    is false `linear_gelu_tanh` takes two steps and has other bits, so it is part of an engine's fingerprint.
    """
    try:
        if not torch.backends.mkldnn.is_available():
            return False
        if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        x, weight = (torch.linspace(-1, 1, rows * 8).view(rows, 8).to(dtype) for rows in (3, 5))
        bias = torch.linspace(-3, 3, 5).to(dtype)
        found = _linear_gelu_tanh_fused(x, weight, bias)
        expected = F.gelu(x.float() @ weight.float().T + bias.float(), approximate="tanh")
        rtol, atol = (1e-5, 1e-6) if dtype == torch.float32 else (2.0**-7, 2.0**-13)
        return found.dtype == dtype and torch.allclose(found.float(), expected, rtol=rtol, atol=atol)
    except (AttributeError, RuntimeError, TypeError):  # the operation is gone, or has other arguments or results
        return False


# The dtypes in which a linear layer and GELU are one operation on this machine's CPU.
FUSES_GELU = tuple(
    dtype
    for dtype in (torch.float32, torch.bfloat16)
    if (dtype == torch.float32 or dispatch.CPU_HAS_BFLOAT16) and can_fuse_gelu(dtype)
)
