"""What goes to Redis comes back the same, and is JSON."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unmask_diffusion import Candidates, Plan, Readout, Reveal, ScoreRequest, make_score_plan
from unmask_service.broker import Failed, Finished, Job, LogEntry, PictureForm, Revealed, Scored, Started
from unmask_service.broker.redis.format import (
    Keys,
    decode_capacity,
    decode_entry,
    decode_job,
    decode_work,
    encode_capacity,
    encode_entry,
    encode_job,
    encode_work,
)
from unmask_service.broker.redis.side import position
from unmask_service.forecast import Capacity, Pace, Work

from tests.helpers import plan_for, prime_model

MODEL = prime_model(length=12)

times = st.floats(0, 4e9)
small = st.integers(0, 10**6)
words = st.text(max_size=30)
probabilities = st.floats(0, 1)
likeliest = st.lists(st.tuples(small, probabilities), max_size=4).map(tuple)
sub_tokens = st.lists(st.tuples(small, small, small), min_size=1, max_size=5).map(tuple)
log_probabilities = st.lists(st.floats(max_value=0, allow_infinity=False), max_size=5).map(tuple)
of_positions = st.lists(st.tuples(small, likeliest), max_size=3).map(tuple)
masked = st.lists(st.tuples(small, small), max_size=3).map(tuple)
reveals = st.builds(Reveal, small, small, sub_tokens, masked, log_probabilities, of_positions)
candidates = st.builds(Candidates, small, small, likeliest)
units = st.integers(0, 2**60)
by_token = st.lists(st.tuples(small, units), max_size=4).map(tuple)
entries = st.one_of(
    st.builds(Started, times, words),
    st.builds(Scored, times, st.builds(Readout, small, small, units, by_token, units)),
    st.builds(Revealed, times, reveals, small, st.lists(candidates, max_size=3).map(tuple), small),
    st.builds(Finished, times),
    st.builds(Failed, times, st.sampled_from(["impossible", "engine", "cancelled", "poison"]), words),
)


@given(entries)
def test_a_log_entry_comes_back(entry: LogEntry) -> None:
    written = encode_entry(entry)
    json.loads(written)
    back = decode_entry(written.encode())
    assert back == entry
    if isinstance(entry, Revealed) and isinstance(back, Revealed):  # equality of reveals is that of their digits
        assert back.reveal.log_probabilities == entry.reveal.log_probabilities
        assert back.reveal.likeliest == entry.reveal.likeliest


@given(
    st.integers(0, 2**63 - 1),
    st.integers(1, 4),
    st.one_of(st.none(), times),
    st.booleans(),
    st.one_of(st.none(), words),
    st.sampled_from(
        [
            {"max_tokens": 5},
            {"prompt": [1, 2], "suffix": [0], "max_tokens": 3, "top_k": 2, "top_p": 0.5, "temperature": 0.3},
            {"max_tokens": 2, "logprobs": 0},
            {"canvas": [None, [3, 1, 4], 2, [5, 5], [7, 0]], "logit_bias": {"3": 1.25, "0": -100}},
            {"canvas": [None, 3, None, None], "sampler": {"steps": 2}},
            {"sub_tokens": [[0, None], [None, None], [None, 0]], "sampler": {"steps": 2, "clock": 2}},
            {"prompt": [1], "max_tokens": 7, "sampler": {"name": "ancestral", "steps": 9}},
            {"max_tokens": 7, "sampler": {"name": "threshold", "bound": 0.5, "block_length": 3}},
            {"max_tokens": 7, "sampler": {"name": "remasking", "steps": 9, "schedule": "loop", "rate": 0.3}},
        ]
    ),
)
def test_a_job_comes_back_with_the_schedules_that_it_was_planned_with(
    seed: int, samples: int, expected: float | None, detached: bool, request_id: str | None, fields: dict[str, object]
) -> None:
    plan = plan_for(MODEL, seed=seed, n=samples, **fields)
    picture = PictureForm(png=detached, scale=2, partial_images=1, recoloured=0) if samples > 1 else None
    trace = {"traceparent": "00-ab-cd-01"} if detached else None
    job = Job("gen-1", plan, 1.5, expected, detached, request_id, "ab", trace, picture, candidates=3)
    written = encode_job(job)
    assert "schedules" not in json.loads(written)
    assert ("trace_context" in json.loads(written)) == detached  # without traces a job is written as ever
    back = decode_job(written.encode(), MODEL)
    assert isinstance(back.plan, Plan)
    assert replace(back.plan, request=plan.request) == plan
    assert replace(back, plan=plan) == job
    for name in ("n", "seed", "temperature", "top_p", "top_k", "sampler", "logit_bias", "logprobs"):
        assert getattr(back.plan.request, name) == getattr(plan.request, name)


@given(st.builds(Work, small, small, small, times, bounded=st.booleans()), times)
def test_work_comes_back(work: Work, submitted_at: float) -> None:
    assert decode_work(encode_work(work, submitted_at).encode()) == (submitted_at, work)


@given(st.builds(Capacity, small, st.builds(Pace, times, times, times), times, times, times))
def test_what_an_engine_does_comes_back(capacity: Capacity) -> None:
    assert decode_capacity(encode_capacity(capacity).encode()) == capacity


@pytest.mark.parametrize("broken", [b"[]", b'["unheard of", 1]', b'["revealed", 1]', b"no JSON"])
def test_an_entry_that_nobody_wrote_is_refused(broken: bytes) -> None:
    with pytest.raises(ValueError, match=r"unknown|unpack|Expecting"):
        decode_entry(broken)


def test_ids_of_streams_are_compared_as_numbers() -> None:
    assert position("9-10") < position("10-2") < position("10-10")


def test_all_names_begin_with_the_prefix_the_format_and_the_model() -> None:
    keys = Keys("mine", "tales")
    for name in (keys.jobs, keys.log("a"), keys.idempotency("k"), keys.wake("p")):
        assert name.startswith("mine:v7:{tales}:")


@given(
    fields=st.fixed_dictionaries(
        {"input": st.lists(st.integers(0, 3), min_size=1, max_size=9)},
        optional={
            "prompt": st.just([1, 2]),
            "suffix": st.just([3]),
            "estimator": st.sampled_from(["orders", "integral"]),
            "standard_error_per_token": st.just(0.25),
            "overlap": st.integers(0, 3),
            "seed": st.integers(0, 2**63 - 1),
            "published_integrand": st.booleans(),
            "per_token": st.booleans(),
        },
    )
)
def test_a_score_comes_back_with_the_plan_that_it_had(fields: dict[str, object]) -> None:
    job = Job("score-1", make_score_plan(MODEL, ScoreRequest.model_validate(fields)), 1.5)
    assert decode_job(encode_job(job).encode(), MODEL) == job
