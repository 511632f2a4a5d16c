"""High-order first-hitting: the law of what is drawn, what state it has (none but the log), and where it is exact."""

import itertools
import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from unmask_diffusion import (
    ActiveSample,
    GenerationRequest,
    Reveal,
    SampleError,
    Sampler,
    TableDenoiser,
    cut,
    evaluate,
)
from unmask_diffusion.high_order import extrapolate, weights
from unmask_diffusion.schedule import near_equal_steps
from unmask_kernels import consistent_log_softmax

from tests.helpers import (
    FALSE_ALARM_RATE,
    DenoiserAround,
    ToyModel,
    chi_square_p,
    code_table,
    markov_model,
    plan_for,
    prime_model,
    random_table,
    run_to_end,
    sequences,
    table_model,
)

MODELS = {
    "float32": prime_model(),
    "bfloat16": prime_model(dtype=torch.bfloat16),
    "codes to spare": prime_model(classes=30, digits=3, base=4),
    "full canvas": prime_model(digits=1, full_canvas=True),
    "markov": markov_model(6, 8, 2),
    "table": table_model(4, 4, 2),
}

# --- what is asked for ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", [{"steps": None}, {}, {"name": "ancestral", "steps": 4}])
def test_only_groups_have_a_high_order(sampler: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="first_hitting") as caught:
        GenerationRequest.model_validate({"sampler": sampler | {"high_order": "extrapolation"}})
    assert caught.value.errors()[0]["loc"] == ("sampler", "high_order")


def test_an_unknown_one_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="extrapolation") as caught:
        GenerationRequest.model_validate({"sampler": {"steps": 4, "high_order": "magic"}})
    assert caught.value.errors()[0]["loc"] == ("sampler", "high_order")


def test_requests_without_it_are_written_as_they_always_were() -> None:
    request = GenerationRequest(seed=1, sampler=Sampler(steps=4, high_order=None))
    assert request.model_dump()["sampler"] == {"name": "first_hitting", "steps": 4}
    assert "high_order" not in request.model_dump_json()


def test_requests_with_it_survive_being_stored() -> None:
    request = GenerationRequest(seed=1, sampler=Sampler(steps=4, high_order="extrapolation"))
    assert GenerationRequest.model_validate(request.model_dump()) == request
    assert GenerationRequest.model_validate_json(request.model_dump_json()) == request


def test_a_group_is_an_evaluation() -> None:
    """So that cost and forecast are those of plain groups, and a deadline can choose fewer."""
    plan = plan_for(MODELS["float32"], seed=1, n=2, sampler={"steps": 7, "high_order": "extrapolation"})
    assert plan.network_evaluations == 2 * 7
    fewer = cut(plan, 3)
    assert fewer == plan_for(MODELS["float32"], seed=1, n=2, sampler={"steps": 3, "high_order": "extrapolation"})
    assert fewer.network_evaluations == 2 * 3


# --- the two formulas ----------------------------------------------------------------------------------------------


def test_weights_are_the_times_since_the_last_prediction() -> None:
    groups = near_equal_steps(range(11), 3)  # 3, 4 and 4 sub-tokens
    assert weights(groups, 0) == ()
    assert weights(groups, 1) == (0, 1 / 3, 2 / 3, 1)
    assert weights(groups, 2) == (0, 1 / 4, 2 / 4, 3 / 4)


def test_single_sub_tokens_need_no_extrapolation() -> None:
    groups = near_equal_steps(range(5), 5)
    assert {weights(groups, step) for step in range(5)} == {()}


def test_a_prediction_is_extrapolated_where_it_stays_positive() -> None:
    now, earlier = torch.tensor([[0.5, 0.25, 0.25, 0.0]]), torch.tensor([[0.25, 0.5, 0.125, 0.125]])
    found = extrapolate(now.log(), earlier.log(), torch.tensor([1.5])).exp()
    assert torch.allclose(found, torch.tensor([[0.875, 0.0, 0.4375, 0.0]]).double(), atol=1e-7)


@given(st.integers(0, 2**20), st.floats(0.01, 3))
def test_no_class_gains_more_than_its_weight_and_none_appears(seed: int, weight: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    possible = torch.rand(1, 9, generator=generator) < 0.7
    possible[0, 4] = True
    now, earlier = (
        (20 * torch.randn(1, 9, generator=generator)).masked_fill(~possible, -torch.inf).log_softmax(1) for _ in "pq"
    )
    found = extrapolate(now, earlier, torch.tensor([weight], dtype=torch.float64))
    assert not found.isnan().any()
    assert found.max() > -torch.inf
    assert (found <= now.double() + math.log1p(weight) + 1e-9).all()


def test_an_earlier_state_that_was_impossible_changes_nothing() -> None:
    now = torch.tensor([[0.5, 0.3, 0.2]]).log()
    found = extrapolate(now, torch.full_like(now, -torch.inf), torch.tensor([0.5]))
    assert torch.allclose(found.softmax(1), now.double().exp())


def test_what_is_no_number_stays_so() -> None:
    now, bad = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[math.nan, math.nan]])
    assert extrapolate(now, bad, torch.ones(1)).isnan().all()
    assert extrapolate(bad, now, torch.ones(1)).isnan().all()


# --- the law of what is drawn --------------------------------------------------------------------------------------

State = tuple[tuple[int, ...], ...]
Law = dict[tuple[int, ...], float]


class Enumerated:
    """The law of a sampler over a table, over all orders and outcomes: written down anew, from probabilities."""

    def __init__(self, table: Tensor, codes: Sequence[tuple[int, ...]], extrapolated: bool, heat: float) -> None:
        self.table, self.codes, self.extrapolated, self.heat = table, codes, extrapolated, heat
        self.length, self.digits = table.ndim, len(codes[0])
        self.every = [*itertools.product(range(len(codes)), repeat=self.length)]
        self.predicted = cache(self._predicted)

    def law(self, steps: int) -> Law:
        count = self.length * self.digits
        total: defaultdict[tuple[int, ...], float] = defaultdict(float)
        for order in itertools.permutations(range(count)):
            cuts = [count * i // steps for i in range(steps + 1)]
            groups = [order[a:b] for a, b in itertools.pairwise(cuts)]
            blank: State = ((-1,) * self.digits,) * self.length
            for state, p in self._go_on(blank, None, groups, 0):
                total[tuple(map(self.codes.index, state))] += p / math.factorial(count)
        return dict(total)

    def _go_on(
        self, state: State, before: State | None, groups: Sequence[Sequence[int]], step: int
    ) -> Iterator[tuple[State, float]]:
        if step == len(groups):
            yield state, 1.0
            return
        positions = sorted({sub_token // self.digits for sub_token in groups[step]})
        choices = [self._distribution(state, before, groups, step, position) for position in positions]
        for drawn in itertools.product(*(choice.items() for choice in choices)):
            p = math.prod(share for _, share in drawn)
            after = [[*token] for token in state]
            for position, (code, _) in zip(positions, drawn, strict=True):
                for j in (each % self.digits for each in groups[step] if each // self.digits == position):
                    after[position][j] = self.codes[code][j]
            for end, rest in self._go_on(tuple(map(tuple, after)), state, groups, step + 1):
                yield end, p * rest

    def _distribution(
        self, state: State, before: State | None, groups: Sequence[Sequence[int]], step: int, position: int
    ) -> dict[int, float]:
        p = self.predicted(state, position)
        c = self._weight(groups, step, position)
        if before is not None and c:
            q = self.predicted((*before[:position], state[position], *before[position + 1 :]), position)
            p = {code: max(0.0, share + c * (share - q[code])) for code, share in p.items()}
        hot = {code: share ** (1 / self.heat) for code, share in p.items() if share > 0}
        return {code: share / sum(hot.values()) for code, share in hot.items()}

    def _weight(self, groups: Sequence[Sequence[int]], step: int, position: int) -> float:
        if not step or not self.extrapolated:
            return 0.0
        before = len(groups[step - 1])
        return next(i for i, each in enumerate(groups[step]) if each // self.digits == position) / before

    def _predicted(self, state: State, position: int) -> dict[int, float]:
        found: defaultdict[int, float] = defaultdict(float)
        for sequence in self.every:
            if all(
                known in (-1, d)
                for c, token in zip(sequence, state, strict=True)
                for known, d in zip(token, self.codes[c], strict=True)
            ):
                found[sequence[position]] += float(self.table[sequence])
        return {code: share / sum(found.values()) for code, share in found.items()}


def enumerated(model: ToyModel, extrapolated: bool, heat: float = 1.0) -> Enumerated:
    denoiser = model.denoiser
    assert isinstance(denoiser, TableDenoiser)
    table = denoiser.probabilities / denoiser.probabilities.sum()
    return Enumerated(table, [tuple(code) for code in model.sub_tokenizer.codes.tolist()], extrapolated, heat)


@pytest.mark.parametrize(("classes", "length", "digits", "heat", "requests"), [(2, 4, 1, 0.7, 60), (4, 2, 2, 1.0, 100)])
def test_the_law_is_that_of_the_formula(classes: int, length: int, digits: int, heat: float, requests: int) -> None:
    """Chi-square over all sequences of two groups, 1,600 to 6,400 samples; as many of plain groups are refused."""
    sub_tokenizer = code_table(classes, digits)
    model = ToyModel(TableDenoiser(1.5 * random_table(classes, length, seed=6), sub_tokenizer), sub_tokenizer)
    sampler = {"steps": 2, "high_order": "extrapolation"}
    plans = [plan_for(model, n=64, seed=seed, temperature=heat, sampler=sampler) for seed in range(requests)]
    counts = Counter(sequences(model, plans))
    assert chi_square_p(counts, enumerated(model, True, heat).law(2)) > FALSE_ALARM_RATE
    assert chi_square_p(counts, enumerated(model, False, heat).law(2)) < FALSE_ALARM_RATE


def coupled(strength: float) -> ToyModel:
    """Six bits whose neighbours agree more often than not."""
    signs = [torch.tensor([1.0, -1.0]).view([2 if i == at else 1 for i in range(6)]) for at in range(6)]
    table = sum((strength * a * b for a, b in itertools.pairwise(signs)), torch.zeros(()))
    return ToyModel(TableDenoiser(table, code_table(2, 1)), code_table(2, 1))


def test_over_all_orders_the_error_is_smaller() -> None:
    """Total variation from the model's own distribution, three groups of two: no sampling, no chance."""

    def error(extrapolated: bool) -> float:
        of_model = enumerated(coupled(0.2), extrapolated)
        return sum(abs(p - float(of_model.table[sequence])) for sequence, p in of_model.law(3).items()) / 2

    assert error(True) < 0.6 * error(False)


# --- where it is exact ---------------------------------------------------------------------------------------------


def start(model: ToyModel, sampler: Mapping[str, object], **fields: object) -> list[ActiveSample]:
    plan = plan_for(model, **fields, sampler=sampler)
    return [ActiveSample.start(model, plan, index) for index in range(len(plan.schedules))]


@pytest.mark.parametrize("name", MODELS)
def test_with_a_group_a_sub_token_it_is_the_exact_sampler(name: str) -> None:
    model = MODELS[name]
    found = run_to_end(model, start(model, {"steps": 1000, "high_order": "extrapolation"}, seed=3, n=2))
    assert found == run_to_end(model, start(model, {}, seed=3, n=2))


def test_the_first_group_is_drawn_as_it_always_was_and_later_ones_are_not() -> None:
    model = MODELS["float32"]
    found, plain = (
        run_to_end(model, start(model, sampler, seed=3, n=4))
        for sampler in ({"steps": 4, "high_order": "extrapolation"}, {"steps": 4})
    )
    assert [log[0] for log in found] == [log[0] for log in plain]
    assert all(ours != theirs for ours, theirs in zip(found, plain, strict=True))


def test_a_token_that_is_revealed_in_one_group_is_drawn_as_of_its_first_digit() -> None:
    """Where a token of two digits is a group, its first digit is hit at the very state that is predicted."""
    model = table_model(4, 2, 2, seed=6)
    high, plain = (
        plan_for(model, seed=2, n=64, sampler={"steps": 2} | more) for more in ({"high_order": "extrapolation"}, {})
    )
    whole = [
        i for i, each in enumerate(plain.schedules) if len({sub_token // 2 for sub_token in each.steps[1].reveal}) == 1
    ]
    assert len(whole) > 10
    ours, theirs = (run_to_end(model, [ActiveSample.start(model, plan, i) for i in whole]) for plan in (high, plain))
    assert ours == theirs


# --- the log is the only state -------------------------------------------------------------------------------------

SAMPLERS: list[Mapping[str, object]] = [
    *[{"steps": steps, "high_order": "extrapolation"} for steps in (2, 3, 5, 8)],
    {"steps": 3},
    {"name": "ancestral", "steps": 4},
]


def varied(model: ToyModel, count: int, chance: random.Random) -> list[ActiveSample]:
    samples: list[ActiveSample] = []
    for _ in range(count):
        canvas = [chance.choice([None, None, None, 0]) for _ in range(model.denoiser.length)]
        fields = {
            "canvas": [None, *canvas[1:]],
            "seed": chance.getrandbits(60),
            "temperature": chance.choice([0.0, 0.3, 1.0, 1.0, 2.0]),
            "top_k": chance.choice([0, 0, 3]),
            "top_p": chance.choice([1.0, 1.0, 0.8]),
        }
        samples += start(model, chance.choice(SAMPLERS), **fields)
    return samples


def replayed(model: ToyModel, sample: ActiveSample, log: Sequence[Reveal]) -> ActiveSample:
    """A sample as another worker would find it: from its plan and its log."""
    again = ActiveSample.start(model, sample.plan, sample.index)
    for reveal in log:
        again.reveal(reveal)
    return again


def run_with_takeovers(model: ToyModel, samples: list[ActiveSample], chance: random.Random) -> list[list[Reveal]]:
    """Take samples through evaluations of random company; any may change its worker before any of them."""
    logs: list[list[Reveal]] = [[] for _ in samples]
    while running := [i for i, each in enumerate(samples) if not each.finished]:
        turn = chance.sample(running, chance.randint(1, len(running)))
        for i in turn:
            if chance.random() < 0.3:
                samples[i] = replayed(model, samples[i], logs[i])
            samples[i].drafts = samples[i].drafts[: chance.randint(0, 3)]
            samples[i].candidates = chance.choice([0, 2])
        budgets = [chance.randint(1, 4) for _ in turn]
        for i, outcome in zip(turn, evaluate(model, [samples[i] for i in turn], budgets), strict=True):
            for entry in samples[i].apply(outcome):
                assert isinstance(entry, Reveal)
                logs[i].append(entry)
    return logs


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=6)
@given(seed=st.integers(0, 2**20))
def test_the_log_is_the_same_alone_and_among_others_wherever_it_is_taken_over(name: str, seed: int) -> None:
    model = MODELS[name]
    expected = [run_to_end(model, [each])[0] for each in varied(model, 6, random.Random(seed))]
    found = run_with_takeovers(model, varied(model, 6, random.Random(seed)), random.Random(seed))
    assert found == expected


class Counting(DenoiserAround):
    """Remembers how many canvases each call of the trunk had."""

    def __init__(self, model: ToyModel) -> None:
        super().__init__(model.denoiser)
        self.calls: list[int] = []

    def trunk(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        self.calls.append(len(canvases))
        return self.inner.trunk(canvases, rows)


def test_the_state_before_is_evaluated_again_only_after_a_takeover() -> None:
    counting = Counting(MODELS["float32"])
    model = replace(MODELS["float32"], denoiser=counting)
    samples = [
        *start(model, {"steps": 4, "high_order": "extrapolation"}, seed=1, n=3),
        *start(model, {"steps": 4}, seed=2),
    ]
    logs = run_to_end(model, samples)
    assert counting.calls == [4] * 4
    counting.calls.clear()
    evaluate(model, [replayed(model, each, log[:1]) for each, log in zip(samples, logs, strict=True)])
    assert counting.calls == [3 + 4], "the states before and the states, in the same call"


def test_with_a_budget_of_one_canvas_the_state_before_is_evaluated_first() -> None:
    model = MODELS["float32"]
    (log,) = run_to_end(model, start(model, {"steps": 4, "high_order": "extrapolation"}, seed=1))
    (sample,) = start(model, {"steps": 4, "high_order": "extrapolation"}, seed=1)
    sample.reveal(log[0])
    entries = []
    for _ in range(2):
        assert len(sample.states(1)) == 1
        (outcome,) = evaluate(model, [sample], [1])
        entries.append(sample.apply(outcome))
    assert entries == [(), (log[1],)]


def test_evaluating_twice_gives_the_same_twice() -> None:
    """An evaluation that fails is done again in parts; what it left behind then belongs to the next group."""
    (sample,) = start(MODELS["float32"], {"steps": 4, "high_order": "extrapolation"}, seed=1)
    for _ in range(4):
        first, second = (evaluate(MODELS["float32"], [sample])[0] for _ in "ab")
        assert first == second
        assert isinstance(first.entries[0], Reveal)
        sample.apply(first)


# --- company that guesses, candidates, errors ----------------------------------------------------------------------


def test_nothing_is_guessed_and_guesses_are_not_followed() -> None:
    model = MODELS["float32"]
    (sample,) = start(model, {"steps": 6, "high_order": "extrapolation"}, seed=1)
    (log,) = run_to_end(model, start(model, {"steps": 6, "high_order": "extrapolation"}, seed=1))
    sample.drafts = tuple(log[:3])
    (done,) = evaluate(model, [sample], [4])
    assert (done.states, done.entries, done.drafts) == (1, (log[0],), ())


def test_candidates_are_the_models_own() -> None:
    """What the model itself says of the tokens at the state, from which nothing was extrapolated."""
    model = MODELS["markov"]
    (sample,) = start(model, {"steps": 4, "high_order": "extrapolation"}, seed=1)
    (log,) = run_to_end(model, start(model, {"steps": 4, "high_order": "extrapolation"}, seed=1))
    sample.reveal(log[0])
    logits = model.denoiser.joint_logits(sample.digits[None])[0]
    sample.candidates = 9
    (done,) = evaluate(model, [sample])
    sample.reveal(log[1])
    assert done.candidates[0]
    for each in done.candidates[0]:
        own = consistent_log_softmax(
            logits[each.position][None], sample.digits[each.position][None], model.sub_tokenizer.codes
        )
        assert dict(each.likeliest) == pytest.approx({c: p for c, p in enumerate(own.exp()[0].tolist()) if p > 0})


class BrokenLater(DenoiserAround):
    """Its features are not numbers once something is known."""

    def trunk(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        features = self.inner.trunk(canvases, rows)
        known = any(bool((canvas != 6).any()) for canvas in canvases)
        return features * torch.nan if known else features


def test_a_network_that_gives_no_numbers_is_told_apart() -> None:
    model = replace(MODELS["float32"], denoiser=BrokenLater(MODELS["float32"].denoiser))
    assert model.sub_tokenizer.mask_id == 6
    (sample,) = start(model, {"steps": 3, "high_order": "extrapolation"}, seed=1)
    (first,) = evaluate(model, [sample])[0].entries
    assert isinstance(first, Reveal)
    sample.reveal(first)
    (second,) = evaluate(model, [sample])[0].entries
    assert isinstance(second, SampleError)
    assert not second.impossible


def test_what_is_impossible_is_never_drawn() -> None:
    """Three equal tokens: after the first group nothing else is possible, however far it is extrapolated."""
    table = torch.full((3, 3, 3), -torch.inf)
    for token in range(3):
        table[token, token, token] = 0
    model = ToyModel(TableDenoiser(table, code_table(3, 1)), code_table(3, 1))
    plans = [plan_for(model, n=64, seed=seed, sampler={"steps": 2, "high_order": "extrapolation"}) for seed in range(4)]
    drawn = set(sequences(model, plans))
    assert drawn == {(token, token, token) for token in range(3)}
