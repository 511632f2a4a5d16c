"""Who gets lanes: only from what is left of a tick, and no more than pay for themselves."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unmask_diffusion import ActiveSample, Reveal, Round
from unmask_service import settings
from unmask_service.engine.lanes import (
    MOST_LANES,
    Acceptance,
    Candidate,
    Speculator,
    fixed_lanes,
    paying_lanes,
)
from unmask_service.forecast import Capacity, Pace

from tests.helpers import plan_for, prime_model

PRIME = prime_model(length=24)
# one lane more takes not quite half of the time that one takes
CAPACITY = Capacity(4096, Pace(evaluation=5e-3, token=2e-4, row=1e-4))

PACES = st.builds(Pace, *(st.floats(1e-6, 1e-2) for _ in range(3)))
CANDIDATES = st.lists(
    st.builds(
        lambda tokens, left, rate: Candidate(tokens, left, Acceptance(rate, 1.0)),
        st.integers(1, 200),
        st.integers(1, 40),
        st.floats(0, 1),
    ),
    min_size=1,
    max_size=6,
)


def rate_of(candidates: list[Candidate], lanes: list[int], pace: Pace) -> float:
    """Groups a second that lanes are expected to reveal."""
    groups = sum(sum(each.acceptance.rate**j for j in range(n)) for each, n in zip(candidates, lanes, strict=True))
    more = sum(lanes) - len(lanes)
    tokens = sum(each.tokens * n for each, n in zip(candidates, lanes, strict=True))
    return groups / pace.seconds(tokens, len(lanes) + 2 * more)


@given(CANDIDATES, PACES, st.integers(1, 2000))
def test_lanes_fit_and_pay(candidates: list[Candidate], pace: Pace, budget: int) -> None:
    lanes = paying_lanes(candidates, pace, budget)
    alone = [1] * len(candidates)
    assert all(1 <= n <= min(MOST_LANES, each.groups_left) for n, each in zip(lanes, candidates, strict=True))
    assert lanes == alone or sum(n * each.tokens for n, each in zip(lanes, candidates, strict=True)) <= budget
    assert rate_of(candidates, lanes, pace) >= rate_of(candidates, alone, pace) * (1 - 1e-9)


@given(CANDIDATES.filter(lambda each: len(each) < 4), PACES)
def test_no_other_lanes_are_faster(candidates: list[Candidate], pace: Pace) -> None:
    """Against all ways to give out up to 4 lanes each."""
    few = [Candidate(each.tokens, min(4, each.groups_left), each.acceptance) for each in candidates]
    lanes = paying_lanes(few, pace, 10**9)
    ways = itertools.product(*(range(1, each.groups_left + 1) for each in few))
    best = max(rate_of(few, list(way), pace) for way in ways)
    assert rate_of(few, lanes, pace) == pytest.approx(best, rel=1e-6)


def test_an_idle_machine_with_cheap_tokens_spends_freely_and_a_full_tick_nothing() -> None:
    pace = Pace(evaluation=5e-3, token=1e-6, row=1e-6)
    sure = Acceptance(99.0, 100.0)
    assert paying_lanes([Candidate(100, 200, sure)], pace, 100_000) == [MOST_LANES]
    assert paying_lanes([Candidate(100, 200, sure)] * 10, pace, 1000) == [1] * 10


@given(CANDIDATES, st.integers(1, 40), st.integers(1, 2000))
def test_fixed_lanes_fit(candidates: list[Candidate], wanted: int, budget: int) -> None:
    lanes = fixed_lanes(candidates, wanted, budget)
    assert all(1 <= n <= max(1, min(wanted, each.groups_left)) for n, each in zip(lanes, candidates, strict=True))
    total = sum(n * each.tokens for n, each in zip(lanes, candidates, strict=True))
    assert lanes == [1] * len(candidates) or total <= budget
    assert fixed_lanes(candidates, wanted, 10**9) == [max(1, min(wanted, each.groups_left)) for each in candidates]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)).filter(lambda pair: pair[0] <= pair[1]), max_size=30))
def test_acceptance_is_a_probability(rounds: list[tuple[int, int]]) -> None:
    acceptance = Acceptance()
    for accepted, lanes in rounds:
        acceptance = acceptance.after(accepted, lanes)
        assert 0 <= acceptance.rate <= 1


def test_acceptance_follows_what_happens() -> None:
    good = bad = Acceptance()
    for _ in range(50):
        good, bad = good.after(8, 8), bad.after(1, 8)
    assert good.rate > 0.99
    assert bad.rate < 0.01
    assert good.after(1, 1) == good
    assert good.as_prior().rate == pytest.approx(good.rate)


def take_rounds(speculator: Speculator, right: bool, count: int, steps: int | None = None) -> list[int]:
    """Lanes of so many rounds of a new sample whose guesses are all right, or all wrong."""
    sampler = {} if steps is None else {"steps": steps}
    sample = ActiveSample.start(PRIME, plan_for(PRIME, max_tokens=24, seed=1, sampler=sampler), 0)
    group, lanes = Reveal(0, 0, ((0, 0, 0),)), []
    for _ in range(count):
        (ask,) = speculator.ask([sample], CAPACITY)
        outcomes = [group] * (ask.lanes if right else 1)
        sample.guesses = (group,) * ask.foresight
        speculator.learn([ask], [Round([*outcomes], sample.guesses, ask.lanes)])
        lanes.append(ask.lanes)
    return lanes


def test_wrong_guesses_spend_nothing_any_more_right_ones_all_they_can() -> None:
    speculator = Speculator("auto")
    assert sum(take_rounds(speculator, right=False, count=100)) < 120
    assert take_rounds(Speculator("auto"), right=True, count=100)[-1] > 8


def test_wide_groups_that_are_never_guessed_say_nothing_of_narrow_ones() -> None:
    speculator = Speculator("auto")
    for _ in range(40):
        take_rounds(speculator, right=False, count=5, steps=5)
    assert max(take_rounds(speculator, right=True, count=4)) > 2


def test_bad_luck_is_not_believed_for_ever() -> None:
    speculator = Speculator("auto")
    for _ in range(10):
        take_rounds(speculator, right=False, count=40)
    assert max(take_rounds(speculator, right=True, count=300)) > 8


def test_the_settings_know_how_many_lanes_there_are_at_most() -> None:
    assert settings.MOST_LANES == MOST_LANES
