"""Draws whose Gumbel noise has few random bits: the lowered temperature of paper 1 computed, the lost mass counted.

Gumbel-max, argmax of log p_c + g_c, is a race: class c arrives at E_c / p_c with E = exp(-g), and the first wins. E
is exponential, and g ≤ M means E ≥ delta = exp(-M). An exponential variable that is known to exceed delta is delta
plus an exponential one, so class c *starts* at delta / p_c and then runs as ever: the rarer a class, the later it may
start, and below p of about delta the race is over before it does. The law in closed form, classes in descending p,
with S_i = p_1 + … + p_i and t_i = delta / p_i (t of the class after the last is infinite):

    P(n) = p_n · sum over i ≥ n of [exp(i delta - S_i t_i) - exp(i delta - S_i t_{i+1})] / S_i

Every class's p is multiplied by a factor that rises with p: probable classes gain, as they do when a temperature falls.
No temperature gives just this law. The *effective* temperature is that of the tempered law with the same entropy.

A float32 generator's uniforms, k / 2^24, bound the noise at M = 24 log 2 = 16.64, but do not cut it off: they round E
up to a multiple of delta. Then class c arrives at multiples of t_c = delta / p_c, at each with probability delta, and
its factor is the sum over k of t_c exp(-k t_c), that is t_c / (exp(t_c) - 1), where the formula above has exp(-t_c).

The mass of rare classes: one common class stands beside RARE classes of probability eps each, whose mass below the
bound is lost to the common class. It is computed on the grid and by paper 1's formula for truncated noise, and counted
with the draw's own noise.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import exp, log, sqrt
from multiprocessing import get_context

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from torch import Tensor
from unmask_kernels import random_words
from unmask_kernels.philox import gumbel_from_words

Doubles = npt.NDArray[np.float64]
RARE = 50_000
GRID_BITS = 24
ROWS_TOGETHER = 500
SEED = 24
GREATEST_OF_24_BITS = 24 * log(2)
GREATEST_OF_64_BITS = 65 * log(2)  # v = 1 - u is at least 2^-65


@dataclass(frozen=True)
class Lowered:
    """What noise of few bits does to MDLM's draws with T steps."""

    classes: str  # whose probabilities: a name
    steps: int  # T
    noise: str  # one of `NOISES`
    entropy: float  # nats, of the classes themselves
    entropy_drawn: float  # nats, of the draw
    temperature: float  # the effective one
    moved: float  # probability that the draw takes from some classes and gives to others


def truncated_law(probabilities: Doubles, greatest: float) -> Doubles:
    """The law of argmax(log p + g) for p float64 [C] and Gumbel noise truncated at `greatest` (M); float64 [C]."""
    delta = exp(-greatest)
    order = np.argsort(-probabilities, kind="stable")
    order = order[probabilities[order] > 0]
    p = probabilities[order]
    starts, rates = delta / p, np.cumsum(p)
    until = np.append(np.diff(starts), np.inf)
    stretches = np.exp(delta * np.arange(1, len(p) + 1) - rates * starts) * -np.expm1(-rates * until) / rates
    law = np.zeros_like(probabilities)
    law[order] = p * np.cumsum(stretches[::-1])[::-1]
    return law


def grid_law(probabilities: Doubles, greatest: float) -> Doubles:
    """The law of argmax(log p + g) if exp(-g) is rounded up to a multiple of exp(-greatest), to first order; [C]."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        starts = exp(-greatest) / probabilities
        factors = np.where(starts > 0, starts / np.expm1(starts), 1.0)
    weights = np.where(np.isfinite(starts), probabilities * np.nan_to_num(factors), 0.0)
    law: Doubles = weights / weights.sum()
    return law


NOISES: dict[str, Callable[[Doubles], Doubles]] = {
    "cut off at 16.64": partial(truncated_law, greatest=GREATEST_OF_24_BITS),
    "24 bits": partial(grid_law, greatest=GREATEST_OF_24_BITS),
    "64 bits": partial(grid_law, greatest=GREATEST_OF_64_BITS),
}


def drawn_beside_a_mask(classes: Doubles, shares: Iterable[float], law_of: Callable[[Doubles], Doubles]) -> Doubles:
    """The class that a masked token becomes if class and mask come from one draw with such noise, float64 [C].

    In MDLM's sampler the classes have a share (t - s) / t of the draw and the mask has the rest, so every class is
    rare. A token is revealed in each of T steps with equal probability: its law is the mean over the steps' shares.
    """
    laws = []
    for share in shares:
        law = law_of(np.append(share * classes, 1 - share))[:-1]
        laws.append(law / law.sum())
    mean: Doubles = np.mean(laws, axis=0)
    return mean


def entropy_of(probabilities: Doubles) -> float:
    some = probabilities[probabilities > 0]
    return float(-(some * np.log(some)).sum())


def effective_temperature(probabilities: Doubles, entropy: float) -> float:
    """The temperature at which softmax(log p / temperature) has this entropy, by bisection to 1e-9."""
    logits = np.log(probabilities[probabilities > 0])

    def tempered_entropy(temperature: float) -> float:
        scaled = np.exp((logits - logits.max()) / temperature)
        return entropy_of(scaled / scaled.sum())

    return _where_it_reaches(tempered_entropy, entropy, 1e-3, 1e3)


def _where_it_reaches(rising: Callable[[float], float], value: float, low: float, high: float) -> float:
    """The x in low … high at which a rising function has a value, to 1e-9 of x."""
    while high - low > 1e-9 * high:
        middle = sqrt(low * high)
        low, high = (middle, high) if rising(middle) < value else (low, middle)
    return sqrt(low * high)


def lowered(name: str, classes: Doubles, steps: int, noise: str, points: int = 64) -> Lowered:
    """The effective temperature of T steps with a noise of `NOISES`, from `points` evenly spread steps."""
    shares = [1 / (1 + int((i + 0.5) / points * steps)) for i in range(points)]
    drawn = drawn_beside_a_mask(classes, shares, NOISES[noise])
    entropy = entropy_of(drawn)
    moved = float(np.abs(drawn - classes).sum()) / 2
    temperature = effective_temperature(classes, entropy)
    return Lowered(name, steps, noise, entropy_of(classes), entropy, temperature, moved)


@dataclass(frozen=True)
class RareMass:
    """The probability that one of the rare classes is drawn, for one eps."""

    eps: float  # probability of each rare class
    true: float  # RARE · eps
    computed_24_bits: float  # what Gumbel-max gives with noise of so many random bits
    computed_64_bits: float
    truncated: float  # what it gives with noise that is known not to exceed 24 bits' greatest
    drawn_24_bits: float  # share of rows; the second by our own draw
    drawn_64_bits: float
    rows: int  # that were drawn


def gumbel_on_24_bits(high: Tensor, low: Tensor) -> Tensor:
    """Random words → Gumbel noise of u = k / 2**24 in float32 arithmetic; a replacement of our own noise.

    It uses the upper 24 bits of the same words: large noise stays large, so draws can be compared.
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
    """The same for 64 bits, v = 1 - u = (bits + 1/2) / 2**64, by the midpoint rule over the common class's v."""
    ratio = eps / (1 - rare * eps)
    common = (np.arange(points) + 0.5) / points
    below = np.round(-np.expm1(ratio * np.log1p(-common)) * 2.0**64) * 2.0**-64
    return float(-np.expm1(rare * np.log1p(-below)).mean())


def computed_by_truncation(eps: float, rare: int = RARE) -> float:
    """The same for noise truncated at the greatest noise of 24 bits: paper 1's formula."""
    return float(truncated_law(np.array([1 - rare * eps, *[eps] * rare]), GREATEST_OF_24_BITS)[1:].sum())


def greatest_noise(events: Sequence[int], rare: int = RARE) -> tuple[Tensor, Tensor]:
    """High and low words, int64 [rows, 2] each, of the common class and of the rare class with the greatest noise.

    The words are those of `unmask_kernels.draw` for SEED and these events; class 0 is the common one. Noise falls as
    the 64 random bits rise, so the least bits of all rare classes decide.
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
    """Rows that draw a rare class, by 24 bits and by ours, int64 [2, epsilons]; sets torch's threads to one."""
    torch.set_num_threads(1)
    words = greatest_noise(events)
    kinds = ((gumbel_on_24_bits(*words), torch.float32), (gumbel_from_words(*words), torch.float64))
    return np.array([[int(rare_wins(noise, eps, dtype).sum()) for eps in epsilons] for noise, dtype in kinds])


def measure_rare_mass(epsilons: Sequence[float], rows: int, processes: int | None) -> list[RareMass]:
    """Compute the masses, and count them in rows of 50,001 classes, in several processes."""
    jobs = [range(start, min(rows, start + ROWS_TOGETHER)) for start in range(0, rows, ROWS_TOGETHER)]
    about = f"{rows} rows of {RARE} rare classes"
    if processes == 1:
        done = [count_wins(job, epsilons) for job in track(jobs, description=about)]
    else:
        with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
            running = [pool.submit(count_wins, job, list(epsilons)) for job in jobs]
            done = [job.result() for job in track(running, description=about)]
    of_24, of_64 = np.sum(done, axis=0) / rows
    masses = []
    for eps, drawn_24, drawn_64 in zip(epsilons, of_24.tolist(), of_64.tolist(), strict=True):
        computed = computed_on_a_grid(eps), computed_in_the_tail(eps), computed_by_truncation(eps)
        masses.append(RareMass(eps, RARE * eps, *computed, drawn_24, drawn_64, rows))
    return masses
