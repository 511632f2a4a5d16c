"""What a sampler draws from a network, computed instead of sampled: its distribution over all 512 x 512 points."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from unmask_diffusion import Step

from training.toy.digits import DigitProducts
from training.toy.learning import Learnt, joint_logits
from training.toy.pictures import SIDE

# canvases that are evaluated together
PIECE = 8192


@torch.inference_mode()
def distribution(learnt: Learnt, steps: Iterable[Step]) -> Tensor:
    """The sampler's own distribution over points along one schedule, float64 [512, 512].

    Every state that the reveals so far may have led to is evaluated, with the rule of the sampler: in a step,
    positions are drawn independently, and digits of one position from their joint distribution.

    Args:
        learnt: the network.
        steps: of a schedule, which reveal each sub-token once.
    """
    states = learnt.sub_tokenizer.masked(2)[None]
    probabilities = torch.ones(1, dtype=torch.float64)
    products = DigitProducts(learnt.sub_tokenizer)
    for step in steps:
        # all positions of a step are evaluated before any of its digits is known
        drawn = [
            (position, places, _digit_chances(learnt, products, states, position, places))
            for position, places in step.by_position(learnt.sub_tokenizer.sub_tokens_per_token).items()
        ]
        origin = torch.arange(len(states))
        for position, places, chances in drawn:
            joint = probabilities[:, None] * chances[origin]
            states, probabilities, came_from = _branched(states, joint, position, places, products.base)
            origin = origin[came_from]
    result = torch.zeros(SIDE, SIDE, dtype=torch.float64)
    x, y = learnt.sub_tokenizer.decode(states).unbind(1)
    result[x, y] = probabilities
    return result


def _digit_chances(
    learnt: Learnt, products: DigitProducts, states: Tensor, position: int, places: Sequence[int]
) -> Tensor:
    """The joint probabilities of a position's digits at some places, given each state: float64 [N, b ** places]."""
    base = products.base
    numbers = sum(products.codes[:, j] * base**power for power, j in enumerate(reversed(places)))
    pieces = []
    for part in states.split(PIECE):
        logits = joint_logits(learnt.network, products, part, 2 * torch.arange(len(part)) + position)
        weights = products.class_weights(logits, part[:, position]).double()
        sums = weights.new_zeros(len(part), base ** len(places)).index_add_(1, torch.as_tensor(numbers), weights)
        pieces.append(sums / sums.sum(1, keepdim=True))
    return torch.cat(pieces)


def _branched(
    states: Tensor, joint: Tensor, position: int, places: Sequence[int], base: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The states after a reveal, from joint [N, b ** places]; their probabilities; the state that each came from.

    Those of probability 0 are left out.
    """
    came_from, numbers = joint.nonzero(as_tuple=True)
    branched = states[came_from]
    for power, j in enumerate(reversed(places)):
        branched[:, position, j] = numbers // base**power % base
    return branched, joint[came_from, numbers], came_from


def coarse(probabilities: Tensor, bins: int) -> Tensor:
    """A density [512, 512] in bins x bins squares."""
    size = SIDE // bins
    squares: Tensor = probabilities.unflatten(1, (bins, size)).unflatten(0, (bins, size)).sum((1, 3))
    return squares


def total_variation(first: Tensor, second: Tensor) -> float:
    """Half the sum of the differences of two densities: 0 where they are equal, 1 where they never meet."""
    return float((first - second).abs().sum()) / 2


def entropy(probabilities: Tensor) -> float:
    """Of a density, in nats."""
    return cross_entropy(probabilities, probabilities)


def cross_entropy(truth: Tensor, model: Tensor) -> float:
    """What points of `truth` cost under `model`, in nats a point."""
    seen = truth > 0
    return -float((truth[seen] * model[seen].log()).sum())
