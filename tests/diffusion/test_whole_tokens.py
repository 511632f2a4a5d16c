"""Steps of whole tokens: all masked sub-tokens of a position. And the integrand of models without carry-over."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from unmask_diffusion import ActivePass, ActiveSample, GenerationRequest, Sampler, ScoreRequest, cut, replay, score
from unmask_diffusion.scoring.passes import Probe, surprises
from unmask_model_store import open_bundle
from unmask_model_store.importers import Request, import_checkpoint

from tests.diffusion.test_distribution import conditional, many_plans
from tests.helpers import FALSE_ALARM_RATE, chi_square_p, markov_model, plan_for, run_to_end, sequences, table_model
from tests.helpers_scoring import joint_table, log_probability, nats_of, score_plan, single_states, whole_passes

GOLDEN = Path(__file__).parents[1] / "golden"
WHOLE: dict[str, Any] = {"unit": "token"}


@pytest.mark.parametrize(
    ("classes", "digits", "base", "canvas"),
    [(5, 2, 3, [None, None]), (5, 3, 2, [None, None]), (4, 2, 2, [2, None, None, 0])],
)
def test_exact_sampling_is_the_table(classes: int, digits: int, base: int, canvas: list[int | None]) -> None:
    model = table_model(classes, len(canvas), digits, base, seed=5)
    plans = many_plans(model, 40, canvas=canvas, sampler=WHOLE)
    assert {len(each.steps) for plan in plans for each in plan.schedules} == {2}
    counts = Counter(sequences(model, plans))
    assert chi_square_p(counts, conditional(model, canvas, 5)) > FALSE_ALARM_RATE


def test_a_step_holds_all_masked_sub_tokens_of_its_positions() -> None:
    model = markov_model(6, 12, 3)
    for sampler in ({}, {"steps": 4}, {"name": "ancestral", "steps": 5}, {"block_length": 4}, {"steps": 4, "clock": 3}):
        plan = plan_for(model, canvas=[None, 1, *[None] * 10], n=3, seed=4, sampler=WHOLE | sampler)
        for schedule in plan.schedules:
            assert sorted(schedule.steps.order) == sorted(3 * p + j for p in range(12) if p != 1 for j in range(3))
            for step in schedule.steps:
                assert set(step.by_position(3).values()) == {(0, 1, 2)}
            if not sampler:
                assert len(schedule.steps) == 11
            if sampler.get("name") == "ancestral":
                assert len(schedule.steps) + schedule.idle_steps == 5
            if "block_length" in sampler:
                blocks = [step.reveal[0] // 3 for step in schedule.steps]
                assert [set(blocks[:4]), set(blocks[4:8]), set(blocks[8:])] == [
                    {0, 2, 3, 4},
                    {5, 6, 7, 8},
                    {9, 10, 11},
                ]


def test_partly_given_tokens_reveal_what_is_masked() -> None:
    model = markov_model(6, 3, 3, 2)
    code = model.sub_tokenizer.codes[4].tolist()
    plan = plan_for(model, sub_tokens=[[code[0], None, None], [None] * 3, code], seed=1, sampler=WHOLE)
    (schedule,) = plan.schedules
    assert sorted(tuple(sorted(step.reveal)) for step in schedule.steps) == [(1, 2), (3, 4, 5)]
    assert [len(tokens) for tokens in sequences(model, [plan])] == [3]


def test_one_sub_token_a_token_is_the_same_either_way() -> None:
    model = markov_model(6, 12, 1)
    for sampler in ({}, {"steps": 4}, {"name": "ancestral", "steps": 5}, {"block_length": 4}):
        both = [plan_for(model, n=2, seed=4, sampler=each | sampler) for each in (WHOLE, {})]
        assert both[0].schedules == both[1].schedules


def test_a_deadline_cuts_between_tokens() -> None:
    model = markov_model(6, 12, 3)
    exact = plan_for(model, n=2, seed=4, sampler=WHOLE)
    for steps in (1, 5, 12):
        assert cut(exact, steps) == plan_for(model, n=2, seed=4, sampler=WHOLE | {"steps": steps})


def test_bits_do_not_depend_on_the_company_and_a_takeover_goes_on() -> None:
    model = markov_model(6, 12, 2, seed=3)
    plans = [plan_for(model, n=3, seed=seed, sampler=WHOLE | more) for seed, more in enumerate(({}, {"steps": 5}, {}))]
    alone = [run_to_end(model, [ActiveSample.start(model, plan, index)])[0] for plan in plans for index in range(3)]
    together = [ActiveSample.start(model, plan, index) for plan in plans for index in range(3)]
    assert run_to_end(model, together, places=7) == alone
    for plan, logs in zip(plans, (alone[:3], alone[3:6], alone[6:]), strict=True):
        for taken in (1, 3):
            known = [entry for log in logs for entry in log[:taken]]
            states = replay(model, plan, known)
            resumed = [ActiveSample(plan, index, digits, step=taken) for index, digits in enumerate(states)]
            assert run_to_end(model, resumed) == [log[taken:] for log in logs]


@pytest.mark.parametrize(("classes", "length", "digits", "base"), [(5, 3, 2, 3), (5, 2, 3, 2), (3, 3, 1, 3)])
def test_every_chain_of_tokens_is_the_log_likelihood(classes: int, length: int, digits: int, base: int) -> None:
    model = table_model(classes, length, digits, base)
    tokens = [(3 * i + 2) % classes for i in range(length)]
    truth = -log_probability(joint_table(model), tokens, [], range(length))
    plan = score_plan(model, input=tokens, seed=1, unit="token")
    assert plan.evaluations_of(0) == length
    assert [nats_of(each) for each in whole_passes(model, plan)] == pytest.approx([truth] * plan.passes, abs=1e-5)
    assert sum(each.units for each in whole_passes(model, plan)) == sum(e.units for e in single_states(model, plan))
    found = score(model, input=tokens, seed=1, unit="token", per_token=True)
    assert found.bound.nats == pytest.approx(truth, abs=1e-5)
    assert sum(each.nats for each in found.token_nats) == pytest.approx(truth, abs=1e-5)


def test_the_integral_of_whole_tokens_is_the_mean_over_orders() -> None:
    model, tokens = markov_model(6, 10, 2, 3, seed=1), [1, 2, 3, 4, 5, 0, 1, 2, 3, 4]
    # of a network that is no exact model the two means would differ from each other by their errors alone
    orders, integral = (
        score(model, input=tokens, seed=2, unit="token", estimator=estimator, budget=4000)
        for estimator in ("orders", "integral")
    )
    assert orders.bound.nats == pytest.approx(integral.bound.nats, abs=6 * integral.bound.standard_error + 1e-6)
    blocks = score(model, input=tokens, seed=2, unit="token", block_length=3)
    assert blocks.bound.nats == pytest.approx(orders.bound.nats, abs=1e-5)


def test_what_is_not_defined_for_whole_tokens_is_refused() -> None:
    with pytest.raises(ValidationError, match="high_order is for unit sub_token"):
        Sampler(unit="token", steps=3, high_order="extrapolation")
    with pytest.raises(ValidationError, match="unit token cannot be combined with published_integrand"):
        ScoreRequest(input=[1], unit="token", published_integrand=True)


def test_requests_without_a_unit_are_written_as_before() -> None:
    assert "unit" not in GenerationRequest().model_dump_json()
    assert "unit" not in ScoreRequest(input=[1]).model_dump_json()


# --- the published integrand of models without carry-over -------------------------------------------------------------


def test_without_carry_over_the_published_integrand_is_the_unfiltered_softmax(tmp_path: Path) -> None:
    """Golden A at rate 0.3, by the official code's log-probabilities: 117.3 nats, where the filter makes 27.4."""
    import_checkpoint(Request(GOLDEN / "tiny_A.ckpt", tmp_path / "A"))
    bundle = open_bundle(tmp_path / "A")
    with np.load(GOLDEN / "tiny_A.npz") as arrays:
        y, truth = torch.from_numpy(arrays["y"][2]), arrays["x0"][2]
        expected = -np.take_along_axis(arrays["log_probs_no_carry"][2], truth[:, None], 1).sum()
    features = bundle.denoiser.trunk([y], [torch.arange(len(y))])
    found = []
    for unfiltered in (True, False):
        probes = [Probe(i, y[i].tolist(), int(truth[i]), (), 0, unfiltered) for i in range(len(y))]
        found.append(sum(each.joint for each in surprises(bundle, features, probes)))
    assert found[0] == pytest.approx(float(expected), abs=1e-3)
    assert found == pytest.approx([117.3, 27.4], abs=0.06)


def test_without_carry_over_every_position_is_read() -> None:
    model = dataclasses.replace(markov_model(6, 5, 2, 3), carry_over=False)
    plan = score_plan(model, input=[1, 2, 3, 4, 5], seed=1, published_integrand=True)
    active = ActivePass(model, plan, 0)
    assert all(state.positions == [0, 1, 2, 3, 4] for state in active.states(100))
    carried, free = (
        score(dataclasses.replace(model, carry_over=kind), input=[1, 2, 3, 4, 5], seed=1, published_integrand=True)
        for kind in (True, False)
    )
    assert carried.bound == free.bound
    assert carried.published is not None
    assert free.published is not None
    assert free.published.nats >= carried.published.nats
