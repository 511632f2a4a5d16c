import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from unmask_diffusion import (
    ActiveSample,
    Plan,
    Reveal,
    SampleError,
    SubTokenizer,
    TableDenoiser,
    evaluate,
    initial_state,
    read_sample,
    sample,
)

from tests.helpers import (
    DenoiserAround,
    ToyModel,
    code_table,
    markov_model,
    plan_for,
    prime_model,
    run_to_end,
    sequences,
    table_model,
)

PRIME = prime_model()
SAMPLERS: list[dict[str, Any]] = [
    {},
    {"steps": 3},
    {"steps": 1},
    {"name": "ancestral", "steps": 5},
    {"name": "ancestral", "steps": 1},
]

holes = st.lists(st.none() | st.integers(0, 29), min_size=1, max_size=10)
samplers = st.sampled_from(SAMPLERS)
seeds = st.integers(0, 2**63 - 1)


@settings(max_examples=40)
@given(holes, samplers, seeds, st.sampled_from([0.0, 0.7, 1.0, 3.0]), st.sampled_from([0, 1, 4]))
def test_what_is_known_stays_and_the_step_is_what_is_revealed(
    canvas: list[int | None], sampler: dict[str, Any], seed: int, temperature: float, top_k: int
) -> None:
    plan = plan_for(PRIME, canvas=canvas, sampler=sampler, seed=seed, temperature=temperature, top_k=top_k)
    active = ActiveSample.start(PRIME, plan, 0)
    mask = PRIME.sub_tokenizer.mask_id
    while not active.finished:
        before, step = active.digits.clone(), active.steps[active.step]
        (outcome,) = evaluate(PRIME, [active])
        assert torch.equal(active.digits, before), "evaluate writes nothing"
        (entry,) = active.apply(outcome)
        assert isinstance(entry, Reveal)
        assert sorted(p * 2 + j for p, j, _ in entry.sub_tokens) == sorted(step.reveal)
        known = before != mask
        assert torch.equal(active.digits[known], before[known])
        assert int((active.digits != before).sum()) == len(step.reveal)
    answer = read_sample(PRIME, plan, 0, active.digits).token_ids
    assert all(given is None or token == given for token, given in zip(answer, canvas, strict=True))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("fields", [{}, {"temperature": 5.0}, {"temperature": 0}, {"top_k": 1}, {"top_p": 0.3}])
def test_codes_that_name_no_token_never_come_out(sampler: dict[str, Any], fields: dict[str, Any]) -> None:
    model = prime_model(classes=5, length=12, digits=2, base=3)
    for seed in range(2):
        for answer in sample(model, n=16, seed=seed, sampler=sampler, **fields):
            assert len(answer.token_ids) == 12
            assert all(0 <= token < 5 for token in answer.token_ids)


def test_codes_with_gaps_and_a_permutation_never_leave_the_vocabulary() -> None:
    sub_tokenizer = SubTokenizer.from_base(5, 2, 3, [8, 0, 4, 2, 6])
    network = prime_model(classes=5, length=12, digits=2, base=3).denoiser
    for answer in sample(ToyModel(network, sub_tokenizer, full_canvas=False), n=64, seed=4):
        assert all(0 <= token < 5 for token in answer.token_ids)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_temperature_0_top_k_1_and_a_tiny_top_p_are_the_same_choice(sampler: dict[str, Any]) -> None:
    common: dict[str, Any] = {"max_tokens": 10, "prompt": [4, 9], "n": 4, "seed": 12, "sampler": sampler}
    coldest = sample(PRIME, temperature=0, **common)
    assert sample(PRIME, top_k=1, **common) == coldest
    assert sample(PRIME, top_p=1e-6, **common) == coldest
    assert sample(PRIME, temperature=0, top_k=3, top_p=0.5, **common) == coldest
    assert sample(PRIME, **common) != coldest


def test_temperature_0_takes_the_most_probable_of_a_table() -> None:
    table = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()
    for digits in (1, 2):
        sub_tokenizer = code_table(4, digits)
        model = ToyModel(TableDenoiser(table, sub_tokenizer), sub_tokenizer)
        answers = sample(model, temperature=0, n=64, seed=1)
        # the class is drawn jointly, so with one digit a time too the best class that is left wins
        assert {answer.token_ids for answer in answers} == {(1,)}


def test_top_k_of_all_classes_and_top_p_1_change_nothing() -> None:
    common: dict[str, Any] = {"max_tokens": 10, "n": 4, "seed": 13}
    plain = sample(PRIME, **common)
    assert sample(PRIME, top_k=30, **common) == plain
    assert sample(PRIME, top_k=0, top_p=1.0, **common) == plain
    assert sample(PRIME, top_k=2**31 - 1, **common) == plain


def test_samples_and_seeds_differ() -> None:
    first, second = sample(PRIME, n=8, seed=1), sample(PRIME, n=8, seed=2)
    assert len({answer.token_ids for answer in first + second}) == 16
    assert [answer.index for answer in first] == list(range(8))


def test_the_number_of_samples_changes_none_of_them() -> None:
    assert sample(PRIME, n=9, seed=6)[:3] == sample(PRIME, n=3, seed=6)


def test_sample_raises_for_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="temperature"):
        sample(PRIME, temperature=-1)
    with pytest.raises(ValueError, match="max_tokens"):
        sample(PRIME, max_tokens=25)


# --- alone and in company ------------------------------------------------------------------------------------------


FILTERS: list[dict[str, Any]] = [{}, {}, {"temperature": 0.5}, {"temperature": 0}, {"top_k": 5}, {"top_p": 0.8}]


def varied_plans(model: ToyModel, count: int, longest: int) -> list[Plan]:
    """Requests of all lengths and kinds, with n = 1 or 2."""
    chance = random.Random(count)
    plans = []
    for seed in range(count):
        length = longest if model.full_canvas else chance.randint(1, longest)
        given = chance.randint(0, length // 2)
        canvas: list[int | None] = [None] * (length - given)
        for _ in range(given):
            canvas.insert(chance.randint(0, len(canvas)), chance.randrange(model.denoiser.vocabulary_size))
        filters, sampler = chance.choice(FILTERS), chance.choice(SAMPLERS)
        plans.append(plan_for(model, canvas=canvas, n=chance.choice([1, 2]), seed=seed, sampler=sampler, **filters))
    return plans


def start_all(model: ToyModel, plans: Sequence[Plan]) -> list[ActiveSample]:
    return [ActiveSample.start(model, plan, index) for plan in plans for index in range(plan.request.n)]


def key(active: ActiveSample) -> tuple[int, int]:
    return active.plan.seed, active.index


MODELS = {
    "float32": prime_model(),
    "bfloat16": prime_model(dtype=torch.bfloat16),
    "full canvas": prime_model(full_canvas=True),
    "one digit": prime_model(digits=1),
    "table": table_model(classes=3, length=4, digits=2),
    "markov": markov_model(classes=5, length=24, digits=2),
}


@pytest.mark.parametrize("name", list(MODELS))
def test_the_same_seed_gives_the_same_tokens_alone_and_among_others(name: str) -> None:
    """Bit for bit: every draw of 32 and more samples, alone, all together, in other orders and joining late."""
    model = MODELS[name]
    plans = varied_plans(model, 32, model.denoiser.length)
    alone = {key(each): run_to_end(model, [each])[0] for each in start_all(model, plans[:12])}
    for shuffle, places in ((None, None), (1, None), (2, 33), (3, 7), (4, 2)):
        active = start_all(model, plans if places != 2 else plans[:12])
        if shuffle is not None:
            random.Random(shuffle).shuffle(active)
        for each, log in zip(active, run_to_end(model, active, places), strict=True):
            assert log == alone.setdefault(key(each), log), f"sample {key(each)}, order {shuffle}, {places} places"


@pytest.mark.parametrize("name", ["float32", "bfloat16", "one digit"])
def test_logits_are_the_same_bits_alone_and_among_others(name: str) -> None:
    model = MODELS[name]
    generator = torch.Generator().manual_seed(3)
    canvases = []
    for length in [1, 2, 3, 5, 7, 7, 8, 16, 23, 24, 24, *range(1, 23)]:
        digits = model.sub_tokenizer.codes[torch.randint(30, (length,), generator=generator)]
        canvases.append(
            digits.masked_fill(torch.rand(digits.shape, generator=generator) < 0.6, model.sub_tokenizer.mask_id)
        )
    rows = [torch.arange(len(canvas))[:: 1 + i % 3] for i, canvas in enumerate(canvases)]
    together = model.denoiser.head(model.denoiser.trunk(canvases, rows))
    start = 0
    for canvas, chosen in zip(canvases, rows, strict=True):
        alone = model.denoiser.head(model.denoiser.trunk([canvas], [chosen]))
        assert torch.equal(together[start : start + len(chosen)], alone), f"a canvas of {len(canvas)} tokens"
        start += len(chosen)


def test_rows_are_read_in_the_order_asked_for() -> None:
    canvases = [PRIME.sub_tokenizer.codes[torch.arange(length)] for length in (5, 3, 8, 5)]
    rows = [torch.tensor(r) for r in ([4, 0], [1], [], [2, 2, 3])]
    features = PRIME.denoiser.trunk(canvases, [r.long() for r in rows])
    expected = [
        PRIME.denoiser.trunk([c], [torch.arange(len(c))])[r.long()] for c, r in zip(canvases, rows, strict=True)
    ]
    assert torch.equal(features, torch.cat(expected))


def test_joint_logits_are_the_head_of_the_trunk() -> None:
    canvases = PRIME.sub_tokenizer.codes[torch.arange(24).view(2, 12)]
    logits = PRIME.denoiser.joint_logits(canvases)
    assert logits.shape == (2, 12, 30)
    assert logits.dtype == torch.float32
    alone = torch.stack([PRIME.denoiser.joint_logits(canvas[None])[0] for canvas in canvases])
    assert torch.equal(logits, alone)


def test_bfloat16_is_near_float32() -> None:
    canvases = PRIME.sub_tokenizer.codes[torch.arange(24).view(2, 12)]
    wide, narrow = (MODELS[name].denoiser.joint_logits(canvases) for name in ("float32", "bfloat16"))
    assert not torch.equal(wide, narrow)
    assert (wide - narrow).abs().max() < 0.1 * wide.std()


# --- a conditioning of probability zero, a broken network ----------------------------------------------------------


def broken_table() -> ToyModel:
    """Two tokens of two classes; a sequence never begins with 1."""
    sub_tokenizer = code_table(2, 1)
    return ToyModel(TableDenoiser(torch.tensor([[0.3, 0.7], [0.0, 0.0]]).log(), sub_tokenizer), sub_tokenizer)


def test_an_impossible_conditioning_ends_its_own_sample_alone() -> None:
    model = broken_table()
    fine = [plan_for(model, canvas=[None, None], seed=seed) for seed in range(3)]
    impossible = plan_for(model, canvas=[1, None], seed=9)
    alone = evaluate(model, start_all(model, [impossible]))
    expected = evaluate(model, start_all(model, fine))
    for place in range(4):
        plans = [*fine[:place], impossible, *fine[place:]]
        outcomes = evaluate(model, start_all(model, plans))
        assert outcomes[place] == alone[0], "what it says does not depend on its neighbours"
        assert outcomes[:place] + outcomes[place + 1 :] == expected
    (error,) = alone[0].entries
    assert isinstance(error, SampleError)
    assert error.impossible
    with pytest.raises(ValueError, match=r"probability|possible"):
        sample(model, canvas=[1, None], seed=9)


class BrokenNetwork(DenoiserAround):
    """Its features, and so its logits, are not numbers."""

    def trunk(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        return self.inner.trunk(canvases, rows) * torch.nan


def test_a_network_that_gives_no_numbers_is_not_the_clients_fault() -> None:
    model = replace(PRIME, denoiser=BrokenNetwork(PRIME.denoiser))
    outcomes = evaluate(model, start_all(model, [plan_for(model, n=2, seed=1)]))
    errors = [outcome.entries[-1] for outcome in outcomes]
    assert len(errors) == 2
    assert all(isinstance(error, SampleError) and not error.impossible for error in errors)


# --- small facts ---------------------------------------------------------------------------------------------------


def test_digits_of_one_position_in_one_group_are_drawn_jointly() -> None:
    """A table with only the classes 0 (digits 0 0) and 3 (1 1): independent digits would name 1 and 2 too."""
    sub_tokenizer = code_table(4, 2)
    model = ToyModel(TableDenoiser(torch.tensor([0.5, 0, 0, 0.5]).log(), sub_tokenizer), sub_tokenizer)
    plans = [plan_for(model, n=64, seed=seed, sampler={"steps": 1}) for seed in range(4)]
    assert set(sequences(model, plans)) == {(0,), (3,)}


def test_different_positions_of_one_group_are_drawn_independently() -> None:
    """Two tokens that are always equal: revealed together they are not (the approximation that k groups buy)."""
    table = torch.tensor([[0.5, 0], [0, 0.5]]).log()
    sub_tokenizer = code_table(2, 1)
    model = ToyModel(TableDenoiser(table, sub_tokenizer), sub_tokenizer)
    assert set(sequences(model, [plan_for(model, n=64, seed=1)])) == {(0, 0), (1, 1)}
    together = sequences(model, [plan_for(model, n=64, seed=1, sampler={"steps": 1})])
    assert set(together) == set(itertools.product(range(2), repeat=2))


def test_applying_the_log_gives_the_canvas() -> None:
    plan = plan_for(PRIME, prompt=[1], max_tokens=4, seed=2)
    active = ActiveSample.start(PRIME, plan, 0)
    (log,) = run_to_end(PRIME, [active])
    state = initial_state(PRIME, plan)
    for entry in log:
        entry.write(state)
    assert torch.equal(state, active.digits)
