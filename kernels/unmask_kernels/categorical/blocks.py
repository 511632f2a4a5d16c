"""The draw in blocks: noise only for classes that can still win, and never for all of them at once."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from unmask_kernels.categorical.filters import keep_likely
from unmask_kernels.categorical.noise import gumbel_from_words
from unmask_kernels.consistency import agrees
from unmask_kernels.philox import random_words

# Elements of one block. On a CPU the block's buffers stay in cache and two threads share it (torch does not
# split less than 32768 elements); elsewhere a launch has to be worth its while. No result depends on these.
_NOISE_BLOCK = {"cpu": 1 << 16}
_NOISE_BLOCK_ELSEWHERE = 1 << 22
_ROWS_BLOCK = 1 << 20


@dataclass(frozen=True)
class Rows:
    """What is to be drawn: every field has one entry a row."""

    logits: Tensor  # [N, C]
    revealed: Tensor  # int64 [N, l]
    seeds: Tensor  # int64 [N]
    events: Tensor  # int64 [N]
    temperature: Tensor  # float64 [N]
    top_k: Tensor | None = None  # int64 [N]; None where no row filters
    top_p: Tensor | None = None  # float64 [N]; None where no row filters

    def __len__(self) -> int:
        return len(self.logits)

    def take(self, index: Tensor) -> "Rows":
        """Return the rows of an ascending index; all of them without a copy."""
        if len(index) == len(self):
            return self
        values = (getattr(self, field.name) for field in fields(self))
        return Rows(*(None if value is None else value[index] for value in values))


@dataclass(frozen=True)
class Candidates:
    """The classes of which each row will be one, ascending; rows with fewer are filled up with -inf."""

    classes: Tensor  # int64 [n, K], or [1, K] where the rows share them
    scores: Tensor  # [n, K]

    def keep(self, mask: Tensor) -> "Candidates":
        """Return the candidates of a mask, bool [n, K], closed up."""
        counts = mask.sum(1)
        row, column = mask.nonzero(as_tuple=True)
        slot = torch.arange(len(row), device=mask.device) - (counts.cumsum(0) - counts)[row]
        columns = mask.new_zeros((len(mask), max(1, int(counts.max()))), dtype=torch.int64)
        columns[row, slot] = column
        missing = torch.arange(columns.shape[1], device=mask.device) >= counts[:, None]
        return Candidates(
            self.classes.expand(mask.shape).gather(1, columns),
            self.scores.gather(1, columns).masked_fill(missing, -torch.inf),
        )

    def at(self, column: Tensor) -> Tensor:
        """Return the class in one column of each row, int64 [n] → int64 [n]."""
        return self.classes.expand(self.scores.shape).gather(1, column[:, None])[:, 0]


def draw_in_blocks(rows: Rows, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Draw a class for every row.

    Returns:
        classes, int64 [N], and the highest consistent logit of each row, float64 [N]: where this is not finite
        the class means nothing.
    """
    classes = torch.full_like(rows.seeds, -1)
    highest = torch.full_like(rows.temperature, -torch.inf)
    for index in _alike(rows, codes):
        classes[index], highest[index] = _draw_alike(rows.take(index), codes)
    return classes, highest


def _alike(rows: Rows, codes: Tensor) -> Iterator[Tensor]:
    """Split the rows into those that take the same path, then into pieces of bounded size."""
    path = (rows.revealed <= codes.max()).sum(1) * 4 + (rows.temperature == 0) * 2
    if rows.top_k is not None and rows.top_p is not None:
        path += (rows.top_k > 0) | (rows.top_p < 1)
    for value in path.unique().tolist():
        index = (path == value).nonzero()[:, 0]
        yield from index.split(max(1, _ROWS_BLOCK // len(codes)))


def _draw_alike(rows: Rows, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Draw rows that have as many digits revealed and agree in what is on and what is off."""
    every_class = torch.arange(len(codes), device=codes.device)[None]
    candidates = Candidates(every_class, rows.logits)
    if (rows.revealed[0] <= codes.max()).any():
        candidates = candidates.keep(agrees(rows.revealed, codes))
    highest = candidates.scores.amax(1).double()
    if rows.temperature[0] == 0:
        return candidates.at(candidates.scores.argmax(1)), highest
    if rows.top_k is not None and rows.top_p is not None and (rows.top_k[0] > 0 or rows.top_p[0] < 1):
        scaled = _scale(candidates.scores, highest, rows.temperature)
        candidates = candidates.keep(keep_likely(scaled, rows.top_k, rows.top_p))
    return candidates.at(_race(candidates, highest, rows)), highest


def _scale(scores: Tensor, highest: Tensor, temperature: Tensor) -> Tensor:
    """(score - highest) / temperature, float64: the likeliest class is at 0, where a sum with noise is exact."""
    return scores.double().sub_(highest[:, None]).div_(temperature[:, None])


def _race(candidates: Candidates, highest: Tensor, rows: Rows) -> Tensor:
    """Return the column that wins the Gumbel-max of each row, int64 [n]."""
    width = candidates.scores.shape[1]
    block = _NOISE_BLOCK.get(rows.logits.device.type, _NOISE_BLOCK_ELSEWHERE)
    winners = []
    for part in torch.arange(len(rows), device=highest.device).split(max(1, block // width)):
        few = slice(int(part[0]), int(part[-1]) + 1)
        best, winner = highest.new_full((len(part),), -torch.inf), part.new_zeros(len(part))
        for start in range(0, width, block):
            some = slice(start, start + block)
            ids = candidates.classes[few if len(candidates.classes) > 1 else slice(None), some]
            words = random_words(rows.seeds[few, None], rows.events[few, None], ids)
            noisy = _scale(candidates.scores[few, some], highest[few], rows.temperature[few])
            value, column = noisy.add_(gumbel_from_words(*words)).max(1)
            winner = torch.where(value > best, column + start, winner)
            best = torch.maximum(best, value)
        winners.append(winner)
    return torch.cat(winners)
