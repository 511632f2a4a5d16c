"""Remasking (ReMDM, arXiv 2503.00307): what is revealed may be masked again, and is then drawn anew.

Time runs in T steps, and alpha_i is the share that is revealed after i of them. In the step from alpha to alpha' each
revealed sub-token is masked again with probability sigma, at most min(1, (1 - alpha') / alpha), and each masked one is
revealed with probability (alpha' - (1 - sigma) alpha) / (1 - alpha). So after every step a sub-token is masked with
probability 1 - alpha', whatever sigma is (the paper's theorem 3.1): a network that was trained without remasking sees
states as it knows them. With sigma 0 this is the ancestral sampler.

Neither probability looks at what was drawn. So when each sub-token is revealed and masked again is drawn beforehand,
from its own random numbers, and the plan holds it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unmask_diffusion.request import RemaskingLoop, RequestError, Sampler
from unmask_diffusion.schedule import Again, Schedule, Steps, ancestral, hitting_times, share_out

Numbers = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

# what the paper's authors take for texts with the schedule loop; with cap and about 1000 steps they take 0.008
DEFAULT_RATE = 0.02
# on average, of a sub-token; and of all sub-tokens of all samples of a request
MOST_TURNS, MOST_REPEATS = 1024, 2**20
# a hazard above the largest exponential variate that 63 bits make: what has it happens
CERTAIN = 48.0
# terms of the logarithm's series, of which the next one is below 2^-60
TERMS = 19


@dataclass(frozen=True)
class Law:
    """The law of one sub-token's masking in T steps."""

    alphas: Numbers  # [T + 1]: probability that it is revealed before each step, and at the end
    sigmas: Numbers  # [T]: probability that a step masks it again if it is revealed

    @classmethod
    def of(cls, sampler: Sampler, steps: int) -> "Law":
        """The law of a sampler with so many steps."""
        rate = DEFAULT_RATE if sampler.rate is None else sampler.rate
        linear = np.arange(steps + 1) / steps
        times = linear
        for _ in range((sampler.clock or 1) - 1):
            times = times * linear
        loop = sampler.loop or RemaskingLoop()
        begin, end = 1 - loop.t_on, 1 - loop.t_off
        alphas = times
        if sampler.schedule == "loop":
            rising = loop.alpha_on + (1 - loop.alpha_on) * (np.maximum(times - end, 0) / loop.t_off)
            alphas = np.where(times < begin, loop.alpha_on * (times / begin), rising)
            alphas[-1] = 1
        most = np.minimum(1, (1 - alphas[1:]) / np.maximum(alphas[:-1], 2.0**-80))
        sigmas = rate * most if sampler.schedule == "rescale" else np.minimum(rate, most)
        if sampler.schedule == "loop":
            sigmas = np.where((times[:-1] >= begin) & (times[:-1] < end), sigmas, 0)
        return cls(alphas, sigmas)

    @property
    def repeats(self) -> float:
        """Expected number of times that it is masked again."""
        return float((self.sigmas * self.alphas[:-1]).sum())

    def reveals(self) -> Numbers:
        """The hazard of being revealed up to each time, [T + 1]."""
        before, after = self.alphas[:-1], self.alphas[1:]
        return _hazard((after - (1 - self.sigmas) * before) / (1 - before))

    def masks(self) -> Numbers:
        """The hazard of being masked again up to each time, [T + 1]."""
        return _hazard(self.sigmas)


def remasking(sampler: Sampler, seed: int, samples: int, units: Tensor, digits_a_token: int) -> list[Schedule]:
    """The schedule of each sample under the sampler `remasking`.

    Args:
        sampler: with its steps, which are shared out over blocks: what is masked again is revealed in its own block.
        seed: of the request.
        samples: number of them.
        units: int64 [n], sub-tokens that are revealed by themselves, ascending; for whole tokens each one's first.
        digits_a_token: units of a token.

    Raises:
        RequestError: far too much would be masked again.
    """
    steps, count = sampler.steps or 1, len(units)
    block = sampler.block_length and sampler.block_length * digits_a_token
    if sampler.rate == 0 or not count:
        times = hitting_times(seed, torch.arange(samples)[:, None], units)
        return [ancestral(each, units, steps, block, sampler.clock or 1) for each in times]
    borders = [*range(0, count, block or count), count]
    shares = np.array(share_out(steps, borders))
    first = np.cumsum(shares) - shares  # of each block, its first time step
    block_of = np.arange(count) // (block or count)
    stays = np.zeros(count, dtype=bool)
    if sampler.digits == "last":
        stays = (units % digits_a_token != digits_a_token - 1).numpy()
    laws = {share: Law.of(sampler, share) for share in sorted(set(shares.tolist()))}
    _check_repeats(sampler, [laws[share].repeats for share in shares[block_of[~stays]].tolist()], samples)
    found = []
    for share, law in laws.items():
        for fixed in (False, True):
            chosen = ((shares[block_of] == share) & (stays == fixed)).nonzero()[0]
            still = Law(law.alphas, np.zeros(share)) if fixed else law
            found.append(_histories(seed, samples, units, chosen, still))
    every = np.concatenate([part for part in found if part.size], axis=1)
    every[3:] += first[block_of[every[1]]]
    return [_schedule(every[1:, every[0] == sample], units, first, steps) for sample in range(samples)]


def _check_repeats(sampler: Sampler, repeats: Sequence[float], samples: int) -> None:
    mean = max(repeats, default=0.0)
    if mean <= MOST_TURNS and sum(repeats) * samples <= MOST_REPEATS:
        return
    message = f"{sum(repeats) * samples:.0f} sub-tokens would be masked again, at most {MOST_REPEATS} can be"
    if mean > MOST_TURNS:
        message = f"each sub-token would be masked again {mean:.0f} times, {MOST_TURNS} is the most"
    raise RequestError("sampler.rate", f"sampler.rate with sampler.steps {sampler.steps}: {message}; lower one of them")


def _histories(seed: int, samples: int, units: Tensor, chosen: Indices, law: Law) -> Indices:
    """When some units are revealed and masked again: int64 [5, reveals] of sample, unit's index, turn and two steps.

    The second step is at least T where a unit is not masked again.
    """
    reveals, masks = law.reveals(), law.masks()
    sample, index = (each.flatten() for each in np.meshgrid(np.arange(samples), chosen, indexing="ij"))
    now = np.zeros(len(index), dtype=np.int64)
    found: list[Indices] = []
    turn = 0
    while len(index):
        own = torch.from_numpy(sample), units[torch.from_numpy(index)]
        shown = np.searchsorted(reveals, reveals[now] + _exponential(hitting_times(seed, *own, 2 * turn)), "right")
        again = np.searchsorted(masks, masks[shown] + _exponential(hitting_times(seed, *own, 2 * turn + 1)), "right")
        found.append(np.stack([sample, index, np.full(len(index), turn), shown - 1, again - 1]))
        left = again < len(masks)
        sample, index, now = sample[left], index[left], again[left]
        turn += 1
    return np.concatenate(found, axis=1) if found else np.zeros((5, 0), dtype=np.int64)


def _schedule(history: Indices, units: Tensor, first: Indices, steps: int) -> Schedule:
    """The schedule of one sample from its history, int64 [4, reveals]: unit's index, turn, and two steps.

    The network is evaluated in steps that reveal something. A reveal that is masked again before the next evaluation
    has no effect and is left out, which may leave a step without any. So the last steps come first here.
    """
    index, turn, shown, again = history[:, np.lexsort((history[0], history[2]))]
    again = np.where(again >= _last(first, shown, steps), steps, again)
    times, begins = np.unique(shown, return_index=True)
    following = np.empty_like(times)  # the next evaluation after each step
    evaluated = np.empty(len(times), dtype=bool)
    later = steps
    for place, (time, longest) in enumerate(
        zip(times[::-1].tolist(), np.maximum.reduceat(again, begins)[::-1].tolist(), strict=True)
    ):
        following[-1 - place] = later
        evaluated[-1 - place] = longest >= later
        later = time if longest >= later else later
    kept = again >= following[np.searchsorted(times, shown)]
    times, index, turn, shown, again = times[evaluated], index[kept], turn[kept], shown[kept], again[kept]
    sub_tokens = units.numpy()[index]
    ends = np.searchsorted(shown, times, "right")
    repeated = again < steps
    at, masks = np.searchsorted(times, again[repeated], "right") - 1, sub_tokens[repeated]
    order = np.lexsort((masks, at))
    mask_ends = np.searchsorted(at[order], np.arange(len(times)), "right")
    again_of = Again(masks[order].tolist(), mask_ends.tolist(), turn.tolist())
    borders = np.searchsorted(times, first[1:])
    return Schedule(
        Steps(sub_tokens.tolist(), ends.tolist(), borders.tolist(), again=again_of), idle_steps=steps - len(times)
    )


def _last(first: Indices, shown: Indices, steps: int) -> Indices:
    """Of each step, the first one behind its block."""
    ends: Indices = np.append(first[1:], steps)
    return ends[np.searchsorted(first, shown, "right") - 1]


def _hazard(probabilities: Numbers) -> Numbers:
    """The sum of -log(1 - p) up to each time, of certain ones enough to be certain: [T] → [T + 1]."""
    each = _minus_log(np.maximum(1 - np.clip(probabilities, 0, 1), 2.0**-80))
    return np.concatenate([[0.0], np.cumsum(np.minimum(each, CERTAIN))])


def _exponential(times: Tensor) -> Numbers:
    """Exponential variates, the smallest for the first of the 63-bit times."""
    left = (2**63 - 1 - times).numpy().astype(np.float64)
    return _minus_log(np.minimum((left + 0.5) * 2.0**-63, 1 - 2.0**-53))


def _minus_log(values: Numbers) -> Numbers:
    """-log of numbers in (0, 1] from sums, products and quotients alone.

    A plan is drawn again wherever it is needed, and logarithms of two machines may differ in their last bit.
    """
    mantissa, exponent = np.frexp(values)  # in [1/2, 1)
    ratio = (mantissa - 1) / (mantissa + 1)
    square, series = ratio * ratio, np.zeros_like(ratio)
    for term in range(TERMS - 1, -1, -1):
        series = series * square + 1 / (2 * term + 1)
    result: Numbers = -(exponent * 0.6931471805599453 + 2 * ratio * series) * (values < 1)
    return result
