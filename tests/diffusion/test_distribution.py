"""The exact sampler draws from the model's own distribution: counted against tables and chains that are known.

Every test says no to a correct sampler with another seed in one of 100,000 cases (`FALSE_ALARM_RATE`); the seeds are
fixed.
"""

from collections import Counter
from typing import Any

import pytest
import torch
from scipy.stats import chi2_contingency
from unmask_diffusion import Plan, TableDenoiser

from tests.helpers import (
    FALSE_ALARM_RATE,
    ToyModel,
    chi_square_p,
    code_table,
    markov_model,
    plan_for,
    random_chain,
    random_table,
    sequences,
    table_model,
    transition_p,
)

REQUESTS, FEWER = 313, 100  # of 64 samples: 20,032 and 6,400


def conditional(model: ToyModel, canvas: list[int | None], seed: int) -> dict[tuple[int, ...], float]:
    """The probability of every sequence given the tokens of the canvas."""
    table = random_table(model.sub_tokenizer.vocabulary_size, len(canvas), seed).exp()
    chosen = {
        tuple(place): float(table[tuple(place)])
        for place in torch.cartesian_prod(*[torch.arange(size) for size in table.shape]).view(-1, len(canvas)).tolist()
        if all(given in (None, token) for token, given in zip(place, canvas, strict=True))
    }
    total = sum(chosen.values())
    return {sequence: p / total for sequence, p in chosen.items()}


def many_plans(model: ToyModel, requests: int = REQUESTS, **fields: object) -> list[Plan]:
    return [plan_for(model, n=64, seed=seed * 7919, **fields) for seed in range(requests)]


@pytest.mark.parametrize(
    ("classes", "digits", "base", "canvas", "requests"),
    [
        (4, 1, 4, [None, None], FEWER),
        (5, 2, 3, [None, None], REQUESTS),  # base ** 2 = 9 codes for 5 classes
        (5, 3, 2, [None, None], FEWER),
        (4, 1, 4, [2, None, None, 0], 40),
        (3, 2, 2, [None, 2, None, 1], FEWER),
        (5, 3, 2, [4, None], 40),
    ],
)
def test_exact_sampling_is_the_table(
    classes: int, digits: int, base: int, canvas: list[int | None], requests: int
) -> None:
    """Chi-square over all sequences, 20,032, 6,400 or 2,560 samples."""
    model = table_model(classes, len(canvas), digits, base, seed=21)
    counts = Counter(sequences(model, many_plans(model, requests, canvas=canvas)))
    assert chi_square_p(counts, conditional(model, canvas, seed=21)) > FALSE_ALARM_RATE


def test_the_chi_square_test_sees_the_error_of_two_groups() -> None:
    """The same count, with positions revealed together: the test must say no (else it would see nothing)."""
    model = table_model(3, 3, 1, seed=21)
    counts = Counter(sequences(model, many_plans(model, 60, sampler={"steps": 2})))
    assert chi_square_p(counts, conditional(model, [None] * 3, seed=21)) < FALSE_ALARM_RATE


def test_the_answer_knows_nothing_of_the_order() -> None:
    """Independence of the first sub-token revealed and the sequence: 3,200 samples."""
    model = table_model(3, 2, 2, seed=22)
    plans = many_plans(model, 50)
    first = [schedule.steps[0].reveal[0] for plan in plans for schedule in plan.schedules]
    pairs = Counter(zip(first, sequences(model, plans), strict=True))
    every = sorted({sequence for _, sequence in pairs})
    rows = [[pairs[sub_token, sequence] for sequence in every] for sub_token in range(4)]
    assert chi2_contingency(rows).pvalue > FALSE_ALARM_RATE


@pytest.mark.parametrize(("digits", "requests"), [(1, 3), (2, 3), (3, 2)])
def test_exact_sampling_is_the_markov_chain(digits: int, requests: int) -> None:
    """Transition counts (chi-square, C (C - 1) degrees of freedom) and first tokens over 64 tokens."""
    model = markov_model(4, 64, digits, base=2 if digits > 1 else 4, seed=5)
    initial, transition = random_chain(4, seed=5)
    chains = sequences(model, many_plans(model, requests))
    assert {len(chain) for chain in chains} == {64}
    assert transition_p(chains, transition.exp()) > FALSE_ALARM_RATE
    first: Counter[tuple[int, ...]] = Counter(chain[:1] for chain in chains)
    assert chi_square_p(first, {(c,): float(p) for c, p in enumerate(initial.exp())}) > FALSE_ALARM_RATE


@pytest.mark.parametrize(
    ("fields", "weights"),
    [
        ({"temperature": 0.5}, [0.01, 0.09, 0.16, 0.0016, 0.04]),
        ({"temperature": 2.0}, [0.1**0.5, 0.3**0.5, 0.4**0.5, 0.04**0.5, 0.2**0.5]),
        ({"top_k": 2}, [0, 0.3, 0.4, 0, 0]),
        ({"top_p": 0.65}, [0, 0.3, 0.4, 0, 0]),
        ({"top_p": 0.71}, [0, 0.3, 0.4, 0, 0.2]),  # the crossing class is kept
        ({"temperature": 0.5, "top_k": 3}, [0, 0.09, 0.16, 0, 0.04]),
    ],
)
def test_temperature_and_filters_reshape_one_draw(fields: dict[str, Any], weights: list[float]) -> None:
    """1,600 samples of one token of one digit."""
    sub_tokenizer = code_table(5, 1)
    table = torch.tensor([0.1, 0.3, 0.4, 0.04, 0.2]).log()
    model = ToyModel(TableDenoiser(table, sub_tokenizer), sub_tokenizer)
    counts = Counter(sequences(model, many_plans(model, 25, **fields)))
    expected: dict[tuple[int, ...], float] = {(token,): weight / sum(weights) for token, weight in enumerate(weights)}
    assert chi_square_p(counts, expected) > FALSE_ALARM_RATE
