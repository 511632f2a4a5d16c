"""The estimators on a network whose conditionals don't agree, against enumeration of all of its states and orders."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from statistics import fmean, pvariance

import pytest
import torch
from scipy.stats import binom, norm, t
from unmask_diffusion import Estimate, Readout, ScorePlan, Tally, score
from unmask_diffusion.log import UNITS_A_NAT
from unmask_diffusion.scoring.plan import RATES, Pass, Window, low_discrepancy_starts

from tests.helpers import FALSE_ALARM_RATE, ToyModel, chi_square_p, prime_model
from tests.helpers_scoring import Enumerated, enumerated, nats_of, score_plan, whole_passes

TOKENS = [4, 0, 2]
DIGITS = 2
Z = float(norm.isf(FALSE_ALARM_RATE / 2))


@pytest.fixture(scope="module")
def model() -> ToyModel:
    """A random network: five tokens of two base-3 digits, so that a digit may be forced."""
    return prime_model(classes=5, length=3, digits=DIGITS)


@pytest.fixture(scope="module")
def truth(model: ToyModel) -> Enumerated:
    return enumerated(model, TOKENS)


def bound_of(truth: Enumerated, done: Pass) -> float:
    """What a pass reads, from the enumeration."""
    if done.reads is not None:
        return truth.chain(done.order)
    n, states = len(done.order), len(done.starts)
    return sum(truth.masked_sum(done.order[start:]) * n / (n - start) for start in done.starts) / states


def published_of(truth: Enumerated, done: Pass) -> float:
    n = len(done.order)
    weighted = [truth.joint_sum(done.order[start:], DIGITS) / (n - start) for start in done.starts]
    return n * fmean(weighted)


def pass_along(order: tuple[int, ...], starts: Iterable[int], reads_all: bool) -> Pass:
    return Pass(0, Window(0, (0, 1, 2)), order, tuple(starts), None if reads_all else 1)


def test_orders_differ_on_this_network(truth: Enumerated) -> None:
    """Else the tests below would be about nothing."""
    chains = truth.chains().values()
    assert max(chains) - min(chains) > 3


def test_the_integral_is_the_mean_over_all_orders(truth: Enumerated) -> None:
    """1 / m times all that m masked sub-tokens read, over all choices of m and all m."""
    of_size = [list(itertools.combinations(range(truth.sub_tokens), m)) for m in range(1, truth.sub_tokens + 1)]
    integral = sum(fmean(truth.masked_sum(masked) / len(masked) for masked in choices) for choices in of_size)
    assert integral == pytest.approx(fmean(truth.chains().values()), abs=1e-9)


@pytest.mark.parametrize(
    ("estimator", "budget"), [("orders", 240), ("integral", 24), ("integral", 40), ("integral", 60)]
)
def test_a_pass_reads_what_enumeration_says(model: ToyModel, truth: Enumerated, estimator: str, budget: int) -> None:
    """Bound, published integrand and every token's part; the integral at 3, 5 and 6 mask rates a pass."""
    fields = {"estimator": estimator, "budget": budget, "published_integrand": True, "per_token": True}
    plan = score_plan(model, input=TOKENS, seed=6, **fields)
    for readout in whole_passes(model, plan):
        done = plan.pass_of(readout.index)
        assert nats_of(readout) == pytest.approx(bound_of(truth, done), abs=1e-5)
        assert readout.joint_units / UNITS_A_NAT == pytest.approx(published_of(truth, done), abs=1e-5)
        assert sum(units for _, units in readout.by_token) == readout.units
        if estimator == "orders":
            for position, units in readout.by_token:
                own = [s for s in done.order if s // DIGITS == position]
                links = [truth.marginals[frozenset(done.order[done.order.index(s) :]), s] for s in own]
                assert units / UNITS_A_NAT == pytest.approx(sum(links), abs=1e-5)


def test_the_reverse_of_each_order_is_read_too(model: ToyModel) -> None:
    plan = score_plan(model, input=TOKENS, seed=2, budget=1200)
    orders = [plan.pass_of(index).order for index in range(plan.passes)]
    assert orders[1::2] == [order[::-1] for order in orders[::2]]
    assert len(set(orders)) > 90


def test_orders_are_uniform(model: ToyModel) -> None:
    plan = score_plan(model, input=TOKENS, given=[0], seed=3, budget=24 * 400)
    counts = Counter(plan.pass_of(index).order for index in range(0, plan.passes, 2))
    every = dict.fromkeys(itertools.permutations(range(2, 6)), 1 / 24)
    assert chi_square_p(counts, every) > FALSE_ALARM_RATE


def test_the_mask_rates_of_a_pass_are_uniform_together() -> None:
    """Exactly: over all shifts, every number of revealed sub-tokens comes up equally often."""
    for n in range(1, 20):
        for count in range(1, n + 1):
            shifts = [float(Fraction(2 * i + 1, 2 * n)) for i in range(n)]  # starts change at multiples of 1 / n
            starts = [low_discrepancy_starts(shift, n, count) for shift in shifts]
            assert Counter(itertools.chain.from_iterable(starts)) == dict.fromkeys(range(n), count)
            assert all(one == sorted(one) and len(set(one)) == count for one in starts)


def test_mask_rates_are_drawn_uniformly(model: ToyModel) -> None:
    plan = score_plan(model, input=TOKENS, seed=3, estimator="integral", budget=3)
    assert (plan.rates, plan.replicates) == (1, 3)
    starts = Counter(
        score_plan(model, input=TOKENS, seed=seed, estimator="integral", budget=2).pass_of(0).starts
        for seed in range(600)
    )
    assert chi_square_p(starts, {(start,): 1 / 6 for start in range(6)}) > FALSE_ALARM_RATE


@pytest.mark.parametrize(("estimator", "budget"), [("orders", 3000), ("integral", 3000), ("integral", 16)])
def test_the_mean_is_that_over_all_orders(model: ToyModel, truth: Enumerated, estimator: str, budget: int) -> None:
    """A normal test of the mean at the suite's rate; a budget of 16 leaves two mask rates a pass, over many seeds."""
    seeds = 1 if budget > 100 else 100
    requests = [
        {"input": TOKENS, "seed": seed, "estimator": estimator, "budget": budget, "published_integrand": True}
        for seed in range(seeds)
    ]
    scores = [score(model, **request) for request in requests]
    expected = fmean(truth.chains().values())
    published = fmean(published_of(truth, pass_along(order, range(6), False)) for order in truth.chains())
    assert abs(z_of([each.bound for each in scores], expected)) < Z
    assert abs(z_of([each.published for each in scores if each.published], published)) < Z
    assert published < expected - 0.2


def z_of(estimates: list[Estimate], expected: float) -> float:
    if len(estimates) == 1:
        return (estimates[0].nats - expected) / estimates[0].standard_error
    nats = [each.nats for each in estimates]
    return (fmean(nats) - expected) / math.sqrt(pvariance(nats) / (len(nats) - 1))


# --- standard errors -------------------------------------------------------------------------------------------------


def true_variance(truth: Enumerated, estimator: str) -> float:
    """Of one replicate of one window, over all orders (and all shifts of the mask rates)."""
    chains = truth.chains()
    if estimator == "orders":
        return pvariance([(chain + chains[order[::-1]]) / 2 for order, chain in chains.items()])
    starts = [low_discrepancy_starts((2 * i + 1) / 12, 6, 3) for i in range(6)]
    passes = [pass_along(order, each, True) for order in chains for each in starts]
    return pvariance([bound_of(truth, done) for done in passes])


def estimate_of(plan: ScorePlan, truth: Enumerated) -> Estimate:
    """What a plan comes to whose every pass reads what enumeration says."""
    tally = Tally(plan)
    for index in range(plan.passes):
        units = round(bound_of(truth, plan.pass_of(index)) * UNITS_A_NAT)
        tally.note(Readout(index, plan.evaluations_of(index), units))
    estimate = tally.estimate()
    assert tally.enough
    assert estimate is not None
    return estimate


@pytest.mark.parametrize(
    ("estimator", "windows", "replicates"), [("orders", 1, 8), ("integral", 1, 12), ("orders", 2, 4)]
)
def test_standard_errors_are_honest(
    model: ToyModel, truth: Enumerated, estimator: str, windows: int, replicates: int
) -> None:
    """Over 200 seeds: squared, they average to the true variance; and the truth lies outside 90 % intervals in 10 %.

    Both at the suite's false-alarm rate; the second allows 7 to 13 %, since replicates are not normal.
    """
    seeds = 200
    budget = 12 * replicates * windows if estimator == "orders" else 3 * replicates
    fields = {"input": TOKENS * windows, "estimator": estimator, "budget": budget, "overlap": 0}
    plans = [score_plan(model, seed=seed, **fields) for seed in range(seeds)]
    if estimator == "integral":
        plans = [replace(plan, rates=3, replicates=replicates) for plan in plans]
    assert {(plan.replicates, len(plan.windows)) for plan in plans} == {(replicates, windows)}
    estimates = [estimate_of(plan, truth) for plan in plans]
    squares = [each.standard_error**2 for each in estimates]
    expected = windows * true_variance(truth, estimator) / replicates
    z = (fmean(squares) - expected) / math.sqrt(pvariance(squares) / seeds)
    assert abs(z) < Z
    mean = windows * fmean(truth.chains().values())
    critical = float(t.isf(0.05, windows * (replicates - 1)))
    outside = sum(abs(each.nats - mean) > critical * each.standard_error for each in estimates)
    assert binom.ppf(FALSE_ALARM_RATE / 2, seeds, 0.07) <= outside <= binom.isf(FALSE_ALARM_RATE / 2, seeds, 0.13)


def test_stopping_early_leaves_standard_errors_honest(model: ToyModel) -> None:
    """2000 scores of normal replicates that stop where chance is kind: twice the error covers 9 in 10, as it should.

    (Of a mean of 8 it covers 91.4 % without stopping.) At the suite's false-alarm rate for 10 % outside.
    """
    fields = {"estimator": "integral", "budget": 1000, "standard_error_per_token": 0.25 / len(TOKENS)}
    plan = replace(score_plan(model, input=TOKENS, seed=1, **fields), rates=1, replicates=64)
    nats = torch.randn(2000, 64, generator=torch.Generator().manual_seed(5), dtype=torch.float64).tolist()
    estimates = []
    for score_of in nats:
        tally = Tally(plan)
        for index, each in enumerate(score_of):
            if not tally.enough:
                tally.note(Readout(index, 1, round(each * UNITS_A_NAT)))
        estimates.append(tally.estimate())
    outside = sum(abs(each.nats) > 2 * each.standard_error for each in estimates if each)
    assert outside < binom.isf(FALSE_ALARM_RATE, len(estimates), 0.1)


def test_antithetic_pairs_vary_less_than_two_orders(truth: Enumerated) -> None:
    """On this network; it is why orders come in pairs."""
    chains = list(truth.chains().values())
    assert true_variance(truth, "orders") < pvariance(chains) / 2


def test_the_default_budgets() -> None:
    """Four pairs of orders; 128 evaluations a window, at 16 mask rates."""
    model = prime_model(length=24, digits=2)
    orders = score_plan(model, input=[1] * 24)
    integral = score_plan(model, input=[1] * 24, estimator="integral")
    assert (orders.replicates, orders.network_evaluations) == (4, 2 * 4 * 48)
    assert (integral.replicates, integral.rates, integral.network_evaluations) == (8, RATES, 128)
