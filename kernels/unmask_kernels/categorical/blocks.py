"""The draw in blocks: noise only for classes that can still win, and never for all of them at once."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from unmask_kernels.categorical.filters import keep_likely
from unmask_kernels.categorical.noise import gumbel_from_words
from unmask_kernels.consistency import agrees
from unmask_kernels.philox import random_words

# Elements of one block. On a CPU the block's buffers stay in cache, and it is smaller than what torch would split
# among threads (32768): the arithmetic is too little to wait for another core. Elsewhere a launch has to be worth
# its while. No result depends on these.
_NOISE_BLOCK = {"cpu": 32_000}
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
    top_k: Tensor  # int64 [N]
    top_p: Tensor  # float64 [N]

    def __len__(self) -> int:
        return len(self.logits)

    def take(self, index: Tensor) -> "Rows":
        """Return the rows of an ascending index; all of them without a copy."""
        if len(index) == len(self):
            return self
        return Rows(*(getattr(self, field.name)[index] for field in fields(self)))


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
    for path, index in _alike(rows, codes):
        classes[index], highest[index] = _draw_alike(rows.take(index), codes, path)
    return classes, highest


class Path(NamedTuple):
    """What rows have in common that are drawn together."""

    revealed: int  # digits: so rows have about as many candidates
    greedy: bool
    filtered: bool


def _alike(rows: Rows, codes: Tensor) -> Iterator[tuple[Path, Tensor]]:
    """Split the rows into those that take the same path, then into pieces of bounded size."""
    revealed = (rows.revealed <= codes.max()).sum(1)
    filtered = (rows.top_k > 0) | (rows.top_p < 1)
    members: dict[Path, list[int]] = {}
    each = zip(revealed.tolist(), rows.temperature.tolist(), filtered.tolist(), strict=True)
    for row, (count, temperature, some) in enumerate(each):
        members.setdefault(Path(count, temperature == 0, some), []).append(row)
    for path, index in members.items():
        pieces = torch.tensor(index, device=codes.device).split(max(1, _ROWS_BLOCK // len(codes)))
        yield from ((path, piece) for piece in pieces)


def _draw_alike(rows: Rows, codes: Tensor, path: Path) -> tuple[Tensor, Tensor]:
    """Draw the rows of one path."""
    candidates = Candidates(torch.arange(len(codes), device=codes.device)[None], rows.logits)
    if path.revealed:
        candidates = candidates.keep(agrees(rows.revealed, codes))
    highest = candidates.scores.amax(1).double()
    if path.greedy:
        return candidates.at(candidates.scores.argmax(1)), highest
    if path.filtered:
        scaled = _scale(candidates.scores, highest, rows.temperature)
        candidates = candidates.keep(keep_likely(scaled, rows.top_k, rows.top_p))
    return candidates.at(_race(candidates, highest, rows)), highest


def _scale(scores: Tensor, highest: Tensor, temperature: Tensor) -> Tensor:
    """(score - highest) / temperature, float64: the likeliest class is at 0, where a sum with noise is exact."""
    return (scores - highest[:, None]).div_(temperature[:, None])


def _race(candidates: Candidates, highest: Tensor, rows: Rows) -> Tensor:
    """Return the column that wins the Gumbel-max of each row, int64 [n]."""
    width = candidates.scores.shape[1]
    block = _NOISE_BLOCK.get(rows.logits.device.type, _NOISE_BLOCK_ELSEWHERE)
    height = max(1, block // width)
    winners = []
    for top in range(0, len(rows), height):
        few = slice(top, top + height)
        best = torch.full_like(highest[few], -torch.inf)
        winner = torch.zeros_like(rows.seeds[few])
        for start in range(0, width, block):
            some = slice(start, start + block)
            classes = candidates.classes[few if len(candidates.classes) > 1 else slice(None), some]
            words = random_words(rows.seeds[few, None], rows.events[few, None], classes)
            noisy = _scale(candidates.scores[few, some], highest[few], rows.temperature[few])
            value, column = _first_maximum(noisy.add_(gumbel_from_words(*words)))
            winner = torch.where(value > best, column + start, winner)
            best = torch.maximum(best, value)
        winners.append(winner)
    return torch.cat(winners)


def _first_maximum(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maximum of each row and its first column; on a CPU without torch's threads, as above."""
    if scores.device.type != "cpu":
        value, column = scores.max(1)
        return value, column
    column = torch.from_numpy(scores.numpy().argmax(1))
    return scores.gather(1, column[:, None])[:, 0], column
