"""The experiments' mathematics: idle steps, draws with truncated noise, the two integrals, equal quality.

Counts are held to their laws at `FALSE_ALARM_RATE`, of a test, with fixed seeds.
"""

from itertools import pairwise
from math import log, prod

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, norm
from unmask_diffusion import Sampler, SubTokenizer, score

from benchmarks.papers.chain import random_chain
from benchmarks.papers.drawing import EXACT, draw, name_of, samplers_of
from benchmarks.papers.few_bits import (
    GREATEST_OF_24_BITS,
    NOISES,
    Doubles,
    computed_by_truncation,
    computed_on_a_grid,
    effective_temperature,
    entropy_of,
    grid_law,
    lowered,
    truncated_law,
)
from benchmarks.papers.idle_steps import count, expected_idle_steps
from benchmarks.papers.published_integrand import enumerated, of_the_chain, of_the_oracle, oracle
from benchmarks.papers.wall_clock import CACHED, PLAIN, Way, at_equal_quality, cost_of
from tests.helpers import FALSE_ALARM_RATE, random_table

CLASSES: Doubles = np.array([0.5, 0.3, 0.15, 0.05])


def test_idle_steps_of_all_placements() -> None:
    """Three times in four steps: 64 placements, counted."""
    idle = [4 - len({a, b, c}) for a in range(4) for b in range(4) for c in range(4)]
    assert expected_idle_steps(4, 3) == pytest.approx((np.mean(idle), np.std(idle)))


@pytest.mark.parametrize(("length", "digits", "steps"), [(64, 1, 64), (64, 3, 64), (32, 2, 256), (256, 1, 1000)])
def test_plans_skip_as_many_steps_as_proposition_a1_expects(length: int, digits: int, steps: int) -> None:
    """The mean of 64 plans; the number of empty steps is about normal."""
    counted = count(length, digits, steps, runs=64)
    assert counted.sub_tokens == length * digits
    assert abs(counted.deviation) < norm.isf(FALSE_ALARM_RATE / 2)
    assert counted.standard_error < 0.1 * counted.expected  # else the count would show nothing


@pytest.mark.parametrize("greatest", [0.5, 3.0])
def test_truncated_noise_draws_from_its_law(greatest: float) -> None:
    """Gumbel noise that is drawn again until none exceeds the bound."""
    chance = np.random.default_rng(7)
    noise = chance.gumbel(size=(400_000, 4))
    while (above := noise > greatest).any():
        noise[above] = chance.gumbel(size=int(above.sum()))
    counts = np.bincount((np.log(CLASSES) + noise).argmax(1), minlength=4)
    law = truncated_law(CLASSES, greatest)
    assert law.sum() == pytest.approx(1)
    assert chisquare(counts, law * counts.sum()).pvalue > FALSE_ALARM_RATE
    assert chisquare(counts, CLASSES * counts.sum()).pvalue < FALSE_ALARM_RATE


def test_truncated_noise_raises_what_is_probable() -> None:
    """Paper 1: each probability is multiplied by a factor that rises with it."""
    factors = truncated_law(CLASSES, greatest=1.0) / CLASSES
    assert all(larger > smaller for larger, smaller in pairwise(factors))
    assert factors[0] > 1 > factors[-1]


def test_classes_that_cannot_be_drawn_are_not() -> None:
    law = truncated_law(np.array([0.75, 0.0, 0.25]), greatest=2.0)
    assert law[1] == 0
    assert law.sum() == pytest.approx(1)
    assert grid_law(np.array([0.75, 0.0, 0.25]), greatest=2.0)[1] == 0


@pytest.mark.parametrize("eps", [1e-6, 1e-7, 1e-8])
def test_a_grid_of_24_bits_has_the_law_that_is_summed_exactly(eps: float) -> None:
    classes = np.array([1 - 50_000 * eps, *[eps] * 50_000])
    exact = computed_on_a_grid(eps)
    assert grid_law(classes, GREATEST_OF_24_BITS)[1:].sum() == pytest.approx(exact, rel=0.01)
    assert computed_by_truncation(eps) < exact  # what is cut off is more than what is rounded


@pytest.mark.parametrize("temperature", [0.5, 0.9, 1.0])
def test_a_tempered_law_has_its_own_temperature(temperature: float) -> None:
    tempered = CLASSES ** (1 / temperature)
    entropy = entropy_of(tempered / tempered.sum())
    assert effective_temperature(CLASSES, entropy) == pytest.approx(temperature, rel=1e-6)


def test_more_steps_lower_the_temperature_and_64_bits_do_not() -> None:
    classes = 1 / np.arange(1, 2001)
    classes /= classes.sum()
    few, many = (lowered("", classes, steps, "24 bits") for steps in (64, 4096))
    assert many.temperature < few.temperature < 1
    assert lowered("", classes, 4096, "cut off at 16.64").temperature < many.temperature
    assert lowered("", classes, 4096, "64 bits").temperature == pytest.approx(1, abs=1e-6)
    assert set(NOISES) == {"24 bits", "cut off at 16.64", "64 bits"}


def test_the_oracle_gives_the_figures_of_the_specification() -> None:
    exact, scored = of_the_oracle(replicates=2)
    assert exact == pytest.approx({"entropy": 2.3180, "bound": 2.3180, "published": 2.1814}, abs=1e-4)
    assert scored.bound[0] == pytest.approx(exact["entropy"], abs=1e-5)
    assert scored.published[0] == pytest.approx(exact["published"], abs=1e-5)


def test_the_published_integral_of_two_digits_misses_half_of_their_information() -> None:
    joint, _ = oracle()
    square = joint.view(4, 4).numpy()
    entropies = [entropy_of(each) for each in (square.flatten(), square.sum(0), square.sum(1))]
    information = entropies[1] + entropies[2] - entropies[0]
    codes = SubTokenizer.from_base(16, 2, 4)
    assert enumerated(joint, codes, "joint") == pytest.approx(entropies[0] - information / 2)


def test_three_digits_are_enumerated_by_brute_force() -> None:
    """Eight classes in three binary digits: every order of the digits, each state of it read as the papers do."""
    joint = random_table(8, 1, seed=3).exp()
    codes = SubTokenizer.from_base(8, 3, 2)
    assert enumerated(joint, codes, "marginals") == pytest.approx(entropy_of(joint.numpy()))
    # of k masked digits, all C(3, k) sets alike: their conditional entropy, divided by k
    square = joint.view(2, 2, 2)
    total = 0.0
    for shown in [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]:
        hidden = [j for j in range(3) if j not in shown]
        of_shown = square.sum(hidden).flatten().numpy()
        conditional = entropy_of(joint.numpy()) - (entropy_of(of_shown) if shown else 0.0)
        total += conditional / len(hidden) / {1: 3, 2: 3, 3: 1}[len(hidden)]
    assert enumerated(joint, codes, "joint") == pytest.approx(total)


def test_on_the_chain_the_bound_is_the_truth_and_the_published_integrand_is_below() -> None:
    found = of_the_chain(digits=2, sequences=4)
    assert found.bound_less_truth == pytest.approx((0, 0), abs=1e-5)
    assert found.published_less_truth[0] < -0.1


def test_the_chain_knows_what_it_draws() -> None:
    """-log p of a sequence by hand, and by scoring its posterior; the divergence of its own draws is small."""
    chain = random_chain(classes=8)
    truth = chain.truth(6)
    sequence = truth.draw(1, seed=5)[0].tolist()
    steps = [float(chain.transition[a, b]) for a, b in pairwise(sequence)]
    nats = -log(float(chain.initial[sequence[0]]) * prod(steps))
    assert float(truth.nats(torch.tensor([sequence]))[0]) == pytest.approx(nats)
    assert score(chain.model(3, 6), input=sequence, seed=1).bound.nats == pytest.approx(nats, abs=1e-4)
    floor, deviation = chain.floor(64)
    assert 0 < deviation < floor < chain.truth().divergence(torch.zeros(64, 128, dtype=torch.int64))


def test_drawing_tells_what_the_plans_tell() -> None:
    model = random_chain(classes=8).model(2, 10)
    exact = draw(model, EXACT, 5, together=2)
    assert exact.tokens.shape == (5, 10)
    assert (exact.network_evaluations, exact.idle_steps) == (20, 0)
    ancestral = draw(model, Sampler(name="ancestral", steps=7), 5)
    assert ancestral.network_evaluations + ancestral.idle_steps == 7
    assert torch.equal(draw(model, EXACT, 5, together=2).tokens, exact.tokens)
    assert not torch.equal(draw(model, EXACT, 5, seed=1, together=2).tokens, exact.tokens)
    assert [name_of(each) for each in samplers_of([3], [4])] == ["exact", "groups, k = 3", "ancestral, T = 4"]


def test_the_papers_cost_is_that_of_steps_and_of_steps_that_change_something() -> None:
    parts = {"network": 3.0, "filter": 1.0, "draw": 0.5, "unmask": 0.25}
    costs = cost_of(parts, steps=4, sub_tokens=3)
    changing = 4 - expected_idle_steps(4, 3)[0]
    assert costs == {PLAIN: (4, 19.0), CACHED: (pytest.approx(changing), pytest.approx(changing * 4 + 3))}


def test_equal_quality_takes_the_fewest_evaluations_that_are_good_enough() -> None:
    ways = [
        Way(1, "exact", None, 256, 10.0, 0.030),
        Way(1, "groups, k", 8, 8, 0.5, 0.200),
        Way(1, "groups, k", 16, 16, 1.0, 0.101),
        Way(1, "ancestral, T", 16, 15, 1.2, 0.100),
        Way(1, PLAIN, 16, 16, 4.0, 0.100),
        Way(1, CACHED, 16, 15, 3.0, 0.100),
        Way(1, "ancestral, T", 64, 50, 5.0, 0.020),
        Way(1, PLAIN, 64, 64, 16.0, 0.020),
        Way(1, CACHED, 64, 50, 13.0, 0.020),
    ]
    coarse, fine = at_equal_quality(ways, tolerance=0.002)
    assert coarse.first_hitting == "groups, k = 16"
    assert coarse.times == {"ancestral, T": 1.2, PLAIN: 4.0, CACHED: 3.0}
    assert fine.first_hitting == "exact"  # nothing is as good; nothing is better
    assert fine.times[PLAIN] == pytest.approx(1.6)
