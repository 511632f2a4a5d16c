"""The same function as the reference, in NumPy's unsigned arithmetic and five buffers.

On a CPU the reference spends its time on temporaries and on the overhead of small tensors.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unmask_kernels.philox.reference import KEY_STEPS, MULTIPLIERS, ROUNDS, WORD, Counter, Key

Words = npt.NDArray[np.uint64]

_WORD, _SHIFT = np.uint64(WORD), np.uint64(32)
_MULTIPLIER_0, _MULTIPLIER_1 = (np.uint64(multiplier) for multiplier in MULTIPLIERS)
_STEP_0, _STEP_1 = (np.uint64(step) for step in KEY_STEPS)


def first_two_words(counter: Counter, key: Key) -> tuple[Tensor, Tensor]:
    """Return words 0 and 1 of `philox_4x32(counter, key)`, bit for bit, for tensors on the CPU.

    Args:
        counter: four int64 tensors with values in [0, 2**32), broadcastable against each other and the key.
        key: two such tensors.

    Returns:
        Two int64 tensors of the broadcast shape.
    """
    word_0, low_1, word_2, low_0 = (_words(tensor) for tensor in counter)
    key_0, key_1 = (_words(half).copy() for half in key)
    # Two rounds by broadcasting: until then most words depend on the row alone or on the class alone.
    for _ in range(2):
        product_0, product_1 = word_0 * _MULTIPLIER_0, word_2 * _MULTIPLIER_1
        word_0 = (product_1 >> _SHIFT) ^ (low_1 & _WORD) ^ key_0
        word_2 = (product_0 >> _SHIFT) ^ (low_0 & _WORD) ^ key_1
        low_0, low_1 = product_0, product_1
        _next_keys(key_0, key_1)
    shape = np.broadcast(word_0, low_1, word_2, low_0).shape
    word_0, low_1, word_2, low_0 = (_spread(words, shape) for words in (word_0, low_1, word_2, low_0))
    scratch = np.empty(shape, np.uint64)
    for _ in range(2, ROUNDS - 1):
        word_0 *= _MULTIPLIER_0
        word_2 *= _MULTIPLIER_1
        _mix(low_1, word_2, key_0, scratch)
        _mix(low_0, word_0, key_1, scratch)
        word_0, low_1, word_2, low_0 = low_1, word_2, low_0, word_0
        _next_keys(key_0, key_1)
    word_2 *= _MULTIPLIER_1  # the other half of the last round makes words 2 and 3
    _mix(low_1, word_2, key_0, scratch)
    word_2 &= _WORD
    return torch.from_numpy(low_1.view(np.int64)), torch.from_numpy(word_2.view(np.int64))


def _next_keys(key_0: Words, key_1: Words) -> None:
    """The keys of the following round, in place (a Weyl sequence)."""
    for key, step in ((key_0, _STEP_0), (key_1, _STEP_1)):
        key += step
        key &= _WORD


def _mix(low: Words, product: Words, key: Words, scratch: Words) -> None:
    """Turn `low` into (high half of product) ^ (low half of low) ^ key, in place."""
    np.right_shift(product, _SHIFT, out=scratch)
    low &= _WORD
    low ^= scratch
    low ^= key


def _words(tensor: Tensor) -> Words:
    words = tensor.long().numpy().view(np.uint64)
    return words if words.ndim else words[None]  # NumPy's scalars warn when they overflow, its arrays don't


def _spread(words: Words, shape: tuple[int, ...]) -> Words:
    """A copy in the full shape, to be overwritten."""
    spread = np.empty(shape, np.uint64)
    spread[...] = words
    return spread
