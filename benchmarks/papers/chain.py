"""A Markov chain that is known exactly: samplers draw from its posterior and are compared with it by their bigrams."""

from dataclasses import dataclass

import torch
from torch import Tensor
from unmask_diffusion import MarkovDenoiser, SubTokenizer, smallest_base

from benchmarks.models import BareModel

CLASSES, LENGTH = 64, 128
SEED = 1
FLOORS = 8  # draws of the chain itself, for the spread of its divergence


@dataclass(frozen=True)
class Chain:
    """A stationary chain: initial [C], transition [C, C] (row: from), float64."""

    initial: Tensor
    transition: Tensor

    def model(self, digits: int, length: int = LENGTH) -> BareModel[MarkovDenoiser]:
        """Its exact posterior as a model, with l digits a token."""
        classes = len(self.initial)
        sub_tokenizer = SubTokenizer.from_base(classes, digits, smallest_base(classes, digits))
        denoiser = MarkovDenoiser(self.initial.log(), self.transition.log(), length, sub_tokenizer)
        return BareModel(denoiser, sub_tokenizer)

    def draw(self, count: int, seed: int, length: int = LENGTH) -> Tensor:
        """Sequences of the chain itself, int64 [count, length]."""
        generator = torch.Generator().manual_seed(seed)
        states = [torch.multinomial(self.initial, count, replacement=True, generator=generator)]
        for _ in range(length - 1):
            states.append(torch.multinomial(self.transition[states[-1]], 1, generator=generator)[:, 0])
        return torch.stack(states, 1)

    def nats(self, sequences: Tensor) -> Tensor:
        """-log p of sequences, int64 [N, L] → float64 [N]."""
        steps = self.transition[sequences[:, :-1], sequences[:, 1:]].log().sum(1)
        return -(self.initial[sequences[:, 0]].log() + steps)

    def entropy_a_token(self, length: int = LENGTH) -> float:
        """The mean of -log p of a sequence, divided by its length, in nats."""
        first = -(self.initial * self.initial.log()).sum()
        others = -(self.initial[:, None] * self.transition * self.transition.log()).sum()
        return float(first + (length - 1) * others) / length

    def divergence(self, sequences: Tensor) -> float:
        """KL(bigrams of sequences ‖ bigrams of the chain) in nats; sequences are int64 [N, L]."""
        classes = len(self.initial)
        pairs = (sequences[:, :-1] * classes + sequences[:, 1:]).flatten()
        drawn = torch.bincount(pairs, minlength=classes * classes).double()
        drawn /= drawn.sum()
        truth = (self.initial[:, None] * self.transition).flatten()
        return float(torch.where(drawn > 0, drawn * (drawn / truth).log(), 0.0).sum())

    def floor(self, count: int) -> tuple[float, float]:
        """Counting noise: mean and deviation of the divergence of `count` sequences drawn from the chain itself."""
        floors = torch.tensor([self.divergence(self.draw(count, seed)) for seed in range(2, 2 + FLOORS)])
        return float(floors.mean()), float(floors.std())


def random_chain(seed: int = SEED, classes: int = CLASSES) -> Chain:
    """A stationary chain whose rows are Dirichlet(0.2)."""
    generator = torch.Generator().manual_seed(seed)
    gammas = torch._standard_gamma(torch.full((classes, classes), 0.2, dtype=torch.float64), generator)
    transition = (gammas + 1e-6) / (gammas + 1e-6).sum(1, keepdim=True)
    initial = torch.full((classes,), 1 / classes, dtype=torch.float64)
    for _ in range(1000):
        initial = initial @ transition
    return Chain(initial, transition)
