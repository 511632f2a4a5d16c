"""Confidence order: each step reveals the sub-tokens that the network is surest of.

How many a step reveals is known before the first evaluation, so the cost is. Which ones is decided by the logits, and
the log has it: a replay needs none. It is no exact sampler, unlike a random order: docs/samplers.md says what it costs.
docs/confidence.md has the official samplers that these are, and their settings.

With a bound (`entropy_bounded` and `threshold`) the logits decide how many, too. The plan has a step for each
sub-token, and an evaluation that reveals several does as many steps: what is planned is the most that it can cost.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
import torch

from unmask_diffusion.request import RequestError, Sampler
from unmask_diffusion.schedule import Schedule, near_equal_steps, steps_of_counts

DREAM_EPS = 1e-3


def confidence_schedule(sampler: Sampler, sub_tokens: Sequence[int], digits_a_token: int) -> Schedule:
    """The schedule of a sampler by confidence: how many of the sub-tokens (ascending) each step of a block reveals.

    Raises:
        RequestError: the sampler's cut cannot make these steps.
    """
    count = len(sub_tokens)
    steps = count if sampler.steps is None else sampler.steps
    block = min(count, sampler.block_length * digits_a_token) if sampler.block_length else count
    borders = [*range(0, count, block or 1), count]
    sizes = [after - before for before, after in pairwise(borders)]
    if sampler.cut == "llada":
        shares = _equal_shares(sampler, steps, sizes)
        return steps_of_counts(sub_tokens, [*map(llada_counts, sizes, shares)])
    if sampler.cut == "dllm":
        share = -(-steps // max(1, len(sizes)))
        return steps_of_counts(sub_tokens, [dllm_counts(size, share) for size in sizes])
    if sampler.cut == "dream":
        eps = DREAM_EPS if sampler.eps is None else sampler.eps
        return steps_of_counts(sub_tokens, [dream_counts(count, steps, eps)])
    return Schedule(near_equal_steps(sub_tokens, steps, block, sampler.clock or 1, by_confidence=True))


def within_bound(sampler: Sampler, sure: Sequence[float]) -> int:
    """How many of the surest sub-tokens one evaluation of a sampler with a bound reveals: at least one.

    The entropy bound is that of EB-sampler (arXiv 2505.24857): the joint entropy of some sub-tokens, and so what is
    lost if each is drawn without the others, is at most the sum of their entropies less the largest. In ascending
    order the largest is the last, so one more fits while the sum of those before it does.

    Args:
        sampler: the sampler.
        sure: how sure the network is of each, descending: negative entropies, or largest probabilities.
    """
    bound = sampler.bound or 0.0
    if sampler.name == "threshold":
        return max(1, sum(each >= bound for each in sure))
    before = accumulate(max(0.0, -each) for each in sure[:-1])
    return 1 + sum(total <= bound for total in before) if bound else 1


def _equal_shares(sampler: Sampler, steps: int, sizes: Sequence[int]) -> list[int]:
    """As LLaDA's sampler wants it: blocks of one size with one number of steps.

    Raises:
        RequestError: they are not.
    """
    blocks = len(sizes)
    if len(set(sizes)) > 1:
        raise RequestError(
            "sampler.block_length",
            f"sampler.block_length is {sampler.block_length}, which must divide the number of tokens to generate for "
            "cut llada; cut even and cut dllm take other lengths",
        )
    if blocks and steps % blocks:
        raise RequestError(
            "sampler.steps",
            f"sampler.steps is {steps}, which must be a multiple of the {blocks} blocks for cut llada; cut even and "
            "cut dllm take other numbers",
        )
    return [steps // blocks] * blocks if blocks else []


def llada_counts(count: int, steps: int) -> list[int]:
    """LLaDA's `get_num_transfer_tokens`: sizes that differ by one at most, the larger ones first."""
    size, more = divmod(count, steps)
    return [size + (i < more) for i in range(steps)]


def dllm_counts(count: int, steps: int) -> list[int]:
    """The linear schedule of dllm: of m left, m / steps left, rounded half to even; float32 decides the halves."""
    counts, left = [], count
    # for i steps left: 1 - alpha at time i / steps, where alpha = 1 - time
    times = torch.arange(steps, -1, -1, dtype=torch.float64).div(steps).float()
    masked = 1 - (1 - times)
    for kept in (masked[1:] / masked[:-1]).tolist():
        counts.append(min(left, round(left * (1 - kept))))
        left -= counts[-1]
    return counts


def dream_counts(count: int, steps: int, eps: float) -> list[int]:
    """Dream's schedule: of m left floor(m (1 - t_{i+1} / t_i)), the last step all; float32 decides."""
    times = torch.linspace(1, eps, steps + 1)
    counts, left = [], count
    for share in (1 - times[1:-1] / times[:-2]).numpy():  # float32 numbers, and so are the products
        counts.append(int(np.float32(left) * share))
        left -= counts[-1]
    return [*counts, left]
