"""torch's fused attention, with heads of a width at which a query's place doesn't matter."""

import math

import torch.nn.functional as F
from torch import Tensor

# Heads are filled up with zeros to a multiple of so many numbers. Otherwise rows begin at odd addresses: a CPU gives a
# query other bits in another place of its tile, and a GPU has no fast kernel.
_WIDTH_STEP = 8


def fused_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """See `unmask_kernels.attention`; q, k and v are of one dtype, and so is the result."""
    width = q.shape[-1]
    if missing := -width % _WIDTH_STEP:
        q, k, v = (F.pad(part, (0, missing)) for part in (q, k, v))
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))
    attended = F.scaled_dot_product_attention(q, k, v, scale=1 / math.sqrt(width))
    return attended[..., :width].transpose(1, 2).flatten(2)
