"""Where token ids come from: tales told on the spot, or a long text cut anywhere."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.tales import END_TOKEN, FULL, tale

# tokens seen when a level's tales have wholly given way to the next level's
LEVEL_ENDS = (1_000_000, 2_500_000, 5_000_000)


def level_weights(seen: int, level_ends: Sequence[int] = LEVEL_ENDS) -> list[float]:
    """How much of each level the curriculum tells after so many tokens.

    Copying a name clicks within a minute where a few names recur in every sentence, and not at all in the time at
    hand where the whole language is told from the start. So: dense tales first, and every level fades into the next.
    """
    starts = [0, *level_ends]
    weights = [0.0] * (FULL + 1)
    level = max(i for i, start in enumerate(starts) if seen >= start)
    if level == FULL:
        weights[FULL] = 1.0
        return weights
    share = (seen - starts[level]) / (starts[level + 1] - starts[level])
    weights[level], weights[level + 1] = 1.0 - share, share
    return weights


def end_token_id(tokenizer: Tokenizer) -> int:
    """The id of the token that ends a tale.

    Raises:
        ValueError: the tokenizer has none.
    """
    token: int | None = tokenizer.token_to_id(END_TOKEN)
    if token is None:
        raise ValueError(f"the tokenizer has no {END_TOKEN}")
    return token


@dataclass(frozen=True)
class TaleSource:
    """Endless tales. A canvas begins where a tale begins, is cut at its end, or filled with end tokens."""

    tokenizer: Tokenizer
    end_token_id: int
    level_ends: tuple[int, ...] = LEVEL_ENDS

    def batch(self, chance: random.Random, count: int, length: int, seen: int) -> Tensor:
        """See `Source`."""
        levels = chance.choices(range(FULL + 1), level_weights(seen, self.level_ends), k=count)
        return self.canvases([tale(chance, level) for level in levels], length)

    def canvases(self, texts: Sequence[str], length: int) -> Tensor:
        """Lay texts on canvases, int64 [len(texts), length]."""
        lines = [encoding.ids[:length] for encoding in self.tokenizer.encode_batch_fast(list(texts))]
        return torch.tensor([line + [self.end_token_id] * (length - len(line)) for line in lines])


@dataclass(frozen=True)
class TextSource:
    """One long text, cut anywhere. `ids` is int16 or wider, so that millions of tokens stay small."""

    ids: Tensor

    def batch(self, chance: random.Random, count: int, length: int, seen: int) -> Tensor:  # noqa: ARG002
        """See `Source`."""
        starts = [chance.randrange(len(self.ids) - length + 1) for _ in range(count)]
        return torch.stack([self.ids[start : start + length] for start in starts]).long()
