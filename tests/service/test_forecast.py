"""Forecasts: pure functions of the plans at hand and the measured pace. Time here is counted, never measured."""

import math
import random
from dataclasses import dataclass, field, replace
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unmask_service.api.admission import PLANNED_SHARE, plan_in_time
from unmask_service.forecast import (
    Capacity,
    Load,
    Outlook,
    Pace,
    Tick,
    Work,
    first_pace,
    most_groups_in_time,
    outlook,
    rows_of,
    samples_per_request,
    seconds_of_work,
)

from tests.helpers import plan_for, prime_model

PRIME = prime_model(length=24)

parts = st.floats(1e-7, 1.0)
paces = st.builds(Pace, parts, parts, parts)
sizes = st.integers(1, 5000)
works = st.builds(
    lambda tokens, samples, groups, rows: Work(tokens, samples, samples * groups, float(samples * groups * rows)),
    st.integers(1, 200),
    st.integers(1, 64),
    st.integers(1, 300),
    st.integers(1, 8),
)
loads = st.builds(
    lambda running, waiting: Load(tuple(running), tuple(waiting), None),
    st.lists(works, max_size=12),
    st.lists(works, max_size=12),
)
capacities = st.builds(Capacity, st.integers(200, 5000), paces, st.floats(0, 5000))


# --- pace ----------------------------------------------------------------------------------------------------------


@given(paces, st.lists(st.tuples(sizes, sizes, st.floats(1e-6, 1e4)), max_size=50))
def test_every_part_of_a_pace_stays_positive(pace: Pace, measured: list[tuple[int, int, float]]) -> None:
    for tokens, rows, seconds in measured:
        pace = pace.after(tokens, rows, seconds)
        assert min(pace.evaluation, pace.token, pace.row) > 0
        assert math.isfinite(pace.seconds(tokens, rows))


@given(paces, sizes, sizes, st.floats(0.01, 100))
def test_a_measurement_moves_the_forecast_towards_it(pace: Pace, tokens: int, rows: int, factor: float) -> None:
    before = pace.seconds(tokens, rows)
    seconds = factor * before
    after = pace.after(tokens, rows, seconds).seconds(tokens, rows)
    assert abs(after - seconds) <= abs(before - seconds)
    assert pace.after(tokens, rows, before).seconds(tokens, rows) == pytest.approx(before)


@given(paces, sizes, sizes, st.floats(0.02, 50))
def test_what_is_measured_again_and_again_is_believed(pace: Pace, tokens: int, rows: int, factor: float) -> None:
    seconds = factor * pace.seconds(tokens, rows)
    for _ in range(150):
        pace = pace.after(tokens, rows, seconds)
    assert pace.seconds(tokens, rows) == pytest.approx(seconds, rel=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_a_pace_is_learned_from_mixed_evaluations(seed: int) -> None:
    """True parts, noise of a tenth, and at the outset a belief that is wrong by a factor of two in each."""
    truth, believed, rng = Pace(6e-3, 6e-5, 1e-4), Pace(12e-3, 3e-5, 2e-4), random.Random(seed)
    for _ in range(600):
        tokens, rows = rng.choice((32, 128, 600, 2000)), rng.choice((1, 16, 100, 400))
        believed = believed.after(tokens, rows, truth.seconds(tokens, rows) * rng.uniform(0.9, 1.1))
    for tokens, rows in ((32, 1), (128, 100), (2000, 16), (2000, 400)):
        assert believed.seconds(tokens, rows) == pytest.approx(truth.seconds(tokens, rows), rel=0.25)


@given(paces, st.integers(1, 2000), st.integers(1, 8), st.integers(1, 64))
def test_a_first_pace_agrees_with_what_it_was_made_of(pace: Pace, tokens: int, canvases: int, rows: int) -> None:
    one, wide = pace.seconds(tokens, 1), pace.seconds(tokens, rows)
    many = pace.seconds(canvases * tokens, canvases)
    first = first_pace(one, wide, many, tokens, canvases, rows)
    assert min(first.evaluation, first.token, first.row) > 0
    assert first.seconds(tokens, 1) == pytest.approx(one, rel=0.05)
    assert first.seconds(tokens, rows) == pytest.approx(wide, rel=0.05)
    if canvases > 1:
        assert first.seconds(canvases * tokens, canvases) == pytest.approx(many, rel=0.1)


def test_a_first_pace_survives_a_clock_that_lies() -> None:
    first = first_pace(one=1.0, wide=0.5, many=0.1, tokens=10, canvases=4, rows=8)
    assert min(first.evaluation, first.token, first.row) > 0


# --- work ----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 500), st.integers(1, 4), st.integers(1, 2000))
def test_rows_lie_between_the_positions_and_the_sub_tokens(holes: int, digits: int, groups: int) -> None:
    rows = rows_of(holes, digits, groups)
    assert holes * (1 - 1e-9) <= rows <= min(digits, groups) * holes * (1 + 1e-9)
    assert rows <= rows_of(holes, digits, groups + 1) * (1 + 1e-9)


@pytest.mark.parametrize("steps", [None, 1, 2, 7, 30])
@pytest.mark.parametrize("name", ["first_hitting", "ancestral", "remasking"])
def test_planned_rows_are_about_those_that_are_drawn(name: str, steps: int | None) -> None:
    plan = plan_for(PRIME, max_tokens=24, n=8, seed=3, sampler={"name": name, "steps": steps or 10_000})
    drawn = sum(len({sub_token // 2 for sub_token in step.reveal}) for each in plan.schedules for step in each.steps)
    work = Work.of(plan)
    assert work.rows == pytest.approx(drawn, rel=0.1)
    assert (work.tokens, work.samples, work.evaluations) == (24, 8, plan.network_evaluations)
    half = work.left(work.evaluations // 2)
    assert half.rows == pytest.approx(work.rows / 2, rel=0.1)
    assert work.left(3).samples == 3


def test_those_who_have_nothing_to_do_are_in_nobodys_way() -> None:
    """They are claimed, and end with the same tick."""
    done, work, capacity = Work(5, 0, 0, 0.0), Work(2, 1, 4, 3.0), Capacity(7, Pace(1.0, 1.0, 1.0))
    assert outlook(Load((done,), (done,), capacity), capacity, work) == outlook(Load((), (), capacity), capacity, work)


def test_nothing_to_do_takes_no_time() -> None:
    work = Work.of(plan_for(PRIME, canvas=[1, 2], n=3, seed=1))
    assert work == Work(2, 0, 0, 0.0)
    capacity = Capacity(10, Pace(1.0, 1.0, 1.0))
    for load in (Load((), (), None), Load((Work(2, 9, 9, 9.0),), (work, work), None)):
        assert outlook(load, capacity, work).seconds_of(work) == 0
    assert seconds_of_work(Load((), (work,), None), capacity) == 0


# --- outlook -------------------------------------------------------------------------------------------------------


@given(paces, works)
def test_alone_a_request_takes_its_own_evaluations(pace: Pace, work: Work) -> None:
    capacity = Capacity(10**6, pace)
    ticks = work.evaluations // work.samples
    expected = ticks * pace.seconds(work.tokens * work.samples, work.rows / ticks)
    assert outlook(Load((), (), None), capacity, work).seconds_of(work) == pytest.approx(expected)
    assert seconds_of_work(Load((work,), (), None), capacity) == pytest.approx(expected)


@given(loads, capacities, works)
def test_forecasts_are_finite_and_company_never_helps(load: Load, capacity: Capacity, work: Work) -> None:
    ahead = outlook(load, capacity, work)
    seconds = ahead.seconds_of(work)
    alone = Capacity(capacity.tokens_per_tick, capacity.pace)
    assert math.isfinite(seconds)
    assert seconds >= outlook(Load((), (), None), alone, work).seconds_of(work) * (1 - 1e-9)
    assert 0 <= seconds_of_work(load, capacity) < math.inf
    first_round = sum(each.tokens for each in (*load.running, *load.waiting))
    assert (ahead.start_seconds == 0) == (first_round < capacity.tokens_per_tick)


@given(loads, capacities, works)
def test_who_is_claimed_at_the_next_tick_counts_as_claimed(load: Load, capacity: Capacity, work: Work) -> None:
    first = load.waiting[:1] if sum(each.tokens for each in load.running) < capacity.tokens_per_tick else ()
    later = Load((*load.running, *first), load.waiting[len(first) :], None)
    assert outlook(load, capacity, work) == outlook(later, capacity, work)


@given(st.lists(works, min_size=1, max_size=20), st.integers(1, 20_000))
def test_the_share_of_a_tick_just_fits(crowd: list[Work], tokens_per_tick: int) -> None:
    level = samples_per_request(crowd, tokens_per_tick)
    taken = sum(min(each.samples, level) * each.tokens for each in crowd)
    everything = sum(each.samples * each.tokens for each in crowd)
    assert taken == pytest.approx(min(everything, tokens_per_tick))


outlooks = st.builds(Outlook, st.floats(0, 100), st.floats(1e-4, 10), st.floats(1e-6, 1))


@given(outlooks, st.integers(1, 100), st.integers(1, 3), st.integers(1, 300), st.floats(1e-3, 1e4))
def test_the_largest_number_of_groups_in_time(
    ahead: Outlook, holes: int, digits: int, most: int, seconds: float
) -> None:
    def rows(groups: int) -> float:
        return rows_of(holes, digits, groups)

    fits = [groups for groups in range(1, most + 1) if ahead.seconds(groups, rows(groups)) <= seconds]
    assert most_groups_in_time(ahead, rows, most, seconds) == max(fits, default=0)


# --- against the engine's policy, played through -------------------------------------------------------------------


@dataclass
class Playing:
    """A request in the play; `left` are the groups left of each sample."""

    work: Work
    left: list[int]
    came: float
    forecast: float

    def now(self) -> Work:
        return self.work.left(sum(self.left))


@dataclass
class Play:
    """The engine without arithmetic: ticks of the true pace, clients who come again at once."""

    seed: int
    tokens_per_tick: int
    samples: tuple[int, ...]
    running: list[Playing] = field(default_factory=list)
    waiting: list[Playing] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    clock: float = 0.0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.capacity = Capacity(self.tokens_per_tick, Pace(2e-3, 2e-4, 1e-5))

    def arrive(self) -> None:
        tokens, samples = self.rng.choice((32, 64, 96, 128)), self.rng.choice(self.samples)
        groups = tokens // self.rng.choice((1, 4))
        work = Work(tokens, samples, groups * samples, samples * rows_of(tokens, 2, groups))
        load = Load(tuple(each.now() for each in self.running), tuple(each.now() for each in self.waiting), None)
        forecast = outlook(load, self.capacity, work).seconds_of(work)
        self.waiting.append(Playing(work, [groups] * samples, self.clock, forecast))

    def tick(self) -> None:
        while self.waiting and sum(each.work.tokens for each in self.running) < self.tokens_per_tick:
            self.running.append(self.waiting.pop(0))
        turn, tokens = self.turn()
        rows = sum(each.work.rows / each.work.evaluations for each, _ in turn)
        seconds = Pace(6e-3, 6e-5, 1e-4).seconds(tokens, rows) * self.rng.uniform(0.9, 1.1)
        self.clock += seconds
        tick = Tick(
            requests=len({id(each) for each, _ in turn}),
            samples=len(turn),
            tokens=tokens,
            rows=round(rows),
            groups=len(turn),
            lane_tokens=tokens,
            lane_rows=round(rows),
        )
        self.capacity = self.capacity.after(tick, seconds)
        for each, sample in turn:
            each.left[sample] -= 1
        ended = [each for each in self.running if not any(each.left)]
        self.running = [each for each in self.running if any(each.left)]
        for each in ended:
            self.errors.append(abs(each.forecast / (self.clock - each.came) - 1))
            self.arrive()

    def turn(self) -> tuple[list[tuple[Playing, int]], int]:
        turn: list[tuple[Playing, int]] = []
        tokens = 0
        orders = [sorted(range(len(each.left)), key=lambda i: -each.left[i]) for each in self.running]
        for place in range(max(self.samples)):
            for each, order in zip(self.running, orders, strict=True):
                if place < len(order) and each.left[order[place]]:
                    if turn and tokens + each.work.tokens > self.tokens_per_tick:
                        return turn, tokens
                    tokens += each.work.tokens
                    turn.append((each, order[place]))
        return turn, tokens


@pytest.mark.parametrize(
    ("clients", "tokens_per_tick", "samples"),
    [
        pytest.param(1, 2048, (1,), id="one client"),
        pytest.param(1, 512, (1, 4, 16), id="one client, more samples than fit"),
        pytest.param(16, 2048, (1,), id="16 clients share ticks"),
        pytest.param(16, 512, (1,), id="16 clients, most wait"),
        pytest.param(32, 1024, (1, 1, 1, 8), id="32 clients, some with many samples"),
    ],
)
def test_under_steady_load_half_of_the_forecasts_are_right_to_a_quarter(
    clients: int, tokens_per_tick: int, samples: tuple[int, ...]
) -> None:
    """The first pace is wrong, requests come and go, ticks vary by a tenth; the first answer of each does not count."""
    for seed in range(2):
        play = Play(seed, tokens_per_tick, samples)
        for _ in range(clients):
            play.arrive()
        while len(play.errors) < clients + 120:
            play.tick()
        assert median(play.errors[clients:]) <= 0.25


def ticks_of(groups: int, lanes: int) -> Capacity:
    """After many ticks of two samples in which so many groups were revealed with so many lanes each."""
    capacity = Capacity(4096, Pace(4e-3, 4e-5, 1e-4))
    for _ in range(200):
        tick = Tick(1, 2, tokens=200, rows=2, groups=groups, lane_tokens=200 * lanes, lane_rows=2 * lanes)
        capacity = capacity.after(tick, capacity.pace.seconds(200 * lanes, 2 * lanes))
    return capacity


def test_right_guesses_make_the_forecast_shorter_and_no_guesses_leave_it() -> None:
    work = Work(100, 1, 200, 200.0)
    load = Load((), (), None)
    without, with_guesses = (outlook(load, ticks_of(*each), work).seconds_of(work) for each in ((2, 1), (12, 8)))
    capacity = ticks_of(12, 8)
    cost = capacity.pace.seconds(1600, 16) / capacity.pace.seconds(200, 2)
    assert ticks_of(2, 1).speed == pytest.approx(1)
    assert capacity.speed == pytest.approx(6 / cost, rel=1e-3)
    assert with_guesses == pytest.approx(without / capacity.speed, rel=1e-2)


def test_how_many_a_bound_lets_through_is_learned() -> None:
    """A plan with a bound is the most that it can cost; other requests are not thought to be shorter for it."""
    capacity = Capacity(4096, Pace(4e-3, 4e-5, 1e-4))
    bounded = Work.of(plan_for(PRIME, max_tokens=24, seed=1, sampler={"name": "entropy_bounded", "bound": 1}))
    plain = Work.of(plan_for(PRIME, max_tokens=24, seed=1))
    assert (bounded.evaluations, bounded.bounded, plain.bounded) == (48, True, False)
    learned = capacity
    for _ in range(200):
        tick = Tick(1, 2, tokens=200, rows=2, groups=2, lane_tokens=200, lane_rows=2, bounded=2, revealed=8)
        learned = learned.after(tick, learned.pace.seconds(200, 2))
    assert learned.reveals == pytest.approx(4, rel=1e-4)
    alone = Load((), (), None)
    first, later = (outlook(alone, each, bounded) for each in (capacity, replace(learned, company_tokens=0.0)))
    assert first.seconds_of(bounded) == first.seconds_of(replace(bounded, bounded=False))
    assert later.seconds_of(bounded) == pytest.approx(first.seconds_of(bounded) / 4, rel=0.15)
    assert later.seconds_of(plain) == pytest.approx(first.seconds_of(plain), rel=0.15)
    behind = Load((bounded,) * 200, (), None)
    assert outlook(behind, learned, plain).start_seconds < outlook(behind, capacity, plain).start_seconds / 2
    half = bounded.left(24)
    assert (half.bounded, half.expected(4).evaluations) == (True, 6)


def test_a_deadline_does_not_count_on_guesses_unless_the_whole_plan_fits() -> None:
    plan = plan_for(PRIME, max_tokens=24, seed=1)
    work = Work.of(plan)
    ahead = outlook(Load((), (), None), ticks_of(12, 8), work)
    enough = 1000 * ahead.seconds_of(work) / PLANNED_SHARE
    assert plan_in_time(plan, ahead, math.ceil(enough)).request.sampler.steps == 48
    cut = plan_in_time(plan, ahead, math.floor(0.9 * enough))
    steps = cut.request.sampler.steps
    assert steps is not None
    assert ahead.seconds(steps, Work.of(cut).rows) <= 0.9 * enough / 1000
