"""Random numbers as a function of (seed, event, index, purpose): Philox words, uniforms and Gumbel noise."""

from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from unmask_kernels import dispatch

WORD = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10

Counter = tuple[Tensor, Tensor, Tensor, Tensor]  # int64 with values in [0, 2**32); counter and key broadcast
Key = tuple[Tensor, Tensor]  # the same


class Purpose(IntEnum):
    """The use of a number: the last counter word, which keeps the streams of one seed apart."""

    DRAW = 0
    SCHEDULE = 1


def random_words(
    seeds: Tensor,  # int64, the key: its low half is key word 0, its high half key word 1
    events: Tensor,  # int64, counter words 1 (low half) and 2 (high half)
    indices: Tensor,  # int64 in [0, 2**32), counter word 0: the class of a draw. The three broadcast.
    purpose: Purpose = Purpose.DRAW,  # counter word 3
) -> tuple[Tensor, Tensor]:
    """Return 64 random bits as two words, high and low: int64 of the broadcast shape, values in [0, 2**32)."""
    if dispatch.on_gpu(events):
        from unmask_kernels.triton.philox import random_words_on_gpu  # only CUDA builds of torch bring Triton

        return random_words_on_gpu(seeds, events, indices, int(purpose))
    event_low, event_high = halves(events)
    tag = torch.full((), int(purpose), dtype=torch.int64, device=events.device)
    counter, key = (indices, event_low, event_high, tag), halves(seeds)
    if dispatch.on_cpu(events):
        return first_two_words(counter, key)
    return philox_4x32(counter, key)[:2]


def random_uniform(seeds: Tensor, events: Tensor, indices: Tensor, purpose: Purpose = Purpose.DRAW) -> Tensor:
    """Return float64 numbers in the open interval (0, 1); the arguments are those of `random_words`."""
    return uniform_from_words(*random_words(seeds, events, indices, purpose))


def uniform_from_words(high: Tensor, low: Tensor) -> Tensor:
    """Map 64 random bits to (bits + 1/2) / 2**64 in float64, strictly inside (0, 1).

    Small values are exact to 53 bits: the least is 2**-65. The 2**10 largest would round to 1 and become
    1 - 2**-53.
    """
    value = high.to(torch.float64).mul_(2.0**32).add_(low.to(torch.float64).add_(0.5))
    return value.mul_(2.0**-64).clamp_(max=1 - 2.0**-53)


def gumbel_from_words(high: Tensor, low: Tensor) -> Tensor:
    """Map 64 random bits (int64 words in [0, 2**32)) to standard Gumbel noise, float64, right to a tail of 2**-64.

    With v = (bits + 1/2) / 2**64 in (0, 1), g = -log(-log1p(-v)): the largest noise comes from the smallest v, where
    floating point is densest. A uniform on a 24-bit grid stops at 16.64, and rare classes then almost never win.

    float64, because it costs 2 of some 25 ns a class more (Philox takes the rest), and because a difference of one
    unit in the last place between two machines' logarithms then decides a draw once in 10**15 and not once in 10**6.
    """
    value = uniform_from_words(high, low)
    if value.device.type != "cpu":
        return value.neg_().log1p_().neg_().log_().neg_()
    # NumPy stays on this thread. torch splits logarithms from 2048 on, and where another process keeps the second core
    # busy the wait for it is milliseconds.
    array = value.numpy()
    for function in (np.negative, np.log1p, np.negative, np.log, np.negative):
        function(array, out=array)
    return value


def halves(value: Tensor) -> tuple[Tensor, Tensor]:
    """Split int64 [...] into its low and high 32 bits (two's complement), each int64 [...]."""
    return value & WORD, (value >> 32) & WORD


def philox_4x32(counter: Counter, key: Key) -> Counter:
    """Return the four random words of a counter under a key, each int64 of the broadcast shape. The reference.

    Philox 4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011).
    """
    for _ in range(ROUNDS):
        # The product of two 32-bit words needs 64 bits: int64 multiplication wraps, which keeps exactly these bits, and
        # the mask after the arithmetic shift removes the copies of the sign.
        low_0, high_0 = halves(counter[0] * MULTIPLIERS[0])
        low_1, high_1 = halves(counter[2] * MULTIPLIERS[1])
        counter = high_1 ^ counter[1] ^ key[0], low_1, high_0 ^ counter[3] ^ key[1], low_0
        key = (key[0] + KEY_STEPS[0]) & WORD, (key[1] + KEY_STEPS[1]) & WORD
    return counter


_WORD, _SHIFT = np.uint64(WORD), np.uint64(32)
_MULTIPLIER_0, _MULTIPLIER_1 = (np.uint64(multiplier) for multiplier in MULTIPLIERS)
_STEP_0, _STEP_1 = (np.uint64(step) for step in KEY_STEPS)


def first_two_words(counter: Counter, key: Key) -> tuple[Tensor, Tensor]:
    """Return words 0 and 1 of `philox_4x32(counter, key)`, bit for bit, for tensors on the CPU.

    It computes in NumPy's unsigned arithmetic and five buffers: on a CPU the reference spends its time on temporaries
    and on the overhead of small tensors.
    """
    # NumPy's scalars warn when they overflow, its arrays do not
    parts = (np.atleast_1d(part.long().numpy().view(np.uint64)) for part in (*counter, *key))
    word_0, low_1, word_2, low_0, key_0, key_1 = parts
    # Two rounds by broadcasting: until then most words depend on the row alone or on the class alone.
    for _ in range(2):
        product_0, product_1 = word_0 * _MULTIPLIER_0, word_2 * _MULTIPLIER_1
        word_0 = (product_1 >> _SHIFT) ^ (low_1 & _WORD) ^ key_0
        word_2 = (product_0 >> _SHIFT) ^ (low_0 & _WORD) ^ key_1
        low_0, low_1 = product_0, product_1
        key_0, key_1 = (key_0 + _STEP_0) & _WORD, (key_1 + _STEP_1) & _WORD
    shape = np.broadcast(word_0, low_1, word_2, low_0).shape
    word_0, low_1, word_2, low_0 = (np.broadcast_to(words, shape).copy() for words in (word_0, low_1, word_2, low_0))
    scratch = np.empty(shape, np.uint64)
    for _ in range(2, ROUNDS - 1):
        word_0 *= _MULTIPLIER_0
        word_2 *= _MULTIPLIER_1
        for low, product, key_half in ((low_1, word_2, key_0), (low_0, word_0, key_1)):
            np.right_shift(product, _SHIFT, out=scratch)
            low &= _WORD
            low ^= scratch
            low ^= key_half
        word_0, low_1, word_2, low_0 = low_1, word_2, low_0, word_0
        for key_half, step in ((key_0, _STEP_0), (key_1, _STEP_1)):
            key_half += step
            key_half &= _WORD
    word_2 *= _MULTIPLIER_1  # the other half of the last round makes words 2 and 3
    word_0 = (word_2 >> _SHIFT) ^ (low_1 & _WORD) ^ key_0
    word_2 &= _WORD
    return torch.from_numpy(word_0.view(np.int64)), torch.from_numpy(word_2.view(np.int64))
