"""How to lower the error of groups at the same number of evaluations: variants on a known chain.

The chain's exact posterior is the prediction (one digit a token), so every difference from the chain is the sampler's
error. The variants are independent of the server's sampler and draw a batch at a time; one of them is the server's
`high_order`. docs/samplers.md has the results.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from unmask_service.frontier import MarkovTruth

from benchmarks.harness import Numbers, Table
from benchmarks.papers.chain import LENGTH, Chain, random_chain

# (prediction at a state, at the state before, how far to extrapolate [n]) → what is drawn from, [N, n, C]
Combine = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Tried:
    """What a variant's sequences are."""

    variant: str
    evaluations: int
    divergence: float  # of bigrams, nats
    total_variation: float  # of transitions
    nats: float  # a token, by the chain


def probabilities(p: Tensor, q: Tensor, c: Tensor) -> Tensor:
    """Extrapolate probabilities: p + c (p - q), where that is positive."""
    return (p + c[:, None] * (p - q)).clamp(min=0)


def logarithms(p: Tensor, q: Tensor, c: Tensor) -> Tensor:
    """Extrapolate logarithms: p (p / q)^c."""
    tiny = torch.finfo(p.dtype).tiny
    scores = (1 + c[:, None]) * p.clamp(min=tiny).log() - c[:, None] * q.clamp(min=tiny).log()
    return scores.masked_fill(p == 0, -torch.inf).softmax(-1)


class Sampler:
    """Draws sequences of a chain, a batch at a time, each in an order of its own."""

    def __init__(self, chain: Chain, count: int) -> None:
        self._chain = chain
        self._generator = torch.Generator().manual_seed(0)
        # positions in the order of their reveals; tokens, -1 where masked: int64 [N, L]
        self.order = torch.rand(count, LENGTH, generator=self._generator).argsort(1)
        self.tokens = torch.full((count, LENGTH), -1)

    def part(self, first: int, stop: int) -> Tensor:
        """Positions `first` to `stop` in the order of reveals, [N, n]."""
        return self.order[:, first:stop]

    def predict(self, hidden: Tensor | None = None) -> Tensor:
        """An evaluation: posteriors [N, L, C] of all positions, the tokens at `hidden` [N, n] taken as masked."""
        tokens = self.tokens if hidden is None else self.tokens.scatter(1, hidden, -1)
        fits = torch.nn.functional.one_hot(tokens.clamp(min=0), len(self._chain.initial)).double()
        fits[tokens < 0] = 1
        forward, backward = torch.empty_like(fits), torch.ones_like(fits)
        forward[:, 0] = self._chain.initial * fits[:, 0]
        for i in range(1, LENGTH):
            message = forward[:, i - 1] @ self._chain.transition * fits[:, i]
            forward[:, i] = message / message.amax(-1, keepdim=True)
        for i in reversed(range(LENGTH - 1)):
            message = (backward[:, i + 1] * fits[:, i + 1]) @ self._chain.transition.T
            backward[:, i] = message / message.amax(-1, keepdim=True)
        posteriors = forward * backward
        return posteriors / posteriors.sum(-1, keepdim=True)

    def draw(self, weights: Tensor, positions: Tensor) -> None:
        """Draw the tokens of positions [N, n] from weights [N, n, C]."""
        drawn = torch.multinomial(weights.flatten(0, 1), 1, generator=self._generator)
        self.tokens.scatter_(1, positions, drawn.view(positions.shape))


def at(posteriors: Tensor, positions: Tensor) -> Tensor:
    """The posteriors of positions [N, n]: [N, n, C]."""
    return posteriors.gather(1, positions[..., None].expand(-1, -1, posteriors.shape[2]))


def in_groups(combine: Combine, weight: Callable[[int, int, int], Tensor]) -> Callable[[Sampler, int], None]:
    """Groups, each drawn from its own prediction and the one before, combined by weight(group, size before, size)."""

    def go(sampler: Sampler, evaluations: int) -> None:
        ends = [LENGTH * i // evaluations for i in range(evaluations + 1)]
        before = sampler.predict()
        for group in range(evaluations):
            positions = sampler.part(ends[group], ends[group + 1])
            now = sampler.predict() if group else before
            c = weight(group, ends[group] - ends[max(group - 1, 0)], positions.shape[1])
            sampler.draw(combine(at(now, positions), at(before, positions), c), positions)
            before = now

    return go


def plain(_group: int, _before: int, size: int) -> Tensor:
    return torch.zeros(size)


def own_time(group: int, before: int, size: int) -> Tensor:
    """Extrapolate each token to the time of its reveal."""
    return torch.arange(size) / before if group else torch.zeros(size)


def for_both(group: int, before: int, size: int) -> Tensor:
    """Extrapolate in every second group, for the group before too."""
    share = (before * (before - 1) + size * (size - 1)) / (2 * before * size) if group % 2 else 0.0
    return torch.full((size,), share)


def averaged(group: int, _before: int, size: int) -> Tensor:
    """In every second group the mean of both predictions."""
    return torch.full((size,), -0.5 if group % 2 else 0.0)


def three_a_group(share: float | None) -> Callable[[Sampler, int], None]:
    """Draft a group, then draw each half again with the other half's draft known: three evaluations a group.

    Both halves at once from a mix with `share` of the new prediction, or one after the other (None: Gibbs).
    """

    def go(sampler: Sampler, evaluations: int) -> None:
        ends = [LENGTH * i // (evaluations // 3) for i in range(evaluations // 3 + 1)]
        for first, stop in pairwise(ends):
            middle = (first + stop + 1) // 2
            group, early, late = (sampler.part(*each) for each in ((first, stop), (first, middle), (middle, stop)))
            draft = sampler.predict()
            sampler.draw(at(draft, group), group)
            of_late = sampler.predict(hidden=late)
            if share is None:
                sampler.draw(at(of_late, late), late)
                sampler.draw(at(sampler.predict(hidden=early), early), early)
            else:
                of_early = sampler.predict(hidden=early)
                sampler.draw(at(torch.lerp(draft, of_early, share), early), early)
                sampler.draw(at(torch.lerp(draft, of_late, share), late), late)

    return go


VARIANTS: Mapping[str, Callable[[Sampler, int], None]] = {
    "plain groups": in_groups(probabilities, plain),
    "extrapolation": in_groups(probabilities, own_time),
    "extrapolation of logarithms": in_groups(logarithms, own_time),
    "predictor-corrector": in_groups(probabilities, for_both),
    "predictor-corrector that averages": in_groups(probabilities, averaged),
    "draft, both halves again": three_a_group(0.5),
    "draft, one half after the other": three_a_group(None),
}


def tried(variant: str, truth: MarkovTruth, tokens: Tensor, evaluations: int) -> Tried:
    nats = float(truth.nats(tokens).mean()) / tokens.shape[1]
    return Tried(variant, evaluations, truth.divergence(tokens), truth.total_variation(tokens), nats)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--evaluations", type=int, nargs="+", default=[12, 24], help="a sequence, multiples of 6")
    parser.add_argument("--sequences", type=int, default=1024, help="sequences of each variant (default: 1024)")


def measured(arguments: argparse.Namespace) -> Numbers:
    torch.set_num_threads(1)  # the products are tiny: threads would only wait for each other
    chain = random_chain()
    truth = chain.truth()
    found = [tried("the chain itself", truth, truth.draw(arguments.sequences, seed=2), 0)]
    for evaluations in arguments.evaluations:
        for name, go in VARIANTS.items():
            sampler = Sampler(chain, arguments.sequences)
            go(sampler, evaluations)
            found.append(tried(name, truth, sampler.tokens, evaluations))
    rows = []
    for each in found:
        errors = f"{each.divergence:.4f}", f"{each.total_variation:.4f}", f"{each.nats:.4f}"
        rows.append([each.variant, str(each.evaluations or ""), *errors])
    about = f"C {len(chain.initial)}, L {LENGTH}, {arguments.sequences} sequences"
    print(Table(about, ["variant", "evaluations", "divergence", "total variation", "nats a token"], rows))
    return {"sequences": arguments.sequences, "variants": found}
