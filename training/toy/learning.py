"""A small network learns a picture, by the valid bound with partial masking."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import AdamW
from unmask_diffusion import NetworkShape, PrimeDenoiser, SubTokenizer, smallest_base
from unmask_diffusion.networks import Parameterization

from training.network import features
from training.objective import corrupt, spread_rates
from training.optimizers import MovingAverage, set_rates
from training.recipe import Budget
from training.toy.digits import DigitProducts
from training.toy.pictures import SIDE, draw_points

HIDDEN_SIZE = 72
BLOCKS = 3
HEADS = 4
BATCH = 256
RATE = 5e-3
WARM_UP_STEPS = 50
# progress at which the learning rate's linear fall begins
DECAY_FROM = 0.4
EMA_DECAY = 0.998
WEIGHT_FLOOR = 0.3


@dataclass(frozen=True)
class Learnt:
    """A trained network and what it took.

    Attributes:
        network: with the averaged weights. sub_tokenizer: its table of codes.
        steps: of training. seconds: they took.
    """

    network: PrimeDenoiser
    sub_tokenizer: SubTokenizer
    steps: int
    seconds: float


def shape_of(sub_tokens_per_token: int, parameterization: Parameterization) -> NetworkShape:
    """The network: two tokens of 512 classes."""
    return NetworkShape(
        length=2,
        vocabulary_size=SIDE,
        sub_tokens_per_token=sub_tokens_per_token,
        base=smallest_base(SIDE, sub_tokens_per_token),
        hidden_size=HIDDEN_SIZE,
        blocks=BLOCKS,
        heads=HEADS,
        absolute_positions=True,
        parameterization=parameterization,
    )


def learn(
    picture: Tensor, shape: NetworkShape, budget: Budget, seed: int, after_step: Callable[[float, float], None]
) -> Learnt:
    """Train a network on points of a picture.

    Args:
        picture: float64 [512, 512], the density.
        shape: of the network.
        budget: how long.
        seed: of parameters, points and masks: both parameterizations see the same ones.
        after_step: hears the progress (0 to 1) and the loss, in nats a point, of every step.
    """
    torch.manual_seed(seed)
    network = PrimeDenoiser(shape)
    student = _Student(network, picture, torch.Generator().manual_seed(seed))
    optimizer = AdamW(network.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.0)
    optimizer.param_groups[0]["peak"] = RATE
    average = MovingAverage(network, EMA_DECAY)
    step, start = 0, time.perf_counter()
    while (progress := budget.progress(step, time.perf_counter() - start)) < 1:
        set_rates([optimizer], _rate_factor(step, progress))
        loss = student.loss(step)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update(network, step)
        step += 1
        after_step(progress, float(loss.detach()))
    network.load_state_dict(average.weights)
    return Learnt(network.requires_grad_(False).eval(), student.sub_tokenizer, step, time.perf_counter() - start)


class _Student:
    """A network with what its loss needs."""

    def __init__(self, network: PrimeDenoiser, picture: Tensor, generator: torch.Generator) -> None:
        self.network, self.picture, self.generator = network, picture, generator
        shape = network.shape
        self.sub_tokenizer = SubTokenizer.from_base(SIDE, shape.sub_tokens_per_token, shape.base)
        self.products = DigitProducts(self.sub_tokenizer)

    def loss(self, step: int) -> Tensor:
        """The bound's estimate from a batch, in nats a point."""
        points = draw_points(self.picture, BATCH, self.generator)
        rates = spread_rates(BATCH, step, self.generator)
        digits = self.sub_tokenizer.codes[points]
        corrupted = corrupt(digits, self.sub_tokenizer.mask_id, rates, self.generator, WEIGHT_FLOOR)
        rows = corrupted.hidden.flatten(0, 1).any(1).nonzero()[:, 0]
        logits = joint_logits(self.network, self.products, corrupted.digits, rows)
        losses = self.products.marginal_losses(logits, points.flatten()[rows], corrupted.digits.flatten(0, 1)[rows])
        return 2 * (losses * corrupted.weights.repeat_interleave(2)[rows]).sum()


def joint_logits(network: PrimeDenoiser, products: DigitProducts, digits: Tensor, rows: Tensor) -> Tensor:
    """The network's joint logits [N, C] of rows of canvases [B, 2, l], by the training-time forward pass."""
    outputs = F.linear(features(network, digits, rows, torch.float32), network.output.weight, network.output.bias)
    return outputs if network.shape.parameterization == "joint" else products.joint_logits(outputs)


def _rate_factor(step: int, progress: float) -> float:
    """Warm-up, plateau, linear fall to zero."""
    return min(1.0, (step + 1) / WARM_UP_STEPS, (1 - progress) / (1 - DECAY_FROM))
