"""Remasking: the law of the masking, that it is in the plan and in the log, and that rate 0 is ancestral."""

import itertools
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import binomtest
from unmask_diffusion import ActiveSample, Plan, RequestError, Sampler, sample
from unmask_diffusion.remasking import Law, _histories, _minus_log

from tests.helpers import (
    FALSE_ALARM_RATE,
    ToyModel,
    code_table,
    log_that_goes_on_from_anywhere,
    markov_model,
    plan_for,
    prime_model,
    run_to_end,
    samples_of,
)

MODEL = prime_model(length=16)
SAMPLERS: tuple[dict[str, object], ...] = (
    {"steps": 12, "rate": 0.3},
    {"steps": 20, "rate": 0.6, "schedule": "rescale", "block_length": 6},
    {"steps": 30, "rate": 0.2, "schedule": "loop", "clock": 2},
    {"steps": 24, "rate": 0.4, "schedule": "loop", "loop": {"t_on": 0.8, "t_off": 0.2, "alpha_on": 0.5}},
    {"steps": 12, "rate": 0.3, "unit": "token", "block_length": 8},
    {"steps": 12, "rate": 0.5, "digits": "last", "guidance": 0.5},
    {"steps": 1, "rate": 1.0},
    {"steps": 200, "rate": 1.0, "block_length": 1},
)


def plan_of(sampler: Mapping[str, object], **fields: object) -> Plan:
    sets = {"canvas": [None, 3, [1, 5, 8], *[None] * 13], "n": 2, "seed": 11}
    return plan_for(MODEL, **sets | fields, sampler={"name": "remasking", **sampler})


# --- the plan --------------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(["cap", "rescale", "loop"]),
    st.floats(0, 1),
    st.integers(1, 60),
    st.none() | st.integers(1, 16),
    st.integers(0, 2**63 - 1),
    st.integers(1, 4),
)
def test_what_is_revealed_was_masked_and_what_is_masked_was_revealed(
    schedule: str, rate: float, steps: int, block_length: int | None, seed: int, clock: int
) -> None:
    blocks = -(-15 // (block_length or 15))
    sampler = {"schedule": schedule, "rate": rate, "steps": max(steps, blocks), "clock": clock}
    plan = plan_of(sampler | {"block_length": block_length}, seed=seed)
    for own in plan.schedules:
        shown: set[int] = set()
        for step in own.steps:
            assert step.reveal
            assert not shown & {*step.reveal}
            assert shown >= {*step.mask}  # nothing that an event reveals is masked by it: their order is of no matter
            shown = (shown | {*step.reveal}) - {*step.mask}
        assert shown == {2 * position + j for position in range(16) for j in range(2) if position != 1}
        assert len(own.steps) + own.idle_steps == sampler["steps"]
    assert plan.sub_tokens == 2 * 30
    assert plan.reveals >= plan.sub_tokens


@pytest.mark.parametrize("more", [{}, {"block_length": 5}, {"unit": "token"}, {"clock": 3}, {"schedule": "loop"}])
def test_rate_0_is_ancestral_bit_for_bit(more: dict[str, object]) -> None:
    plan = plan_of({"steps": 20, "rate": 0, **more})
    shared = {name: value for name, value in more.items() if name != "schedule"}
    ancestral = plan_for(
        MODEL,
        canvas=plan_of({"steps": 1}).request.canvas,
        n=2,
        seed=11,
        sampler={"name": "ancestral", "steps": 20} | shared,
    )
    assert plan.schedules == ancestral.schedules
    assert run_to_end(MODEL, samples_of(MODEL, plan)) == run_to_end(MODEL, samples_of(MODEL, ancestral))


def test_a_low_rate_hardly_changes_the_ancestral_schedule() -> None:
    """The first reveals have the ancestral sampler's times, up to the rate."""
    plan, ancestral = plan_of({"steps": 20, "rate": 1e-9}), plan_of({"steps": 20, "rate": 0})
    assert [[step.reveal for step in each.steps] for each in plan.schedules] == [
        [tuple(sorted(step.reveal)) for step in each.steps] for each in ancestral.schedules
    ]


def test_only_last_digits_are_masked_again() -> None:
    plan = plan_of({"steps": 20, "rate": 0.5, "digits": "last"})
    again = [each for own in plan.schedules for step in own.steps for each in step.mask]
    assert again
    assert {each % 2 for each in again} == {1}


def test_a_million_steps_are_planned() -> None:
    assert plan_of({"steps": 1_000_000, "rate": 1e-6, "clock": 3}).idle_steps > 1_900_000


# --- the law ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sampler",
    [
        {"steps": 12, "rate": 0.2},
        {"steps": 12, "rate": 0.7, "schedule": "rescale", "clock": 2},
        {"steps": 20, "rate": 0.3, "schedule": "loop"},
    ],
)
def test_the_marginal_law_of_the_masking_is_the_paper_s(sampler: dict[str, object]) -> None:
    """After each step alpha of the sub-tokens are revealed, and each step masks sigma of the revealed ones again."""
    chosen = Sampler.model_validate({"name": "remasking", **sampler})
    steps = chosen.steps or 0
    law = Law.of(chosen, steps)
    units = torch.arange(4000)
    histories = _histories(5, 4, units, np.arange(4000), law)
    shown = np.zeros((4 * 4000, steps + 1), dtype=int)
    masked = np.zeros(steps, dtype=int)
    for number, index, _, revealed, again in histories.T.tolist():
        shown[number * 4000 + index, revealed + 1 : again + 1] += 1
        if again < steps:
            masked[again] += 1
    assert shown.max() == 1
    assert (shown[:, -1] == 1).all()
    p_values = [
        binomtest(int(shown[:, step].sum()), len(shown), law.alphas[step]).pvalue for step in range(1, steps)
    ] + [
        binomtest(int(masked[step]), int(shown[:, step].sum()), law.sigmas[step]).pvalue
        for step in range(1, steps)
        if law.sigmas[step]
    ]
    assert min(p_values) > FALSE_ALARM_RATE / len(p_values)


def test_the_schedules_are_the_paper_s() -> None:
    cap = Law.of(Sampler(name="remasking", steps=4, rate=0.5), 4)
    assert cap.alphas.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert cap.sigmas == pytest.approx([0.5, 0.5, 0.5, 0])
    rescale = Law.of(Sampler(name="remasking", steps=4, rate=0.5, schedule="rescale"), 4)
    assert rescale.sigmas == pytest.approx([0.5, 0.5, 0.25, 0])
    loop = Law.of(Sampler(name="remasking", steps=20, schedule="loop"), 20)
    assert loop.alphas[[0, 9, 10, 18, 19, 20]] == pytest.approx([0, 0.9, 0.9, 0.9, 0.9, 1])
    assert loop.sigmas.nonzero()[0].tolist() == [*range(9, 19)]
    assert set(loop.sigmas.tolist()) == {0, 0.02}


def test_logarithms_are_right_to_the_last_bits() -> None:
    values = np.concatenate([2.0 ** -np.arange(0, 80, 0.37), 1 - 2.0 ** -np.arange(1, 53)])
    assert _minus_log(values) == pytest.approx(-np.log(values), rel=1e-12, abs=1e-16)


def test_a_sub_token_that_was_masked_again_has_noise_of_its_own() -> None:
    """Where nothing depends on anything, two draws of one sub-token agree as often as chance wants."""
    model = ToyModel(Uniform(), code_table(16, 1), full_canvas=True)
    plan = plan_for(model, max_tokens=64, n=8, seed=3, sampler={"name": "remasking", "steps": 20, "rate": 0.5})
    same = total = 0
    for log in run_to_end(model, [ActiveSample.start(model, plan, index) for index in range(8)]):
        digits: dict[int, int] = {}
        for position, _, digit in itertools.chain.from_iterable(entry.sub_tokens for entry in log):
            if position in digits:
                total += 1
                same += digits[position] == digit
            digits[position] = digit
    assert total > 1000
    assert binomtest(same, total, 1 / 16).pvalue > FALSE_ALARM_RATE


class Uniform(type(markov_model(16, 64, 1).denoiser)):  # type: ignore[misc]
    """Every class everywhere is as likely as any other."""

    def __init__(self) -> None:
        even = torch.full((16, 16), 1 / 16, dtype=torch.float64).log()
        super().__init__(even[0], even, 64, code_table(16, 1))


# --- the log ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_plan_and_log_are_the_state_and_any_prefix_goes_on_identically(sampler: dict[str, object]) -> None:
    plan = plan_of(sampler)
    log = log_that_goes_on_from_anywhere(MODEL, plan)
    assert len(log) == plan.network_evaluations
    for entry in log:
        step = plan.schedules[entry.sample].steps[entry.step]
        assert tuple(2 * position + j for position, j in entry.masked) == step.mask


def test_tokens_are_the_same_alone_and_among_32() -> None:
    plans = [plan_of(SAMPLERS[number % 6], seed=number, n=1) for number in range(32)]
    together = run_to_end(MODEL, [ActiveSample.start(MODEL, plan, 0) for plan in plans])
    for plan, log in zip(plans, together, strict=True):
        assert run_to_end(MODEL, samples_of(MODEL, plan)) == [log]


def test_an_end_token_in_a_block_ends_the_sample() -> None:
    """What is masked again is revealed in its own block, so a block is complete when the next one begins."""
    model = ToyModel(MODEL.denoiser, MODEL.sub_tokenizer, end_token_ids=tuple(range(20)), full_canvas=False)
    sampler = {"name": "remasking", "steps": 32, "rate": 0.4, "block_length": 4}
    plan = plan_for(model, max_tokens=16, seed=4, n=4, sampler=sampler)
    active = [ActiveSample.start(model, plan, index) for index in range(4)]
    run_to_end(model, active)
    assert any(each.needless for each in active)
    whole = sample(model, max_tokens=16, seed=4, n=4, sampler=sampler)
    everything = sample(MODEL, max_tokens=16, seed=4, n=4, sampler=sampler)
    for short, long in zip(whole, everything, strict=True):
        assert long.token_ids[: len(short.token_ids)] == short.token_ids


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ({"name": "remasking"}, "steps is required for the remasking sampler"),
        ({"name": "remasking", "steps": 4, "rate": 1.5}, "less than or equal to 1"),
        ({"name": "remasking", "steps": 4, "schedule": "other"}, "'cap', 'rescale' or 'loop'"),
        ({"name": "ancestral", "steps": 4, "rate": 0.1}, "rate is for the sampler remasking, not ancestral"),
        ({"schedule": "cap"}, "schedule is for the sampler remasking, not first_hitting"),
        ({"name": "remasking", "steps": 4, "loop": {}}, "loop is for schedule loop"),
        ({"name": "remasking", "steps": 4, "schedule": "loop", "loop": {"t_on": 0.1, "t_off": 0.3}}, "below t_on, 0.1"),
        ({"name": "remasking", "steps": 4, "unit": "token", "digits": "last"}, "digits last is for unit sub_token"),
        ({"name": "remasking", "steps": 4, "cut": "dream"}, "cut is for"),
        ({"name": "remasking", "steps": 4, "high_order": "extrapolation"}, "high_order"),
    ],
)
def test_bad_samplers_are_refused(sampler: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Sampler.model_validate(sampler)


def test_log_probabilities_are_refused() -> None:
    with pytest.raises(ValidationError, match="logprobs is not for the sampler remasking"):
        plan_of({"steps": 4}, logprobs=0)


def test_plans_without_end_are_refused_before_they_are_drawn() -> None:
    with pytest.raises(RequestError, match=r"would be masked again 83333 times, 1024 is") as caught:
        plan_of({"steps": 1_000_000, "rate": 0.2})
    assert caught.value.param == "sampler.rate"
    with pytest.raises(RequestError, match="at most 1048576"):
        plan_of({"steps": 3000, "rate": 1.0}, n=64)
