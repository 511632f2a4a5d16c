"""Log-probabilities over HTTP: in streams and answers, exactly those that a sample has without a server."""

import json
import math
from pathlib import Path

import pytest
from unmask_diffusion import sample
from unmask_model_store import open_bundle

from tests.conftest import possible_table
from tests.helpers_server import Body, Server, token_ids


def test_a_stream_and_its_answer_say_what_a_sample_says_without_a_server(writer: Server, bundles: Path) -> None:
    body: Body = {"prompt": " the", "max_tokens": 12, "n": 2, "seed": 5, "logprobs": 2, "sampler": {"steps": 9}}
    stream = writer.stream(**body)
    expected = sample(open_bundle(bundles / "writer"), **body)
    assert token_ids(stream.done) == [[*each.token_ids] for each in expected]
    told: list[dict[tuple[int, int], float]] = [{}, {}]
    likeliest: list[dict[int, list[tuple[int, float]]]] = [{}, {}]
    for unmask in stream.unmasks:
        for (position, j, _), value in zip(unmask["sub_tokens"], unmask["log_probabilities"], strict=True):
            told[unmask["index"]][position, j] = value
        for position, classes in unmask["likeliest"]:
            assert all(isinstance(text, str) for _, text, _ in classes)
            likeliest[unmask["index"]][position] = [(token, value) for token, _, value in classes]
    for choice, each, of_digits, of_tokens in zip(stream.done["choices"], expected, told, likeliest, strict=True):
        assert each.logprobs is not None
        assert choice["log_probability"] == each.log_probability == math.fsum(of_digits.values())
        logprobs = choice["logprobs"]
        assert {len(values) for values in logprobs.values()} == {len(choice["token_ids"])}
        assert "".join(logprobs["tokens"]) == choice["text"]
        assert logprobs["text_offset"] == [
            len("".join(logprobs["tokens"][:i])) for i in range(len(choice["token_ids"]))
        ]
        assert logprobs["token_logprobs"] == [token.total for token in each.logprobs]
        for i, token in enumerate(each.logprobs):
            position = 1 + i  # behind the prompt
            assert logprobs["sub_token_logprobs"][i] == [*token.sub_tokens] == [of_digits[position, j] for j in (0, 1)]
            assert [(one, value) for one, _, value in logprobs["likeliest"][i]] == of_tokens[position]
            assert of_tokens[position] == [*token.likeliest]
            best = logprobs["likeliest"][i][0]
            assert logprobs["top_logprobs"][i][best[1]] == best[2]
    assert writer.generate(**body)["choices"] == stream.done["choices"]


def test_the_total_of_a_known_distribution_is_the_truth(table: Server) -> None:
    for choice in table.generate(n=16, seed=2, logprobs=0)["choices"]:
        truth = float(possible_table()[tuple(choice["token_ids"])])
        assert choice["log_probability"] == pytest.approx(truth, abs=1e-5)
        assert math.fsum(choice["logprobs"]["token_logprobs"]) == pytest.approx(truth, abs=1e-5)
        assert choice["logprobs"]["tokens"] == [f"token_id:{token}" for token in choice["token_ids"]]
        assert choice["logprobs"]["top_logprobs"] == [None, None]
        assert choice["logprobs"]["likeliest"] == [[], []]


def test_given_tokens_have_none(writer: Server) -> None:
    canvas = [5, None, 9, None]
    stream = writer.stream(canvas=canvas, seed=3, logprobs=1)
    (choice,) = stream.done["choices"]
    for field in ("token_logprobs", "top_logprobs"):
        shown = [value is None for value in choice["logprobs"][field]]
        assert shown == [token is not None for token in canvas[: len(shown)]]
    assert choice["logprobs"]["sub_token_logprobs"][0] == [None, None]


def test_nothing_is_said_where_nothing_is_asked(writer: Server) -> None:
    plain, told = (writer.stream(max_tokens=12, seed=5, **more) for more in ({}, {"logprobs": 1}))
    assert token_ids(plain.done) == token_ids(told.done)
    for unmask in plain.unmasks:
        assert not {"log_probabilities", "likeliest"} & unmask.keys()
    for choice in plain.done["choices"]:
        assert choice.keys() == {"index", "text", "token_ids", "finish_reason"}
    assert all("likeliest" not in unmask for unmask in writer.stream(max_tokens=2, seed=5, logprobs=0).unmasks)
    assert token_ids(writer.generate(max_tokens=12, seed=5, logprobs=None)) == token_ids(plain.done)


def test_a_detached_generation_has_them_whenever_it_is_read(writer: Server) -> None:
    body: Body = {"max_tokens": 10, "seed": 4, "logprobs": 2}
    first = writer.stream(**body, detach=True)
    path = f"/generate/{first.start['id']}"
    assert writer.http.get(path).json()["choices"] == first.done["choices"]
    last = [line for line in writer.http.get(path + "/events?after=1").text.splitlines() if line.startswith("data: ")]
    assert json.loads(last[-1].removeprefix("data: "))["choices"] == first.done["choices"]


@pytest.mark.parametrize("wanted", [-1, 6, 1.5, "3", True, [2]])
def test_what_is_out_of_range_is_named(writer: Server, wanted: object) -> None:
    for path in ("/generate", "/plan"):
        response = writer.http.post(path, json={"max_tokens": 2, "logprobs": wanted})
        assert response.status_code == 422
        assert response.json()["error"]["param"] == "logprobs"
