"""Copies between host memory and a device: one for all tensors of a step, since each costs the time of a kernel."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

# Parts begin at multiples of so many elements, so of 16 bytes: Triton compiles another binary for other addresses.
_STEP = 2


def to_device(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Return tensors of 8-byte elements (int64, float64) on a device, without waiting for it.

    Tensors in host memory are packed into one buffer that the device can read by itself.
    """
    if device.type == "cpu" or any(each.device.type != "cpu" for each in tensors):
        return [each.to(device) for each in tensors]
    room = [-(-each.numel() // _STEP) * _STEP for each in tensors]
    starts = [0, *accumulate(room)]
    buffer = torch.empty(starts[-1], dtype=torch.int64, pin_memory=True)
    places = [slice(start, start + each.numel()) for start, each in zip(starts, tensors, strict=False)]
    for place, each in zip(places, tensors, strict=True):
        buffer[place] = each.reshape(-1).view(torch.int64)
    moved = buffer.to(device, non_blocking=True)
    return [moved[place].view(each.dtype).view(each.shape) for place, each in zip(places, tensors, strict=True)]


def to_host(integers: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Return integers of less than 53 bits [N], and floating numbers [N], in host memory."""
    if integers.device.type == "cpu":
        return integers, numbers
    # a float64 holds either
    first, second = torch.stack([integers.double(), numbers.double()]).cpu()
    return first.to(integers.dtype), second
