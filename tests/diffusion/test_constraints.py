"""Sets on the canvas and logit_bias: what can be drawn, how often, and what the numbers beside it say."""

import math
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from unmask_diffusion import (
    ActiveSample,
    RequestError,
    SamplingError,
    TableDenoiser,
    evaluate,
    make_plan,
    plan_on_canvas,
    sample,
)

from tests.diffusion.test_log_probabilities import ALONE, MODELS, TOGETHER
from tests.helpers import (
    FALSE_ALARM_RATE,
    ToyModel,
    chi_square_p,
    code_table,
    plan_for,
    random_table,
    run_to_end,
    sequences,
    table_model,
)

BY_CONFIDENCE: list[dict[str, object]] = [
    {"name": "confidence"},
    {"name": "entropy", "steps": 6, "cut": "dream"},
    {"name": "margin", "steps": 8},
]


def constrained(model: ToyModel, seed: int, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 — a request's fields
    """A canvas of sets, holes and given tokens, with or without a bias."""
    chance, classes = random.Random(seed), model.denoiser.vocabulary_size

    def entry() -> int | list[int] | None:
        some = [chance.randrange(classes) for _ in range(chance.choice([2, 3, 5]))]
        return chance.choice([None, some, some, chance.randrange(classes)])

    bias = {str(chance.randrange(classes)): chance.uniform(-9, 9) for _ in range(3)} if seed % 2 else None
    return {"canvas": [entry() for _ in range(model.denoiser.length)], "seed": seed, "logit_bias": bias, **fields}


# --- what can be drawn ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["two digits", "bfloat16", "markov"])
@settings(max_examples=10)
@given(
    seed=st.integers(0, 2**20),
    sampler=st.sampled_from(ALONE + TOGETHER + BY_CONFIDENCE),
    more=st.sampled_from([{}, {"temperature": 0.0}, {"temperature": 4.0}, {"top_k": 2}, {"top_p": 0.5}]),
)
def test_every_token_is_in_its_set(name: str, seed: int, sampler: dict[str, object], more: dict[str, object]) -> None:
    """Whatever digits are revealed in between: with steps of single digits every intermediate state has a candidate."""
    fields = constrained(MODELS[name], seed, sampler=sampler, n=2, **more)
    for each in sample(MODELS[name], **fields):
        for entry, token in zip(fields["canvas"], each.token_ids, strict=True):
            assert entry is None or token in (entry if isinstance(entry, list) else [entry])


@settings(max_examples=8)
@given(seed=st.integers(0, 2**20))
def test_guessing_ahead_and_a_takeover_change_nothing(seed: int) -> None:
    model, chance = MODELS["bfloat16"], random.Random(seed)
    sampler = chance.choice(ALONE + TOGETHER + BY_CONFIDENCE)
    plan = plan_for(model, **constrained(model, seed, sampler=sampler, logprobs=2))
    alone, ahead, resumed = (ActiveSample.start(model, plan, 0) for _ in range(3))
    (log,) = run_to_end(model, [alone])
    while not ahead.finished:
        (done,) = evaluate(model, [ahead], [chance.choice([2, 3, 6])])
        ahead.apply(done)
    for reveal in log[: len(log) // 2]:
        resumed.reveal(reveal)
    run_to_end(model, [resumed])
    for each in (ahead, resumed):
        assert torch.equal(each.digits, alone.digits)
        assert [reveal.log_probabilities for reveal in each.log] == [reveal.log_probabilities for reveal in log]


def test_a_set_of_one_is_a_given_token_and_a_set_of_all_is_a_hole() -> None:
    model = MODELS["markov"]
    every = list(range(model.denoiser.vocabulary_size))
    fields: dict[str, Any] = {"n": 3, "seed": 4, "sampler": {"steps": 9}}
    as_sets = plan_for(model, canvas=[None, [3, 3], every, None, [0], None, None, None], **fields)
    plainly = plan_for(model, canvas=[None, 3, None, None, 0, None, None, None], **fields)
    assert as_sets.given == plainly.given
    assert as_sets.schedules == plainly.schedules
    assert sequences(model, [as_sets]) == sequences(model, [plainly])


def test_a_plan_keeps_its_sets_when_it_is_made_again() -> None:
    model = MODELS["markov"]
    plan = plan_for(model, **constrained(model, 3))
    assert plan.sets
    again = plan_on_canvas(model, plan.request, plan.canvas, plan.generated, sets=plan.sets)
    assert again == plan


def test_a_set_without_a_possible_class_ends_the_sample() -> None:
    table = random_table(4, 2, 1)
    table[:, 2:] = -torch.inf
    sub_tokenizer = code_table(4, 2)
    model = ToyModel(TableDenoiser(table, sub_tokenizer), sub_tokenizer)
    assert all(each.token_ids[1] == 1 for each in sample(model, canvas=[None, [1, 2]], n=8, seed=1))
    with pytest.raises(SamplingError, match="probability zero"):
        sample(model, canvas=[None, [2, 3]], seed=1)


@pytest.mark.parametrize(
    ("fields", "param", "named"),
    [
        ({"canvas": [None, [1, 5]]}, "canvas", ["5", "4"]),
        ({"canvas": [[1, 5], None]}, "canvas", ["5", "4"]),
        ({"logit_bias": {"5": 1}}, "logit_bias", ["5", "4"]),
        ({"canvas": [[1, 2], None], "sampler": {"block_length": 1, "steps": 1}}, "sampler.steps", ["2 blocks"]),
    ],
)
def test_what_does_not_fit_the_model_is_named(fields: dict[str, Any], param: str, named: list[str]) -> None:
    with pytest.raises(RequestError) as error:
        sample(table_model(5, 2, 2), **fields)
    assert error.value.param == param
    assert all(word in str(error.value) for word in named)


@pytest.mark.parametrize(
    "fields",
    [
        {"canvas": [[], None]},
        {"canvas": [[None], None]},
        {"canvas": [[[1]], None]},
        {"canvas": [[1.0], None]},
        {"canvas": [[True], None]},
        {"logit_bias": {"1": 100.5}},
        {"logit_bias": {"1": -101}},
        {"logit_bias": {"1": True}},
        {"logit_bias": {"1": math.nan}},
        {"logit_bias": {"01": 1}},
        {"logit_bias": {"-1": 1}},
        {"logit_bias": {"": 1}},
        {"logit_bias": {"x": 1}},
        {"logit_bias": {"99999999999": 1}},
        {"logit_bias": {-1: 1}},
        {"logit_bias": [1]},
    ],
)
def test_what_is_no_set_and_no_bias_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        sample(table_model(5, 2, 2), **fields)


# --- how often -----------------------------------------------------------------------------------------------------


def test_a_set_that_is_drawn_first_gives_the_conditional_distribution() -> None:
    """From left to right: p(x | first token in the set). One false alarm in 100,000 seeds."""
    model, table = table_model(5, 2, 3, seed=6), random_table(5, 2, 6)
    members = [0, 2, 3]
    plans = [plan_for(model, canvas=[members, None], n=64, seed=i, sampler={"block_length": 1}) for i in range(15)]
    counts = Counter(sequences(model, plans))
    weights = {(a, b): math.exp(table[a, b]) for a in members for b in range(5)}
    truth: dict[tuple[int, ...], float] = {pair: weight / sum(weights.values()) for pair, weight in weights.items()}
    assert chi_square_p(counts, truth) > FALSE_ALARM_RATE


def test_a_bias_changes_the_odds() -> None:
    """Digit by digit too: a marginal is that of the classes with their biases. One false alarm in 100,000 seeds."""
    table, bias = random_table(6, 1, 2), {0: 1.5, 4: -2.0, 5: 0.0}
    sub_tokenizer = code_table(6, 3, 2)
    model = ToyModel(TableDenoiser(table, sub_tokenizer), sub_tokenizer)
    plans = [plan_for(model, n=64, seed=i, logit_bias={str(c): b for c, b in bias.items()}) for i in range(15)]
    counts = Counter(sequences(model, plans))
    weights = {(c,): math.exp(float(table[c]) + bias.get(c, 0)) for c in range(6)}
    truth: dict[tuple[int, ...], float] = {one: weight / sum(weights.values()) for one, weight in weights.items()}
    assert chi_square_p(counts, truth) > FALSE_ALARM_RATE


def test_a_bias_of_100_decides_and_of_0_is_none() -> None:
    model = table_model(5, 3, 2)
    for each in sample(model, n=16, seed=1, logit_bias={"2": 100}):
        assert each.token_ids == (2, 2, 2)
    for each in sample(model, n=16, seed=1, logit_bias={2: -100}):
        assert 2 not in each.token_ids
    plain = sample(model, n=16, seed=1)
    assert sample(model, n=16, seed=1, logit_bias={"2": 0}) == sample(model, n=16, seed=1, logit_bias={}) == plain
    assert make_plan(model, plan_for(model, seed=1, logit_bias={"2": 0}).request).offsets_at(0) is None


# --- the numbers ---------------------------------------------------------------------------------------------------


def test_log_probabilities_are_given_the_set() -> None:
    """From left to right: log p(x) - log p(first token in the set). Of a typed answer they are the probabilities."""
    model, table = table_model(5, 2, 3, seed=6), random_table(5, 2, 6)
    members = [0, 2, 3]
    of_first = table.exp().sum(1)
    of_set = float(of_first[members].sum())
    for each in sample(model, canvas=[members, None], n=8, seed=1, sampler={"block_length": 1}, logprobs=5):
        assert each.log_probability == pytest.approx(float(table[each.token_ids]) - math.log(of_set), abs=1e-5)
        assert each.logprobs is not None
        told = dict(each.logprobs[0].likeliest)
        assert told == pytest.approx({c: math.log(float(of_first[c]) / of_set) for c in members}, abs=1e-5)


def test_log_probabilities_do_not_know_of_a_bias() -> None:
    model, table = table_model(5, 3, 2, seed=3), random_table(5, 3, 3)
    for each in sample(model, n=8, seed=1, logit_bias={"1": 4, "2": -3}, logprobs=0):
        assert each.log_probability == pytest.approx(float(table[each.token_ids]), abs=1e-5)


def test_candidates_are_members() -> None:
    model = MODELS["bfloat16"]
    members = [3, 17, 30, 44, 45]
    plan = plan_for(model, canvas=[members] * model.denoiser.length, seed=2)
    active = replace(ActiveSample.start(model, plan, 0), candidates=50)
    codes: list[list[int]] = model.sub_tokenizer.codes.tolist()
    seen = 0
    while not active.finished:
        (done,) = evaluate(model, [active])
        active.apply(done)
        for each in done.candidates[0]:
            known = active.digits[each.position].tolist()
            left = [
                c
                for c in members
                if all(d in (model.sub_tokenizer.mask_id, x) for d, x in zip(known, codes[c], strict=True))
            ]
            assert each.classes_left == len(left)
            assert {c for c, _ in each.likeliest} <= {*left}
            assert math.fsum(p for _, p in each.likeliest) == pytest.approx(1, abs=1e-5)
            seen += 1
    assert seen
