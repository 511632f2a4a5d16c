"""Confidence orders: the sizes of their steps, what they reveal, and that a log means the same wherever it goes on."""

import random
from collections import Counter
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import chi2
from unmask_diffusion import (
    ActiveSample,
    MarkovDenoiser,
    Plan,
    RequestError,
    Reveal,
    Sampler,
    cut,
    evaluate,
    initial_state,
    sample,
)
from unmask_diffusion.confidence import dllm_counts, dream_counts, llada_counts
from unmask_kernels import confidence, draw

from tests.helpers import (
    FALSE_ALARM_RATE,
    ToyModel,
    code_table,
    markov_model,
    plan_for,
    prime_model,
    run_to_end,
    table_model,
)

ORDERS = ("confidence", "margin", "entropy")
SAMPLERS: tuple[dict[str, object], ...] = (
    {"name": "confidence"},
    {"name": "confidence", "steps": 7, "block_length": 5},
    {"name": "confidence", "steps": 6, "guidance": 0.7},
    {"name": "margin", "steps": 5, "noise": "position"},
    {"name": "margin", "cut": "dllm", "steps": 9, "block_length": 7},
    {"name": "entropy", "cut": "dream", "steps": 9},
    {"name": "first_hitting", "steps": 5, "guidance": 1.5},
    {"name": "ancestral", "steps": 8, "guidance": 0.5, "block_length": 6},
)


def start(model: ToyModel, sampler: Mapping[str, object], **fields: object) -> list[ActiveSample]:
    plan = plan_for(model, **{"canvas": [None] * model.denoiser.length, "seed": 3} | fields, sampler=sampler)
    return [ActiveSample.start(model, plan, index) for index in range(plan.request.n)]


# --- how many a step reveals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (llada_counts(20, 8), [3, 3, 3, 3, 2, 2, 2, 2]),
        (llada_counts(4, 6), [1, 1, 1, 1, 0, 0]),
        (dllm_counts(8, 4), [2, 2, 2, 2]),
        (dllm_counts(6, 4), [2, 1, 2, 1]),
        (dllm_counts(20, 6), [3, 3, 4, 3, 4, 3]),
        (dllm_counts(4, 3), [1, 1, 2]),
        (dream_counts(16, 16, 1e-3), [0, *[1] * 14, 2]),
        (dream_counts(20, 6, 1e-3), [3, 3, 3, 3, 3, 5]),
        (dream_counts(18, 5, 0.05), [3, 3, 3, 3, 6]),
        (dream_counts(16, 10, 1e-3), [1, 1, 1, 1, 1, 2, 2, 2, 2, 3]),
    ],
)
def test_official_cuts(counts: list[int], expected: list[int]) -> None:
    """The sizes that the official samplers have in their traces."""
    assert counts == expected


@given(count=st.integers(1, 300), steps=st.integers(1, 400), eps=st.sampled_from([1e-3, 0.05, 0.5]))
def test_every_cut_reveals_all(count: int, steps: int, eps: float) -> None:
    for counts in (llada_counts(count, steps), dllm_counts(count, steps), dream_counts(count, steps, eps)):
        assert len(counts) == steps
        assert sum(counts) == count
        assert min(counts) >= 0


@pytest.mark.parametrize(
    ("sampler", "evaluations", "idle"),
    [
        ({}, 48, 0),
        ({"steps": 10}, 10, 0),
        ({"steps": 100}, 48, 0),
        ({"steps": 9, "block_length": 5}, 9, 0),
        ({"cut": "llada", "steps": 12, "block_length": 8}, 12, 0),
        ({"cut": "llada", "steps": 60}, 48, 12),
        ({"cut": "dllm", "steps": 10, "block_length": 7}, 12, 0),
        ({"cut": "dream", "steps": 48}, 47, 1),
    ],
)
def test_the_cost_is_known_beforehand(sampler: dict[str, object], evaluations: int, idle: int) -> None:
    model = prime_model()
    plan = plan_for(model, canvas=[None] * 24, n=2, sampler={"name": "confidence", **sampler})
    assert (plan.network_evaluations, plan.idle_steps) == (2 * evaluations, 2 * idle)
    assert plan.sub_tokens == 2 * 48
    for each in run_to_end(model, [ActiveSample.start(model, plan, index) for index in range(2)]):
        assert len(each) == evaluations
        assert [len(reveal.sub_tokens) for reveal in each] == [
            plan.schedules[0].steps.size(step) for step in range(evaluations)
        ]


def test_a_deadline_cuts_even_steps_anew() -> None:
    model = prime_model()
    plan = plan_for(model, canvas=[None] * 24, sampler={"name": "margin", "block_length": 6})
    fewer = cut(plan, 8)
    assert fewer.network_evaluations == 8
    assert fewer == plan_for(
        model, canvas=[None] * 24, seed=plan.seed, sampler={"name": "margin", "block_length": 6, "steps": 8}
    )
    official = plan_for(model, canvas=[None] * 24, sampler={"name": "margin", "cut": "dream", "steps": 8})
    with pytest.raises(ValueError, match="cannot be cut"):
        cut(official, 4)


# --- what a step reveals ---------------------------------------------------------------------------------------------


def expected_log(model: ToyModel, plan: Plan, index: int) -> list[Reveal]:
    """The sampler in its plainest form: look at every masked position, keep the surest digits."""
    request, codes, l = plan.request, model.sub_tokenizer.codes, model.sub_tokenizer.sub_tokens_per_token  # noqa: E741
    canvas, mask = initial_state(model, plan), model.sub_tokenizer.mask_id
    log = []
    steps = plan.schedules[index].steps
    for number, step in enumerate(steps):
        logits = model.denoiser.joint_logits(canvas[None])[0]
        if request.sampler.guidance:
            free = canvas.clone()
            free[[position for position, _ in plan.given]] = mask
            other = model.denoiser.joint_logits(free[None])[0]
            logits = other + (request.sampler.guidance + 1) * (logits - other)
        found = []
        for position in sorted({sub_token // l for sub_token in step.reveal}):
            js = [j for j in range(l) if canvas[position, j] == mask]
            if not js:
                continue
            turn = 0 if request.sampler.noise == "position" else number + 1
            event = (turn << 38) + (index << 32) + position * l + js[0]
            one = {
                "revealed": canvas[[position]],
                "seeds": torch.tensor([plan.seed]),
                "events": torch.tensor([event]),
                "temperature": request.temperature,
                "top_k": request.top_k,
                "top_p": request.top_p,
            }
            chosen = draw(logits[[position]], codes=codes, **one)  # type: ignore[arg-type]
            tempered = request.sampler.name != "confidence" or request.sampler.cut == "dream"
            sure = confidence(
                logits[[position]], canvas[[position]], codes, chosen, request.sampler.name,  # type: ignore[arg-type]
                temperature=request.temperature if tempered else 1.0,
                top_k=request.top_k if tempered else 0,
                top_p=request.top_p if tempered else 1.0,
            )[0]  # fmt: skip
            found += [(-float(sure[j]), position, j, int(codes[chosen[0], j])) for j in js]
        kept = sorted(sorted(found)[: steps.size(number)], key=lambda each: each[1:3])
        log.append(Reveal(index, number, tuple((position, j, digit) for _, position, j, digit in kept)))
        log[-1].write(canvas)
    return log


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("sampler", [each for each in SAMPLERS if each["name"] in ORDERS], ids=str)
def test_the_surest_digits_are_revealed(sampler: dict[str, object], temperature: float) -> None:
    model = markov_model(9, 12, 2, base=3)
    canvas: list[int | None] = [4, *[None] * 10, 2]
    filters = {"top_k": 5, "top_p": 0.9} if temperature else {}
    samples = start(model, sampler, canvas=canvas, n=2, temperature=temperature, **filters)
    logs = run_to_end(model, samples)
    assert logs == [expected_log(model, each.plan, each.index) for each in samples]


def test_a_position_is_as_sure_as_its_surest_digit() -> None:
    model = markov_model(9, 12, 2, base=3)
    (one,) = start(model, {"name": "confidence"}, temperature=0)
    (log,) = run_to_end(model, [one])
    first, *_ = log
    assert len(first.sub_tokens) == 1  # one digit, although its token has two


def test_end_tokens_come_last_or_never() -> None:
    plain = markov_model(12, 24, 1)
    ended = ToyModel(plain.denoiser, plain.sub_tokenizer, end_token_ids=(5,))
    logs = {}
    for option in ("logits_eos_inf", "confidence_eos_eot_inf", None):
        sampler: dict[str, object] = {"name": "confidence", **({option: True} if option else {})}
        (one,) = start(ended, sampler)
        (log,) = run_to_end(ended, [one])
        logs[option] = [digit for reveal in log for _, _, digit in reveal.sub_tokens]
    assert 5 in logs[None]
    assert 5 not in logs["logits_eos_inf"]
    last = logs["confidence_eos_eot_inf"]
    assert set(last[last.index(5) :]) == {5}
    assert logs[None].index(5) < last.index(5)
    with pytest.raises(RequestError, match="no end token"):
        plan_for(plain, max_tokens=4, sampler={"name": "confidence", "logits_eos_inf": True})


def test_fresh_noise_lowers_the_temperature_and_kept_noise_does_not() -> None:
    """16 positions, each .5 .3 .2 whatever the rest: the class of step i, with m = 16 - i masked, has a known law."""
    law = torch.tensor([0.5, 0.3, 0.2]).log()
    sub_tokenizer = code_table(3, 1)
    model = ToyModel(MarkovDenoiser(law, law.expand(3, 3), 16, sub_tokenizer), sub_tokenizer)
    for noise in ("step", "position"):
        by_step: Counter[tuple[int, int]] = Counter()
        for seed in range(3):
            samples = start(model, {"name": "confidence", "noise": noise}, n=64, seed=seed)
            for log in run_to_end(model, samples):
                by_step.update((reveal.step, digit) for reveal in log for _, _, digit in reveal.sub_tokens)
        total, statistic, cells = 3 * 64, 0.0, 0
        if noise == "position":
            found = [sum(by_step[step, digit] for step in range(16)) for digit in range(3)]
            expected = [16 * total * p for p in (0.5, 0.3, 0.2)]
            statistic, cells = sum((f - e) ** 2 / e for f, e in zip(found, expected, strict=True)), 2
        else:
            for step in range(16):
                m = 16 - step
                likely = total * (1 - 0.5**m)  # one of the m draws is the likeliest class
                others = total - likely
                if others > 5:
                    got = by_step[step, 0]
                    statistic += (got - likely) ** 2 / likely + (total - got - others) ** 2 / others
                    cells += 1
        assert chi2.sf(statistic, cells) > FALSE_ALARM_RATE, noise


# --- alone, among others, taken over ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("model", [prime_model(), markov_model(9, 24, 2, base=3)], ids=["prime", "markov"])
def test_the_log_is_the_same_alone_and_among_others_wherever_it_is_taken_over(model: ToyModel, seed: int) -> None:
    chance = random.Random(seed)
    canvas: list[int | None] = [4, 1, *[None] * 20, 2, 7]
    samples = [
        each
        for number, sampler in enumerate(SAMPLERS)
        for each in start(model, sampler, canvas=canvas, n=2, seed=number, temperature=chance.choice([0, 0.7, 1]))
    ]
    alone = [run_to_end(model, [ActiveSample.start(model, each.plan, each.index)])[0] for each in samples]
    logs: list[list[Reveal]] = [[] for _ in samples]
    while running := [i for i, each in enumerate(samples) if not each.finished]:
        turn = chance.sample(running, chance.randint(1, len(running)))
        for i in turn:
            if chance.random() < 0.2:  # another engine resumes it from its log
                samples[i] = ActiveSample.start(model, samples[i].plan, samples[i].index)
                for reveal in logs[i]:
                    samples[i].reveal(reveal)
        budgets = [chance.randint(1, 3) for _ in turn]
        for i, outcome in zip(turn, evaluate(model, [samples[i] for i in turn], budgets), strict=True):
            for entry in samples[i].apply(outcome):
                assert isinstance(entry, Reveal)
                logs[i].append(entry)
    assert logs == alone


def test_guidance_takes_two_canvases() -> None:
    model = prime_model()
    (one,) = start(model, {"name": "confidence", "steps": 4, "guidance": 1.0}, canvas=[3, *[None] * 23])
    assert one.plan.canvases == 2
    assert [len(one.states(budget)) for budget in (1, 2, 5)] == [1, 2, 2]
    free, given = one.states(2)
    assert free.positions == given.positions
    assert bool((free.canvas == model.sub_tokenizer.mask_id).all())
    assert not one.can_draft


def test_guidance_sharpens_what_is_given() -> None:
    """With w the law is p(x | given)^(w + 1) / p(x)^w."""
    model = table_model(3, 2, 1)
    weight = 2.0
    joint = model.denoiser.probabilities  # type: ignore[attr-defined]
    conditional, free = joint[1] / joint[1].sum(), joint.sum(0) / joint.sum()
    law = conditional ** (weight + 1) / free**weight
    law = law / law.sum()
    count: Counter[int] = Counter()
    for seed in range(40):
        found = sample(model, canvas=[1, None], n=64, seed=seed, sampler={"guidance": weight})
        count.update(each.token_ids[1] for each in found)
    total = sum(count.values())
    statistic = sum((count[c] - total * float(p)) ** 2 / (total * float(p)) for c, p in enumerate(law))
    assert chi2.sf(statistic, 2) > FALSE_ALARM_RATE


def test_a_finished_block_with_an_end_token_ends_the_sample() -> None:
    plain = prime_model(classes=4, length=24, digits=1)
    model = ToyModel(plain.denoiser, plain.sub_tokenizer, end_token_ids=(1,), full_canvas=False)
    samples = start(model, {"name": "confidence", "block_length": 4}, n=32)
    run_to_end(model, samples)
    assert any(each.needless for each in samples)
    for each in samples:
        assert each.step + each.needless == 24
        if each.needless:
            assert 1 in each.digits[: each.step]


# --- bad requests ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ({"cut": "llada"}, "cut is for the samplers"),
        ({"noise": "step"}, "noise is for the samplers"),
        ({"name": "margin", "confidence_eos_eot_inf": True}, "is for the sampler confidence"),
        ({"name": "entropy", "eps": 0.1}, "eps is for cut dream"),
        ({"name": "entropy", "cut": "dream", "block_length": 4}, "leave out block_length"),
        ({"name": "entropy", "cut": "dream", "clock": 2}, "leave out clock"),
        ({"name": "confidence", "steps": 4, "high_order": "extrapolation"}, "high_order"),
        ({"steps": 4, "high_order": "extrapolation", "guidance": 1.0}, "guidance cannot be combined"),
        ({"guidance": -0.1}, "greater than or equal to 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(sampler: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Sampler.model_validate(sampler)


@pytest.mark.parametrize(
    ("sampler", "param"),
    [
        ({"steps": 24, "block_length": 5, "cut": "llada"}, "sampler.block_length"),
        ({"steps": 25, "block_length": 6, "cut": "llada"}, "sampler.steps"),
        ({"steps": 3, "block_length": 6}, "sampler.steps"),
    ],
)
def test_steps_and_blocks_that_do_not_fit_the_canvas_are_refused(sampler: dict[str, object], param: str) -> None:
    with pytest.raises(RequestError) as refused:
        plan_for(prime_model(), canvas=[None] * 24, sampler={"name": "confidence", **sampler})
    assert refused.value.param == param
