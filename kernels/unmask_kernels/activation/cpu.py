"""A linear layer and GELU in one pass of oneDNN, which has the products in registers when they are to be bent."""

from functools import cache

import torch
from torch import Tensor

from unmask_kernels.linear.reference import filled_up


def fuses(x: Tensor) -> bool:
    """Whether oneDNN takes this product together with its GELU: bfloat16 on a CPU that has it, without gradients."""
    return x.device.type == "cpu" and x.dtype == torch.bfloat16 and not torch.is_grad_enabled() and _has_bfloat16()


@cache
def _has_bfloat16() -> bool:
    """Whether oneDNN computes in bfloat16 on this processor; where it doesn't, its operation raises."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def linear_gelu_tanh_fused(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See `unmask_kernels.linear_gelu_tanh`; GELU sees the float32 sums. The product is that of `filled_up`."""
    filled, weight = filled_up(x, weight)
    bent: Tensor = torch.ops.mkldnn._linear_pointwise(filled, weight, bias, "gelu", [], "tanh")
    return bent[: len(x)]
