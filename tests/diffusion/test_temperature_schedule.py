"""A temperature that changes while a sample unmasks: a function of the plan, which the log need not hold."""

import pytest
import torch
from pydantic import ValidationError
from unmask_diffusion import ActiveSample, GenerationRequest, Sampler, evaluate

from tests.helpers import plan_for, prime_model, run_to_end

MODEL = prime_model(length=12, full_canvas=True)
OFFICIAL = {"start": 1.0, "change": -0.2, "power": 2.0}  # of MDM-Prime's image models


@pytest.mark.parametrize("clock", [1, 3])
def test_a_step_has_the_temperature_of_its_time(clock: int) -> None:
    sampler = {"steps": 6, "clock": clock, "temperature_schedule": OFFICIAL}
    plan = plan_for(MODEL, max_tokens=12, seed=1, temperature=0.5, sampler=sampler)
    found = [plan.temperature(0, step) for step in range(6)]
    revealed = [0]
    for step in plan.schedules[0].steps:
        revealed.append(revealed[-1] + len(step.reveal))
    times = [(count / 24) ** (1 / clock) for count in revealed[:-1]]
    assert found == pytest.approx([0.5 * (1 - 0.2 * time**2) for time in times])
    assert found[0] == 0.5
    if clock == 1:
        assert times == pytest.approx([i / 6 for i in range(6)])


def test_draws_are_those_at_the_steps_own_temperatures() -> None:
    """Each reveal is what a sample with that constant temperature reveals at the same state."""
    sampler = {"steps": 8, "temperature_schedule": {"start": 2.0, "change": -2.0}}
    plan = plan_for(MODEL, max_tokens=12, seed=5, sampler=sampler)
    (log,) = run_to_end(MODEL, [ActiveSample.start(MODEL, plan, 0)])
    for step, reveal in enumerate(log):
        constant = plan_for(MODEL, max_tokens=12, seed=5, temperature=plan.temperature(0, step), sampler={"steps": 8})
        sample = ActiveSample.start(MODEL, constant, 0)
        for earlier in log[:step]:
            sample.reveal(earlier)
        (outcome,) = evaluate(MODEL, [sample])
        assert outcome.entries == (reveal,)
    (other,) = run_to_end(
        MODEL, [ActiveSample.start(MODEL, plan_for(MODEL, max_tokens=12, seed=5, sampler={"steps": 8}), 0)]
    )
    assert other != log


def test_a_schedule_that_stays_changes_nothing() -> None:
    plans = [
        plan_for(MODEL, max_tokens=12, seed=2, sampler={"steps": 5} | more)
        for more in ({}, {"temperature_schedule": {"start": 1.0, "change": 0.0}})
    ]
    logs = [run_to_end(MODEL, [ActiveSample.start(MODEL, plan, 0)]) for plan in plans]
    assert logs[0] == logs[1]
    assert torch.tensor([plans[1].temperature(0, step) for step in range(5)]).unique().tolist() == [1.0]


@pytest.mark.parametrize(
    ("schedule", "needle"),
    [
        ({"start": 1.0}, "change"),
        ({"start": 1.0, "change": -1.1}, "start \\+ change must lie in 0 … 100, not -0.1"),
        ({"start": 1.0, "change": 99.5}, "start \\+ change"),
        ({"start": -1.0, "change": 1.0}, "start"),
        ({"start": 1.0, "change": 0.0, "power": 0.0}, "power"),
        ({"start": 1.0, "change": float("nan")}, "change"),
        ({"start": 1.0, "change": 0.0, "a": 1}, "a"),
    ],
)
def test_schedules_that_are_refused(schedule: dict[str, float], needle: str) -> None:
    with pytest.raises(ValidationError, match=needle):
        GenerationRequest.model_validate({"sampler": {"temperature_schedule": schedule}})


def test_requests_without_one_are_written_as_before() -> None:
    assert "temperature_schedule" not in Sampler(steps=3).model_dump()
