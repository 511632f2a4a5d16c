"""Which form of an operation computes."""

import torch
from torch import Tensor

_TYPES = (torch.float32, torch.bfloat16, torch.float16)


def on_cpu(tensor: Tensor) -> bool:
    """Say whether the forms for CPUs take this tensor."""
    return tensor.device.type == "cpu"


def on_gpu(tensor: Tensor) -> bool:
    """Say whether this tensor is where the Triton kernels are."""
    return tensor.is_cuda


def by_triton(tensor: Tensor) -> bool:
    """Say whether the Triton kernels compute with this tensor. They do in float32, so float64 is for other forms."""
    return on_gpu(tensor) and tensor.dtype in _TYPES
