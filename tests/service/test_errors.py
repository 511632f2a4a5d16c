"""Whatever a client sends, the answer says which field broke which limit; never a 500, and the server goes on."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers_server import Body, Server, generate_together, post_together, token_ids

LIMIT = 1 << 20
refused = {400, 422}


def error_of(response: Any) -> dict[str, Any]:  # noqa: ANN401 — httpx.Response, or what a stream gave
    assert response.headers["content-type"].partition(";")[0] == "application/json"
    body = json.loads(response.content.decode("utf-8"))
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["type"], str)
    assert error["param"] is None or isinstance(error["param"], str)
    assert error["code"] is None or isinstance(error["code"], str)
    return error


@pytest.fixture(autouse=True)
def goes_on(writer: Server) -> Iterator[None]:
    """After every refusal the server still answers, with the same tokens."""
    yield
    assert writer.status_of("/ready") == 200
    assert len(token_ids(writer.generate(max_tokens=2, seed=1))[0]) <= 2


@pytest.mark.parametrize(
    ("body", "param", "needles"),
    [
        ({"max_tokens": 25}, "max_tokens", ["24"]),
        ({"max_tokens": 0}, "max_tokens", []),
        ({"max_tokens": -1}, "max_tokens", []),
        ({"max_tokens": 10**9}, "max_tokens", ["24"]),
        ({"max_tokens": 10**40}, "max_tokens", []),
        ({"max_tokens": 1.5}, "max_tokens", []),
        ({"max_tokens": "5"}, "max_tokens", []),
        ({"max_tokens": True}, "max_tokens", []),
        ({"prompt": [1] * 24}, "prompt", ["24"]),
        ({"prompt": [1] * 1000}, "prompt", ["1000", "24"]),
        ({"prompt": "word " * 50}, "prompt", ["24"]),
        ({"prompt": [1] * 10, "max_tokens": 15}, "max_tokens", ["24"]),
        ({"prompt": [1] * 10, "suffix": [1] * 14}, "suffix", ["24"]),
        ({"prompt": [260]}, "prompt", ["260", "259"]),
        ({"prompt": [-1]}, "prompt", []),
        ({"prompt": [2**31]}, "prompt", []),
        ({"prompt": [2**63]}, "prompt", []),
        ({"prompt": [10**40]}, "prompt", []),
        ({"prompt": [1.0]}, "prompt", []),
        ({"prompt": [True]}, "prompt", []),
        ({"prompt": ["a"]}, "prompt", []),
        ({"prompt": [None]}, "prompt", []),
        ({"prompt": [[1]]}, "prompt", []),
        ({"prompt": {"text": "a"}}, "prompt", []),
        ({"prompt": 5}, "prompt", []),
        ({"prompt": None}, "prompt", []),
        ({"suffix": [260]}, "suffix", ["260", "259"]),
        ({"suffix": False}, "suffix", []),
        ({"canvas": []}, "canvas", []),
        ({"canvas": [None] * 25}, "canvas", ["25", "24"]),
        ({"canvas": [None, 260]}, "canvas", ["260", "259"]),
        ({"canvas": [None, -1]}, "canvas", []),
        ({"canvas": [None, 0.0]}, "canvas", []),
        ({"canvas": [None, False]}, "canvas", []),
        ({"canvas": "text"}, "canvas", []),
        ({"n": 0}, "n", []),
        ({"n": 65}, "n", ["64"]),
        ({"n": 10**30}, "n", ["64"]),
        ({"n": None}, "n", []),
        ({"n": True}, "n", []),
        ({"seed": -1}, "seed", []),
        ({"seed": 2**63}, "seed", []),
        ({"seed": 10**100}, "seed", []),
        ({"seed": "7"}, "seed", []),
        ({"seed": 7.0}, "seed", []),
        ({"seed": True}, "seed", []),
        ({"temperature": -0.5}, "temperature", []),
        ({"temperature": "hot"}, "temperature", []),
        ({"temperature": True}, "temperature", []),
        ({"temperature": 10**400}, "temperature", []),
        ({"temperature": None}, "temperature", []),
        ({"top_p": 0}, "top_p", []),
        ({"top_p": -0.1}, "top_p", []),
        ({"top_p": 1.1}, "top_p", ["1"]),
        ({"top_p": False}, "top_p", []),
        ({"top_k": -1}, "top_k", []),
        ({"top_k": 0.5}, "top_k", []),
        ({"top_k": 2**64}, "top_k", []),
        ({"top_k": True}, "top_k", []),
        ({"sampler": "ancestral"}, "sampler", []),
        ({"sampler": None}, "sampler", []),
        ({"sampler": []}, "sampler", []),
        ({"sampler": {"name": "euler"}}, "sampler.name", []),
        ({"sampler": {"name": None}}, "sampler.name", []),
        ({"sampler": {"name": "ancestral"}}, "sampler", ["steps"]),
        ({"sampler": {"name": "ancestral", "steps": None}}, "sampler", ["steps"]),
        ({"sampler": {"name": "ancestral", "steps": 0}}, "sampler.steps", []),
        ({"sampler": {"steps": 0}}, "sampler.steps", []),
        ({"sampler": {"steps": -5}}, "sampler.steps", []),
        ({"sampler": {"steps": 2**70}}, "sampler.steps", []),
        ({"sampler": {"steps": 1.5}}, "sampler.steps", []),
        ({"sampler": {"steps": True}}, "sampler.steps", []),
        ({"sampler": {"speed": 1}}, "sampler.speed", []),
        ({"stream": "yes"}, "stream", []),
        ({"stream": 1}, "stream", []),
        ({"stream": None}, "stream", []),
        ({"model": 3}, "model", []),
        ({"best_of": 3}, "best_of", []),
        ({"": 3}, None, []),
        ({"__proto__": {}}, "__proto__", []),
    ],
)
def test_a_value_out_of_range_is_named(writer: Server, body: Body, param: str | None, needles: list[str]) -> None:
    response = writer.http.post("/generate", content=json.dumps(body), headers={"content-type": "application/json"})
    assert response.status_code in refused, response.text
    error = error_of(response)
    if param is not None:
        assert error["param"] is not None
        assert error["param"].split(".")[0] == param.split(".")[0]
        assert param.rsplit(".", 1)[-1] in error["message"]
    assert all(needle in error["message"] for needle in needles), error["message"]


@pytest.mark.parametrize("other", ["prompt", "suffix", "max_tokens"])
def test_a_canvas_stands_alone(writer: Server, other: str) -> None:
    value = 3 if other == "max_tokens" else [1]
    response = writer.http.post("/generate", json={"canvas": [None], other: value})
    assert response.status_code in refused
    assert other in error_of(response)["message"]
    assert "canvas" in error_of(response)["message"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" ",
        b"{",
        b"}",
        b'{"n": 1',
        b'{"n": 1,}',
        b"{'n': 1}",
        b'{"n": 01}',
        b"[]",
        b'[{"n": 1}]',
        b"3",
        b"null",
        b"true",
        b'"prompt"',
        b"nonsense",
        b'{"n": 1} {"n": 1}',
        b"\x00",
        b'{"prompt": "a\x00b"}',
        b'\xef\xbb\xbf{"n": ',
        b'{"prompt": "\xff\xfe"}',
        b'{"prompt": "\xc0\xaf"}',
        b'{"prompt": "\xed\xa0\x80"}',
        b'{"\xff": 1}',
        '{"prompt": "a"}'.encode("utf-16"),
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "\\udfff and more"}',
        b'{"suffix": "\\udc00\\ud800"}',
        b'{"model": "\\ud800"}',
        b'{"\\ud800": 1}',
        b'{"sampler": {"\\ud800": 1}}',
        b'{"sampler": {"name": "\\udead"}}',
        b'{"temperature": NaN}',
        b'{"temperature": Infinity}',
        b'{"temperature": -Infinity}',
        b'{"temperature": 1e400}',
        b'{"top_p": 1e400}',
        b'{"top_p": -1e400}',
        b'{"top_p": NaN}',
        b'{"n": NaN}',
        b'{"seed": 1e400}',
        b'{"seed": -1e400}',
        b'{"max_tokens": Infinity}',
        b'{"prompt": [NaN]}',
        b'{"canvas": [1e400]}',
        b'{"seed": ' + b"9" * 5000 + b"}",
        b'{"temperature": ' + b"9" * 5000 + b"}",
        b'{"seed": ' + b"9" * 100_000 + b"}",
        b'{"prompt": [' + b"9" * 5000 + b"]}",
        b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"prompt": ' + b"[" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"sampler": ' * 500 + b"{}" + b"}" * 500,
        b'{"unknown": ' + b"[" * 300 + b"]" * 300 + b"}",
    ],
)
def test_what_is_no_request_is_refused(writer: Server, content: bytes) -> None:
    response = writer.post_raw(content)
    assert response.status_code in refused, response.text[:300]
    error = error_of(response)
    assert len(error["message"]) < 2000, "the message need not repeat the body"


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b'{"temperature": NaN}', "temperature"),
        (b'{"temperature": Infinity}', "temperature"),
        (b'{"top_p": -Infinity}', "top_p"),
        (b'{"temperature": 1e400}', "temperature"),
        (b'{"seed": 1e400}', "seed"),
        (b'{"prompt": "a\\ud800b"}', "prompt"),
        (b'{"suffix": "\\udfff"}', "suffix"),
        (b'{"n": true}', "n"),
        (b'{"seed": ' + b"9" * 300 + b"}", "seed"),
        (b'{"prompt": ' + b"[" * 50 + b"]" * 50 + b"}", "prompt"),
    ],
)
def test_strange_values_are_named_by_their_field(writer: Server, content: bytes, field: str) -> None:
    response = writer.post_raw(content)
    assert response.status_code in refused
    error = error_of(response)
    assert field in f"{error['param']} {error['message']}"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_another_content_type_is_no_server_error(writer: Server, kind: str) -> None:
    response = writer.post_raw(b'{"max_tokens": 1}', content_type=kind)
    assert response.status_code in {200, 400, 415, 422}
    if response.status_code != 200:
        error_of(response)


def test_text_for_a_model_without_a_tokenizer_is_refused(table: Server) -> None:
    for field in ("prompt", "suffix"):
        response = table.http.post("/generate", json={field: "text"})
        assert response.status_code in refused
        assert error_of(response)["param"] == field
        assert "tokenizer" in error_of(response)["message"]


@pytest.mark.parametrize("model", ["another", "Writer", "", "../writer", "writer/", "x" * 5000, "☃"])
def test_an_unknown_model_is_not_found(writer: Server, model: str) -> None:
    response = writer.http.post("/generate", json={"model": model})
    assert response.status_code == 404
    error = error_of(response)
    assert error["param"] == "model"
    assert len(error["message"]) < 2000


@pytest.mark.parametrize("path", ["/", "/nowhere", "/generate/", "/v1/nothing", "/%00", "/..%2f..%2fetc/passwd"])
def test_unknown_paths_are_not_found(writer: Server, path: str) -> None:
    response = writer.http.get(path)
    assert response.status_code in {404, 307, 405} or path == "/"
    assert response.status_code < 500
    if response.status_code in {404, 405} and path != "/":
        error_of(response)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_other_methods_are_not_allowed(writer: Server, method: str) -> None:
    response = writer.http.request(method, "/generate")
    assert response.status_code == 405
    assert "POST" in response.headers["allow"]
    error_of(response)


# --- bodies over the limit -----------------------------------------------------------------------------------------


def padded(size: int) -> bytes:
    body = b'{"max_tokens": 1, "seed": 1}'
    return body + b" " * (size - len(body))


def test_a_body_at_the_limit_is_read(writer: Server) -> None:
    assert writer.post_raw(padded(LIMIT)).status_code == 200


@pytest.mark.parametrize("size", [LIMIT + 1, 3 * LIMIT])
def test_a_body_over_the_limit_is_refused(writer: Server, size: int) -> None:
    response = writer.post_raw(padded(size))
    assert response.status_code == 413
    assert str(LIMIT) in error_of(response)["message"]


@pytest.mark.parametrize("valid", [True, False])
def test_a_body_over_the_limit_in_chunks_is_refused(writer: Server, valid: bool) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"max_tokens": 1, "seed": 1}' if valid else b"{"
        for _ in range(40):
            yield b" " * (LIMIT // 32)

    response = writer.post_raw(chunks())
    assert response.status_code == 413
    error_of(response)


def test_chunks_under_the_limit_are_read(writer: Server) -> None:
    response = writer.post_raw(iter([b'{"max_tok', b'ens": 1, ', b'"seed": 1}']))
    assert response.status_code == 200
    assert token_ids(response.json()) == token_ids(writer.generate(max_tokens=1, seed=1))


# --- what the model calls impossible -------------------------------------------------------------------------------


def test_a_conditioning_of_probability_zero_is_the_clients_error(table: Server) -> None:
    for body in ({"prompt": [3]}, {"canvas": [3, None], "n": 64}, {"prompt": [3], "temperature": 0}):
        response = table.http.post("/generate", json=body)
        assert 400 <= response.status_code < 500, response.text
        assert error_of(response)["message"]


def test_neighbours_of_an_impossible_request_are_unaffected(table: Server) -> None:
    good = [{"n": 16, "seed": seed, "prompt": [seed % 3]} for seed in range(20)]
    expected = [token_ids(table.generate(**body)) for body in good]
    bad: Body = {"prompt": [3], "n": 16}
    mixed = [body for pair in zip(good, [bad] * 20, strict=True) for body in pair]
    responses = post_together(table.url, mixed)
    assert [response.status_code for response in responses[::2]] == [200] * 20
    assert [token_ids(response.json()) for response in responses[::2]] == expected
    assert all(400 <= response.status_code < 500 for response in responses[1::2])


def test_bad_requests_among_good_ones_disturb_nobody(writer: Server) -> None:
    good: list[Body] = [{"max_tokens": 6, "seed": seed, "n": 2} for seed in range(16)]
    expected = [token_ids(writer.generate(**body)) for body in good]
    bad: list[Body] = [{"max_tokens": 99}, {"model": "x"}, {"temperature": -1}, {"unknown": 1}] * 4
    responses = post_together(writer.url, [body for pair in zip(good, bad, strict=True) for body in pair])
    assert [token_ids(response.json()) for response in responses[::2]] == expected
    assert {response.status_code for response in responses[1::2]} <= {400, 404, 422}
    assert [token_ids(answer) for answer in generate_together(writer.url, good)] == expected
