"""Inputs of a draw: hard shapes, half-revealed rows, and permuted codes."""

from dataclasses import dataclass, replace

import torch
from hypothesis import strategies as st
from torch import Tensor
from unmask_kernels import Draws, draw
from unmask_kernels.categorical import draw_reference

from tests.kernels import plain

# C, b, l: powers and what is no power, one digit to five
SHAPES = [(1, 2, 1), (2, 2, 1), (101, 101, 1), (101, 11, 2), (101, 3, 5), (500, 23, 2), (64, 4, 3), (4096, 64, 2)]


@dataclass(frozen=True)
class Case:
    """The arguments of `draw`, each with a row a draw (the codes apart)."""

    codes: Tensor
    logits: Tensor
    revealed: Tensor
    seeds: Tensor
    events: Tensor
    temperature: Tensor
    top_k: Tensor
    top_p: Tensor

    def take(self, index: Tensor) -> "Case":
        """The same case with some of its rows, in this order."""
        rows = {name: value[index] for name, value in vars(self).items() if name != "codes"}
        return replace(self, **rows)

    def draw(self) -> Tensor:
        return draw(*self._arguments, top_k=self.top_k, top_p=self.top_p)

    def draw_unfiltered(self) -> Tensor:
        return draw(*self._arguments)

    def draw_reference(self) -> Tensor:
        return draw_reference(self.logits, self.codes, self.draws)

    @property
    def draws(self) -> Draws:
        return Draws(self.revealed, self.seeds, self.events, self.temperature, self.top_k, self.top_p)

    @property
    def _arguments(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        return self.logits, self.revealed, self.codes, self.seeds, self.events, self.temperature


def make_case(rows: int, shape: tuple[int, int, int], seed: int = 0, dtype: torch.dtype = torch.float32) -> Case:
    """A mixed batch: some digits revealed, some rows greedy, some filtered, some logits -inf."""
    classes, base, length = shape
    generator = torch.Generator().manual_seed(seed)

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator, dtype=torch.float64)

    codes = plain.digits(classes, base, length)[torch.randperm(classes, generator=generator)]
    truth = torch.randint(classes, (rows,), generator=generator)
    mask_id = int(codes.max()) + 1 + seed % 3
    revealed = torch.where(uniform(rows, length) < uniform(rows, 1), codes[truth], mask_id)
    logits = 3 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    logits[uniform(rows, classes) < 0.1] = -torch.inf
    logits[torch.arange(rows), truth] = uniform(rows)
    logits *= torch.where(uniform(rows, 1) < 0.1, 1e4, 1.0)
    return Case(
        codes,
        logits.to(dtype),
        revealed,
        torch.randint(2**63 - 1, (rows,), generator=generator),
        torch.randint(63 * 2**32 + 4096, (rows,), generator=generator),
        torch.where(uniform(rows) < 0.2, 0.0, 2 * uniform(rows) + 0.05),
        torch.where(uniform(rows) < 0.5, 0, torch.randint(classes + 3, (rows,), generator=generator)),
        torch.where(uniform(rows) < 0.5, 1.0, uniform(rows)),
    )


cases = st.builds(
    make_case,
    rows=st.integers(1, 9),
    shape=st.sampled_from(SHAPES[:-1]),
    seed=st.integers(0, 2**20),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
