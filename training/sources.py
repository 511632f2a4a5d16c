"""Where token ids come from: tales told on the spot, or a long text cut anywhere."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.tales import END_TOKEN, tale


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

    def batch(self, chance: random.Random, count: int, length: int) -> Tensor:
        """See `Source`."""
        return self.canvases([tale(chance) for _ in range(count)], length)

    def canvases(self, texts: Sequence[str], length: int) -> Tensor:
        """Lay texts on canvases, int64 [len(texts), length]."""
        lines = [encoding.ids[:length] for encoding in self.tokenizer.encode_batch_fast(list(texts))]
        return torch.tensor([line + [self.end_token_id] * (length - len(line)) for line in lines])


@dataclass(frozen=True)
class TextSource:
    """One long text, cut anywhere. `ids` is int16 or wider, so that millions of tokens stay small."""

    ids: Tensor

    def batch(self, chance: random.Random, count: int, length: int) -> Tensor:
        """See `Source`."""
        starts = [chance.randrange(len(self.ids) - length + 1) for _ in range(count)]
        return torch.stack([self.ids[start : start + length] for start in starts]).long()
