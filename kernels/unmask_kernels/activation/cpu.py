"""A linear layer and GELU in one pass of oneDNN, which has the products in registers when they are to be bent."""

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask_kernels.linear import TILE


def fuses(x: Tensor) -> bool:
    """Whether oneDNN takes this product together with its GELU: bfloat16 on a CPU, without gradients."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.bfloat16
        and not torch.is_grad_enabled()
        and torch.backends.mkldnn.is_available()
    )


def linear_gelu_tanh_fused(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See `unmask_kernels.linear_gelu_tanh`; GELU sees the float32 sums. Rows are filled up to a multiple of TILE."""
    missing = -len(x) % TILE
    padded = F.pad(x, (0, 0, 0, missing)) if missing else x
    bent: Tensor = torch.ops.mkldnn._linear_pointwise(padded, weight, bias, "gelu", [], "tanh")
    return bent[: len(x)]
