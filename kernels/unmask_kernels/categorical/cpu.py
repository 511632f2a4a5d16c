"""The draw on a CPU, a row at a time until the noise: noise only for classes that can still win.

NumPy, because it stays on the calling thread and a call of it costs a microsecond: a row has a few candidates or a few
thousand, too little to wait for another core.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unmask_kernels.categorical.draws import Draws
from unmask_kernels.categorical.filters import keep_likely
from unmask_kernels.categorical.noise import gumbel_from_words
from unmask_kernels.consistency_cpu import Classes, consistent_classes
from unmask_kernels.philox import random_words

Scores = npt.NDArray[np.float64]

# Classes whose noise is made together: buffers of this many come from memory that stays with the process and from the
# cache (greater ones are mapped anew each time: twice as slow), and they are fewer than what torch
# would split among threads (32768). No result depends on it.
NOISE_BLOCK = 16_000


class Candidates(NamedTuple):
    """The classes that one row may become, ascending, and their logits: any floating dtype [K]."""

    row: int
    classes: Classes
    logits: npt.NDArray[np.floating]


class Racer(NamedTuple):
    """A row, or a piece of one, that waits for its noise."""

    row: int
    classes: Classes
    scores: Scores


def candidates_of_logits(logits: Tensor, revealed: Tensor, codes: Tensor) -> Iterator[Candidates]:
    """Yield each row's candidates from logits [N, C]."""
    consistent = consistent_classes(codes)
    # NumPy has no bfloat16
    values = logits.numpy() if logits.dtype in (torch.float32, torch.float64) else logits.float().numpy()
    for row, digits in enumerate(revealed.tolist()):
        classes = consistent.of(digits)
        yield Candidates(row, classes, values[row] if classes is consistent.every else values[row, classes])


def draw_candidates(rows: Iterable[Candidates], draws: Draws) -> tuple[Tensor, Tensor]:
    """Draw a class for every row; rows come in any order, each once.

    Returns:
        classes, int64 [N], and the highest consistent logit of each row, float64 [N]: where this is not finite
        the class is -1.
    """
    race = _Race(draws)
    # NaN and infinities are told by `highest`; a score may overflow to -inf where the temperature is tiny
    with np.errstate(invalid="ignore", over="ignore"):
        for block in _blocks(race.enter(rows)):
            race.run(block)
    return torch.from_numpy(race.drawn), torch.from_numpy(race.highest)


class _Race:
    """The rows of one draw: the class that leads each so far, and by which score."""

    def __init__(self, draws: Draws) -> None:
        self.draws = draws
        self.drawn: Classes = np.full(len(draws), -1)
        self.highest: Scores = np.full(len(draws), -np.inf)
        self._leading: Scores = np.full(len(draws), -np.inf)

    def enter(self, rows: Iterable[Candidates]) -> Iterator[Racer]:
        """Decide the rows that need no noise; yield the others with (logit - highest) / temperature.

        The likeliest class is then at 0, where a sum with noise is exact.
        """
        temperatures = self.draws.temperature.tolist()
        filtered = self.draws.filtered.tolist()
        for row, classes, logits in rows:
            if not len(classes):
                continue
            best = self.highest[row] = logits.max()
            if not np.isfinite(best):
                continue
            if temperatures[row] == 0:
                self.drawn[row] = classes[logits.argmax()]
                continue
            racer = Racer(row, classes, np.subtract(logits, best, dtype=np.float64) / temperatures[row])
            yield self._filtered(racer) if filtered[row] else racer

    def run(self, block: list[Racer]) -> None:
        """Give the racers of a block their noise."""
        sizes = [len(racer.classes) for racer in block]
        rows = torch.tensor([racer.row for racer in block])
        if len(block) > 1:
            rows = rows.repeat_interleave(torch.tensor(sizes))
        classes = torch.from_numpy(np.concatenate([racer.classes for racer in block]))
        noise = gumbel_from_words(*random_words(self.draws.seeds[rows], self.draws.events[rows], classes)).numpy()
        start = 0
        for racer, size in zip(block, sizes, strict=True):
            self._finish(racer, racer.scores + noise[start : start + size])
            start += size

    def _finish(self, racer: Racer, noisy: Scores) -> None:
        winner = noisy.argmax()
        if noisy[winner] > self._leading[racer.row]:
            self._leading[racer.row] = noisy[winner]
            self.drawn[racer.row] = racer.classes[winner]

    def _filtered(self, racer: Racer) -> Racer:
        one = slice(racer.row, racer.row + 1)
        scores = torch.from_numpy(racer.scores)[None]
        kept = keep_likely(scores, self.draws.top_k[one], self.draws.top_p[one])[0].numpy()
        return Racer(racer.row, racer.classes[kept], racer.scores[kept])


def _blocks(racers: Iterable[Racer]) -> Iterator[list[Racer]]:
    """Put racers together, and cut long ones up, into blocks of at most NOISE_BLOCK classes."""
    block: list[Racer] = []
    room = NOISE_BLOCK
    for row, classes, scores in racers:
        for start in range(0, len(classes), NOISE_BLOCK):
            piece = Racer(row, classes[start : start + NOISE_BLOCK], scores[start : start + NOISE_BLOCK])
            if len(piece.classes) > room:
                yield block
                block, room = [], NOISE_BLOCK
            block.append(piece)
            room -= len(piece.classes)
    if block:
        yield block
