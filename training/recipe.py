"""A training recipe: every number that decides the result, and the budget that the learning rate follows."""

from dataclasses import dataclass
from typing import Literal

import torch

from training.objective import Objective


@dataclass(frozen=True)
class Recipe:
    """The numbers of a run; saved with its checkpoints and in the bundle's provenance."""

    name: str  # of the recipe: `python -m training NAME`
    seed: int = 0  # of parameters, data and masks
    length: int = 128  # longest canvas, in tokens
    usual_length: int = 72  # length of most canvases
    shortest: int = 16  # shortest canvas
    full_share: float = 0.1  # share of batches with the longest canvas
    usual_share: float = 0.8  # share of batches with the usual one; the other batches draw any length
    vocabulary_size: int = 4096  # classes C
    sub_tokens_per_token: int = 2  # digits of a class, l
    base: int = 64  # of the digits, b: b ** l is at least C
    hidden_size: int = 192
    blocks: int = 6
    heads: int = 6
    absolute_positions: bool = True  # without them all positions of a fully masked canvas look alike
    batch_tokens: int = 4096  # tokens of a batch, whatever the canvas length
    objective: Objective = "marginals"
    weight_floor: float = 0.3  # see `objective`
    mask_clock: int = 1  # n: a canvas at time t has 1 - t^n of its digits masked; 1 for evenly spread rates
    muon_rate: float = 0.02  # learning rate of the blocks' matrices
    adam_rate: float = 3e-3  # learning rate of everything else
    weight_decay: float = 0.02  # of the blocks' matrices, relative to the learning rate
    warm_up_steps: int = 50  # linear rise of the learning rates
    decay_from: float = 0.4  # progress at which their linear fall to zero begins
    ema_decay: float = 0.998  # of the averaged weights, which are the ones that are kept
    copy_strength: float = 0.5  # share of the mean attended value that a block passes on at the start
    precision: Literal["auto", "bfloat16", "float32"] = "auto"  # of matrix products; see `product_dtype`

    def rate_factor(self, step: int, progress: float) -> float:
        """The factor of the learning rates: warm-up, plateau, linear fall to zero at progress 1."""
        fall = (1 - progress) / (1 - self.decay_from) if progress > self.decay_from else 1.0
        return min(1.0, (step + 1) / self.warm_up_steps) * max(fall, 0.0)

    def product_dtype(self, device: torch.device) -> torch.dtype:
        """The type of matrix products. "auto" is bfloat16 where the hardware multiplies it.

        A CPU without such units emulates bfloat16 at a quarter of float32's speed.
        """
        if self.precision != "auto":
            dtype: torch.dtype = getattr(torch, self.precision)
            return dtype
        cpu = torch.cpu.get_capabilities()
        has_bfloat16 = device.type == "cuda" or cpu.get("avx512_bf16") or cpu.get("amx_bf16")
        return torch.bfloat16 if has_bfloat16 else torch.float32


@dataclass(frozen=True)
class Budget:
    """The length of a run in minutes, evaluations and earlier parts of a resumed run included; or in steps."""

    minutes: float
    steps: int | None = None  # used instead of minutes where given: reproducible on any machine

    def progress(self, steps: int, seconds: float) -> float:
        """The share of the budget that is spent, from 0 to 1."""
        return min(1.0, steps / self.steps if self.steps is not None else seconds / (60 * self.minutes))
