"""An elementwise function whose elements don't know their place."""

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask_kernels.linear import fixed_tile_linear

# a multiple of the elements that one turn of torch's vector loops takes, in every dtype
TURN = 64


def gelu_tanh(x: Tensor) -> Tensor:
    """Return GELU in its tanh form, shape and dtype of x.

    torch's vector loop and the scalar code that finishes each thread's piece give different bits on a CPU, and where
    a piece ends depends on the number of elements. Pieces are equal shares of the elements, so these are filled up
    until every share is whole turns of the vector loop.
    """
    missing = -x.numel() % (TURN * torch.get_num_threads())
    if x.device.type != "cpu" or not missing:
        return F.gelu(x, approximate="tanh")
    flat = torch.cat([x.reshape(-1), x.new_zeros(missing)])
    return F.gelu(flat, approximate="tanh")[: x.numel()].view(x.shape)


def linear_gelu_tanh_reference(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The two steps one after the other; shapes as for `unmask_kernels.linear_gelu_tanh`."""
    return gelu_tanh(fixed_tile_linear(x, weight, bias))
