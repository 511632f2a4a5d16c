import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from unmask_diffusion import (
    ActiveSample,
    AddBos,
    GenerationRequest,
    RequestError,
    Reveal,
    cut,
    evaluate,
    initial_state,
    make_plan,
    plan_on_canvas,
    read_sample,
    replay,
    sample,
)

from tests.helpers import (
    ToyModel,
    byte_tokenizer,
    end_tokens,
    plan_for,
    prime_model,
    run_to_end,
    table_model,
)

SHORT = prime_model(classes=30, length=24, digits=2)
FULL = dataclasses.replace(SHORT, full_canvas=True)
TOKENIZER = byte_tokenizer()
WRITER = dataclasses.replace(
    prime_model(classes=TOKENIZER.get_vocab_size(), length=24, digits=2),
    tokenizer=TOKENIZER,
    end_token_ids=end_tokens(TOKENIZER),
)

ids = st.lists(st.integers(0, 29), max_size=8)
canvases = st.lists(st.none() | st.integers(0, 29), min_size=1, max_size=24)
samplers: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"steps": st.none() | st.integers(1, 60)}),
    st.fixed_dictionaries({"name": st.just("ancestral"), "steps": st.integers(1, 60)}),
)


@given(ids, ids, st.integers(1, 8), st.integers(1, 3), samplers)
def test_prompt_gap_and_suffix_lie_side_by_side(
    prompt: list[int], suffix: list[int], gap: int, n: int, sampler: dict[str, Any]
) -> None:
    plan = plan_for(SHORT, prompt=prompt, suffix=suffix, max_tokens=gap, n=n, sampler=sampler)
    assert plan.canvas == (*prompt, *[None] * gap, *suffix)
    assert plan.generated == range(len(prompt), len(prompt) + gap)
    assert plan.length == len(plan.canvas)
    assert plan.given == [(p, token) for p, token in enumerate(plan.canvas) if token is not None]
    assert plan.sub_tokens == n * gap * 2
    assert len(plan.schedules) == n


@given(canvases, st.integers(1, 3), samplers)
def test_every_hole_and_nothing_else_is_scheduled(canvas: list[int | None], n: int, sampler: dict[str, Any]) -> None:
    plan = plan_for(SHORT, canvas=canvas, n=n, sampler=sampler)
    holes = [position * 2 + j for position, token in enumerate(canvas) if token is None for j in (0, 1)]
    for schedule in plan.schedules:
        assert sorted(sub_token for step in schedule.steps for sub_token in step.reveal) == holes
    assert plan.generated == range(len(canvas))
    assert plan.sub_tokens == n * len(holes)
    assert plan.network_evaluations == sum(len(schedule.steps) for schedule in plan.schedules)
    assert plan.idle_steps == sum(schedule.idle_steps for schedule in plan.schedules)
    if sampler.get("name") == "ancestral":
        assert plan.network_evaluations + plan.idle_steps == n * sampler["steps"]
    else:
        assert plan.idle_steps == 0
        assert plan.network_evaluations == n * min(sampler.get("steps") or len(holes), len(holes))


@given(canvases)
def test_the_state_before_the_first_reveal(canvas: list[int | None]) -> None:
    for model, length in ((SHORT, len(canvas)), (FULL, 24)):
        plan = plan_for(model, canvas=canvas)
        state = initial_state(model, plan)
        assert plan.length == length
        assert state.shape == (length, 2)
        for position in range(length):
            token = canvas[position] if position < len(canvas) else None
            expected = [model.sub_tokenizer.mask_id] * 2 if token is None else [token // 6, token % 6]
            assert state[position].tolist() == expected


def test_a_full_canvas_stays_masked_behind_the_request() -> None:
    plan = plan_for(FULL, prompt=[3], max_tokens=2, suffix=[4], seed=1)
    active = ActiveSample.start(FULL, plan, 0)
    run_to_end(FULL, [active])
    assert (active.digits[4:] == FULL.sub_tokenizer.mask_id).all()
    assert (active.digits[:4] < FULL.sub_tokenizer.mask_id).all()
    assert len(read_sample(FULL, plan, 0, active.digits).token_ids) == 2


def test_max_tokens_is_64_or_what_fits() -> None:
    long = prime_model(length=200)
    assert len(plan_for(long).canvas) == 64
    assert len(plan_for(long, prompt=[1] * 100).canvas) == 164
    assert len(plan_for(long, prompt=[1] * 150).canvas) == 200
    assert len(plan_for(SHORT).canvas) == 24
    assert plan_for(SHORT, prompt=[1, 2], suffix=[3]).generated == range(2, 23)


def test_seeds_that_are_drawn_are_short_and_differ() -> None:
    drawn = {plan_for(SHORT, max_tokens=1).seed for _ in range(20)}
    assert len(drawn) == 20
    assert all(0 <= seed < 2**53 for seed in drawn)


@pytest.mark.parametrize("seed", [0, 1, 2**53, 2**63 - 1])
def test_a_given_seed_is_kept_and_fixes_the_plan(seed: int) -> None:
    plan = plan_for(SHORT, max_tokens=9, n=3, seed=seed)
    assert plan.seed == seed
    assert plan_for(SHORT, max_tokens=9, n=3, seed=seed).schedules == plan.schedules


def test_a_plan_says_its_seed_even_where_it_was_drawn() -> None:
    plan = plan_for(SHORT, max_tokens=9, n=2)
    assert plan.request.seed == plan.seed
    assert make_plan(SHORT, plan.request) == plan


def test_samples_of_one_request_have_their_own_orders_whatever_n() -> None:
    three = plan_for(SHORT, max_tokens=9, n=3, seed=5)
    five = plan_for(SHORT, max_tokens=9, n=5, seed=5)
    assert five.schedules[:3] == three.schedules
    assert len(set(five.schedules)) == 5


@pytest.mark.parametrize(
    ("fields", "param", "numbers"),
    [
        ({"prompt": [1] * 24}, "prompt", ["24"]),
        ({"prompt": [1] * 30, "suffix": [1]}, "prompt", ["30", "24"]),
        ({"suffix": [1] * 24}, "suffix", ["24"]),
        ({"prompt": [1] * 12, "suffix": [1] * 12}, "suffix", ["12", "24"]),
        ({"prompt": [1] * 20, "max_tokens": 5}, "max_tokens", ["20", "5", "24", "4"]),
        ({"max_tokens": 25}, "max_tokens", ["25", "24"]),
        ({"canvas": [None] * 25}, "canvas", ["25", "24"]),
        ({"prompt": [29, 30]}, "prompt", ["30", "29"]),
        ({"suffix": [2**31 - 1]}, "suffix", [str(2**31 - 1), "29"]),
        ({"canvas": [None, 30]}, "canvas", ["30", "29"]),
        ({"prompt": "text"}, "prompt", []),
        ({"suffix": "text"}, "suffix", []),
    ],
)
def test_what_cannot_be_served_names_the_field_and_the_limit(
    fields: dict[str, Any], param: str, numbers: list[str]
) -> None:
    with pytest.raises(RequestError, match=param) as caught:
        plan_for(SHORT, **fields)
    assert caught.value.param == param
    assert all(number in str(caught.value) for number in numbers)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 0}, "n"),
        ({"n": 65}, "n"),
        ({"n": True}, "n"),
        ({"n": 1.5}, "n"),
        ({"n": "2"}, "n"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"seed": 0.5}, "seed"),
        ({"seed": True}, "seed"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.01}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"top_k": 10**30}, "top_k"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"prompt": None}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": [[1]]}, "prompt"),
        ({"prompt": [None]}, "prompt"),
        ({"canvas": []}, "canvas"),
        ({"canvas": [1.0]}, "canvas"),
        ({"canvas": [-1]}, "canvas"),
        ({"sampler": "first_hitting"}, "sampler"),
        ({"sampler": {"name": "euler"}}, "name"),
        ({"sampler": {"name": "ancestral"}}, "steps"),
        ({"sampler": {"steps": 0}}, "steps"),
        ({"sampler": {"order": 1}}, "order"),
        ({"canvas": [None], "prompt": [1]}, "prompt"),
        ({"canvas": [None], "suffix": [1]}, "suffix"),
        ({"canvas": [None], "max_tokens": 1}, "max_tokens"),
        ({"best_of": 2}, "best_of"),
    ],
)
def test_what_no_model_can_serve_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ValidationError, match=param):
        GenerationRequest.model_validate(fields)


def test_text_becomes_ids() -> None:
    prompt, suffix = " the fox", "the end\N{SNOWMAN}"
    plan = plan_for(WRITER, prompt=prompt, suffix=suffix, max_tokens=2)
    given = [token for _, token in plan.given]
    assert given == TOKENIZER.encode(prompt).ids + TOKENIZER.encode(suffix).ids
    assert TOKENIZER.decode(given) == prompt + suffix


@pytest.mark.parametrize("field", ["prompt", "suffix"])
def test_lone_surrogates_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        plan_for(WRITER, **{field: "a\ud800b"})


def test_the_answer_is_cut_before_the_end_token() -> None:
    (end,) = WRITER.end_token_ids
    assert end is not None
    plan = plan_for(WRITER, prompt=" the", max_tokens=4)
    the, a = TOKENIZER.encode(" the").ids[0], TOKENIZER.encode("a").ids[0]
    cut = read_sample(WRITER, plan, 0, WRITER.sub_tokenizer.encode(torch.tensor([the, a, a, end, a])))
    assert (cut.token_ids, cut.text, cut.finish_reason) == ((a, a), "aa", "stop")
    whole = read_sample(WRITER, plan, 0, WRITER.sub_tokenizer.encode(torch.tensor([the, a, a, a, the])))
    assert (whole.token_ids, whole.text, whole.finish_reason) == ((a, a, a, the), "aaa the", "length")
    empty = read_sample(WRITER, plan, 0, WRITER.sub_tokenizer.encode(torch.tensor([the, end, end, a, a])))
    assert (empty.token_ids, empty.text, empty.finish_reason) == ((), "", "stop")


@pytest.mark.parametrize(
    ("canvas", "drawn", "kept", "reason"),
    [
        (["end", None, None], ["end", "a", "a"], ["end", "a", "a"], "length"),
        ([None, "end", None], ["a", "end", "a"], ["a", "end", "a"], "length"),
        ([None, "end", None, None], ["a", "end", "end", "a"], ["a", "end"], "stop"),
        ([None, "end", None], ["end", "end", "a"], [], "stop"),
        (["end", "end"], ["end", "end"], ["end", "end"], "length"),
    ],
)
def test_only_an_end_token_that_was_generated_ends_the_text(
    canvas: list[str | None], drawn: list[str], kept: list[str], reason: str
) -> None:
    tokenizer = WRITER.tokenizer
    assert tokenizer is not None
    ids = {"end": WRITER.end_token_ids[0], "a": tokenizer.token_to_id("a"), None: None}
    plan = plan_for(WRITER, canvas=[ids[each] for each in canvas], seed=1)
    answer = read_sample(WRITER, plan, 0, WRITER.sub_tokenizer.encode(torch.tensor([ids[each] for each in drawn])))
    assert (list(answer.token_ids), answer.finish_reason) == ([ids[each] for each in kept], reason)
    assert answer.text == tokenizer.decode(list(answer.token_ids), skip_special_tokens=False)


def test_without_a_tokenizer_there_is_no_text() -> None:
    (answer,) = sample(SHORT, max_tokens=3, seed=1)
    assert answer.text is None
    assert answer.finish_reason == "length"


def test_a_full_canvas_request_without_holes_is_answered_as_it_stands() -> None:
    answers = sample(SHORT, canvas=[5, 0, 29], n=2, seed=1)
    assert [answer.token_ids for answer in answers] == [(5, 0, 29)] * 2
    assert plan_for(SHORT, canvas=[5, 0, 29]).network_evaluations == 0


def test_plan_and_log_are_the_state() -> None:
    """At every moment, of samples that are at different places of their schedules."""
    plan = plan_for(SHORT, canvas=[None, 3, None, None, 7, None], n=3, seed=8, sampler={"steps": 5})
    active = [ActiveSample.start(SHORT, plan, index) for index in range(3)]
    log: list[Reveal] = []
    while running := [each for each in active if not each.finished][:2]:
        for each, outcome in zip(running, evaluate(SHORT, running), strict=True):
            (entry,) = each.apply(outcome)
            assert isinstance(entry, Reveal)
            log.append(entry)
            rebuilt = replay(SHORT, plan, log)
            assert all(torch.equal(state, live.digits) for state, live in zip(rebuilt, active, strict=True))
    assert len(log) == plan.network_evaluations
    assert sum(len(entry.sub_tokens) for entry in log) == plan.sub_tokens


@settings(max_examples=15)
@given(st.integers(0, 2**63 - 1), st.data())
def test_a_generation_goes_on_identically_from_any_prefix_of_its_log(seed: int, data: st.DataObject) -> None:
    model = table_model(classes=5, length=3, digits=2)
    plan = plan_for(model, n=2, seed=seed)
    first = [ActiveSample.start(model, plan, index) for index in range(2)]
    logs = run_to_end(model, first)
    kept = [log[: data.draw(st.integers(0, len(log)))] for log in logs]
    states = replay(model, plan, [entry for log in kept for entry in log])
    again = [
        ActiveSample(plan, i, state, step=len(log)) for i, (state, log) in enumerate(zip(states, kept, strict=True))
    ]
    rest = run_to_end(model, again)
    assert [log + more for log, more in zip(kept, rest, strict=True)] == logs
    assert all(torch.equal(a.digits, b.digits) for a, b in zip(first, again, strict=True))


def test_reveals_follow_the_plan() -> None:
    model: ToyModel = SHORT
    plan = plan_for(model, max_tokens=6, n=2, seed=3, sampler={"name": "ancestral", "steps": 6})
    logs = run_to_end(model, [ActiveSample.start(model, plan, index) for index in range(2)])
    for index, log in enumerate(logs):
        assert [entry.step for entry in log] == list(range(len(log)))
        assert {entry.sample for entry in log} == {index}
        revealed = [sorted(position * 2 + j for position, j, _ in entry.sub_tokens) for entry in log]
        assert revealed == [sorted(step.reveal) for step in plan.schedules[index].steps]


def test_text_that_cannot_fit_is_refused_by_its_length() -> None:
    longest = max(len(token) for token in TOKENIZER.get_vocab())
    with pytest.raises(RequestError, match="characters") as caught:
        make_plan(WRITER, GenerationRequest(prompt="e" * (24 * longest + 1)))
    assert caught.value.param == "prompt"
    with pytest.raises(RequestError, match="no room"):  # short enough to be tokenized
        make_plan(WRITER, GenerationRequest(prompt="e" * (24 * longest)))


@given(canvases, st.integers(1, 3), st.none() | st.integers(1, 60), st.integers(1, 60))
def test_a_plan_that_is_cut_is_the_plan_with_these_steps(
    canvas: list[int | None], n: int, steps: int | None, wanted: int
) -> None:
    plan = plan_for(SHORT, canvas=canvas, n=n, seed=5, sampler={"steps": steps})
    assert cut(plan, wanted) == plan_for(SHORT, canvas=canvas, n=n, seed=5, sampler={"steps": wanted})


def test_an_ancestral_plan_cannot_be_cut() -> None:
    with pytest.raises(ValueError, match="ancestral"):
        cut(plan_for(SHORT, max_tokens=3, sampler={"name": "ancestral", "steps": 4}), 2)


def test_a_request_without_a_clock_has_the_models() -> None:
    model = dataclasses.replace(SHORT, clock=3)
    own, equal, same = ({"steps": 4}, {"steps": 4, "clock": 1}, {"steps": 4, "clock": 3})
    plans = [plan_for(model, max_tokens=12, seed=1, sampler=each) for each in (own, equal, same)]
    assert [plan.request.sampler.clock for plan in plans] == [3, 1, 3]
    assert plans[0] == plans[2]
    assert plans[1].schedules == plan_for(SHORT, max_tokens=12, seed=1, sampler=own).schedules
    assert plans[0].schedules != plans[1].schedules
    # stored and planned again, or cut again, it keeps its clock
    again = plan_on_canvas(model, plans[1].request, plans[1].canvas, plans[1].generated)
    assert again == plans[1]
    assert cut(plans[0], 2) == plan_for(model, max_tokens=12, seed=1, sampler={"steps": 2})


def test_requests_are_written_without_a_clock_that_they_do_not_have() -> None:
    assert "clock" not in plan_for(SHORT, seed=1).request.sampler.model_dump()


@pytest.mark.parametrize(
    ("add_bos", "fields", "canvas"),
    [
        ("never", {"prompt": ""}, [None, None]),
        ("empty_prompt", {"prompt": ""}, [7, None, None]),
        ("empty_prompt", {"prompt": []}, [7, None, None]),
        ("empty_prompt", {"prompt": "a"}, [64, None, None]),
        ("prompt", {"prompt": "a", "suffix": "b"}, [7, 64, None, None, 65]),
        ("prompt", {"prompt": [64], "suffix": [65]}, [64, None, None, 65]),
        ("prompt", {"prompt": [7, 64]}, [7, 64, None, None]),
        ("prompt_and_suffix", {"prompt": "a", "suffix": "b"}, [7, 64, None, None, 7, 65]),
        ("prompt_and_suffix", {"prompt": "a"}, [7, 64, None, None]),
        ("prompt_and_suffix", {"canvas": [64, None, None]}, [64, None, None]),
    ],
)
def test_a_text_begins_as_the_model_wants_it(
    add_bos: AddBos, fields: dict[str, object], canvas: list[int | None]
) -> None:
    tokenizer = byte_tokenizer()
    base = prime_model(classes=tokenizer.get_vocab_size())
    model = dataclasses.replace(base, tokenizer=tokenizer, bos_token_id=7, add_bos=add_bos)
    more = {} if "canvas" in fields else {"max_tokens": 2}
    assert list(plan_for(model, **fields, **more).canvas) == canvas
    a, b = (tokenizer.encode(text).ids for text in "ab")
    assert (a, b) == ([64], [65])
