"""Who gets lanes: only from what is left of a tick, and no more than pay for themselves."""

import itertools
import math
import random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unmask_diffusion import ActiveSample, Outcome, Reveal
from unmask_service import settings
from unmask_service.broker import Claim, Job
from unmask_service.engine.lanes import (
    MOST_LANES,
    Acceptance,
    Candidate,
    Speculator,
    fixed_lanes,
    paying_lanes,
)
from unmask_service.engine.tasks import Generation
from unmask_service.forecast import Capacity, Pace, Tick

from tests.helpers import plan_for, prime_model

PRIME = prime_model(length=24)
# one lane more takes not quite half of the time that one takes
TASK = Generation(PRIME, Claim(Job("a", plan_for(PRIME, seed=1), submitted_at=0.0)), plan_for(PRIME, seed=1))
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


def worth(candidates: list[Candidate], lanes: list[int], pace: Pace) -> float:
    """The sum over samples of the logarithm of the steps a second that lanes are expected to reveal."""
    groups = [sum(each.acceptance.rate**j for j in range(n)) for each, n in zip(candidates, lanes, strict=True)]
    tokens = sum(each.tokens * n for each, n in zip(candidates, lanes, strict=True))
    rows = sum(each.rows * (2 * n - 1) for each, n in zip(candidates, lanes, strict=True))
    return sum(map(math.log, groups)) - len(lanes) * math.log(pace.seconds(tokens, rows))


@given(CANDIDATES, PACES, st.integers(1, 2000))
def test_lanes_fit_and_pay(candidates: list[Candidate], pace: Pace, budget: int) -> None:
    lanes = paying_lanes(candidates, pace, budget)
    alone = [1] * len(candidates)
    assert all(1 <= n <= min(MOST_LANES, each.most_lanes) for n, each in zip(lanes, candidates, strict=True))
    assert lanes == alone or sum(n * each.tokens for n, each in zip(lanes, candidates, strict=True)) <= budget
    assert worth(candidates, lanes, pace) >= worth(candidates, alone, pace) - 1e-9


@given(CANDIDATES.filter(lambda each: len(each) < 4), PACES)
def test_among_canvases_of_one_length_no_other_lanes_are_worth_more(candidates: list[Candidate], pace: Pace) -> None:
    """Against all ways to give out up to 4 lanes each."""
    few = [Candidate(50, min(4, each.most_lanes), each.acceptance) for each in candidates]
    ways = itertools.product(*(range(1, each.most_lanes + 1) for each in few))
    best = max(worth(few, list(way), pace) for way in ways)
    assert worth(few, paying_lanes(few, pace, 10**9), pace) == pytest.approx(best, abs=1e-9)


def test_short_canvases_do_not_take_the_lanes_of_long_ones() -> None:
    """Nor their time: nobody gets much slower than with a lane each, and all samples together get faster."""
    pace = Pace(evaluation=4e-3, token=3e-5, row=5e-5)
    acceptance = Acceptance(95.0, 100.0)
    crowd = [Candidate(tokens, 200, acceptance) for tokens in (16, 16, 32, 64, 128, 128)]
    lanes = paying_lanes(crowd, pace, 4096)
    slower = pace.seconds(sum(each.tokens * n for each, n in zip(crowd, lanes, strict=True)), 2 * sum(lanes)) / (
        pace.seconds(sum(each.tokens for each in crowd), len(crowd))
    )
    speeds = [sum(0.95**j for j in range(n)) / slower for n in lanes]
    assert lanes == sorted(lanes, reverse=True)
    assert min(speeds) > 0.5
    assert math.prod(speeds) > 1.2


def test_an_idle_machine_with_cheap_tokens_spends_freely_and_a_full_tick_nothing() -> None:
    pace = Pace(evaluation=5e-3, token=1e-6, row=1e-6)
    sure = Acceptance(99.0, 100.0)
    assert paying_lanes([Candidate(100, 200, sure)], pace, 100_000) == [MOST_LANES]
    assert paying_lanes([Candidate(100, 200, sure)] * 10, pace, 1000) == [1] * 10


@given(CANDIDATES, st.integers(1, 40), st.integers(1, 2000))
def test_fixed_lanes_fit(candidates: list[Candidate], wanted: int, budget: int) -> None:
    lanes = fixed_lanes(candidates, wanted, budget)
    assert all(1 <= n <= max(1, min(wanted, each.most_lanes)) for n, each in zip(lanes, candidates, strict=True))
    total = sum(n * each.tokens for n, each in zip(lanes, candidates, strict=True))
    assert lanes == [1] * len(candidates) or total <= budget
    assert fixed_lanes(candidates, wanted, 10**9) == [max(1, min(wanted, each.most_lanes)) for each in candidates]


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


def take_rounds(
    speculator: Speculator, right: bool, count: int, steps: int | None = None, unlucky: int = 0
) -> list[int]:
    """Lanes of so many rounds of a new sample whose drafts are all right but in the first ones, or all wrong."""
    sampler = {} if steps is None else {"steps": steps}
    sample = ActiveSample.start(PRIME, plan_for(PRIME, max_tokens=24, seed=1, sampler=sampler), 0)
    reveal = Reveal(0, 0, ((0, 0, 0),))
    lanes: list[int] = []
    for number in range(count):
        (budget,) = speculator.budgets({(TASK, sample): 1}, CAPACITY)
        states = len(sample.states(budget))
        kept = states if right and number >= unlucky else 1
        sample.drafts = (reveal,) * (budget - 1)
        speculator.learn([sample], [budget], [Outcome((reveal,) * kept, states, kept)])
        lanes.append(states)
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


def test_a_sample_that_was_unlucky_is_soon_tried_again_where_others_are_lucky() -> None:
    speculator = Speculator("auto")
    take_rounds(speculator, right=True, count=48)
    lanes = take_rounds(speculator, right=True, count=48, unlucky=16)
    assert 1 in lanes[8:16]
    assert max(lanes[32:]) > 8


def lanes_with_pace(believed: Pace, true: Pace, count: int, seed: int = 0) -> list[int]:
    """Lanes of one client's ticks on a machine of another pace than was measured; three drafts of four are right."""
    speculator, chance = Speculator("auto"), random.Random(seed)
    capacity = Capacity(4096, believed)
    lanes: list[int] = []
    reveal = Reveal(0, 0, ((0, 0, 0),))
    while len(lanes) < count:
        sample = ActiveSample.start(PRIME, plan_for(PRIME, max_tokens=24, seed=1), 0)
        for _ in range(min(48, count - len(lanes))):
            (budget,) = speculator.budgets({(TASK, sample): 1}, capacity)
            states = len(sample.states(budget))
            kept = 1
            while kept < states and chance.random() < 0.75:
                kept += 1
            sample.drafts = (reveal,) * (budget - 1)
            speculator.learn([sample], [budget], [Outcome((reveal,) * kept, states, kept)])
            tick = Tick(1, 1, 24, 1, kept, 24 * states, states + budget - 1)
            seconds = true.seconds(tick.lane_tokens, tick.lane_rows) * chance.uniform(0.9, 1.1)
            capacity = speculator.learn_pace(capacity.after(tick, seconds), tick, seconds)
            lanes.append(states)
    return lanes


TRUE_PACE = Pace(evaluation=6e-3, token=3e-5, row=5e-5)


def test_an_unlucky_first_measurement_does_not_keep_speculation_off() -> None:
    """Eight canvases were slowed by something else: an evaluation seemed to be cheap, and a canvas to cost it all."""
    believed = Pace(evaluation=1e-4, token=6.8e-3 / 24, row=5e-5)
    lucky, unlucky = lanes_with_pace(TRUE_PACE, TRUE_PACE, 1000), lanes_with_pace(believed, TRUE_PACE, 1000)
    assert unlucky[:16] == [1] * 16, "it is believed at first"
    assert fmean(lucky[500:]) > 2.5
    assert fmean(unlucky[500:]) > 0.9 * fmean(lucky[500:])


def test_where_lanes_do_not_pay_probes_are_rare() -> None:
    dear = Pace(evaluation=1e-4, token=6.8e-3 / 24, row=5e-5)
    for believed in (dear, TRUE_PACE):
        lanes = lanes_with_pace(believed, dear, 1000)[500:]
        assert sum(lanes) < 1.08 * len(lanes)


def test_a_probe_needs_room() -> None:
    speculator = Speculator("auto")
    sample = ActiveSample.start(PRIME, plan_for(PRIME, max_tokens=24, seed=1), 0)
    full = Capacity(24, Pace(evaluation=1e-4, token=1e-3, row=1e-4))
    assert [speculator.budgets({(TASK, sample): 1}, full) for _ in range(100)] == [[1]] * 100


def test_the_settings_know_how_many_lanes_there_are_at_most() -> None:
    assert settings.MOST_LANES == MOST_LANES
