"""The choice of the form that computes an operation."""

import torch
from torch import Tensor

_TRITON_TYPES = (torch.float32, torch.bfloat16, torch.float16)


def on_cpu(tensor: Tensor) -> bool:
    """Say whether the CPU forms compute with this tensor."""
    return tensor.device.type == "cpu"


def on_gpu(tensor: Tensor) -> bool:
    """Say whether this tensor is on a device that Triton compiles for."""
    return tensor.is_cuda


def by_triton(tensor: Tensor) -> bool:
    """Say whether the Triton kernels compute with this tensor. They work in float32, so they do not take float64."""
    return on_gpu(tensor) and tensor.dtype in _TRITON_TYPES
