"""Bodies: what is refused, in which words, and that no body holds the event loop."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.requests import Request
from starlette.types import Message
from unmask_service.api import bodies
from unmask_service.api.bodies import field_at, parse, read_body
from unmask_service.api.errors import RefusedError
from unmask_service.api.schemas import GenerateBody
from unmask_service.api.score_schemas import ScoreBody

from tests.helpers_server import Server

LIMIT = 1 << 20


def refusal(body: bytes, model: type[GenerateBody] | type[ScoreBody] = GenerateBody) -> RefusedError:
    with pytest.raises(RefusedError) as refused:
        parse(body, model)
    return refused.value


def repeated(unit: bytes, before: bytes = b"", after: bytes = b"") -> bytes:
    return before + unit * ((LIMIT - len(before) - len(after)) // len(unit)) + after


HOSTILE = {
    "fields, no end": repeated(b'"a":1,', b"{"),
    "the same object again and again": repeated(b'{"a":1,'),
    "empty lists": repeated(b"[],", b"["),
    "strings, no end": repeated(b'"a', b'{"prompt": '),
    "one string, no end": repeated(b"a", b'{"prompt": "'),
    "escapes, no end": repeated(b'\\"', b'{"prompt": "'),
    "lines": repeated(b"\n", b'{"prompt"'),
    "unknown fields": b"{" + b",".join(b'"f%d":1' % i for i in range(90_000)) + b"}",
    "unknown fields of the sampler": b'{"sampler": {' + b",".join(b'"f%d":1' % i for i in range(80_000)) + b"}}",
    "one field again and again": b'{"n":1' + b',"n":1' * 150_000 + b"}",
    "objects for a prompt": b'{"prompt": [{}' + b",{}" * 300_000 + b"]}",
    "objects within a field": b'{"prompt": {"a": [{"a":1}' + b',{"a":1}' * 120_000 + b"]}}",
    "strings for ids": b'{"prompt": [""' + b',""' * 300_000 + b"]}",
    "ids that are none": b'{"canvas": [-1' + b",-1" * 300_000 + b"]}",
}


def request_with(body: bytes) -> Request:
    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    return Request({"type": "http", "method": "POST", "headers": []}, receive)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_large_body_is_parsed_outside_the_event_loop(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []

    def parse_and_note(body: bytes, model: type[GenerateBody]) -> GenerateBody:
        threads.append(threading.get_ident())
        return parse(body, model)

    monkeypatch.setattr(bodies, "parse", parse_and_note)

    async def read() -> None:
        with ThreadPoolExecutor(1) as parsers, pytest.raises(RefusedError):
            await read_body(request_with(HOSTILE[name]), GenerateBody, LIMIT, parsers)

    asyncio.run(read())
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()


@pytest.mark.parametrize("name", HOSTILE)
def test_the_error_of_a_large_body_is_short(name: str) -> None:
    assert len(refusal(HOSTILE[name]).message) < 2000


def test_large_and_small_bodies_are_read_alike() -> None:
    small = b'{"prompt": [1, 2], "seed": 3}'

    async def read(body: bytes) -> GenerateBody:
        with ThreadPoolExecutor(1) as parsers:
            return await read_body(request_with(body), GenerateBody, LIMIT, parsers)

    assert asyncio.run(read(small)) == asyncio.run(read(small + b" " * 100_000))
    for padding in (b"", b" " * 100_000):
        with pytest.raises(RefusedError, match="n: Input should be greater"):
            asyncio.run(read(b'{"n": 0}' + padding))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"best_of": 3}, "best_of"),
        ({"sampler": {"speed": 1}}, "sampler.speed"),
        ({"n": 0, "best_of": 3}, "best_of"),
        ({"x" * 1000: 1}, "x" * 200),
    ],
)
def test_an_unknown_field_is_named(body: object, param: str) -> None:
    error = refusal(json.dumps(body).encode())
    assert (error.status_code, error.code, error.param) == (422, "invalid_value", param)
    assert error.message == f"{param}: there is no such field"


@pytest.mark.parametrize(
    ("sampler", "param", "message"),
    [
        ({"block_length": 0, "steps": "8"}, "sampler.steps", "sampler.steps: Input should be a valid integer"),
        (
            {"high_order": True, "block_length": 0},
            "sampler.high_order",
            "sampler.high_order: Input should be 'extrapolation'",
        ),
    ],
)
def test_of_two_wrong_fields_of_the_sampler_one_is_complained_of(sampler: object, param: str, message: str) -> None:
    error = refusal(json.dumps({"sampler": sampler}).encode())
    assert (error.param, error.message) == (param, message)


@pytest.mark.parametrize(("body", "param"), [(b'{"": 1}', "''"), (b'{"sampler": {"": 1}}', "sampler.''")])
def test_a_field_without_a_name_is_named_all_the_same(body: bytes, param: str) -> None:
    error = refusal(body)
    assert (error.param, error.message) == (param, f"{param}: there is no such field")


def test_a_message_that_begins_with_its_field_does_not_name_it_again() -> None:
    error = refusal(b'{"input": "a", "estimator": "integral", "block_length": 1}', ScoreBody)
    assert error.param == "block_length"
    assert error.message.startswith("block_length is for the estimator orders")


def test_all_types_of_a_field_are_named() -> None:
    assert "valid string or" in refusal(b'{"prompt": 5}').message


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"n": 1, "n": 2}', "n"),
        (b'{"n": 1, "seed": 3, "n": 1}', "n"),
        (b'{"n": 1, "\\u006e": 2}', "n"),
        (b'{"sampler": {"steps": 3, "name": "first_hitting", "steps": 4}}', "sampler.steps"),
        (b'{"logit_bias": {"1": 0, "1": 0}, "n": 1}', "logit_bias.1"),
        (b'{"canvas": [1, [2, {"a": 3}, {"a": 3, "a": 4}]]}', "canvas.1.2.a"),
        (b'{"prompt": "a", "seed": ' + b"9" * 4000 + b', "prompt": "b"}', "prompt"),
    ],
)
def test_a_field_that_is_there_twice_is_refused(body: bytes, param: str) -> None:
    error = refusal(body)
    assert (error.status_code, error.param) == (422, param)
    assert "twice" in error.message
    assert refusal(b'{"input": "a", "input": "b"}', ScoreBody).param == "input"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"prompt": "' + b"a" * 200_000 + b'\\ud800"}', "prompt"),
        (b'{"canvas": [1, 2], "prompt": "' + b"a" * 200_000 + b'\\ud800"}', "prompt"),
        (b'{"seed": 3,\n\n "n": [}', "n"),
        (b'{"canvas": [' + b"[]," * 100_000 + b"}", None),
    ],
)
def test_the_field_of_an_error_is_found_near_the_start_or_not_at_all(body: bytes, field: str | None) -> None:
    error = refusal(body)
    assert (error.code, error.param) == ("invalid_json", field)


def test_a_complaint_without_a_place_names_no_field() -> None:
    assert field_at(b"{}", "no place") is None


def test_a_server_refuses_a_field_that_is_there_twice(writer: Server) -> None:
    response = writer.post_raw(b'{"max_tokens": 1, "seed": 1, "max_tokens": 2}')
    assert response.status_code == 422
    assert response.json()["error"]["param"] == "max_tokens"
