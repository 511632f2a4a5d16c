"""A score is a function of its seed: not of the batch, the lanes or the readouts' grouping; and it keeps its budget."""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import add

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from unmask_diffusion import (
    ActivePass,
    ActiveSample,
    Denoiser,
    Model,
    Outcome,
    Readout,
    RequestError,
    SampleError,
    ScorePlan,
    Tally,
    evaluate,
    make_score_plan,
    read_score,
    run_score,
    score,
)
from unmask_diffusion.work import Evaluated, Work

from tests.helpers import DenoiserAround, ToyModel, plan_for, prime_model, table_model
from tests.helpers_scoring import readouts, score_plan, single_states

TEXT = [7, 3, 29, 0, 11, 3, 18, 5, 5, 21]


@pytest.fixture(scope="module")
def model() -> ToyModel:
    return prime_model(length=6)


class Counting(DenoiserAround):
    """Counts canvases, and the most of an evaluation."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__(inner)
        self.canvases = self.most = 0

    def trunk(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        self.canvases += len(canvases)
        self.most = max(self.most, len(canvases))
        return super().trunk(canvases, rows)


REQUESTS: list[dict[str, object]] = [
    {"input": TEXT, "per_token": True},
    {"input": TEXT, "per_token": True, "estimator": "integral", "published_integrand": True},
    {"prompt": [1], "input": TEXT[:4], "budget": 70, "published_integrand": True, "given": [2]},
    {"input": TEXT, "standard_error_per_token": 0.2, "overlap": 1, "per_token": True},
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("request_number", range(len(REQUESTS)))
def test_the_batch_changes_no_bit(request_number: int, dtype: torch.dtype) -> None:
    model = prime_model(length=6, dtype=dtype)
    plan = score_plan(model, seed=11, **REQUESTS[request_number])
    alone = run_score(model, plan, tokens_at_once=1)
    assert run_score(model, plan, tokens_at_once=50) == alone
    assert run_score(model, plan) == alone


def test_company_changes_no_bit(model: ToyModel) -> None:
    """Beside another text's passes, in other lanes each time, and beside a generation."""
    plan = score_plan(model, seed=11, **REQUESTS[1])
    other = score_plan(model, input=[2, 2, 8], seed=4)
    generation = plan_for(model, max_tokens=6, seed=1)
    tally, company = Tally(plan), [ActivePass(model, other, index) for index in range(other.passes)]
    for index in range(plan.passes):
        active = ActivePass(model, plan, index)
        while not active.finished:
            lanes = 1 + (index + active.step) % 5
            works: list[Work] = [ActiveSample.start(model, generation, 0), company[index % 4], active]
            outcome = evaluate(model, works, [1, 1, lanes])[2]
            (entry,) = active.apply(outcome)
            assert isinstance(entry, Readout)
            assert outcome.states == entry.evaluations <= lanes
            tally.note(entry)
    assert read_score(model, tally) == run_score(model, plan)


def test_a_pass_goes_on_where_the_log_ends(model: ToyModel) -> None:
    plan = score_plan(model, seed=11, **REQUESTS[0])
    whole, halves = Tally(plan), Tally(plan)
    for index in range(plan.passes):
        for readout in readouts(model, [ActivePass(model, plan, index)], 100):
            whole.note(readout)
        assert halves.steps_done(index) == 0
        halves.note(readouts(model, [ActivePass(model, plan, index)], 1)[0])
        assert halves.steps_done(index) == 1
        rest = ActivePass(model, plan, index, halves.steps_done(index))
        halves.note(readouts(model, [rest], 100)[0])
        assert rest.finished
        assert halves.steps_done(index) == plan.evaluations_of(index)
    assert read_score(model, halves) == read_score(model, whole)


@pytest.fixture(scope="module")
def states(model: ToyModel) -> tuple[ScorePlan, list[Readout]]:
    fields = {"per_token": True, "published_integrand": True, "budget": 144, "standard_error_per_token": 0.3}
    plan = score_plan(model, input=TEXT, overlap=2, seed=8, **fields)
    assert plan.replicates == 3
    return plan, single_states(model, plan)


@given(data=st.data())
def test_readouts_may_be_grouped_and_ordered_anyhow(
    states: tuple[ScorePlan, list[Readout]], data: st.DataObject
) -> None:
    plan, log = states
    passes = [[each for each in log if each.index == index] for index in range(plan.passes)]
    groups = []
    for readings in passes:
        cuts = sorted(data.draw(st.sets(st.integers(1, len(readings) - 1), max_size=4)))
        ends = zip([0, *cuts], [*cuts, len(readings)], strict=True)
        groups += [reduce(add, readings[start:end]) for start, end in ends]
    straight, shuffled = Tally(plan), Tally(plan)
    for readout in log:
        straight.note(readout)
    for readout in data.draw(st.permutations(groups)):
        shuffled.note(readout)
    assert shuffled.enough
    assert straight.evaluations == shuffled.evaluations == plan.network_evaluations
    assert (shuffled.estimate(), shuffled.published()) == (straight.estimate(), straight.published())
    assert shuffled.by_token() == straight.by_token()
    assert shuffled.replicates == straight.replicates


def test_the_seed_decides(model: ToyModel) -> None:
    assert score(model, input=TEXT, seed=5) == score(model, input=TEXT, seed=5)
    assert score(model, input=TEXT, seed=5).bound != score(model, input=TEXT, seed=6).bound
    drawn = score_plan(model, input=TEXT)
    assert run_score(model, drawn) == score(model, input=TEXT, seed=drawn.seed)
    assert run_score(model, make_score_plan(model, drawn.request)) == run_score(model, drawn)


@pytest.mark.parametrize("estimator", ["orders", "integral"])
def test_orders_are_not_those_that_a_text_was_drawn_in(model: ToyModel, estimator: str) -> None:
    """With the seed that made a text, its own order would be its likeliest."""
    plan = score_plan(model, input=TEXT[:6], seed=3, estimator=estimator)
    drawn = plan_for(model, max_tokens=6, n=64, seed=3)
    orders = {tuple(schedule.steps.order) for schedule in drawn.schedules}
    assert not orders & {plan.pass_of(index).order for index in range(plan.passes)}


# --- budgets ---------------------------------------------------------------------------------------------------------


@given(
    tokens=st.integers(1, 40),
    budget=st.integers(1, 400),
    estimator=st.sampled_from(["orders", "integral"]),
    overlap=st.integers(0, 5),
    per_token=st.booleans(),
)
def test_no_plan_exceeds_its_budget(
    model: ToyModel, tokens: int, budget: int, estimator: str, overlap: int, per_token: bool
) -> None:
    fields = {"input": [1] * tokens, "estimator": estimator, "overlap": overlap, "per_token": per_token}
    windows = len(score_plan(model, **fields).windows)
    least = 2 * windows if estimator == "integral" else 2 * 2 * 2 * tokens
    if budget < least:
        with pytest.raises(RequestError, match=f"budget is {budget}: .* needs {least} network") as refused:
            score_plan(model, budget=budget, **fields)
        assert refused.value.param == "budget"
        return
    plan = score_plan(model, budget=budget, **fields)
    assert plan.network_evaluations <= budget
    assert plan.network_evaluations == sum(plan.evaluations_of(index) for index in range(plan.passes))
    assert len(plan.pass_of(plan.passes - 1).starts) == plan.evaluations_of(plan.passes - 1)
    assert plan.replicates >= 2
    # nothing that would pay for another replicate is left over, but where the rates of a pass are at their most
    assert plan.network_evaluations + plan.evaluations_a_replicate > budget


@pytest.mark.parametrize("request_number", range(len(REQUESTS)))
def test_what_is_planned_is_what_is_evaluated(request_number: int) -> None:
    toy = prime_model(length=6)
    counting = Counting(toy.denoiser)
    model = replace(toy, denoiser=counting)
    request = {name: value for name, value in REQUESTS[request_number].items() if name != "standard_error_per_token"}
    plan = score_plan(model, seed=2, **request)
    seen: list[int] = []
    found = run_score(model, plan, lambda tally: seen.append(tally.evaluations), tokens_at_once=5 * plan.length)
    assert found.network_evaluations == counting.canvases == plan.network_evaluations
    assert counting.most == 5
    assert seen == sorted(seen)
    assert seen[-1] == plan.network_evaluations


# --- early stopping --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["orders", "integral"])
def test_a_wished_standard_error_ends_a_score_early(estimator: str) -> None:
    toy = prime_model(length=6)
    counting = Counting(toy.denoiser)
    model = replace(toy, denoiser=counting)
    request = {"input": TEXT[:6], "seed": 1, "estimator": estimator}
    plan = score_plan(model, standard_error_per_token=0.12, **request)
    found = run_score(model, plan)
    assert 8 <= found.replicates < plan.replicates
    assert found.standard_error_per_token <= 0.12
    assert found.network_evaluations == found.replicates * plan.evaluations_a_replicate
    # the places of an evaluation go to the earliest passes: little is read that does not count
    assert counting.canvases < plan.network_evaluations


def test_an_early_stop_depends_on_the_replicates_before_it_alone(model: ToyModel) -> None:
    """The same score with the budget that it ended up using; and reading on changes nothing."""
    plan = score_plan(model, input=TEXT[:6], seed=1, standard_error_per_token=0.12)
    found, tally = run_score(model, plan), Tally(plan)
    assert found == score(model, input=TEXT[:6], seed=1, budget=found.network_evaluations)
    for index in reversed(range(plan.passes)):
        tally.note(readouts(model, [ActivePass(model, plan, index)], 100)[0])
    assert read_score(model, tally) == found
    assert tally.evaluations == plan.network_evaluations > found.network_evaluations


@pytest.mark.parametrize(("tokens", "windows", "replicates"), [(3, 1, 8), (4, 2, 5), (12, 10, 2)])
def test_a_small_spread_is_believed_only_where_it_is_well_known(tokens: int, windows: int, replicates: int) -> None:
    """On an exact model it is nearly 0; what counts are its degrees of freedom, and windows have theirs each."""
    model, text = table_model(4, 3, 2), [1] * tokens
    fields = {"input": text, "overlap": 2, "seed": 1}
    assert len(score_plan(model, **fields).windows) == windows
    assert score(model, standard_error_per_token=0.01, **fields).replicates == replicates
    assert score(model, standard_error_per_token=1e-30, **fields).replicates == 32


def test_nothing_is_told_before_there_are_two_replicates(model: ToyModel) -> None:
    plan = score_plan(model, input=TEXT[:6], seed=1)
    tally = Tally(plan)
    told = []
    for index in range(4):
        told.append(tally.estimate())
        tally.note(readouts(model, [ActivePass(model, plan, index)], 100)[0])
    assert told == [None] * 4
    assert tally.estimate() is not None
    with pytest.raises(ValueError, match="fewer replicates"):
        read_score(model, Tally(plan))


def test_what_is_not_needed_any_more_cannot_fail_a_score(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes behind the last that is needed may share its evaluation; a server has ended the score by then."""
    model = prime_model()
    asked: dict[str, object] = {"input": [1, 2], "seed": 1, "budget": 4000, "standard_error_per_token": 100.0}
    expected = score(model, **asked)
    needed = 2 * expected.replicates  # an order and its reverse each

    finish, failed = ActivePass.finish, []

    def failing(model: Model, features: Tensor, batch: Sequence[Evaluated[ActivePass]]) -> list[Outcome]:
        outcomes = finish(model, features, batch)
        for i, each in enumerate(batch):
            if each.work.index >= needed:
                failed.append(each.work.index)
                outcomes[i] = replace(outcomes[i], entries=(SampleError(0, "too late to matter", impossible=False),))
        return outcomes

    monkeypatch.setattr(ActivePass, "finish", failing)
    assert score(model, **asked) == expected
    assert failed
