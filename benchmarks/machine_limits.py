"""What the machine does at best: matrix products, and copies. Needs torch alone."""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

REPEATS = 7


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(function: Callable[[], object], device: torch.device) -> float:
    """Wall-clock seconds of a call, with the GPU's work that it started."""
    synchronize(device)
    begun = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - begun


def product_rate(dtype: torch.dtype, device: torch.device, size: int = 0) -> float:
    """Floating-point operations a second of square matrix products, the best of `REPEATS`."""
    size = size or (8192 if device.type == "cuda" else 2048)
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / min(seconds_of(lambda: F.linear(left, right), device) for _ in range(REPEATS))


def copy_bandwidth(device: torch.device, megabytes: int = 256) -> float:
    """Bytes a second, read and written, of a copy too large for any cache; the best of `REPEATS`."""
    source = torch.ones(megabytes << 20, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return 2 * source.nbytes / min(seconds_of(lambda: target.copy_(source), device) for _ in range(REPEATS))
