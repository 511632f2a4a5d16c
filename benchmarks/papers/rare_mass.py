"""How often one of many rare classes is drawn: computed, and counted with the draw's own noise.

One common class stands beside RARE classes of probability eps each. With u on the grid k / 2**24, as a float32
generator gives it, the largest Gumbel noise is 16.64: the mass of classes below that is lost to the common class.
Computed twice: on that grid, and by paper 1's formula for noise that is cut off at 16.64.
"""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from torch import Tensor
from unmask_kernels import random_words
from unmask_kernels.philox import gumbel_from_words

from benchmarks.papers.truncated_gumbel import GREATEST_OF_24_BITS, truncated_law

RARE = 50_000
GRID_BITS = 24
ROWS_TOGETHER = 500
SEED = 24

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RareMass:
    """The probability that some rare class is drawn, for one eps.

    Attributes:
        eps: probability of each rare class.
        true: RARE · eps.
        computed_24_bits, computed_64_bits: what Gumbel-max gives with noise of so many random bits.
        truncated: what it gives with noise that is known not to exceed 24 bits' greatest.
        drawn_24_bits, drawn_64_bits: share of rows; the second by our own draw.
        rows: that were drawn.
    """

    eps: float
    true: float
    computed_24_bits: float
    computed_64_bits: float
    truncated: float
    drawn_24_bits: float
    drawn_64_bits: float
    rows: int


def gumbel_on_24_bits(high: Tensor, low: Tensor) -> Tensor:
    """Random words → Gumbel noise as float32 arithmetic makes it of u = k / 2**24; takes the place of our own.

    The same words as there, cut to their upper 24 bits: large noise stays large, so that draws can be compared.
    """
    del low
    uniform = ((2**GRID_BITS - 1) - (high >> (32 - GRID_BITS))).float() * 2.0**-GRID_BITS
    noise: Tensor = uniform.log().neg().log().neg().double()
    return noise


def computed_on_a_grid(eps: float, rare: int = RARE, bits: int = GRID_BITS) -> float:
    """The mass of the rare classes if every u is k / 2**bits, 0 ≤ k < 2**bits: the sum over the common class's k.

    With r = eps / (1 - rare · eps) a rare class beats the common one if its u exceeds u_common ** r.
    """
    size: int = 2**bits
    ratio = eps / (1 - rare * eps)
    total = 0.0
    for start in range(0, size, 1 << 20):
        common = np.arange(start, min(size, start + (1 << 20))) / size
        not_above = np.minimum(np.floor(common**ratio * size) + 1, size) / size
        total += float((1 - not_above**rare).sum())
    return total / size


def computed_in_the_tail(eps: float, rare: int = RARE, points: int = 1 << 20) -> float:
    """The same for 64 bits, v = 1 - u = (bits + 1/2) / 2**64: by the midpoint rule over the common class's v."""
    ratio = eps / (1 - rare * eps)
    common = (np.arange(points) + 0.5) / points
    below = np.round(-np.expm1(ratio * np.log1p(-common)) * 2.0**64) * 2.0**-64
    return float(-np.expm1(rare * np.log1p(-below)).mean())


def computed_by_truncation(eps: float, rare: int = RARE) -> float:
    """The same for noise that is cut off where 24 bits end: paper 1's formula."""
    return float(truncated_law(np.array([1 - rare * eps, *[eps] * rare]), GREATEST_OF_24_BITS)[1:].sum())


def greatest_noise(events: Sequence[int], rare: int = RARE) -> tuple[Tensor, Tensor]:
    """The noise of rows of the draw, as `unmask_kernels.draw` has it for SEED and these events: class 0 is common.

    Both kinds of noise fall as the 64 random bits rise, so that of all rare classes only the least bits matter.

    Returns:
        int64 [rows, 2], high words of the common class and of the rare class with the greatest noise; their low words.
    """
    classes, seeds = torch.arange(rare + 1)[None], torch.tensor([[SEED]])
    least = np.empty((len(events), 2), np.uint64)
    for row, event in enumerate(events):
        high, low = (
            words.numpy()[0].view(np.uint64) for words in random_words(seeds, torch.tensor([[event]]), classes)
        )
        bits = (high << np.uint64(32)) | low
        least[row] = bits[0], bits[1:].min()
    words = least >> np.uint64(32), least & np.uint64(2**32 - 1)
    high, low = (torch.from_numpy(each.view(np.int64)) for each in words)
    return high, low


def rare_wins(noise: Tensor, eps: float, dtype: torch.dtype, rare: int = RARE) -> Tensor:
    """Which rows draw a rare class: bool [rows], of noise float64 [rows, 2]; scores are compared in a dtype."""
    logits = torch.tensor([1 - rare * eps, eps], dtype=torch.float64).log().float()
    scores = logits.to(dtype) + noise.to(dtype)
    return scores[:, 1] > scores[:, 0]  # the first of equals is the common class


def count_wins(events: range, epsilons: Sequence[float]) -> npt.NDArray[np.int64]:
    """Rows that draw a rare class, by 24 bits and by ours: [2, epsilons]. The noise of a row serves every eps.

    Sets torch's threads to one.
    """
    torch.set_num_threads(1)
    words = greatest_noise(events)
    kinds = ((gumbel_on_24_bits(*words), torch.float32), (gumbel_from_words(*words), torch.float64))
    return np.array([[int(rare_wins(noise, eps, dtype).sum()) for eps in epsilons] for noise, dtype in kinds])


def measure_rare_mass(epsilons: Sequence[float], rows: int, processes: int | None) -> list[RareMass]:
    """Compute, and draw rows of 50,001 classes in several processes."""
    jobs = [range(start, min(rows, start + ROWS_TOGETHER)) for start in range(0, rows, ROWS_TOGETHER)]
    about = f"{rows} rows of {RARE} rare classes"
    if processes == 1:
        done = [count_wins(job, epsilons) for job in track(jobs, description=about)]
    else:
        with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
            running = [pool.submit(count_wins, job, list(epsilons)) for job in jobs]
            done = [job.result() for job in track(running, description=about)]
    of_24, of_64 = np.sum(done, axis=0) / rows
    return [
        RareMass(eps, RARE * eps, *_computed(eps), float(a), float(b), rows)
        for eps, a, b in zip(epsilons, of_24, of_64, strict=True)
    ]


def _computed(eps: float) -> tuple[float, float, float]:
    return computed_on_a_grid(eps), computed_in_the_tail(eps), computed_by_truncation(eps)
