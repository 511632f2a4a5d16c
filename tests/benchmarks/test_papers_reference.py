"""The baseline draws what the papers' algorithm draws: counted against its law, which small tables let us enumerate.

The two tests of counts say no to a correct sampler with another seed in one of 100,000 cases (`FALSE_ALARM_RATE`);
the seeds are fixed.
"""

import itertools
from collections import Counter, defaultdict
from math import prod

import pytest
import torch

from benchmarks.evaluation.papers_sampler import PapersSampler, step_times
from tests.helpers import FALSE_ALARM_RATE, ToyModel, chi_square_p, plan_for, sequences, table_model

Digits = tuple[int, ...]
Law = dict[Digits, float]


def after_a_step(model: ToyModel, known: Digits, classes: list[float], chance: float) -> Law:
    """What becomes of one position in a step: each masked digit is revealed by chance, all from one class."""
    law: Law = defaultdict(float)
    mask = model.sub_tokenizer.mask_id
    masked = [j for j, digit in enumerate(known) if digit == mask]
    for shown in itertools.product((False, True), repeat=len(masked)):
        places = [j for j, show in zip(masked, shown, strict=True) if show]
        weight = chance ** len(places) * (1 - chance) ** (len(masked) - len(places))
        for code, p in zip(model.sub_tokenizer.codes.tolist(), classes, strict=True):
            if weight * p > 0:
                law[tuple(code[j] if j in places else digit for j, digit in enumerate(known))] += weight * p
    return law


def law_of_steps(model: ToyModel, steps: int) -> Law:
    """The distribution of token sequences after T steps, carried from state to state."""
    length, digits = model.denoiser.length, model.sub_tokenizer.sub_tokens_per_token
    states: Law = {(model.sub_tokenizer.mask_id,) * (length * digits): 1.0}
    for time, next_time in step_times(steps):
        then: Law = defaultdict(float)
        for state, p in states.items():
            sub_tokens = torch.tensor(state).view(1, length, digits)
            posteriors = model.denoiser.joint_logits(sub_tokens)[0].double().softmax(-1).tolist()
            chance = (time - next_time) / time
            positions = [
                after_a_step(model, state[i * digits : (i + 1) * digits], posteriors[i], chance) for i in range(length)
            ]
            for parts in itertools.product(*(position.items() for position in positions)):
                then[tuple(digit for known, _ in parts for digit in known)] += p * prod(part for _, part in parts)
        states = then
    ids: Law = defaultdict(float)
    for state, p in states.items():
        ids[tuple(model.sub_tokenizer.decode(torch.tensor(state).view(length, digits)).tolist())] += p
    return ids


def test_step_times_run_from_one_to_zero() -> None:
    assert step_times(4) == [(1.0, 0.75), (0.75, 0.5), (0.5, 0.25), (0.25, 0.0)]


CASES = [(3, 1, 3, 1), (5, 2, 3, 3), (4, 2, 2, 2)]  # classes, digits, base, steps


@pytest.mark.parametrize(("classes", "digits", "base", "steps"), CASES)
def test_the_papers_sampler_draws_from_its_law(classes: int, digits: int, base: int, steps: int) -> None:
    """Chi-square over all sequences of two tokens, 6,000 samples."""
    model = table_model(classes, 2, digits, base, seed=41)
    drawn = PapersSampler(model.denoiser, model.sub_tokenizer, seed=5).sample(6000, 2, steps)
    assert chi_square_p(Counter(map(tuple, drawn.tolist())), law_of_steps(model, steps)) > FALSE_ALARM_RATE


@pytest.mark.parametrize(("classes", "digits", "base", "steps"), CASES)
def test_ours_draws_from_the_same_law(classes: int, digits: int, base: int, steps: int) -> None:
    """The comparison is of two ways to draw one thing: the same count for ours, 3,008 samples."""
    model = table_model(classes, 2, digits, base, seed=41)
    plans = [plan_for(model, n=64, seed=seed, sampler={"name": "ancestral", "steps": steps}) for seed in range(47)]
    assert chi_square_p(Counter(sequences(model, plans)), law_of_steps(model, steps)) > FALSE_ALARM_RATE


def test_few_steps_are_told_from_many() -> None:
    """The count can see the error of few steps (else it would see nothing)."""
    model = table_model(4, 2, 2, 2, seed=41)
    drawn = PapersSampler(model.denoiser, model.sub_tokenizer, seed=5).sample(6000, 2, 1)
    assert chi_square_p(Counter(map(tuple, drawn.tolist())), law_of_steps(model, 64)) < FALSE_ALARM_RATE
