"""Whose turn it is: the samples that share the next network evaluation."""

from collections.abc import Iterable, Iterator
from itertools import chain, zip_longest

from unmask_diffusion import ActiveSample, Model

from unmask_service.broker import Job


class Generation:
    """A claimed job and its samples.

    Attributes:
        job: as it was claimed.
        samples: those that still have sub-tokens to reveal.
    """

    def __init__(self, model: Model, job: Job) -> None:
        self.job = job
        every = (ActiveSample.start(model, job.plan, index) for index in range(job.plan.request.n))
        self.samples = [sample for sample in every if not sample.finished]

    @property
    def evaluations_left(self) -> int:
        """Network evaluations that its samples still need."""
        return sum(sample.groups_left for sample in self.samples)

    def in_turn(self) -> Iterator["Place"]:
        """Its samples, those with most to do first: so they end together, and none is left to be evaluated alone."""
        return ((self, sample) for sample in sorted(self.samples, key=lambda sample: -sample.groups_left))


Place = tuple[Generation, ActiveSample]


def take_turn(generations: Iterable[Generation], tokens_per_tick: int) -> list[Place]:
    """Go round the generations, oldest first, for one sample of each, then a second, until the tokens are spent.

    So the oldest goes on in every tick, whatever comes after it, and a large request leaves room for small ones.
    A first sample is taken even if it is longer than a tick should be.
    """
    turn: list[Place] = []
    tokens = 0
    for place in chain.from_iterable(zip_longest(*(generation.in_turn() for generation in generations))):
        if place is None:
            continue
        tokens += place[0].job.plan.length
        if turn and tokens > tokens_per_tick:
            break
        turn.append(place)
    return turn


def first_round_tokens(generations: Iterable[Generation]) -> int:
    """Tokens of a tick that takes one sample of each generation."""
    return sum(generation.job.plan.length for generation in generations)
