from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from unmask_diffusion import ActiveSample, RequestError, read_sample, sample

from tests.helpers import (
    FALSE_ALARM_RATE,
    chi_square_p,
    markov_model,
    plan_for,
    prime_model,
    random_table,
    run_to_end,
    table_model,
)

MODEL = prime_model(classes=30, length=12, digits=2)  # base 6: six tuples of 36 name no token
CODES = MODEL.sub_tokenizer.codes.tolist()
rows = st.tuples(st.integers(0, 29), st.lists(st.booleans(), min_size=2, max_size=2)).map(
    lambda each: [digit if keep else None for digit, keep in zip(CODES[each[0]], each[1], strict=True)]
)
canvases = st.lists(rows, min_size=1, max_size=12)
samplers = st.sampled_from(
    [
        {},
        {"steps": 3},
        {"name": "ancestral", "steps": 4},
        {"steps": 3, "clock": 3},
        {"steps": 4, "high_order": "extrapolation"},
    ]
)


@given(canvases, samplers, st.integers(0, 2**63 - 1))
def test_given_digits_stay_and_every_other_digit_is_revealed_once(
    sub_tokens: list[list[int | None]], sampler: dict[str, object], seed: int
) -> None:
    plan = plan_for(MODEL, sub_tokens=sub_tokens, n=2, seed=seed, sampler=sampler)
    masked = [p * 2 + j for p, row in enumerate(sub_tokens) for j, digit in enumerate(row) if digit is None]
    active = [ActiveSample.start(MODEL, plan, index) for index in range(2)]
    for each, log in zip(active, run_to_end(MODEL, active), strict=True):
        assert sorted(p * 2 + j for reveal in log for p, j, _ in reveal.sub_tokens) == masked
        tokens = read_sample(MODEL, plan, each.index, each.digits).token_ids
        for row, token in zip(sub_tokens, tokens, strict=True):
            assert all(digit in (None, known) for digit, known in zip(row, CODES[token], strict=True))


def test_whole_rows_are_given_tokens_and_empty_ones_holes() -> None:
    """Plan and tokens are those of the canvas of ids; the order of what is masked is that of a whole canvas."""
    ids = [3, None, 17, None, None]
    digits = [[None, None] if token is None else CODES[token] for token in ids]
    by_ids, by_digits = (plan_for(MODEL, seed=4, **fields) for fields in ({"canvas": ids}, {"sub_tokens": digits}))
    assert (by_digits.canvas, by_digits.schedules, by_digits.digits) == (by_ids.canvas, by_ids.schedules, ())
    assert sample(MODEL, canvas=ids, seed=4) == sample(MODEL, sub_tokens=digits, seed=4)
    partly = plan_for(MODEL, seed=4, sub_tokens=[*digits[:1], [None, 2], *digits[2:]])
    assert partly.digits == ((1, 1, 2),)
    order = [each for each in by_ids.schedules[0].steps.order if each != 3]
    assert list(partly.schedules[0].steps.order) == order


def test_what_is_drawn_is_the_models_conditional() -> None:
    """A table of 4 classes and 2 tokens, the first digit of the first token given: chi-square of 8,000 samples."""
    model = table_model(4, 2, 2, seed=3)
    found = Counter(
        each.token_ids
        for seed in range(125)
        for each in sample(model, sub_tokens=[[1, None], [None] * 2], n=64, seed=seed)
    )
    table = random_table(4, 2, 3).exp()
    table = table[2:] / table[2:].sum()
    probabilities: dict[tuple[int, ...], float] = {(a + 2, b): float(table[a, b]) for a in range(2) for b in range(4)}
    assert chi_square_p(found, probabilities) > FALSE_ALARM_RATE


def test_a_plan_keeps_them_wherever_it_is_made_again() -> None:
    model = markov_model(6, 8, 2, base=3, seed=1)
    fields = {"sub_tokens": [[1, None], [None, None]] * 4, "n": 3, "seed": 9}
    alone = sample(model, **fields)
    assert alone == sample(model, **fields)
    digits = model.sub_tokenizer.codes[torch.tensor([each.token_ids for each in alone])]
    assert bool((digits[:, ::2, 0] == 1).all())


@pytest.mark.parametrize(
    ("sub_tokens", "complaint"),
    [
        ([[0, 1]] * 13, "sub_tokens has 13 tokens; the model's length is 12"),
        ([[0, 1], [0]], "sub_tokens.1 has 1 digit; a token of this model has 2"),
        ([[0, 1, None]], "sub_tokens.0 has 3 digits; a token of this model has 2"),
        ([[None, 6]], r"sub_tokens.0 holds digit 6; the model's are 0 … 5"),
        ([[None, None], [5, 0]], r"sub_tokens.1 is \[5, 0\]: no token has these digits"),
        ([[0, 0], [5, None]], r"sub_tokens.1 is \[5, None\]: no token has these digits"),
    ],
)
def test_impossible_digits_are_refused(sub_tokens: list[list[int | None]], complaint: str) -> None:
    with pytest.raises(RequestError, match=complaint) as refused:
        plan_for(MODEL, sub_tokens=sub_tokens)
    assert refused.value.param == "sub_tokens"


def test_partly_given_tokens_have_no_blocks() -> None:
    with pytest.raises(RequestError, match="block_length") as refused:
        plan_for(MODEL, sub_tokens=[[0, None]] * 2, sampler={"block_length": 1})
    assert refused.value.param == "sampler.block_length"
    assert plan_for(MODEL, sub_tokens=[[0, 1], [None, None]], sampler={"block_length": 1}).blocks == 1


@pytest.mark.parametrize("other", [{"canvas": [None]}, {"prompt": [1]}, {"suffix": [1]}, {"max_tokens": 1}])
def test_sub_tokens_stand_alone(other: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=f"sub_tokens takes the place of .*leave out {next(iter(other))}"):
        plan_for(MODEL, sub_tokens=[[None, None]], **other)


@given(canvases, samplers, st.integers(0, 2**32), st.data())
def test_another_engine_continues_from_any_place_of_the_log(
    sub_tokens: list[list[int | None]], sampler: dict[str, object], seed: int, data: st.DataObject
) -> None:
    plan = plan_for(MODEL, sub_tokens=sub_tokens, seed=seed, sampler=sampler)
    first = ActiveSample.start(MODEL, plan, 0)
    (log,) = run_to_end(MODEL, [first])
    second = ActiveSample.start(MODEL, plan, 0)
    for entry in log[: data.draw(st.integers(0, len(log)))]:
        second.reveal(entry)
    run_to_end(MODEL, [second])
    assert torch.equal(first.digits, second.digits)
