"""`POST /generate`: the request's fields and the answer's, one after the other."""

import re
import time
from pathlib import Path

import pytest
from unmask_diffusion import GenerationRequest, make_plan, sample
from unmask_model_store import Bundle, open_bundle

from tests.helpers import END_TOKEN, byte_tokenizer
from tests.helpers_server import Body, Server, token_ids

TOKENIZER = byte_tokenizer()
END = TOKENIZER.token_to_id(END_TOKEN)
LENGTH = 24  # of the writer


def ids_of(text: str) -> list[int]:
    ids: list[int] = TOKENIZER.encode(text).ids
    return ids


@pytest.fixture(scope="module")
def bundle(bundles: Path) -> Bundle:
    return open_bundle(bundles / "writer", dtype="auto")


def test_an_answer_has_every_field(writer: Server) -> None:
    before = time.time()
    answer = writer.generate(prompt=" the", max_tokens=5, seed=7)
    assert set(answer) == {"id", "model", "created", "choices", "usage", "sampling", "timings", "fingerprint"}
    assert re.fullmatch(r"gen-\S+", answer["id"])
    assert answer["model"] == "writer"
    assert isinstance(answer["created"], int)
    assert before - 5 < answer["created"] < time.time() + 5
    (choice,) = answer["choices"]
    assert set(choice) == {"index", "text", "token_ids", "finish_reason"}
    assert choice["index"] == 0
    assert set(answer["usage"]) == {"prompt_tokens", "completion_tokens", "total_tokens"}
    assert set(answer["sampling"]) == {"seed", "sub_tokens", "network_evaluations", "rounds", "idle_steps", "steps"}
    assert 1 <= answer["sampling"]["rounds"] <= answer["sampling"]["network_evaluations"]
    assert set(answer["timings"]) == {"queue_ms", "first_unmask_ms", "total_ms"}
    timings = answer["timings"]
    assert 0 <= timings["queue_ms"] <= timings["first_unmask_ms"] <= timings["total_ms"]
    assert isinstance(answer["fingerprint"], str)
    assert answer["fingerprint"]


def test_the_defaults(writer: Server) -> None:
    answer = writer.generate()
    (choice,) = answer["choices"]
    assert len(choice["token_ids"]) <= LENGTH
    assert answer["sampling"]["sub_tokens"] == 2 * LENGTH
    assert answer["sampling"]["network_evaluations"] == 2 * LENGTH
    assert answer["sampling"]["idle_steps"] == 0
    assert answer["usage"]["prompt_tokens"] == 0


def test_the_defaults_may_be_written_out(writer: Server) -> None:
    short = writer.generate(max_tokens=6, seed=3)
    long = writer.generate(
        model="writer",
        prompt="",
        suffix="",
        max_tokens=6,
        n=1,
        seed=3,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        sampler={"name": "first_hitting", "steps": None},
        stream=False,
    )
    assert token_ids(long) == token_ids(short)


def test_null_is_as_good_as_left_out(writer: Server) -> None:
    answer = writer.generate(max_tokens=None, seed=None, canvas=None)
    assert answer["sampling"]["sub_tokens"] == 2 * LENGTH


def test_sixty_four_tokens_where_more_would_fit(long_chain: Server) -> None:
    answer = long_chain.generate(seed=1, sampler={"steps": 1})
    assert [len(ids) for ids in token_ids(answer)] == [64]


def test_the_answer_is_that_of_the_library(writer: Server, bundle: Bundle) -> None:
    fields: Body = {"prompt": " the fox", "suffix": [5, 6], "max_tokens": 8, "n": 3, "seed": 12}
    found = [(c["token_ids"], c["text"], c["finish_reason"]) for c in writer.generate(**fields)["choices"]]
    assert found == [(list(s.token_ids), s.text, s.finish_reason) for s in sample(bundle, **fields)]


# --- what is given -------------------------------------------------------------------------------------------------


def test_a_prompt_is_text_or_ids(writer: Server) -> None:
    as_text = writer.generate(prompt=" the fox", max_tokens=6, seed=5)
    as_ids = writer.generate(prompt=ids_of(" the fox"), max_tokens=6, seed=5)
    assert token_ids(as_text) == token_ids(as_ids)
    assert as_text["usage"]["prompt_tokens"] == len(ids_of(" the fox")) == 5
    assert token_ids(as_text) != token_ids(writer.generate(prompt=" the cat", max_tokens=6, seed=5))


def test_a_suffix_is_text_or_ids_and_conditions_the_gap(writer: Server) -> None:
    as_text = writer.generate(prompt="a", suffix=" the end", max_tokens=6, seed=5)
    as_ids = writer.generate(prompt="a", suffix=ids_of(" the end"), max_tokens=6, seed=5)
    assert token_ids(as_text) == token_ids(as_ids)
    assert token_ids(as_text) != token_ids(writer.generate(prompt="a", suffix=" the sky", max_tokens=6, seed=5))
    assert as_text["usage"]["prompt_tokens"] == 1 + len(ids_of(" the end"))


@pytest.mark.parametrize("prompt", ["\N{SNOWMAN}\N{FOX FACE}", "\x00\x7f", "a\u0301\n\t", END_TOKEN])
def test_any_text_is_a_prompt(writer: Server, prompt: str) -> None:
    answer = writer.generate(prompt=prompt, max_tokens=1, seed=5)
    assert answer["usage"]["prompt_tokens"] == len(ids_of(prompt))


def test_the_gap_is_what_fits(writer: Server) -> None:
    answer = writer.generate(prompt=[1] * 10, suffix=[2] * 11, seed=2)
    assert answer["sampling"]["sub_tokens"] == 2 * 3
    answer = writer.generate(prompt=[1] * 10, suffix=[2] * 13, seed=2)
    assert answer["sampling"]["sub_tokens"] == 2 * 1


def test_text_and_ids_are_the_generated_part(writer: Server) -> None:
    for seed in range(8):
        (choice,) = writer.generate(prompt=" the", max_tokens=7, seed=seed)["choices"]
        assert len(choice["token_ids"]) <= 7
        assert choice["text"] == TOKENIZER.decode(choice["token_ids"], skip_special_tokens=False)
        assert all(0 <= token < 260 for token in choice["token_ids"])


def test_a_canvas_has_its_holes_filled(writer: Server) -> None:
    canvas = [None, 7, None, None, 9, 30, None]
    answer = writer.generate(canvas=canvas, n=16, seed=4)
    whole = [choice for choice in answer["choices"] if choice["finish_reason"] == "length"]
    assert whole
    for choice in whole:
        assert len(choice["token_ids"]) == 7
        assert all(given in (None, token) for given, token in zip(canvas, choice["token_ids"], strict=True))
        assert choice["text"] == TOKENIZER.decode(choice["token_ids"], skip_special_tokens=False)
    assert answer["sampling"]["sub_tokens"] == 16 * 4 * 2
    assert answer["usage"]["prompt_tokens"] == 3


def test_a_canvas_without_holes_comes_back(writer: Server) -> None:
    answer = writer.generate(canvas=[1, 2, 3], n=2, seed=4)
    assert token_ids(answer) == [[1, 2, 3]] * 2
    assert answer["sampling"]["network_evaluations"] == 0
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["length"] * 2


def test_a_canvas_of_holes_is_an_empty_prompt(writer: Server) -> None:
    assert token_ids(writer.generate(canvas=[None] * 9, seed=4)) == token_ids(writer.generate(max_tokens=9, seed=4))


def test_a_canvas_is_as_long_as_the_request_or_as_the_model(writer: Server, table: Server) -> None:
    assert writer.stream(max_tokens=3, prompt=[1]).start["length"] == 4
    assert table.stream(max_tokens=1).start["length"] == 2


def test_ids_only_without_a_tokenizer(table: Server) -> None:
    (choice,) = table.generate(prompt=[2], seed=1)["choices"]
    assert choice["text"] is None
    assert len(choice["token_ids"]) == 1
    assert table.generate(prompt="", suffix="", seed=1)["choices"][0]["text"] is None
    assert token_ids(table.generate(seed=1)) == token_ids(table.generate(prompt="", seed=1))


# --- n and seed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 64])
def test_n_samples(writer: Server, n: int) -> None:
    answer = writer.generate(max_tokens=4, n=n, seed=9)
    assert [choice["index"] for choice in answer["choices"]] == list(range(n))
    assert answer["sampling"]["sub_tokens"] == answer["sampling"]["network_evaluations"] == n * 8
    assert len(set(map(tuple, token_ids(answer)))) > 0.9 * n
    assert token_ids(writer.generate(max_tokens=4, n=1, seed=9)) == token_ids(answer)[:1]


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**53 + 1, 2**63 - 1])
def test_a_seed_is_reported_and_fixes_the_tokens(writer: Server, seed: int) -> None:
    first, again = (writer.generate(max_tokens=8, n=2, seed=seed) for _ in range(2))
    assert first["sampling"]["seed"] == again["sampling"]["seed"] == seed
    assert token_ids(first) == token_ids(again)
    assert first["id"] != again["id"]
    assert first["fingerprint"] == again["fingerprint"]
    assert token_ids(first) != token_ids(writer.generate(max_tokens=8, n=2, seed=seed ^ 1))


def test_a_seed_that_was_drawn_can_be_used_again(writer: Server) -> None:
    answers = [writer.generate(max_tokens=8) for _ in range(5)]
    seeds = [answer["sampling"]["seed"] for answer in answers]
    assert len(set(seeds)) == 5
    assert all(0 <= seed < 2**53 for seed in seeds)
    for answer, seed in zip(answers, seeds, strict=True):
        assert token_ids(writer.generate(max_tokens=8, seed=seed)) == token_ids(answer)


# --- temperature and filters ---------------------------------------------------------------------------------------


def test_temperature_0_takes_the_most_probable(writer: Server) -> None:
    coldest = writer.generate(max_tokens=6, n=2, seed=3, temperature=0)
    assert token_ids(coldest) == token_ids(writer.generate(max_tokens=6, n=2, seed=3, top_k=1))
    assert token_ids(coldest) == token_ids(writer.generate(max_tokens=6, n=2, seed=3, top_p=1e-9))
    assert token_ids(coldest) == token_ids(writer.generate(max_tokens=6, n=2, seed=3, temperature=0.0, top_k=9))


@pytest.mark.parametrize("fields", [{"temperature": 0.3}, {"temperature": 4}, {"top_k": 2}, {"top_p": 0.2}])
def test_temperature_and_filters_act(writer: Server, bundle: Bundle, fields: Body) -> None:
    common: Body = {"max_tokens": 8, "n": 4, "seed": 21}
    filtered = token_ids(writer.generate(**common, **fields))
    assert filtered != token_ids(writer.generate(**common))
    assert filtered == [list(answer.token_ids) for answer in sample(bundle, **common, **fields)]


@pytest.mark.parametrize(
    "fields", [{"temperature": 1}, {"temperature": 1.0}, {"top_k": 260}, {"top_k": 10**9}, {"top_p": 1}, {"top_p": 1.0}]
)
def test_what_filters_nothing_changes_nothing(writer: Server, fields: Body) -> None:
    common: Body = {"max_tokens": 8, "n": 2, "seed": 22}
    assert token_ids(writer.generate(**common, **fields)) == token_ids(writer.generate(**common))


# --- samplers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "evaluations"),
    [
        ({}, 16),
        ({"name": "first_hitting"}, 16),
        ({"steps": None}, 16),
        ({"steps": 1}, 1),
        ({"name": "first_hitting", "steps": 5}, 5),
        ({"steps": 16}, 16),
        ({"steps": 17}, 16),
        ({"steps": 1_000_000}, 16),
        ({"name": "ancestral", "steps": 1}, 1),
    ],
)
def test_a_sampler_takes_so_many_evaluations(writer: Server, sampler: Body, evaluations: int) -> None:
    answer = writer.generate(max_tokens=8, n=3, seed=2, sampler=sampler)
    assert answer["sampling"] | {"seed": 2} == answer["sampling"]
    assert answer["sampling"]["sub_tokens"] == 3 * 16
    assert answer["sampling"]["network_evaluations"] == 3 * evaluations
    assert answer["sampling"]["idle_steps"] == 0


@pytest.mark.parametrize("steps", [1, 2, 16, 100, 1_000_000])
def test_ancestral_steps_are_evaluated_or_idle(writer: Server, bundle: Bundle, steps: int) -> None:
    sampler: Body = {"name": "ancestral", "steps": steps}
    fields: Body = {"max_tokens": 8, "n": 3, "seed": 2, "sampler": sampler}
    answer = writer.generate(**fields)
    plan = make_plan(bundle, GenerationRequest.model_validate(fields))
    assert answer["sampling"]["network_evaluations"] == plan.network_evaluations <= 3 * 16
    assert answer["sampling"]["idle_steps"] == plan.idle_steps
    assert plan.idle_steps + plan.network_evaluations == 3 * steps
    assert token_ids(answer) == [list(each.token_ids) for each in sample(bundle, **fields)]


def test_samplers_with_the_same_groups_give_the_same_tokens(writer: Server) -> None:
    common: Body = {"max_tokens": 8, "seed": 2}
    exact = token_ids(writer.generate(**common))
    assert token_ids(writer.generate(**common, sampler={"steps": 16})) == exact
    at_once = token_ids(writer.generate(**common, sampler={"steps": 1}))
    assert token_ids(writer.generate(**common, sampler={"name": "ancestral", "steps": 1})) == at_once
    assert at_once != exact


# --- usage and the end ---------------------------------------------------------------------------------------------


def test_usage_counts_the_given_once_and_the_returned_of_all_samples(writer: Server) -> None:
    answer = writer.generate(prompt=[1, 2], suffix=[3], max_tokens=5, n=9, seed=1)
    usage = answer["usage"]
    assert usage["prompt_tokens"] == 3
    assert usage["completion_tokens"] == sum(map(len, token_ids(answer)))
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_the_end_token_cuts_text_and_ids(writer: Server) -> None:
    answer = writer.generate(max_tokens=12, n=64, seed=1)
    reasons = {choice["finish_reason"] for choice in answer["choices"]}
    assert reasons == {"stop", "length"}
    for choice in answer["choices"]:
        assert END not in choice["token_ids"]
        assert END_TOKEN not in choice["text"]
        assert choice["text"] == TOKENIZER.decode(choice["token_ids"], skip_special_tokens=False)
        assert (len(choice["token_ids"]) < 12) == (choice["finish_reason"] == "stop")


def test_a_canvas_is_not_cut_before_a_given_end_token(writer: Server) -> None:
    for seed in range(5):
        (choice,) = writer.generate(canvas=[5, 6, END, None], seed=seed)["choices"]
        assert choice["token_ids"][:3] == [5, 6, END]
        assert (len(choice["token_ids"]) == 3) == (choice["finish_reason"] == "stop")
        (choice,) = writer.generate(canvas=[END, 5], seed=seed)["choices"]
        assert (choice["token_ids"], choice["finish_reason"]) == ([END, 5], "length")


def test_an_end_token_in_the_prompt_cuts_nothing(writer: Server) -> None:
    for seed in range(5):
        (choice,) = writer.generate(prompt=[END], max_tokens=1, seed=seed)["choices"]
        assert (choice["finish_reason"] == "stop") == (choice["token_ids"] == [])


def test_models_without_an_end_token_never_stop(table: Server) -> None:
    answer = table.generate(n=64, seed=1)
    assert {choice["finish_reason"] for choice in answer["choices"]} == {"length"}
    assert {len(ids) for ids in token_ids(answer)} == {2}


def test_a_body_is_json_in_utf_8(writer: Server) -> None:
    body = '{"prompt": "☃", "max_tokens": 1, "seed": 1}'.encode()
    plain = writer.post_raw(body)
    assert plain.status_code == 200
    assert writer.post_raw(body, content_type="application/json; charset=utf-8").status_code == 200
    assert token_ids(plain.json()) == token_ids(writer.generate(prompt="☃", max_tokens=1, seed=1))
