"""Sets on the canvas and logit_bias over HTTP."""

import math
from typing import Any

import pytest

from tests.helpers_server import Body, Server, token_ids

YES, NO = 57, 46  # bytes of the byte-level tokenizer


def test_a_typed_answer_has_its_probabilities(writer: Server) -> None:
    body: Body = {"canvas": [40, [YES, NO], 41, None], "n": 8, "seed": 2, "sampler": {"steps": 1}, "logprobs": 5}
    answer = writer.generate(**body)
    for choice in answer["choices"]:
        assert choice["token_ids"][1] in (YES, NO)
        told = {token: math.exp(value) for token, _, value in choice["logprobs"]["likeliest"][1]}
        assert told.keys() == {YES, NO}
        assert sum(told.values()) == pytest.approx(1, abs=1e-6)
        assert math.exp(choice["logprobs"]["token_logprobs"][1]) == pytest.approx(
            told[choice["token_ids"][1]], abs=1e-6
        )
    assert answer["usage"]["prompt_tokens"] == 2, "a set is no given token"


def test_a_stream_of_sets_is_as_any_other(writer: Server) -> None:
    canvas = [40, [YES, NO, 60], None, [41, 41], [1, 2]]
    stream = writer.stream(canvas=canvas, n=2, seed=5, candidates=3)
    assert [[position, token] for position, token, _ in stream.start["canvas"][0]] == [[0, 40], [3, 41]]
    assert stream.start["masked"] == 2 * 3 * 2
    plan = writer.http.post("/plan", json={"canvas": canvas, "n": 2, "seed": 5}).json()
    assert plan["masked"] == stream.start["masked"]
    assert plan["network_evaluations"] == stream.start["network_evaluations"]
    for tokens, choice in zip(stream.tokens(), stream.done["choices"], strict=True):
        whole = [tokens[position] for position in range(5)]
        assert whole[1] in (YES, NO, 60)
        assert whole[4] in (1, 2)
        assert choice["token_ids"] == whole[: len(choice["token_ids"])]
    touched = [each for unmask in stream.unmasks for each in unmask["candidates"] if each[0] == 4]
    assert all(left <= 2 and {token for token, _, _ in likeliest} <= {1, 2} for _, left, likeliest in touched)


def test_a_bias_decides_what_comes(chain: Server) -> None:
    assert set(token_ids(chain.generate(seed=1, logit_bias={"2": 100}))[0]) == {2}
    kept = token_ids(chain.generate(seed=1, logit_bias={"0": -100, "1": -1.5}, sampler={"steps": 9}))[0]
    assert 0 not in kept
    assert token_ids(chain.generate(seed=1, logit_bias={})) == token_ids(chain.generate(seed=1))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"canvas": [None, []]}, "canvas.1"),
        ({"canvas": [None, [5, 260]]}, "canvas"),
        ({"canvas": [None, [5, "a"]]}, "canvas.1.1"),
        ({"canvas": [None, [5, None]]}, "canvas.1.1"),
        ({"canvas": [None, True]}, "canvas.1"),
        ({"logit_bias": {"260": 1}}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5"),
        ({"logit_bias": {"5": "1"}}, "logit_bias.5"),
        ({"logit_bias": {"five": 1}}, "logit_bias.five"),
        ({"logit_bias": [5]}, "logit_bias"),
    ],
)
def test_what_cannot_be_is_named(writer: Server, fields: dict[str, Any], param: str) -> None:
    for path in ("/generate", "/plan"):
        response = writer.http.post(path, json=fields)
        assert response.status_code == 422
        assert response.json()["error"]["param"] == param


def test_a_set_that_cannot_be_is_422(table: Server) -> None:
    """A sequence never begins with class 3, and a set of one class is a given token."""
    response = table.http.post("/generate", json={"canvas": [[3], None], "seed": 1})
    assert (response.status_code, response.json()["error"]["code"]) == (422, "impossible")
    assert all(first != 3 for first, _ in token_ids(table.generate(canvas=[[3, 1], None], n=8, seed=1)))


def test_completions_have_them_too(writer: Server) -> None:
    """Out of range is 400 there."""
    text_of = writer.http.post("/detokenize", json={"tokens": [YES]}).json()["prompt"]
    body: Body = {"prompt": " the", "max_tokens": 3, "seed": 1, "logit_bias": {str(YES): 100}, "logprobs": 0}
    (choice,) = writer.http.post("/v1/completions", json=body).json()["choices"]
    assert choice["text"] == 3 * text_of
    response = writer.http.post("/v1/completions", json={"canvas": [40, [YES, NO], 41], "seed": 1})
    assert response.status_code == 200, response.text
    wrongs: tuple[Body, ...] = ({"logit_bias": {"5": 101}}, {"logit_bias": {"260": 1}}, {"canvas": [[]]})
    for wrong in wrongs:
        refused = writer.http.post("/v1/completions", json=wrong)
        assert refused.status_code == 400
        assert refused.json()["error"]["param"].partition(".")[0] == next(iter(wrong))
