"""A Markov chain that is known exactly: samplers draw from its posterior and are compared with it by their bigrams."""

from dataclasses import dataclass

import torch
from torch import Tensor
from unmask_diffusion import MarkovDenoiser, SubTokenizer, smallest_base
from unmask_service.frontier import MarkovTruth

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

    def truth(self, length: int = LENGTH) -> MarkovTruth:
        """What samples of so many tokens are compared with."""
        return MarkovTruth(self.model(1, length).denoiser, length)

    def floor(self, count: int) -> tuple[float, float]:
        """Counting noise: mean and deviation of the divergence of `count` sequences drawn from the chain itself."""
        truth = self.truth()
        floors = torch.tensor([truth.divergence(truth.draw(count, seed)) for seed in range(2, 2 + FLOORS)])
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
