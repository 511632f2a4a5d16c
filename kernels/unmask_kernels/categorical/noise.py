"""64 random bits → Gumbel noise whose winning tail is right to 2**-64."""

import numpy as np
from torch import Tensor

from unmask_kernels.philox import uniform_from_words


def gumbel_from_words(high: Tensor, low: Tensor) -> Tensor:
    """Map 64 random bits to standard Gumbel noise, float64.

    With v = (bits + 1/2) / 2**64 in (0, 1), g = -log(-log1p(-v)): the largest noise comes from the smallest
    v, where floating point is densest, so g reaches 45 and the tail P(g > x) = 1 - exp(-exp(-x)) holds all the
    way. A uniform on a 24-bit grid stops at 16.64, and rare classes then almost never win.

    float64, because it costs 2 of some 25 ns a class more (Philox takes the rest), and because a difference of one
    unit in the last place between two machines' logarithms then decides a draw once in 10**15 and not once in 10**6.

    Args:
        high: int64, values in [0, 2**32).
        low: the same.
    """
    value = uniform_from_words(high, low)
    if value.device.type == "cpu":
        _to_gumbel_in_place(value)
        return value
    return value.neg_().log1p_().neg_().log_().neg_()


def _to_gumbel_in_place(value: Tensor) -> None:
    """NumPy stays on this thread. torch splits logarithms from 2048 on, and where another process keeps the second
    core busy the wait for it is milliseconds.
    """
    array = value.numpy()
    for function in (np.negative, np.log1p, np.negative, np.log, np.negative):
        function(array, out=array)
