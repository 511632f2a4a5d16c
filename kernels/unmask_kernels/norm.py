"""RMS norm whose rows do not depend on the batch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask_kernels import dispatch


def rms_norm(
    x: Tensor,  # [..., d], any floating dtype
    weight: Tensor,  # [d]
    epsilon: float,
) -> Tensor:
    """Return x / sqrt(mean(x²) + epsilon) · weight over the last dimension, float32 in x's shape.

    A row's bits do not depend on the other rows. (Zhang and Sennrich, arXiv 1910.07467.)
    """
    if dispatch.on_gpu(x):  # one fused kernel with a program a row; a mean shares rows out by their number
        return F.rms_norm(x.float(), (x.shape[-1],), weight.float(), epsilon)
    return rms_norm_reference(x, weight, epsilon)


def rms_norm_reference(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Return what `rms_norm` does, in four operations; on a CPU a row is summed by itself."""
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon) * weight.float()
