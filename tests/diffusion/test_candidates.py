"""What intermediate tokens may still become, against enumeration; and that asking for it changes nothing else."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from unmask_diffusion import (
    ActiveSample,
    Candidates,
    Outcome,
    Reveal,
    SampleError,
    SubTokenizer,
    TableDenoiser,
    evaluate,
)

from tests.diffusion.test_exact import chain_table, enumerated
from tests.helpers import (
    DenoiserAround,
    ToyModel,
    agrees_with,
    code_table,
    markov_model,
    plan_for,
    prime_model,
    random_chain,
    random_table,
    run_to_end,
    table_model,
)

MODELS = {
    "two digits": prime_model(),
    "bfloat16": prime_model(dtype=torch.bfloat16),
    "three digits": prime_model(classes=50, digits=3, base=4),
    "markov": markov_model(6, 8, 2),
    "table": table_model(5, 3, 3),
}
SAMPLERS: list[dict[str, object]] = [{}, {"steps": 3}, {"steps": 1}, {"name": "ancestral", "steps": 5}]

# what a step revealed, and the candidates after it
Step = tuple[Reveal, tuple[Candidates, ...]]


def start(model: ToyModel, candidates: int = 0, **fields: object) -> list[ActiveSample]:
    plan = plan_for(model, **fields)
    samples = [ActiveSample.start(model, plan, index) for index in range(len(plan.schedules))]
    return [replace(sample, candidates=candidates) for sample in samples]


def reveals(outcome: Outcome) -> list[Reveal]:
    return [entry for entry in outcome.entries if isinstance(entry, Reveal)]


def watch(
    model: ToyModel, samples: Sequence[ActiveSample], choose: Callable[[ActiveSample], int] = lambda _: 1
) -> list[list[Step]]:
    """Take samples to their ends, with the budget of canvases that `choose` says in every round."""
    steps: dict[int, list[Step]] = {id(each): [] for each in samples}
    while running := [each for each in samples if not each.finished]:
        for each, done in zip(running, evaluate(model, running, [choose(each) for each in running]), strict=True):
            each.apply(done)
            steps[id(each)] += zip(reveals(done), done.candidates, strict=True)
    return list(steps.values())


def intermediate_after(before: Tensor, reveal: Reveal, mask_id: int) -> list[tuple[int, tuple[int, ...]]]:
    """(position, digits) of the tokens that a reveal touches and leaves intermediate."""
    canvas: list[list[int]] = before.tolist()
    for position, j, digit in reveal.sub_tokens:
        canvas[position][j] = digit
    touched = sorted({position for position, _, _ in reveal.sub_tokens})
    return [(position, tuple(canvas[position])) for position in touched if mask_id in canvas[position]]


def assert_likeliest(
    found: Candidates, probabilities: Sequence[float], digits: Sequence[int], sub_tokenizer: SubTokenizer, most: int
) -> None:
    """Hold candidates to the true probabilities [C], not normalised, given the digits that the token has."""
    codes: list[list[int]] = sub_tokenizer.codes.tolist()
    left = [c for c, code in enumerate(codes) if agrees_with(digits, code, sub_tokenizer.mask_id)]
    truth = {c: probabilities[c] / sum(probabilities[c] for c in left) for c in left}
    possible = [c for c in left if truth[c] > 0]
    classes = [c for c, _ in found.likeliest]
    assert found.classes_left == len(left)
    assert len(set(classes)) == len(classes) == min(most, len(possible))
    assert list(found.likeliest) == sorted(found.likeliest, key=lambda pair: (-pair[1], pair[0]))
    assert dict(found.likeliest) == pytest.approx({c: truth[c] for c in classes}, rel=1e-4, abs=1e-6)
    least = min((truth[c] for c in classes), default=0)
    assert all(truth[c] <= least * (1 + 1e-4) + 1e-6 for c in left if c not in classes)


@torch.inference_mode()
def network_probabilities(model: ToyModel, canvas: Tensor, position: int) -> list[float]:
    """Not normalised; in the sampler's own mode, without which bfloat16 has other bits."""
    logits = model.denoiser.joint_logits(canvas[None])[0, position].double()
    probabilities: list[float] = (logits - logits.max()).exp().tolist()
    return probabilities


# --- what they are -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("classes", "length", "digits"), [(5, 3, 2), (5, 2, 3), (9, 2, 2), (4, 3, 2)])
@pytest.mark.parametrize("chain", [False, True], ids=["table", "markov"])
def test_they_are_the_exact_conditional_probabilities(
    chain: bool, classes: int, length: int, digits: int, sampler: dict[str, object]
) -> None:
    """Given the digits that other tokens had before the step, and all that the token itself has after it."""
    make = markov_model if chain else table_model
    model = make(classes, length, digits, seed=3)
    table = chain_table(*random_chain(classes, 3), length) if chain else random_table(classes, length, 3)
    mask = model.sub_tokenizer.mask_id
    for sample in start(model, candidates=3, n=4, seed=classes, sampler=sampler):
        while not sample.finished:
            (done,) = evaluate(model, [sample])
            ((reveal, found),) = zip(reveals(done), done.candidates, strict=True)
            wanted = intermediate_after(sample.digits, reveal, mask)
            assert [each.position for each in found] == [position for position, _ in wanted]
            for each, (position, known) in zip(found, wanted, strict=True):
                canvas = [tuple(state) for state in sample.digits.tolist()]
                canvas[position] = known
                truth = enumerated(table, canvas, model.sub_tokenizer)[position].tolist()
                assert_likeliest(each, truth, known, model.sub_tokenizer, most=3)
            sample.reveal(reveal)


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=12)
@given(
    seed=st.integers(0, 2**20),
    sampler=st.sampled_from(SAMPLERS),
    temperature=st.sampled_from([0.0, 0.5, 1.0, 4.0]),
    top_k=st.sampled_from([0, 2]),
    most=st.integers(1, 60),
)
def test_they_are_the_models_own_probabilities(
    name: str, seed: int, sampler: dict[str, object], temperature: float, top_k: int, most: int
) -> None:
    """Whatever the temperature and the filters of the request, and whatever was given."""
    model, chance = MODELS[name], random.Random(seed)
    canvas = [chance.choice([None, None, 0]) for _ in range(model.denoiser.length - 1)] + [None]
    fields: dict[str, Any] = {"canvas": canvas, "seed": seed, "sampler": sampler}
    fields |= {"temperature": temperature, "top_k": top_k}
    (sample,) = start(model, most, **fields)
    while not sample.finished:
        (done,) = evaluate(model, [sample])
        ((reveal, found),) = zip(reveals(done), done.candidates, strict=True)
        wanted = intermediate_after(sample.digits, reveal, model.sub_tokenizer.mask_id)
        assert [each.position for each in found] == [position for position, _ in wanted]
        for each, (position, known) in zip(found, wanted, strict=True):
            truth = network_probabilities(model, sample.digits, position)
            assert_likeliest(each, truth, known, model.sub_tokenizer, most)
        sample.reveal(reveal)


def test_equals_come_by_their_ids() -> None:
    """Two probabilities only, and codes that are not in the order of the ids."""
    permutation = torch.randperm(2500, generator=torch.Generator().manual_seed(1)).tolist()
    sub_tokenizer = SubTokenizer.from_base(2500, 2, 50, permutation)
    likely = torch.arange(2500) % 7 == 0
    model = ToyModel(TableDenoiser(likely.double(), sub_tokenizer), sub_tokenizer)
    for sample in start(model, candidates=40, n=8, seed=1):
        (done,) = evaluate(model, [sample])
        (found,) = done.candidates[0]
        ((_, known),) = intermediate_after(sample.digits, reveals(done)[0], sub_tokenizer.mask_id)
        left = [c for c, code in enumerate(sub_tokenizer.codes.tolist()) if agrees_with(known, code, 50)]
        assert [c for c, _ in found.likeliest] == sorted(left, key=lambda c: (not likely[c], c))[:40]


def test_classes_of_probability_zero_are_left_but_no_candidates() -> None:
    """Of four classes with two digits, class 1 cannot be: after the digit 0 at place 0 only class 0 can."""
    sub_tokenizer = code_table(4, 2)
    model = ToyModel(TableDenoiser(torch.tensor([0.5, 0.0, 0.25, 0.25]).log(), sub_tokenizer), sub_tokenizer)
    seen = {}
    for sample in start(model, candidates=4, n=32, seed=1):
        (done,) = evaluate(model, [sample])
        ((_, j, digit),) = reveals(done)[0].sub_tokens
        (found,) = done.candidates[0]
        assert found.classes_left == 2
        seen[j, digit] = dict(found.likeliest)
    assert seen == {
        (0, 0): {0: 1},
        (0, 1): {2: 0.5, 3: 0.5},
        (1, 0): pytest.approx({0: 2 / 3, 2: 1 / 3}),
        (1, 1): {3: 1},
    }


def test_a_token_of_one_digit_is_never_intermediate() -> None:
    counting = Counting(prime_model(digits=1))
    for steps in watch(counting.model, start(counting.model, candidates=5, n=2, seed=1)):
        assert all(candidates == () for _, candidates in steps)
    assert counting.heads == []


# --- what they are not ---------------------------------------------------------------------------------------------


class Counting(DenoiserAround):
    """Notes how often it is asked for what."""

    def __init__(self, model: ToyModel) -> None:
        super().__init__(model.denoiser)
        self.model = replace(model, denoiser=self)
        self.trunks = 0
        self.heads: list[int] = []

    def trunk(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        self.trunks += 1
        return super().trunk(canvases, rows)

    def head(self, features: Tensor) -> Tensor:
        self.heads.append(len(features))
        return super().head(features)


@pytest.mark.parametrize("name", MODELS)
def test_asking_changes_no_outcome_and_not_asking_costs_nothing(name: str) -> None:
    asked, not_asked = (Counting(MODELS[name]) for _ in range(2))
    for sampler in SAMPLERS:
        fields: dict[str, Any] = {"n": 3, "seed": 5, "sampler": sampler}
        watched = watch(asked.model, start(asked.model, candidates=4, **fields))
        plain = watch(not_asked.model, start(not_asked.model, **fields))
        expected = run_to_end(MODELS[name], start(MODELS[name], **fields))
        assert [[reveal for reveal, _ in steps] for steps in watched] == expected
        assert plain == [[(reveal, ()) for reveal in log] for log in expected]
    assert asked.trunks == not_asked.trunks
    assert not_asked.heads == []
    assert asked.heads


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=8)
@given(seed=st.integers(0, 2**20))
def test_guessing_ahead_finds_the_same(name: str, seed: int) -> None:
    """Bit for bit, in company and with guesses that are thrown away, or wrong."""
    model, chance = MODELS[name], random.Random(seed)
    fields: dict[str, Any] = {"candidates": 3, "n": 3, "seed": seed, "sampler": chance.choice(SAMPLERS)}

    def choose(sample: ActiveSample) -> int:
        if chance.random() < 0.3:
            sample.drafts = tuple(_wrong(draft) for draft in sample.drafts)
        sample.drafts = sample.drafts[: chance.randint(0, 5)]
        return chance.choice([1, 3, 6, 10])

    found = watch(model, start(model, **fields), choose)
    for steps, alone in zip(found, start(model, **fields), strict=True):
        assert [steps] == watch(model, [alone])


def _wrong(draft: Reveal) -> Reveal:
    return replace(draft, sub_tokens=tuple((position, j, (digit + 1) % 2) for position, j, digit in draft.sub_tokens))


def test_every_sample_gets_what_it_asked_for() -> None:
    """More tokens than meet the head together; some samples ask for none, and one cannot go on."""
    table = torch.zeros(4, 4)
    table[3] = -torch.inf
    sub_tokenizer = code_table(4, 2)
    model = ToyModel(TableDenoiser(table, sub_tokenizer), sub_tokenizer)
    samples = [*start(model, n=61, seed=1), *start(model, canvas=[3, None], seed=2), *start(model, n=59, seed=3)]
    for i, sample in enumerate(samples):
        sample.candidates = i % 3
    counting = Counting(model)
    outcomes = evaluate(counting.model, samples)
    assert counting.heads == [64, 15]
    assert isinstance(outcomes[61].entries[-1], SampleError)
    assert outcomes[61].candidates == ()
    for sample, outcome in zip(samples, outcomes, strict=True):
        assert evaluate(model, [sample]) == [outcome]
        for of_reveal in outcome.candidates:
            assert len(of_reveal) == min(1, sample.candidates)
            assert all(len(each.likeliest) <= sample.candidates for each in of_reveal)


def test_a_remembered_canvas_has_them_too() -> None:
    model = prime_model()
    first, again = (evaluate(model, start(model, candidates=5, n=3, seed=8)) for _ in range(2))
    assert [each.candidates for each in first] == [each.candidates for each in again]
    assert first[0].candidates[0]
