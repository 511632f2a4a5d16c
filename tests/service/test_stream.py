"""`POST /generate` with `"stream": true`: events that say how the tokens came to be."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, MutableMapping
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import BaseModel
from sse_starlette import ServerSentEvent
from unmask_service.api import routes as api_routes
from unmask_service.api.followers import Generation, event

from tests.helpers import END_TOKEN, byte_tokenizer
from tests.helpers_server import Body, Server, Stream, parse_events, token_ids

TOKENIZER = byte_tokenizer()
END = TOKENIZER.token_to_id(END_TOKEN)

REQUESTS: dict[str, Body] = {
    "defaults": {"seed": 1},
    "prompt and suffix": {"prompt": " the fox", "suffix": "end", "max_tokens": 6, "seed": 2},
    "many samples": {"max_tokens": 5, "n": 7, "seed": 3, "temperature": 0.8},
    "holes": {"canvas": [None, 3, None, None, 9, None], "n": 2, "seed": 4},
    "groups": {"max_tokens": 8, "n": 2, "seed": 5, "sampler": {"steps": 3}},
    "at once": {"max_tokens": 8, "seed": 6, "sampler": {"steps": 1}},
    "ancestral": {"max_tokens": 8, "n": 3, "seed": 7, "sampler": {"name": "ancestral", "steps": 9}},
    "remasking": {"max_tokens": 8, "n": 2, "seed": 7, "sampler": {"name": "remasking", "steps": 9, "rate": 0.4}},
    "remasking in blocks": {
        "max_tokens": 9,
        "seed": 8,
        "sampler": {"name": "remasking", "steps": 24, "rate": 0.5, "schedule": "rescale", "block_length": 4},
    },
    "entropy bounded": {"max_tokens": 8, "n": 2, "seed": 9, "sampler": {"name": "entropy_bounded", "bound": 4}},
    "threshold": {
        "max_tokens": 9,
        "seed": 9,
        "temperature": 0,
        "sampler": {"name": "threshold", "bound": 0.08, "block_length": 4},
    },
    "coldest": {"max_tokens": 8, "seed": 8, "temperature": 0},
    "nothing to do": {"canvas": [1, 2, 3], "n": 2, "seed": 9},
    "a given end": {"canvas": [END, None, None, END, None, None], "n": 3, "seed": 10},
}

either = pytest.mark.parametrize("name", list(REQUESTS))


@pytest.fixture(scope="module")
def streams(writer: Server) -> dict[str, Stream]:
    return {name: writer.stream(**body) for name, body in REQUESTS.items()}


@either
def test_events_are_numbered_and_named(streams: dict[str, Stream], name: str) -> None:
    events = streams[name].events
    ids = [event.id for event in events]
    assert ids == sorted(set(ids))
    assert [event.name for event in events] == ["start", *["unmask"] * (len(events) - 2), "done"]


@either
def test_start_says_what_will_be_done(streams: dict[str, Stream], name: str) -> None:
    stream, body = streams[name], REQUESTS[name]
    start, n = stream.start, body.get("n", 1)
    assert set(start) >= {
        "id",
        "model",
        "length",
        "sub_tokens_per_token",
        "base",
        "masked",
        "network_evaluations",
        "seed",
        "canvas",
    }
    assert start["model"] == "writer"
    assert start["seed"] == body["seed"]
    assert (start["sub_tokens_per_token"], start["base"]) == (2, 17)
    revealed = sum(len(unmask["sub_tokens"]) - len(unmask.get("masked", ())) for unmask in stream.unmasks)
    assert start["masked"] == revealed
    if "bound" in body.get("sampler", {}):
        assert start["network_evaluations"] > len(stream.unmasks)
        assert start["network_evaluations"] - len(stream.unmasks) == stream.done["sampling"]["evaluations_saved"]
    else:
        assert start["network_evaluations"] == len(stream.unmasks)
    assert stream.done["sampling"]["network_evaluations"] == len(stream.unmasks)
    assert len(start["canvas"]) == n
    given = start["canvas"][0]
    assert start["canvas"] == [given] * n
    assert start["masked"] == n * 2 * (start["length"] - len(given))


def test_start_holds_the_given_tokens(streams: dict[str, Stream]) -> None:
    text = TOKENIZER.encode(" the fox").ids, TOKENIZER.encode("end").ids
    places = [*enumerate(text[0]), *enumerate(text[1], len(text[0]) + 6)]
    expected = [[place, token, TOKENIZER.decode([token])] for place, token in places]
    assert streams["prompt and suffix"].start["canvas"] == [expected]
    assert streams["prompt and suffix"].start["length"] == len(text[0]) + 6 + len(text[1])
    assert [given[:2] for given in streams["holes"].start["canvas"][1]] == [[1, 3], [4, 9]]
    assert streams["defaults"].start["canvas"] == [[]]


@either
def test_steps_count_up_to_their_number(streams: dict[str, Stream], name: str) -> None:
    stream = streams[name]
    for index in range(len(stream.start["canvas"])):
        own = [unmask for unmask in stream.unmasks if unmask["index"] == index]
        first = own[0]["step"] if own else 0
        assert first in (0, 1)
        assert [unmask["step"] for unmask in own] == list(range(first, first + len(own)))
        planned = stream.start["network_evaluations"] // len(stream.start["canvas"])
        assert {unmask["steps"] for unmask in own} <= {
            planned if "bound" in REQUESTS[name].get("sampler", {}) else len(own)
        }
    assert all(set(unmask) >= {"index", "step", "steps", "sub_tokens", "tokens"} for unmask in stream.unmasks)


@either
def test_tokens_are_completed_when_their_last_digit_is(streams: dict[str, Stream], name: str) -> None:
    stream = streams[name]
    seen: dict[tuple[int, int], dict[int, int]] = {}
    for unmask in stream.unmasks:
        completed = {}
        for position, j, digit in unmask["sub_tokens"]:
            assert 0 <= digit < 17
            digits = seen.setdefault((unmask["index"], position), {})
            digits[j] = digit
            if len(digits) == 2:
                completed[position] = digits[0] * 17 + digits[1]
        assert {position: token for position, token, _ in unmask["tokens"]} == completed
        for position, j in unmask.get("masked", ()):
            del seen[unmask["index"], position][j]
        assert all(text == TOKENIZER.decode([token], skip_special_tokens=False) for _, token, text in unmask["tokens"])


@either
def test_start_and_unmask_events_give_the_tokens_of_done(streams: dict[str, Stream], name: str) -> None:
    stream, body = streams[name], REQUESTS[name]
    generated = slice(None)
    if "canvas" not in body:
        begin = len(TOKENIZER.encode(body.get("prompt", "")).ids)
        generated = slice(begin, stream.start["length"] - len(TOKENIZER.encode(body.get("suffix", "")).ids))
    for tokens, choice in zip(stream.tokens(), stream.done["choices"], strict=True):
        assert sorted(tokens) == list(range(stream.start["length"]))
        whole = [tokens[position] for position in sorted(tokens)][generated]
        given = body.get("canvas", [None] * len(whole))  # an end token that is given ends nothing
        ends = [place for place, token in enumerate(whole) if token == END and given[place] is None]
        assert choice["token_ids"] == whole[: ends[0] if ends else None]
        assert choice["finish_reason"] == ("stop" if ends else "length")
        assert choice["text"] == TOKENIZER.decode(choice["token_ids"], skip_special_tokens=False)


@either
def test_done_is_the_answer_without_a_stream(writer: Server, streams: dict[str, Stream], name: str) -> None:
    done, answer = streams[name].done, writer.generate(**REQUESTS[name])
    assert set(done) == set(answer)
    for field in ("model", "choices", "usage", "fingerprint"):
        assert done[field] == answer[field]
    # how many guesses are tried is a matter of time and company
    assert done["sampling"] | {"rounds": 0} == answer["sampling"] | {"rounds": 0}
    assert set(done["timings"]) == set(answer["timings"])
    assert done["id"] == streams[name].start["id"]


class Characters(BaseModel):
    text: str


@pytest.mark.parametrize("end", ["\x85", "\u2028", "\u2029", "\n", "\r", "\v", "\f", "\x1c", "\x1d", "\x1e"])
def test_no_character_ends_a_line_within_an_event(end: str) -> None:
    """For any reader of lines: httpx and Python end one at ten characters, browsers at two."""
    lines = event("unmask", 7, Characters(text=f"a{end}b")).encode().decode().splitlines()
    assert lines[:2] == ["id: 7", "event: unmask"]
    assert [line.partition(":")[0] for line in lines] == ["id", "event", "data", ""]
    assert json.loads(lines[2].removeprefix("data: ")) == {"text": f"a{end}b"}


def test_a_stream_with_line_separators_can_be_read_line_by_line(writer: Server) -> None:
    text = "\u2028\u2029\x85"
    stream = writer.stream(prompt=text, max_tokens=3, seed=1)
    assert "".join(TOKENIZER.decode([token]) for _, token, _ in stream.start["canvas"][0]).count("\ufffd") == 8
    assert stream.done["choices"]


def test_a_drawn_seed_is_in_start_and_done(writer: Server) -> None:
    stream = writer.stream(max_tokens=6)
    seed = stream.start["seed"]
    assert seed == stream.done["sampling"]["seed"] < 2**53
    assert token_ids(writer.generate(max_tokens=6, seed=seed)) == token_ids(stream.done)


def test_without_a_tokenizer_texts_are_null(table: Server) -> None:
    stream = table.stream(prompt=[1], seed=3)
    assert stream.start["canvas"] == [[[0, 1, None]]]
    assert [text for unmask in stream.unmasks for _, _, text in unmask["tokens"]] == [None]
    assert stream.done["choices"][0]["text"] is None


def test_a_full_canvas_keeps_what_lies_behind_masked(chain: Server) -> None:
    stream = chain.stream(prompt=[1, 2], max_tokens=3, suffix=[0], seed=3)
    assert stream.start["length"] == 64
    assert stream.start["masked"] == 6
    (tokens,) = stream.tokens()
    assert sorted(tokens) == list(range(6))
    assert [tokens[position] for position in (2, 3, 4)] == stream.done["choices"][0]["token_ids"]
    (canvas,) = stream.canvases()
    assert all(digits == [None, None] for digits in canvas[6:])


def test_a_sample_that_the_model_calls_impossible_ends_the_stream_with_an_error(table: Server) -> None:
    with table.http.stream("POST", "/generate", json={"prompt": [3], "stream": True}) as response:
        if response.status_code != 200:  # found out before the stream began
            assert 400 <= response.status_code < 500
            return
        events = list(parse_events(response.iter_lines()))
    assert events[-1].name == "error"
    error: dict[str, Any] = events[-1].data["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    assert [event.name for event in events[:-1]] in ([], ["start"])


@pytest.mark.parametrize(
    ("body", "statuses"),
    [
        ({"model": "another"}, {404}),
        ({"max_tokens": 25}, {400, 422}),
        ({"prompt": [260]}, {400, 422}),
        ({"n": 0}, {400, 422}),
        ({"sampler": {"name": "ancestral"}}, {400, 422}),
    ],
)
def test_what_cannot_be_served_never_becomes_a_stream(writer: Server, body: Body, statuses: set[int]) -> None:
    response = writer.http.post("/generate", json=body | {"stream": True})
    assert response.status_code in statuses
    assert response.headers["content-type"].partition(";")[0] == "application/json"
    assert response.json()["error"]["message"]


def test_nothing_between_server_and_client_keeps_events_back(writer: Server) -> None:
    with writer.http.stream("POST", "/generate", json={"max_tokens": 2, "stream": True}) as response:
        assert "no-cache" in response.headers["cache-control"] or "no-store" in response.headers["cache-control"]
        assert "content-length" not in response.headers
        response.read()


class Silent:
    """A generation that waits for its turn for ever."""

    left = False

    def __init__(self) -> None:
        shared = SimpleNamespace(cut=asyncio.Event())
        card = SimpleNamespace(id="toy")
        self.service = SimpleNamespace(answering=contextlib.nullcontext, shared=shared, card=card)

    async def events(self, after: int | None) -> AsyncIterator[ServerSentEvent]:
        assert after is None
        yield ServerSentEvent("{}", event="start", id="0", sep="\n")
        await asyncio.Event().wait()

    async def leave(self) -> None:
        self.left = True


def test_silence_is_broken_by_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    assert api_routes.PING_SECONDS <= 15
    monkeypatch.setattr(api_routes, "PING_SECONDS", 0.02)
    generation = Silent()
    sent: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()

    async def listen() -> list[str]:
        stream = api_routes.EventStream(cast(Generation, generation), generation.events(None))
        gone = asyncio.Event()

        async def receive() -> MutableMapping[str, Any]:
            await gone.wait()
            return {"type": "http.disconnect"}

        scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/generate", "headers": []}
        answering = asyncio.create_task(stream(scope, receive, sent.put))
        bodies = [message.get("body", b"").decode() for message in [await sent.get() for _ in range(4)]]
        gone.set()
        await answering
        return bodies

    _, first, *comments = asyncio.run(asyncio.wait_for(listen(), 30))
    assert first.startswith("id: 0\n")
    assert all(re.fullmatch(r"(:.*\n)+\n", comment) for comment in comments), comments
    assert generation.left, "the client has gone"


def test_a_stream_that_is_cut_ends_without_an_error() -> None:
    """The process has to go: the response ends, so that the client comes back for the rest."""
    generation = Silent()
    sent: list[MutableMapping[str, Any]] = []

    async def listen() -> None:
        stream = api_routes.EventStream(cast(Generation, generation), generation.events(None))
        told = asyncio.Event()

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)
            if b"start" in message.get("body", b""):
                told.set()

        async def receive() -> MutableMapping[str, Any]:
            await asyncio.Event().wait()
            raise AssertionError

        answering = asyncio.create_task(
            stream({"type": "http", "method": "POST", "path": "/generate", "headers": []}, receive, send)
        )
        await told.wait()
        generation.service.shared.cut.set()
        await answering

    asyncio.run(asyncio.wait_for(listen(), 30))
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    assert b"error" not in b"".join(message.get("body", b"") for message in sent)
    assert generation.left
