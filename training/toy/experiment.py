"""The experiment: the same network with either head, and what samplers make of it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from unmask_diffusion.networks import Parameterization

from training.recipe import Budget
from training.toy.distribution import coarse, cross_entropy, distribution, entropy, total_variation
from training.toy.learning import Learnt, learn, shape_of
from training.toy.pictures import density, draw_points
from training.toy.sampling import Reveals, draw

PARAMETERIZATIONS: tuple[Parameterization, ...] = ("joint", "independent")
BINS = 64
EXACT = Reveals("exact")
WHOLE_TOKENS = Reveals("whole tokens", whole_tokens=True)
# points are drawn, not only computed, by these
DRAWN = (EXACT, WHOLE_TOKENS)

# is told what is being done, and the share of it that is done
Report = Callable[[str, float], None]


@dataclass(frozen=True)
class Options:
    """What is asked for.

    Attributes:
        picture: a name of `PICTURES`. sub_tokens: digits a token, l. budget: of training, for each network.
        orders: random schedules that distributions are computed along, and averaged over.
        samples: points to draw with each sampler of DRAWN; 0: none.
        seed: of everything.
    """

    picture: str
    sub_tokens: int
    budget: Budget
    orders: int
    samples: int
    seed: int


@dataclass(frozen=True)
class Row:
    """A sampler's error with one network: total variation to the picture.

    Attributes:
        sampler: its name. evaluations: of the network, a point.
        points: of the sampler's computed distribution, over all 512 x 512 points.
        squares: the same in BINS x BINS squares.
        drawn: of points that it drew, in these squares; None where none were drawn.
    """

    sampler: str
    evaluations: int
    points: float
    squares: float
    drawn: float | None


@dataclass(frozen=True)
class Measured:
    """What one network is worth.

    Attributes:
        parameters: of the network. steps, seconds: of its training.
        bound: the valid bound, in nats a point: all points' chains along the orders, averaged.
        rows: one a sampler. densities: by sampler, computed, float64 [512, 512].
    """

    parameters: int
    steps: int
    seconds: float
    bound: float
    rows: list[Row]
    densities: dict[Reveals, Tensor]


def learn_both(options: Options, report: Report) -> dict[Parameterization, Learnt]:
    """Train the same network with either head on the same points and masks."""

    def of(parameterization: Parameterization) -> Learnt:
        def after_step(progress: float, loss: float) -> None:
            report(f"learning, {parameterization} head: {loss:.2f} nats a point", progress)

        shape = shape_of(options.sub_tokens, parameterization)
        return learn(density(options.picture), shape, options.budget, options.seed, after_step)

    return {parameterization: of(parameterization) for parameterization in PARAMETERIZATIONS}


def measure(learnt: Learnt, options: Options, report: Report) -> Measured:
    """Compute and count what samplers draw from a network."""
    truth = density(options.picture)
    rows, densities, bound = [], {}, float("nan")
    for sampler in samplers(options.sub_tokens):
        along_orders = computed(learnt, sampler, options, report)
        if sampler is EXACT:
            bound = sum(cross_entropy(truth, each) for each in along_orders) / len(along_orders)
        densities[sampler] = torch.stack(along_orders).mean(0)
        rows.append(_row(learnt, sampler, densities[sampler], options, report))
    return Measured(learnt.network.shape.parameters, learnt.steps, learnt.seconds, bound, rows, densities)


def samplers(sub_tokens: int) -> list[Reveals]:
    """From one digit an evaluation to a whole token: 2 groups of a random order take as many evaluations."""
    groups = dict.fromkeys((sub_tokens, 4, 2))
    return [EXACT, *(Reveals(f"{steps} groups", steps) for steps in groups if 1 < steps <= sub_tokens), WHOLE_TOKENS]


def computed(learnt: Learnt, sampler: Reveals, options: Options, report: Report) -> list[Tensor]:
    """A sampler's distribution along each of its schedules: those of its first samples under the seed."""
    plan = sampler.plan(learnt, options.orders, options.seed)
    schedules = list(dict.fromkeys(schedule.steps for schedule in plan.schedules))
    name = f"computing, {learnt.network.shape.parameterization} head: {sampler.name}"
    found = []
    for place, steps in enumerate(schedules):
        report(name, place / len(schedules))
        found.append(distribution(learnt, steps))
    return found


def _row(learnt: Learnt, sampler: Reveals, found: Tensor, options: Options, report: Report) -> Row:
    truth, drawn = density(options.picture), None
    if sampler in DRAWN and options.samples:
        name = f"drawing, {learnt.network.shape.parameterization} head: {sampler.name}"
        counted = draw(learnt, sampler, options.samples, options.seed, lambda share: report(name, share))
        drawn = total_variation(coarse(counted, BINS), coarse(truth, BINS))
    squares = total_variation(coarse(found, BINS), coarse(truth, BINS))
    evaluations = len(sampler.plan(learnt, 1, options.seed).schedules[0].steps)
    return Row(sampler.name, evaluations, total_variation(found, truth), squares, drawn)


def counting_floor(options: Options) -> float:
    """Total variation to the picture of points that were drawn from it, in the same squares."""
    truth = density(options.picture)
    points = draw_points(truth, options.samples, torch.Generator().manual_seed(options.seed))
    counts = torch.zeros_like(truth)
    counts.index_put_(tuple(points.unbind(1)), counts.new_ones(len(points)), accumulate=True)
    return total_variation(coarse(counts / options.samples, BINS), coarse(truth, BINS))


def truth_entropy(options: Options) -> float:
    """Of the picture, in nats a point: what no bound can be below."""
    return entropy(density(options.picture))
