"""Samples taken to their ends by speculation with chosen lanes, without a server."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from unmask_diffusion import ActiveSample, Ask, Model, Outcome, Plan, Reveal, evaluate_lanes


@dataclass(frozen=True)
class Course:
    """How a sample came to its end.

    Attributes:
        outcomes: its log; an error can only be the last.
        lanes: that it had in each round.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    lanes: list[int] = field(default_factory=list)


def samples_of(model: Model, plan: Plan) -> list[ActiveSample]:
    """All samples of a plan, before their first reveals."""
    return [ActiveSample.start(model, plan, index) for index in range(len(plan.schedules))]


def take_to_ends(
    model: Model, samples: Sequence[ActiveSample], lanes: Iterator[int], places: int | None = None
) -> list[Course]:
    """Take samples to their ends.

    Args:
        model: to evaluate.
        samples: the first of them begin, the next join when one ends.
        lanes: of a sample in a round, at most, and so on without end; a guess less is made for its next round.
        places: samples in a round (default: all).
    """
    courses = {id(each): Course() for each in samples}
    left = list(samples)
    while left:
        now = left[:places]
        asks = [Ask(each, count, foresight=count - 1) for each, count in zip(now, lanes, strict=False)]
        for each, done in zip(now, evaluate_lanes(model, asks), strict=True):
            courses[id(each)].outcomes.extend(done.outcomes)
            courses[id(each)].lanes.append(done.lanes)
            if not _go_on(each, done.outcomes, done.guesses):
                left.remove(each)
    return list(courses.values())


def _go_on(sample: ActiveSample, outcomes: Sequence[Outcome], guesses: tuple[Reveal, ...]) -> bool:
    """Write what a round did into its sample; whether there is more to do."""
    for outcome in outcomes:
        if not isinstance(outcome, Reveal):
            return False
        sample.reveal(outcome)
    sample.guesses = guesses
    return not sample.finished
