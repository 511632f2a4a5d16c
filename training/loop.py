"""The training loop. A step = draw a batch, mask it, evaluate, descend, average; everything else is book-keeping.

Data, lengths and masks of step s are functions of (seed, s) alone, so a run that was stopped goes on as if it had not
been: with a budget of steps the resumed weights equal the uninterrupted ones bit for bit.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from unmask_diffusion.networks import NetworkShape, PrimeDenoiser

from training.fused_head import fused_loss
from training.network import features
from training.objective import corrupt, spread_rates, token_losses
from training.optimizers import MovingAverage, initialise, make_optimizers, set_rates
from training.recipe import Budget, Recipe

LOG_EVERY = 20
LENGTH_STEP = 8
ROWS_STEP = 256
# logit bias of classes that never occur: e^-20 each
UNUSED_BIAS = -20.0


class Source(Protocol):
    """Where token ids come from."""

    def batch(self, chance: random.Random, count: int, length: int) -> Tensor:
        """Draw `count` canvases, int64 [count, length]."""


@dataclass
class History:
    """What a run has been through.

    Attributes:
        step: steps taken. tokens: canvas tokens seen. seconds: of training.
        losses: (step, tokens, loss, in nats a token by the recipe's objective) every few steps.
        events: (step, tokens, what was measured) of evaluations.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    losses: list[tuple[int, int, float]] = field(default_factory=list)
    events: list[tuple[int, int, dict[str, float]]] = field(default_factory=list)


class Trainer:
    """A run: network, optimizers, average and history."""

    def __init__(self, recipe: Recipe, source: Source, codes: Tensor, used: Tensor, device: str = "cpu") -> None:
        """Start from nothing.

        Args:
            recipe: the numbers.
            source: the text.
            codes: int64 [C, l], the digits of each class.
            used: int64, the classes that the text consists of. Only their rows of the head are trained: the others
                never come up, and begin (and stay) improbable.
            device: to train on.
        """
        self.recipe, self.source, self.device = recipe, source, torch.device(device)
        shape = NetworkShape(
            length=recipe.length,
            vocabulary_size=recipe.vocabulary_size,
            sub_tokens_per_token=recipe.sub_tokens_per_token,
            base=recipe.base,
            hidden_size=recipe.hidden_size,
            blocks=recipe.blocks,
            heads=recipe.heads,
            absolute_positions=recipe.absolute_positions,
        )
        self.network = PrimeDenoiser(shape)
        initialise(self.network, codes, recipe)
        unused = torch.ones(recipe.vocabulary_size, dtype=torch.bool)
        unused[used] = False
        with torch.no_grad():
            self.network.output.weight[unused] = 0.0
            self.network.output.bias[unused] = UNUSED_BIAS
        self.network.to(self.device)
        self.codes, self.used = codes.to(self.device), used.to(self.device)
        self.rank_of_class = torch.full((recipe.vocabulary_size,), -1, device=self.device)
        self.rank_of_class[self.used] = torch.arange(len(used), device=self.device)
        self.optimizers = make_optimizers(self.network, recipe)
        self.average = MovingAverage(self.network, recipe.ema_decay)
        self.history = History()

    def run(self, budget: Budget, after_step: Callable[["Trainer", float], None]) -> None:
        """Train until the budget is spent; call `after_step` with the progress after each step (its time counts)."""
        recent: list[Tensor] = []
        last = time.perf_counter()
        while (progress := budget.progress(self.history.step, self.history.seconds)) < 1:
            recent.append(self.step(progress))
            now = time.perf_counter()
            self.history.seconds += now - last
            last = now
            if self.history.step % LOG_EVERY == 0:
                mean = float(torch.stack(recent).mean())
                self.history.losses.append((self.history.step, self.history.tokens, mean))
                recent.clear()
            after_step(self, progress)

    def step(self, progress: float) -> Tensor:
        """Take one step; return its loss."""
        step = self.history.step
        set_rates(self.optimizers, self.recipe.rate_factor(step, progress))
        loss, tokens = self.loss(step)
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.average.update(self.network, step)
        self.history.step += 1
        self.history.tokens += tokens
        return loss.detach()

    def loss(self, step: int) -> tuple[Tensor, int]:
        """The loss of a step's batch, and its number of tokens."""
        chance = random.Random(f"{self.recipe.seed}/{step}")
        generator = torch.Generator().manual_seed(chance.getrandbits(63))
        length = self._draw_length(chance)
        count = max(1, self.recipe.batch_tokens // length)
        ids = self.source.batch(chance, count, length).to(self.device)
        rates = 1 - spread_rates(count, step, generator) ** self.recipe.mask_clock
        digits = self.codes[ids].cpu()
        corrupted = corrupt(digits, self.recipe.base, rates, generator, self.recipe.weight_floor)
        target = self.rank_of_class[ids.flatten()]
        hidden = corrupted.hidden.to(self.device).flatten(0, 1)
        rows = (hidden.any(-1) & (target >= 0)).nonzero()[:, 0]
        weights = corrupted.weights.repeat_interleave(length).to(self.device)[rows]
        # oneDNN keeps a compiled product for each shape, so the number of rows is rounded up, by rows without weight
        missing = -len(rows) % ROWS_STEP
        rows, weights = torch.cat([rows, rows[:1].expand(missing)]), F.pad(weights, (0, missing))
        precision = self.recipe.product_dtype(self.device)
        x = features(self.network, corrupted.digits.to(self.device), rows, precision)
        head, codes = self.network.output, self.codes[self.used]
        weight, bias = head.weight[self.used], head.bias[self.used]
        row = (target[rows], hidden[rows], codes)
        if self.recipe.sub_tokens_per_token == 2:
            loss = fused_loss(x, weight, bias, *row, weights, self.recipe.objective, precision)
        else:
            loss = (token_losses(F.linear(x, weight, bias), *row, self.recipe.objective) * weights).sum()
        return loss, ids.numel()

    def _draw_length(self, chance: random.Random) -> int:
        """One of a few lengths: of how many shapes there are depends how much memory kernels for them take."""
        recipe, drawn = self.recipe, chance.random()
        if drawn < recipe.full_share:
            return recipe.length
        if drawn < recipe.full_share + recipe.usual_share:
            return recipe.usual_length
        return chance.randrange(recipe.shortest, recipe.length + 1, LENGTH_STEP)
