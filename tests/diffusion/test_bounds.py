"""Samplers with a bound: how many an evaluation reveals, and that a log means the same wherever it goes on."""

import itertools
import math
from collections.abc import Mapping

import pytest
import torch
from pydantic import ValidationError
from unmask_diffusion import (
    ActiveSample,
    Plan,
    RequestError,
    Sampler,
    cut,
    initial_state,
    sample,
)

from tests.helpers import (
    ToyModel,
    log_that_goes_on_from_anywhere,
    plan_for,
    prime_model,
    random_table,
    run_to_end,
    samples_of,
    table_model,
)

MODEL = prime_model(length=16)
SAMPLERS: tuple[dict[str, object], ...] = (
    {"name": "entropy_bounded", "bound": 2},
    {"name": "entropy_bounded", "bound": 1.5, "block_length": 5, "guidance": 0.5},
    {"name": "entropy_bounded", "bound": 1e6, "block_length": 1},
    {"name": "threshold", "bound": 0.2},
    {"name": "threshold", "bound": 0.5, "noise": "position"},
    {"name": "threshold", "bound": 0},
)


def plan_of(sampler: Mapping[str, object], model: ToyModel = MODEL, **fields: object) -> Plan:
    return plan_for(model, **{"canvas": [None] * model.denoiser.length, "n": 2, "seed": 5} | fields, sampler=sampler)


# --- how many --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"block_length": 5}, {"noise": "position"}])
def test_entropy_bound_0_is_one_at_a_time_bit_for_bit(more: dict[str, object]) -> None:
    bounded = plan_of({"name": "entropy_bounded", "bound": 0, **more}, temperature=0.7)
    ordered = plan_of({"name": "entropy", "steps": 32, **more}, temperature=0.7)
    assert bounded.schedules == ordered.schedules
    assert run_to_end(MODEL, samples_of(MODEL, bounded)) == run_to_end(MODEL, samples_of(MODEL, ordered))


def marginals(model: ToyModel, seed: int, canvas: torch.Tensor) -> dict[tuple[int, int], list[float]]:
    """The distribution of every masked digit given a canvas, from all sequences of a table that agree with it."""
    codes, mask, base = model.sub_tokenizer.codes, model.sub_tokenizer.mask_id, model.sub_tokenizer.base
    digits = codes[torch.cartesian_prod(*[torch.arange(len(codes))] * len(canvas))]
    agree = ((canvas == mask) | (canvas == digits)).all(-1).all(-1)
    weights = random_table(len(codes), len(canvas), seed).flatten().exp() * agree
    return {
        (position, j): [float(weights[digits[:, position, j] == digit].sum() / weights.sum()) for digit in range(base)]
        for position, j in (canvas == mask).nonzero().tolist()
    }


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(("name", "bound"), [("entropy_bounded", 0.9), ("entropy_bounded", 2.5), ("threshold", 0.45)])
def test_as_many_are_revealed_as_enumeration_allows(name: str, bound: float, seed: int) -> None:
    """On a table: no larger set of masked digits keeps within the bound, whichever digits are in it."""
    model = table_model(classes=6, length=4, digits=2, seed=seed)
    plan = plan_of({"name": name, "bound": bound}, model, n=1, seed=seed)
    canvas = initial_state(model, plan)
    sizes = []
    for log in run_to_end(model, samples_of(model, plan)):
        for reveal in log:
            found = marginals(model, seed, canvas)
            revealed = {(position, j) for position, j, _ in reveal.sub_tokens}
            if name == "threshold":
                sure = {place for place, own in found.items() if max(own) >= bound}
                surest = max(found, key=lambda place: max(found[place]))
                assert revealed == (sure or {surest})
            else:
                entropies = {place: -sum(p * math.log(p) for p in own if p) for place, own in found.items()}
                fitting = [
                    chosen
                    for size in range(1, len(entropies) + 1)
                    for chosen in itertools.combinations(entropies.values(), size)
                    if sum(chosen) - max(chosen) <= bound
                ]
                assert len(revealed) == max(map(len, fitting))
                assert sorted(entropies[place] for place in revealed) == sorted(entropies.values())[: len(revealed)]
            sizes.append(len(revealed))
            reveal.write(canvas)
    assert sum(sizes) == 8
    assert max(sizes) > 1


def test_the_plan_is_an_upper_bound_and_no_deadline_cuts_it() -> None:
    plan = plan_of({"name": "entropy_bounded", "bound": 2})
    active = samples_of(MODEL, plan)
    logs = run_to_end(MODEL, active)
    assert plan.network_evaluations == plan.sub_tokens == 2 * 32
    assert [each.evaluations for each in active] == [len(log) for log in logs]
    assert all(len(log) < 32 and each.step == 32 for each, log in zip(active, logs, strict=True))
    with pytest.raises(ValueError, match="cannot be cut"):
        cut(plan, 4)


def test_blocks_are_filled_one_after_the_other_and_end_tokens_end_them() -> None:
    ends = tuple(range(4))
    model = ToyModel(MODEL.denoiser, MODEL.sub_tokenizer, end_token_ids=ends, full_canvas=False)
    sampler = {"name": "entropy_bounded", "bound": 3, "block_length": 4}
    plan = plan_of(sampler, model, n=4)
    active = samples_of(model, plan)
    for log in run_to_end(model, active):
        blocks = [position // 4 for reveal in log for position, _, _ in reveal.sub_tokens]
        assert blocks == sorted(blocks)
        assert all(len({position // 4 for position, _, _ in reveal.sub_tokens}) == 1 for reveal in log)
    assert any(each.needless for each in active)
    whole = sample(MODEL, canvas=[None] * 16, n=4, seed=5, sampler=sampler)
    for short, long in zip(sample(model, canvas=[None] * 16, n=4, seed=5, sampler=sampler), whole, strict=True):
        assert long.token_ids[: len(short.token_ids)] == short.token_ids


# --- the log ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_plan_and_log_are_the_state_and_any_prefix_goes_on_identically(sampler: dict[str, object]) -> None:
    log_that_goes_on_from_anywhere(MODEL, plan_of(sampler))


def test_tokens_are_the_same_alone_and_among_32() -> None:
    plans = [plan_of(SAMPLERS[number % len(SAMPLERS)], seed=number, n=1) for number in range(32)]
    together = run_to_end(MODEL, [ActiveSample.start(MODEL, plan, 0) for plan in plans])
    for plan, log in zip(plans, together, strict=True):
        assert run_to_end(MODEL, samples_of(MODEL, plan)) == [log]


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ({"name": "entropy_bounded"}, "bound is required for the entropy_bounded sampler"),
        ({"name": "threshold"}, "bound is required for the threshold sampler"),
        ({"name": "threshold", "bound": 1.5}, "bound is a probability for the threshold sampler: at most 1, not 1.5"),
        ({"name": "entropy_bounded", "bound": -1}, "greater than or equal to 0"),
        ({"name": "entropy_bounded", "bound": 1, "steps": 4}, "steps is not for the entropy_bounded sampler"),
        ({"name": "entropy", "bound": 1}, "bound is for the samplers entropy_bounded and threshold, not entropy"),
        ({"name": "threshold", "bound": 1, "cut": "llada"}, "cut is for the samplers confidence, margin and entropy"),
        ({"name": "threshold", "bound": 1, "high_order": "extrapolation"}, "high_order"),
        ({"name": "threshold", "bound": 1, "rate": 0.5}, "rate is for the sampler remasking"),
    ],
)
def test_bad_samplers_are_refused(sampler: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Sampler.model_validate(sampler)


def test_whole_tokens_are_refused() -> None:
    with pytest.raises(RequestError, match="not for the order by threshold"):
        plan_of({"name": "threshold", "bound": 0.5, "unit": "token"})
