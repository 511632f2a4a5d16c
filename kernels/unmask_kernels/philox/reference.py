"""Philox 4x32-10 in int64 arithmetic: every word is an int64 that holds 32 bits."""

from torch import Tensor

WORD = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10

Counter = tuple[Tensor, Tensor, Tensor, Tensor]
Key = tuple[Tensor, Tensor]


def halves(value: Tensor) -> tuple[Tensor, Tensor]:
    """Split int64 [...] into its low and high 32 bits (two's complement), each int64 [...]."""
    return value & WORD, (value >> 32) & WORD


def philox_round(counter: Counter, key: Key) -> Counter:
    """One round. The words broadcast against each other, so what is shared stays small.

    The product of two 32-bit words needs 64 bits: int64 multiplication wraps, which keeps exactly these
    bits, and the mask after the arithmetic shift removes the copies of the sign.
    """
    product_0, product_1 = counter[0] * MULTIPLIERS[0], counter[2] * MULTIPLIERS[1]
    low_0, high_0 = halves(product_0)
    low_1, high_1 = halves(product_1)
    return high_1 ^ counter[1] ^ key[0], low_1, high_0 ^ counter[3] ^ key[1], low_0


def next_key(key: Key) -> Key:
    """The key of the following round (a Weyl sequence)."""
    return (key[0] + KEY_STEPS[0]) & WORD, (key[1] + KEY_STEPS[1]) & WORD


def philox_4x32(counter: Counter, key: Key) -> Counter:
    """Return the four random words of a counter under a key.

    Philox 4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011).

    Args:
        counter: four int64 tensors with values in [0, 2**32), broadcastable against each other and the key.
        key: two such tensors.

    Returns:
        Four int64 tensors with values in [0, 2**32), each of the broadcast shape.
    """
    for _ in range(ROUNDS):
        counter, key = philox_round(counter, key), next_key(key)
    return counter
