"""Log-probabilities of what is revealed, against the truth; and that asking for them changes nothing else."""

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from unmask_diffusion import (
    MAX_LOGPROBS,
    ActiveSample,
    Reveal,
    Sample,
    SampleError,
    evaluate,
    read_sample,
    sample,
)

from tests.diffusion.test_candidates import Counting
from tests.diffusion.test_exact import chain_table, enumerated
from tests.helpers import (
    FALSE_ALARM_RATE,
    ToyModel,
    agrees_with,
    chi_square_p,
    markov_model,
    plan_for,
    prime_model,
    random_chain,
    random_table,
    run_to_end,
    table_model,
)

MODELS = {
    "two digits": prime_model(length=8),
    "bfloat16": prime_model(classes=50, length=6, digits=3, base=4, dtype=torch.bfloat16),
    "markov": markov_model(6, 8, 2),
    "table": table_model(5, 3, 3),
}
ALONE: list[dict[str, object]] = [{}, {"block_length": 1}, {"block_length": 2}]
TOGETHER: list[dict[str, object]] = [
    {"steps": 1},
    {"steps": 3},
    {"steps": 14, "block_length": 2},
    {"name": "ancestral", "steps": 5},
    {"steps": 3, "high_order": "extrapolation"},
]


def started(model: ToyModel, **fields: object) -> list[ActiveSample]:
    plan = plan_for(model, **{"logprobs": 2, **fields})
    return [ActiveSample.start(model, plan, index) for index in range(len(plan.schedules))]


def answers(model: ToyModel, samples: Sequence[ActiveSample]) -> list[Sample]:
    return [read_sample(model, each.plan, each.index, each.digits, each.log) for each in samples]


# --- what they are -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ALONE)
@pytest.mark.parametrize(("classes", "length", "digits"), [(5, 3, 2), (5, 2, 3), (4, 3, 1)])
@pytest.mark.parametrize("chain", [False, True], ids=["table", "markov"])
def test_one_sub_token_at_a_time_the_total_is_the_log_probability_of_the_text(
    chain: bool, classes: int, length: int, digits: int, sampler: dict[str, object]
) -> None:
    """By the chain rule, whatever the order, and whatever is given."""
    make = markov_model if chain else table_model
    model = make(classes, length, digits, seed=3)
    table = chain_table(*random_chain(classes, 3), length) if chain else random_table(classes, length, 3)
    given_last = table.exp().sum(tuple(range(length - 1))).log()  # of the last token alone
    for canvas in ([None] * length, [None] * (length - 1) + [1]):
        for each in sample(model, canvas=canvas, n=8, seed=classes, sampler=sampler, logprobs=0):
            truth = float(table[each.token_ids]) - (0 if canvas[-1] is None else float(given_last[1]))
            assert each.log_probability == pytest.approx(truth, abs=1e-5)
            assert each.logprobs is not None
            totals = [token.total for token in each.logprobs]
            assert [total is None for total in totals] == [token is not None for token in canvas]
            assert math.fsum(total or 0 for total in totals) == pytest.approx(truth, abs=1e-5)


@pytest.mark.parametrize("sampler", ALONE + TOGETHER)
@pytest.mark.parametrize("chain", [False, True], ids=["table", "markov"])
def test_every_number_is_that_of_the_digit_given_what_was_known(chain: bool, sampler: dict[str, object]) -> None:
    """Also with temperature and filters: they are the model's own. Digits of one token follow one another."""
    classes, length, digits = 5, 3, 2
    make = markov_model if chain else table_model
    model = make(classes, length, digits, seed=3)
    table = chain_table(*random_chain(classes, 3), length) if chain else random_table(classes, length, 3)
    codes: list[list[int]] = model.sub_tokenizer.codes.tolist()
    mask = model.sub_tokenizer.mask_id
    for hot in ({}, {"temperature": 3.0}, {"temperature": 0.0}, {"top_k": 2}):
        samples = started(model, n=3, seed=6, sampler=sampler, **hot)
        for log in run_to_end(model, samples):
            canvas: list[tuple[int, ...]] = [(mask,) * digits] * length
            for reveal in log:
                truth = enumerated(table, canvas, model.sub_tokenizer)
                numbers = iter(reveal.log_probabilities)
                likeliest = dict(reveal.likeliest)
                for position, own in groupby(reveal.sub_tokens, key=lambda sub_token: sub_token[0]):
                    assert (position in likeliest) == (set(canvas[position]) == {mask})
                    for token, value in likeliest.get(position, ()):
                        assert value == pytest.approx(math.log(truth[position, token]), abs=1e-5)
                    if position in likeliest:
                        first = truth[position].sort(descending=True).indices[:2].tolist()
                        assert [token for token, _ in likeliest[position]] == first
                    for _, j, digit in own:
                        left = sum(truth[position, c] for c in classes_left(codes, canvas[position], mask))
                        known = list(canvas[position])
                        known[j] = digit
                        canvas[position] = tuple(known)
                        kept = sum(truth[position, c] for c in classes_left(codes, canvas[position], mask))
                        assert next(numbers) == pytest.approx(math.log(kept / left), abs=1e-5)
                assert not [*numbers]


def classes_left(codes: Sequence[Sequence[int]], known: Sequence[int], mask: int) -> list[int]:
    return [c for c, code in enumerate(codes) if agrees_with(known, code, mask)]


def test_at_temperature_1_tokens_come_as_often_as_the_total_says() -> None:
    """All in one step: then a text's total does not depend on the order. One false alarm in 100,000 seeds."""
    model = table_model(4, 2, 2, seed=5)
    drawn = [each for seed in range(20) for each in sample(model, n=64, seed=seed, sampler={"steps": 1}, logprobs=0)]
    told = {each.token_ids: math.exp(each.log_probability or 0) for each in drawn}
    counts = Counter(each.token_ids for each in drawn)
    rest = 1 - sum(told.values())
    assert rest >= -1e-5
    if rest > 1e-5:
        told[()] = rest
    assert chi_square_p(counts, told) > FALSE_ALARM_RATE


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("most", [0, 1, MAX_LOGPROBS])
def test_every_token_has_its_likeliest_classes_once(name: str, most: int) -> None:
    model = MODELS[name]
    for sampler in ALONE + TOGETHER:
        for log in run_to_end(model, started(model, n=2, seed=9, sampler=sampler, logprobs=most)):
            found = Counter(position for reveal in log for position, _ in reveal.likeliest)
            assert found == (dict.fromkeys(range(model.denoiser.length), 1) if most else {})
            for reveal in log:
                for _, classes in reveal.likeliest:
                    assert len(classes) == min(most, model.denoiser.vocabulary_size)
                    assert [*classes] == sorted(classes, key=lambda pair: (-pair[1], pair[0]))
            if sampler == {"steps": 1}:
                assert_first_of(model, log)


def test_a_partly_given_token_has_the_classes_that_its_digits_leave() -> None:
    model = table_model(5, 3, 3)
    canvas: list[list[int | None]] = [[0, None, None], [None, None, None], [None, 1, 0]]
    for each in sample(model, sub_tokens=canvas, n=4, seed=2, logprobs=5):
        assert each.logprobs is not None
        for token, known in zip(each.logprobs, canvas, strict=True):
            assert [value is None for value in token.sub_tokens] == [digit is not None for digit in known]
            codes: list[list[int]] = model.sub_tokenizer.codes.tolist()
            left = [c for c, code in enumerate(codes) if all(d in (None, x) for d, x in zip(known, code, strict=True))]
            assert sorted(c for c, _ in token.likeliest) == left
            assert math.fsum(math.exp(value) for _, value in token.likeliest) == pytest.approx(1)


def assert_first_of(model: ToyModel, log: Sequence[Reveal]) -> None:
    """Revealed as a whole, a token that is among its likeliest classes has the number that is told there."""
    (reveal,) = log
    digits = model.sub_tokenizer.sub_tokens_per_token
    likeliest = dict(reveal.likeliest)
    for position in range(model.denoiser.length):
        own = slice(position * digits, (position + 1) * digits)
        token = int(model.sub_tokenizer.decode(torch.tensor([digit for _, _, digit in reveal.sub_tokens[own]])))
        told = dict(likeliest.get(position, ())).get(token)
        assert told is None or told == pytest.approx(math.fsum(reveal.log_probabilities[own]), abs=1e-9)


def test_a_certain_digit_has_0_and_never_more() -> None:
    """Of five classes in base 2 the last one alone begins with 1: its other digits are certain then."""
    model = table_model(5, 3, 3, base=2)
    certain = 0
    for log in run_to_end(model, started(model, n=20, seed=1)):
        known: dict[int, dict[int, int]] = {}
        for reveal in log:
            ((position, j, digit),) = reveal.sub_tokens
            (value,) = reveal.log_probabilities
            assert value <= 0
            if known.setdefault(position, {}).get(0) == 1:
                assert value == 0
                certain += 1
            known[position][j] = digit
    assert certain


# --- what they are not ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_asking_changes_no_token_and_not_asking_costs_nothing(name: str) -> None:
    for sampler in ALONE + TOGETHER:
        asked, not_asked = (Counting(MODELS[name]) for _ in range(2))
        fields: dict[str, object] = {"n": 3, "seed": 5, "sampler": sampler}
        told = run_to_end(asked.model, started(asked.model, **fields))
        plain = run_to_end(not_asked.model, started(not_asked.model, **fields, logprobs=None))
        assert told == plain
        assert all(len(each.log_probabilities) == len(each.sub_tokens) for log in told for each in log)
        assert not any(each.log_probabilities or each.likeliest for log in plain for each in log)
        assert asked.trunks == not_asked.trunks
        assert len(asked.heads) > len(not_asked.heads)
        if "high_order" not in sampler:
            assert not_asked.heads == []


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=6)
@given(seed=st.integers(0, 2**20))
def test_guessing_ahead_and_company_tell_the_same_numbers(name: str, seed: int) -> None:
    """Bit for bit, also with guesses that are thrown away."""
    model, chance = MODELS[name], random.Random(seed)
    fields: dict[str, object] = {"n": 3, "seed": seed, "sampler": chance.choice(ALONE + TOGETHER)}
    samples = started(model, **fields)
    while running := [each for each in samples if not each.finished]:
        for each in running:
            each.drafts = each.drafts[: chance.randint(0, 5)]
        budgets = [chance.choice([2, 3, 6, 10]) for _ in running]
        for each, done in zip(running, evaluate(model, running, budgets), strict=True):
            each.apply(done)
    for index, found in enumerate(answers(model, samples)):
        alone = started(model, **fields)[index]
        run_to_end(model, [alone])
        assert answers(model, [alone]) == [found]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("sampler", ALONE + TOGETHER)
def test_a_sample_that_is_resumed_tells_the_same_numbers(name: str, sampler: dict[str, object]) -> None:
    model = MODELS[name]
    (whole,) = started(model, seed=3, sampler=sampler)
    (log,) = run_to_end(model, [whole])
    for done in {0, 1, len(log) // 2, len(log) - 1}:
        (again,) = started(model, seed=3, sampler=sampler)
        for reveal in log[:done]:
            again.reveal(reveal)
        run_to_end(model, [again])
        assert answers(model, [again]) == answers(model, [whole])


def test_every_sample_gets_what_it_asked_for() -> None:
    """More tokens than meet the head together; some samples ask for none, and one cannot go on."""
    impossible = torch.zeros(4, 4)
    impossible[3] = -torch.inf
    model = table_model(4, 2, 2)
    model = replace(model, denoiser=type(model.denoiser)(impossible, model.sub_tokenizer))  # type: ignore[call-arg]
    wanted = [None, 0, 2]
    samples = [each for i in range(60) for each in started(model, n=2, seed=i, logprobs=wanted[i % 3])]
    samples += started(model, canvas=[3, None], seed=2)
    counting = Counting(model)
    outcomes = evaluate(counting.model, samples)
    assert counting.heads == [64, 16]
    assert isinstance(outcomes[-1].entries[-1], SampleError)
    for each, outcome in zip(samples[:-1], outcomes, strict=False):
        assert numbers_of(evaluate(model, [each])[0].entries[0]) == numbers_of(outcome.entries[0])
        (reveal,) = outcome.entries
        assert isinstance(reveal, Reveal)
        assert len(reveal.log_probabilities) == (each.plan.request.logprobs is not None)
        assert [len(classes) for _, classes in reveal.likeliest] == [2] * (each.plan.request.logprobs == 2)


def numbers_of(entry: object) -> object:
    assert isinstance(entry, Reveal)
    return entry.log_probabilities, entry.likeliest


def test_they_end_where_the_answer_ends() -> None:
    """The total counts what comes after an end token too: it was drawn."""
    model = replace(markov_model(6, 8, 2), end_token_ids=(4,))
    ended = 0
    for each in sample(model, n=32, seed=2, logprobs=1):
        assert each.logprobs is not None
        assert each.log_probability is not None
        assert len(each.logprobs) == len(each.token_ids)
        shown = math.fsum(token.total or 0 for token in each.logprobs)
        if each.finish_reason == "stop":
            ended += 1
            assert each.log_probability < shown
        else:
            assert each.log_probability == pytest.approx(shown)
    assert 0 < ended < 32


def test_a_request_without_holes_has_them_too() -> None:
    model = table_model(4, 2, 2)
    (answer,) = sample(model, canvas=[1, 2], seed=1, logprobs=3)
    assert answer.log_probability == 0
    assert answer.logprobs is not None
    assert [(token.sub_tokens, token.total, token.likeliest) for token in answer.logprobs] == [
        ((None, None), None, ())
    ] * 2


def test_a_reveal_is_the_same_with_and_without_them() -> None:
    """Drafts have none: they are right or wrong by their digits alone."""
    plain = Reveal(0, 1, ((0, 1, 2),))
    told = replace(plain, log_probabilities=(-1.5,), likeliest=((0, ((3, -0.5),)),))
    assert told == plain
