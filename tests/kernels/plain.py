"""The draw once more in plain Python, a number at a time: what the package must agree with."""

import math
from collections.abc import Sequence
from decimal import Decimal, localcontext

import torch
from torch import Tensor

WORD = 2**32 - 1


def philox(counter: Sequence[int], key: Sequence[int]) -> tuple[int, int, int, int]:
    """Philox 4x32-10 as the paper writes it."""
    (a, b, c, d), (k, m) = counter, key
    for _ in range(10):
        left, right = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (right >> 32) ^ b ^ k, right & WORD, (left >> 32) ^ d ^ m, left & WORD
        k, m = (k + 0x9E3779B9) & WORD, (m + 0xBB67AE85) & WORD
    return a, b, c, d


def random_bits(seed: int, event: int, index: int, purpose: int = 0) -> int:
    """The 64 bits of a draw."""
    words = philox((index, event & WORD, event >> 32, purpose), (seed & WORD, seed >> 32))
    return words[0] << 32 | words[1]


def exact_gumbel(bits: int) -> float:
    """The noise of 64 bits, by 60-digit arithmetic."""
    with localcontext() as context:
        context.prec = 60
        v = Decimal(2 * bits + 1) / Decimal(2**65)
        return float(-(-(1 - v).ln()).ln())


def gumbel(seed: int, event: int, index: int) -> float:
    """The noise of a draw."""
    return exact_gumbel(random_bits(seed, event, index))


def digits(classes: int, base: int, length: int) -> Tensor:
    """int64 [C, l]: base-b digits, most significant first."""
    places = base ** torch.arange(length - 1, -1, -1)
    return torch.arange(classes)[:, None] // places % base


def is_consistent(revealed: Sequence[int], code: Sequence[int], mask_from: int) -> bool:
    """Does a class's code agree with the digits below mask_from?"""
    return all(shown in (digit, *range(mask_from, shown + 1)) for shown, digit in zip(revealed, code, strict=True))


def distribution(
    logits: Tensor, revealed: Tensor, codes: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> list[float]:
    """The probabilities that one row's draws must have, by sorting and adding as one would on paper."""
    mask_from = int(codes.max()) + 1
    candidates = [c for c, code in enumerate(codes.tolist()) if is_consistent(revealed.tolist(), code, mask_from)]
    highest = max(float(logits[c]) for c in candidates)
    weight = {c: math.exp((float(logits[c]) - highest) / temperature) for c in candidates}
    ranked = sorted(weight, key=lambda c: -weight[c])[: top_k or None]
    total, kept, mass = math.fsum(weight[c] for c in ranked), [], 0.0
    for c in ranked:
        kept.append(c)
        mass += weight[c] / total
        if mass >= top_p:
            break
    total = math.fsum(weight[c] for c in kept)
    return [weight[c] / total if c in kept else 0.0 for c in range(len(codes))]
