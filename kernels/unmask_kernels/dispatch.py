"""The choice of the form that computes an operation."""

import torch
from torch import Tensor

_TRITON_TYPES = (torch.float32, torch.bfloat16, torch.float16)


def _cpu_has_bfloat16() -> bool:
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check() for check in checks if check is not None)  # private to torch, so they may go


# Whether this processor has bfloat16 products. Where it has none they are emulated: four times slower than float32, and
# with some numbers of threads a row's bits depend on the other rows. So bfloat16 is multiplied in float32 there.
CPU_HAS_BFLOAT16 = _cpu_has_bfloat16()


def on_cpu(tensor: Tensor) -> bool:
    """Say whether the CPU forms compute with this tensor."""
    return tensor.device.type == "cpu"


def on_gpu(tensor: Tensor) -> bool:
    """Say whether this tensor is on a device that Triton compiles for."""
    return tensor.is_cuda


def by_triton(tensor: Tensor) -> bool:
    """Say whether the Triton kernels compute with this tensor. They work in float32, so they do not take float64."""
    return on_gpu(tensor) and tensor.dtype in _TRITON_TYPES
