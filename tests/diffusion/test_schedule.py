import itertools
import math
from bisect import bisect_right
from collections import Counter
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency
from torch import Tensor
from unmask_diffusion import Schedule, ancestral, event_of, first_hitting, hitting_times
from unmask_diffusion.schedule import Step, Steps, near_equal_steps, time_bins
from unmask_kernels import random_uniform

from tests.helpers import FALSE_ALARM_RATE, chi_square_p

seeds = st.integers(0, 2**63 - 1)
samples = st.integers(0, 63)
# places with gaps, as given tokens leave them
places = st.lists(st.integers(0, 10_000), max_size=60, unique=True).map(lambda p: torch.tensor(sorted(p)).long())
some_places = places.filter(lambda p: len(p) > 0)


def flat(schedule: Schedule) -> list[int]:
    return [sub_token for step in schedule.steps for sub_token in step.reveal]


@given(seeds, samples, places)
def test_exact_reveals_every_sub_token_once_one_at_a_time(seed: int, sample: int, places: Tensor) -> None:
    schedule = first_hitting(hitting_times(seed, sample, places), places, None)
    assert sorted(flat(schedule)) == places.tolist()
    assert all(len(step.reveal) == 1 for step in schedule.steps)
    assert schedule.idle_steps == 0


@given(seeds, samples, places, st.integers(1, 100))
def test_k_groups_are_near_equal_and_at_most_one_a_sub_token(seed: int, sample: int, places: Tensor, k: int) -> None:
    schedule = first_hitting(hitting_times(seed, sample, places), places, k)
    sizes = [len(step.reveal) for step in schedule.steps]
    assert sorted(flat(schedule)) == places.tolist()
    assert len(sizes) == min(k, len(places))
    assert not sizes or 1 <= min(sizes) <= max(sizes) <= min(sizes) + 1
    assert schedule.idle_steps == 0


@given(seeds, samples, some_places, st.integers(1, 64))
def test_ancestral_bins_the_hitting_times(seed: int, sample: int, places: Tensor, steps: int) -> None:
    times = hitting_times(seed, sample, places)
    schedule = ancestral(times, places, steps)
    assert sorted(flat(schedule)) == places.tolist()
    assert all(step.reveal for step in schedule.steps)
    assert schedule.idle_steps + len(schedule.steps) == steps
    exact_bin = {p: t * steps >> 63 for p, t in zip(places.tolist(), times.tolist(), strict=True)}
    bins = [{exact_bin[sub_token] for sub_token in step.reveal} for step in schedule.steps]
    assert all(len(b) == 1 for b in bins), "a group mixes time steps"
    assert [min(b) for b in bins] == sorted({min(b) for b in bins}), "steps repeat or are out of order"


@given(seeds, samples, some_places)
def test_one_ancestral_step_is_one_group(seed: int, sample: int, places: Tensor) -> None:
    schedule = ancestral(hitting_times(seed, sample, places), places, 1)
    assert [sorted(step.reveal) for step in schedule.steps] == [places.tolist()]
    assert schedule.idle_steps == 0


@pytest.mark.parametrize("steps", [1, 7, 1_000_000])
def test_nothing_to_reveal_takes_no_evaluation(steps: int) -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    assert ancestral(hitting_times(3, 0, nothing), nothing, steps).steps == Steps([], [])
    assert first_hitting(hitting_times(3, 0, nothing), nothing, steps).steps == Steps([], [])
    assert first_hitting(hitting_times(3, 0, nothing), nothing, None).steps == Steps([], [])


def test_a_million_steps_are_nearly_one_sub_token_each() -> None:
    places = torch.arange(100)
    times = hitting_times(11, 0, places)
    schedule = ancestral(times, places, 1_000_000)
    assert len(schedule.steps) >= 98
    assert schedule.idle_steps + len(schedule.steps) == 1_000_000


@given(seeds, samples, places, st.integers(1, 50))
def test_all_samplers_cut_one_order(seed: int, sample: int, places: Tensor, k: int) -> None:
    times = hitting_times(seed, sample, places)
    order = flat(first_hitting(times, places, None))
    assert flat(first_hitting(times, places, k)) == order
    assert flat(ancestral(times, places, k)) == order


@given(seeds, samples, places, st.data())
def test_a_hitting_time_depends_on_seed_sample_and_sub_token_alone(
    seed: int, sample: int, places: Tensor, data: st.DataObject
) -> None:
    times = hitting_times(seed, sample, places)
    assert not times.numel() or 0 <= int(times.min()) <= int(times.max()) < 2**63
    assert torch.equal(hitting_times(seed, sample, places), times)
    chosen = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(places), max_size=len(places)))).bool()
    assert torch.equal(hitting_times(seed, sample, places[chosen]), times[chosen])


def test_other_seeds_and_samples_have_other_times() -> None:
    places = torch.arange(50)
    keys = [(0, 0), (1, 0), (2**32, 0), (2**63 - 1, 0), (0, 1), (0, 63), (1, 1)]
    times = torch.cat([hitting_times(seed, sample, places) for seed, sample in keys])
    assert len(times.unique()) == len(times)


@pytest.mark.parametrize(("count", "steps"), [(16, 16), (64, 16), (16, 64), (40, 1), (1, 12)])
def test_idle_steps_are_those_of_proposition_a1(count: int, steps: int) -> None:
    """Mean of 800 schedules against T (1 - 1/T)^n; the variance is that of empty boxes; 4.42 sigma: 1e-5."""
    trials = 800
    places = torch.arange(count)
    idle = [ancestral(hitting_times(seed, seed % 3, places), places, steps).idle_steps for seed in range(trials)]
    expected = steps * (1 - 1 / steps) ** count
    pairs = steps * (steps - 1) * max(0.0, 1 - 2 / steps) ** count
    deviation = math.sqrt(max(0.0, pairs + expected - expected**2) / trials)
    assert abs(sum(idle) / trials - expected) <= 4.42 * deviation + 1e-9


def test_every_order_is_equally_likely() -> None:
    """Chi-square over the 24 orders of 4 sub-tokens, 4800 seeds."""
    places = torch.tensor([0, 1, 2, 7])
    orders = Counter(tuple(flat(first_hitting(hitting_times(s, s % 5, places), places, None))) for s in range(4800))
    assert len(orders) == 24
    assert chi_square_p(orders, dict.fromkeys(orders, 1 / 24)) > FALSE_ALARM_RATE


def test_a_place_is_equally_likely_to_be_hit_at_any_time() -> None:
    """Chi-square over 32 equal bins, 32,000 hitting times of several seeds and samples."""
    places = torch.arange(1000)
    times = torch.cat([hitting_times(seed, sample, places) for seed in (0, 1, 2**40, 2**63 - 1) for sample in range(8)])
    counts = torch.bincount(times >> 58, minlength=32).tolist()
    assert chi_square_p({(i,): c for i, c in enumerate(counts)}, {(i,): 1 / 32 for i in range(32)}) > FALSE_ALARM_RATE


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_order_knows_nothing_of_the_draws(index: int) -> None:
    """Independence of hitting time and draw of the same (seed, sub-token): 8 x 8 table, 16,000 pairs."""
    places = torch.arange(16_000)
    times = hitting_times(5, 2, places) >> 60
    events = event_of(2, 0) + places
    draws = (random_uniform(torch.full_like(events, 5), events, torch.full_like(events, index)) * 8).long()
    table = torch.bincount(times * 8 + draws, minlength=64).view(8, 8).numpy()
    assert chi2_contingency(table).pvalue > FALSE_ALARM_RATE


def test_an_event_is_the_sample_and_the_sub_token() -> None:
    assert event_of(0, 5) == 5
    assert event_of(3, 5) == 3 * 2**32 + 5


@given(st.lists(st.integers(0, 2**32), max_size=50), st.integers(1, 60))
def test_near_equal_steps_keep_the_order(order: list[int], steps: int) -> None:
    cut = near_equal_steps(order, steps)
    assert [each for step in cut for each in step.reveal] == order
    assert len(cut) == min(steps, len(order))


@given(st.lists(st.lists(st.integers(0, 2**20), min_size=1, max_size=4), max_size=8))
def test_steps_are_a_sequence(parts: list[list[int]]) -> None:
    steps = Steps((each for part in parts for each in part), itertools.accumulate(map(len, parts)))
    expected = tuple(Step(tuple(part)) for part in parts)
    assert tuple(steps) == steps[:] == expected
    assert (len(steps), list(steps.order)) == (len(parts), [each for part in parts for each in part])
    assert steps[1:-1] == expected[1:-1]
    assert all(steps[i - len(parts)] == expected[i] for i in range(len(parts)))
    again = Steps(steps.order, itertools.accumulate(map(len, parts)))
    assert (again, hash(again)) == (steps, hash(steps))
    for outside in (len(parts), -len(parts) - 1):
        with pytest.raises(IndexError):
            steps[outside]


def test_the_same_order_cut_otherwise_is_another_schedule() -> None:
    assert Steps([1, 2], [1, 2]) != Steps([1, 2], [2])
    assert Steps([1, 2], [2]) != (Step((1, 2)),)


def test_a_step_names_its_positions_and_can_be_undone() -> None:
    step = Step((5, 3, 2, 8))
    assert step.by_position(2) == {1: (0, 1), 2: (1,), 4: (0,)}
    canvas = torch.arange(10).view(5, 2)
    before = step.undo(canvas, 99)
    assert before.flatten().tolist() == [0, 1, 99, 99, 4, 99, 6, 7, 99, 9]
    assert canvas.flatten().tolist() == list(range(10))


clocks = st.integers(1, 16)


@given(seeds, places, st.integers(1, 100), clocks)
def test_groups_end_where_the_clock_says(seed: int, places: Tensor, k: int, clock: int) -> None:
    times, count = hitting_times(seed, 0, places), len(places)
    schedule = first_hitting(times, places, k, clock=clock)
    ends = list(itertools.accumulate(len(step.reveal) for step in schedule.steps))
    k = min(k, count)
    assert ends == [max(i, math.floor(Fraction(i, k) ** clock * count)) for i in range(1, k + 1)]
    assert all(step.reveal for step in schedule.steps)
    assert flat(schedule) == flat(first_hitting(times, places, None))


@given(seeds, some_places, st.integers(1, 64) | st.just(1_000_000), clocks)
def test_time_steps_end_where_the_clock_says(seed: int, places: Tensor, steps: int, clock: int) -> None:
    times = hitting_times(seed, 0, places)
    schedule = ancestral(times, places, steps, clock=clock)
    assert flat(schedule) == flat(first_hitting(times, places, None))
    assert schedule.idle_steps + len(schedule.steps) == steps
    time_of = dict(zip(places.tolist(), (times >> 32).tolist(), strict=True))
    for step in schedule.steps:
        shares = [Fraction(time_of[sub_token], 2**31) for sub_token in (step.reveal[0], step.reveal[-1])]
        first, last = (bin_of(share, steps, clock) for share in shares)
        assert first == last


def bin_of(share: Fraction, steps: int, clock: int) -> int:
    """The largest i with (i / steps)^clock ≤ share, by bisection in whole numbers."""
    return bisect_right(range(steps), share, key=lambda i: Fraction(i, steps) ** clock) - 1


@given(st.integers(1, 10**6), clocks, st.data())
def test_a_time_at_a_border_belongs_to_the_step_behind_it(steps: int, clock: int, data: st.DataObject) -> None:
    border = data.draw(st.integers(0, steps - 1))
    first = -(-(border**clock << 31) // steps**clock)  # the first 31-bit time that is not before the border
    times = torch.tensor([max(0, first - 1), first, min(2**31 - 1, first + 1)])
    bins = time_bins(times << 32, torch.full_like(times, steps), clock).tolist()
    assert bins == [bin_of(Fraction(time, 2**31), steps, clock) for time in times.tolist()]


def test_with_blocks_each_block_has_the_clock_of_its_own_steps() -> None:
    places = torch.arange(24)
    times = hitting_times(1, 0, places)
    sizes = [len(step.reveal) for step in first_hitting(times, places, 6, block=12, clock=3).steps]
    alone = [len(step.reveal) for step in first_hitting(times[:12], places[:12], 3, clock=3).steps]
    assert alone == [1, 2, 9]
    assert sizes == alone * 2
    bins = ancestral(times, places, 8, block=12, clock=2)
    assert [{each // 12 for each in step.reveal} for step in bins.steps] == [
        *[{0}] * bins.steps.borders[0],
        *[{1}] * (len(bins.steps) - bins.steps.borders[0]),
    ]
