"""Which code each token gets: words that stand in the same places share their first digit.

MDM-Prime takes the digits of a token's id, whatever the tokenizer's order put there. Nothing forces that order, and a
better one makes learning faster: if the first digit says what kind of word it is (a name, a colour, a verb) and the
second which one, grammar is about first digits, and keeping a name through a tale is copying a second digit. The kinds
are found in the text itself, by what stands to the left and right of each token.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

DIMENSIONS = 24


def codes_by_context(ids: Tensor, vocabulary_size: int, base: int) -> list[int]:
    """Arrange the base ** 2 codes: a permutation, the code of every token id.

    Args:
        ids: int64 [N, L], text as token ids.
        vocabulary_size: classes C, at most base ** 2.
        base: b.
    """
    used = ids.unique()
    order = _halved(torch.arange(len(used)), _context_vectors(ids, used), largest=base)
    if len(order) > base:
        raise ValueError(f"{len(order)} groups of words do not fit {base} first digits")
    taken = {int(used[word]): base * i + j for i, group in enumerate(order) for j, word in enumerate(group.tolist())}
    free = iter(sorted(set(range(base * base)) - set(taken.values())))
    return [taken[token] if token in taken else next(free) for token in range(vocabulary_size)]


def _context_vectors(ids: Tensor, used: Tensor) -> Tensor:
    """A direction for every used token, from how much more often than by chance it has each neighbour."""
    count = len(used)
    rank = torch.zeros(int(used.max()) + 1, dtype=torch.int64)
    rank[used] = torch.arange(count)
    left, right = rank[ids[:, :-1]].flatten(), rank[ids[:, 1:]].flatten()
    pairs = torch.bincount(left * count + right, minlength=count * count).view(count, count).double()
    surprise = torch.cat([_positive_information(pairs), _positive_information(pairs.T)], dim=1)
    vectors, strengths, _ = torch.linalg.svd(surprise, full_matrices=False)
    weighted = vectors[:, :DIMENSIONS] * strengths[:DIMENSIONS].sqrt()
    return torch.nn.functional.normalize(weighted)


def _positive_information(pairs: Tensor) -> Tensor:
    expected = pairs.sum(1, keepdim=True) * pairs.sum(0) / pairs.sum()
    return (pairs.clamp_min(1e-9) / expected.clamp_min(1e-9)).log().clamp_min(0)


def _halved(members: Tensor, vectors: Tensor, largest: int) -> list[Tensor]:
    """Halve a set of words along the direction in which it varies most, until no part is too large."""
    if len(members) <= largest:
        return [members]
    centred = vectors[members] - vectors[members].mean(0)
    direction = torch.linalg.svd(centred, full_matrices=False).Vh[0]
    along = members[(centred @ direction).argsort()]
    half = len(along) // 2
    return _halved(along[:half], vectors, largest) + _halved(along[half:], vectors, largest)


def codes_by_group(groups: Sequence[Sequence[int]], vocabulary_size: int, base: int) -> list[int]:
    """Give each group of token ids a first digit of its own (several, if it is larger than `base`).

    Returns:
        A permutation: the code of every token id. Tokens of no group take the codes that are left.

    Raises:
        ValueError: the groups need more first digits than there are.
    """
    rows = [group[start : start + base] for group in groups for start in range(0, len(group), base)]
    if len(rows) > base:
        raise ValueError(f"{len(rows)} groups of words do not fit {base} first digits")
    taken = {token: base * i + j for i, row in enumerate(rows) for j, token in enumerate(row)}
    free = iter(sorted(set(range(base * base)) - set(taken.values())))
    return [taken[token] if token in taken else next(free) for token in range(vocabulary_size)]
