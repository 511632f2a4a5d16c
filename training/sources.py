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


def final_weights(simple_share: float) -> list[float]:
    """How much of each level a curriculum ends with: the two easiest share `simple_share`, the rest is the full one."""
    weights = [0.0] * (FULL + 1)
    weights[0] = weights[1] = simple_share / 2
    weights[FULL] = 1.0 - simple_share
    return weights


def level_weights(seen: int, simple_share: float = 0.0, level_ends: Sequence[int] = LEVEL_ENDS) -> list[float]:
    """How much of each level the curriculum tells after so many tokens.

    Copying a name clicks within a minute where a few names recur in every sentence, and not at all in the time at
    hand where the whole language is told from the start. So: dense tales first, and every level fades into the next.
    """
    stages = [[float(i == level) for i in range(FULL + 1)] for level in range(FULL)] + [final_weights(simple_share)]
    starts = [0, *level_ends]
    stage = max(i for i, start in enumerate(starts) if seen >= start)
    if stage == FULL:
        return stages[FULL]
    share = (seen - starts[stage]) / (starts[stage + 1] - starts[stage])
    return [(1 - share) * now + share * then for now, then in zip(stages[stage], stages[stage + 1], strict=True)]


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
    simple_share: float = 0.0

    def batch(self, chance: random.Random, count: int, length: int, seen: int) -> Tensor:
        """See `Source`."""
        levels = chance.choices(range(FULL + 1), level_weights(seen, self.simple_share), k=count)
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
