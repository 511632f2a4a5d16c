"""Guessing ahead changes no token: whatever the lanes, the log is the sequential sampler's."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from unmask_diffusion import (
    ActiveSample,
    Denoiser,
    Outcome,
    Reveal,
    SampleError,
    accept,
    evaluate,
)

from tests.helpers import DenoiserAround, ToyModel, markov_model, plan_for, prime_model, run_to_end, table_model

MODELS = {
    "float32": prime_model(),
    "bfloat16": prime_model(dtype=torch.bfloat16),
    "one digit": prime_model(digits=1),
    "three digits": prime_model(digits=3),
    "markov": markov_model(6, 8, 2),
    "table": table_model(4, 4, 2),
}
SAMPLERS = [
    {},
    {"steps": 1},
    {"steps": 3},
    {"steps": 7},
    {"name": "ancestral", "steps": 2},
    {"name": "ancestral", "steps": 40},
]

Choose = Callable[[ActiveSample], int]


def fields(chance: random.Random, length: int) -> dict[str, object]:
    canvas = [chance.choice([None, None, None, 0]) for _ in range(length)]
    return {
        "canvas": canvas if None in canvas else [None] * length,
        "seed": chance.getrandbits(60),
        "n": chance.choice([1, 1, 2]),
        "temperature": chance.choice([0.0, 0.3, 1.0, 1.0, 2.0]),
        "top_k": chance.choice([0, 0, 3]),
        "top_p": chance.choice([1.0, 1.0, 0.8]),
        "sampler": chance.choice(SAMPLERS),
    }


def start(model: ToyModel, count: int, seed: int) -> list[ActiveSample]:
    chance = random.Random(seed)
    plans = [plan_for(model, **fields(chance, model.denoiser.length)) for _ in range(count)]
    return [ActiveSample.start(model, plan, index) for plan in plans for index in range(len(plan.schedules))]


def speculate(
    model: ToyModel, samples: Sequence[ActiveSample], choose: Choose
) -> tuple[list[list[Reveal]], list[Outcome]]:
    """Take samples to their ends with the budget of canvases that `choose` gives each in every round."""
    logs: dict[int, list[Reveal]] = {id(each): [] for each in samples}
    rounds = []
    while running := [each for each in samples if not each.finished]:
        for each, outcome in zip(running, evaluate(model, running, [choose(each) for each in running]), strict=True):
            rounds.append(outcome)
            for entry in each.apply(outcome):
                assert isinstance(entry, Reveal)
                logs[id(each)].append(entry)
    return list(logs.values()), rounds


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("lanes", [2, 4, 9])
def test_the_log_is_the_sequential_one(name: str, lanes: int) -> None:
    model = MODELS[name]
    expected = run_to_end(model, start(model, 12, seed=lanes))
    found, rounds = speculate(model, start(model, 12, seed=lanes), lambda _: lanes)
    assert found == expected
    assert len(rounds) < sum(map(len, expected))


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
@settings(max_examples=25)
@given(seed=st.integers(0, 2**20))
def test_the_log_is_the_sequential_one_whatever_the_lanes(name: str, seed: int) -> None:
    """Budgets change from round to round, and drafts are thrown away, cut short or swapped for wrong ones."""
    model, chance = MODELS[name], random.Random(seed)

    def choose(sample: ActiveSample) -> int:
        if chance.random() < 0.2:
            sample.drafts = ()
        if chance.random() < 0.2:
            sample.drafts = tuple(_wrong(draft) for draft in sample.drafts)
        sample.drafts = sample.drafts[: chance.randint(0, 7)]
        return chance.choice([1, 2, 4, 8, 21])

    assert speculate(model, start(model, 4, seed), choose)[0] == run_to_end(model, start(model, 4, seed))


def _wrong(draft: Reveal) -> Reveal:
    return replace(draft, sub_tokens=tuple((position, j, (digit + 1) % 2) for position, j, digit in draft.sub_tokens))


def test_many_requests_in_company() -> None:
    """Many requests share every round; each log is what it is alone."""
    model = MODELS["three digits"]
    chance = random.Random(5)
    samples = start(model, 60, seed=99)
    logs, _ = speculate(model, samples, lambda _: chance.randint(1, 5))
    for log, each in zip(logs, start(model, 60, seed=99), strict=True):
        assert log == run_to_end(model, [each])[0]


def test_guesses_at_temperature_zero_and_without_company_save_rounds() -> None:
    """A network that does not look at its canvas is guessed right always: every lane is accepted."""
    model = MODELS["float32"]
    deaf = replace(model, denoiser=Deaf(model.denoiser, model.sub_tokenizer.mask_id))
    (sample,) = (ActiveSample.start(deaf, plan_for(deaf, max_tokens=16, seed=3), 0),)
    _, rounds = speculate(deaf, [sample], lambda _: 8)
    assert [each.states for each in rounds] == [1, 8, 8, 8, 7]
    assert [len(each.entries) for each in rounds] == [1, 8, 8, 8, 7]


class Deaf(DenoiserAround):
    """Gives every canvas the features of the masked one."""

    def __init__(self, inner: Denoiser, mask_id: int) -> None:
        super().__init__(inner)
        self.mask_id = mask_id

    def trunk(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        return super().trunk([torch.full_like(canvas, self.mask_id) for canvas in canvases], rows)


def test_an_error_at_a_state_that_only_a_wrong_guess_reaches_is_nobodys() -> None:
    """The table gives class 3 at the first position probability zero."""
    table = torch.zeros(4, 4)
    table[3, :] = -torch.inf
    model = table_model(4, 2, 2)
    model.denoiser.probabilities = table.double().exp()  # type: ignore[attr-defined]
    plan = plan_for(model, seed=1)
    alone = run_to_end(model, [ActiveSample.start(model, plan, 0)])[0]
    sample = ActiveSample.start(model, plan, 0)
    positions = [part for step in plan.schedules[0].steps for part in divmod(step.reveal[0], 2)]
    lie = tuple(Reveal(0, step, ((positions[2 * step], positions[2 * step + 1], 1),)) for step in range(4))
    sample.drafts = lie
    (outcome,) = evaluate(model, [sample], [4])
    assert outcome.states == 4
    assert list(outcome.entries) == alone[: len(outcome.entries)]


def test_a_true_error_ends_what_is_accepted() -> None:
    error = SampleError(0, "no", impossible=True)
    first, second = (Reveal(0, step, ((0, step, 1),)) for step in range(2))
    assert accept([first, second], [first, error, second]) == [first, error]


@given(st.lists(st.booleans(), max_size=6))
def test_what_is_accepted_is_the_longest_right_prefix_and_one_more(right: list[bool]) -> None:
    drawn = [Reveal(0, step, ((step, 0, 0),)) for step in range(len(right) + 1)]
    guesses = [draw if ok else _wrong(draw) for draw, ok in zip(drawn, right, strict=False)]
    prefix = (*right, False).index(False)
    assert accept(guesses, drawn) == drawn[: prefix + 1]


def test_a_sample_keeps_the_guesses_that_its_log_bears_out() -> None:
    model = MODELS["markov"]
    sample = ActiveSample.start(model, plan_for(model, seed=1), 0)
    (ahead,) = evaluate(model, [sample], [4])
    assert [each.step for each in ahead.drafts] == [1, 2, 3]
    (first,) = evaluate(model, [sample])[0].entries
    assert isinstance(first, Reveal)
    sample.drafts = (first, *ahead.drafts)
    sample.reveal(first)
    assert sample.drafts == ahead.drafts
    sample.reveal(replace(_wrong(ahead.drafts[0]), step=1))
    assert sample.drafts == ()


def test_nothing_is_guessed_behind_the_end() -> None:
    model = MODELS["markov"]
    sample = ActiveSample.start(model, plan_for(model, seed=1, sampler={"steps": 2}), 0)
    (ahead,) = evaluate(model, [sample], [10])
    assert (ahead.states, len(ahead.drafts)) == (1, 1)
