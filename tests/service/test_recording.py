"""What a running server answers to requests of all kinds must stay as it was recorded, byte for byte.

`recording.json` holds the answers of servers of the bundles `tales`, `table` and `chain` to the conversations below.
What no two runs have in common is blanked: ids, times, ETAs, the number of rounds (it depends on speculation), and
which `progress` events a score sends. The human message of an error is blanked too: it may be put in better words.

Tokens and scores of `tales` depend on the kind of machine. Conversations about them are skipped where the server's
fingerprint is not the recorded one. On such a machine the decimals of `table` and `chain` may differ in the last place.

After a change that is meant to be seen, record anew and read the difference:

    python -m pytest tests/service/test_recording.py --record
    git diff tests/service/recording.json

The same goes for another bundle `tales`.
"""

import functools
import json
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.helpers_server import ANSWER_SECONDS, Body, Server, wait_for

RECORDING = Path(__file__).with_name("recording.json")
MODELS = ("tales", "table", "chain")

Lines = list[str]
Recording = dict[str, Any]


@dataclass(frozen=True)
class Sent:
    """One request of a conversation."""

    path: str  # `{id}` stands for the last job's id, `{event N}` for the id of event N of the last stream
    body: Body | bytes | None = None
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    until_ended: bool = False  # wait first until the last job has ended
    ends_only: bool = False  # of the events keep the first and the last: a cancelled job reveals what it had time for


@dataclass(frozen=True)
class Conversation:
    """Requests to one model, one after the other."""

    model: str
    sent: tuple[Sent, ...]
    arithmetic: bool  # whether the answers hold tokens or scores, which depend on the kind of machine


CONVERSATIONS: dict[str, Conversation] = {}


def converse(model: str, name: str, *sent: Sent, arithmetic: bool = True) -> None:
    full = f"{model}: {name}"
    assert full not in CONVERSATIONS, f"two conversations are called {full!r}"
    CONVERSATIONS[full] = Conversation(model, sent, arithmetic)


def generate(model: str, name: str, **body: object) -> None:
    converse(model, name, Sent("/generate", body))


def score(model: str, name: str, **body: object) -> None:
    converse(model, f"score, {name}", Sent("/score", body))


def plan(model: str, name: str, **body: object) -> None:
    converse(model, f"plan, {name}", Sent("/plan", body), arithmetic=False)


def refuse(model: str, name: str, body: Body | bytes, path: str = "/generate", **headers: str) -> None:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    converse(model, f"refused, {name}", Sent(path, body, headers=named), arithmetic=False)


def read(model: str, path: str, method: str = "GET") -> None:
    converse(model, f"{method} {path}", Sent(path, method=method), arithmetic=False)


# --- a network with a tokenizer --------------------------------------------------------------------------------------

ONCE = "Once upon a time"
END = " They lived happily ever after."
CANVAS = [279, None, None, 258, None, 14, None, None]

generate("tales", "a continuation", prompt=ONCE, max_tokens=12, seed=7)
generate("tales", "a prompt of ids", prompt=[279, 260], max_tokens=6, seed=7)
generate("tales", "no prompt", max_tokens=8, seed=1)
generate("tales", "bytes beyond ASCII", prompt="Zoë 😀", max_tokens=6, seed=2)
generate("tales", "the largest seed", prompt=ONCE, max_tokens=6, seed=2**63 - 1)
generate("tales", "most probable", prompt=ONCE, max_tokens=12, seed=7, temperature=0)
generate("tales", "cooler", prompt=ONCE, max_tokens=12, seed=7, temperature=0.7)
generate("tales", "hotter", prompt=ONCE, max_tokens=6, seed=7, temperature=1.5)
generate("tales", "top_k", prompt=ONCE, max_tokens=12, seed=7, top_k=5)
generate("tales", "top_p", prompt=ONCE, max_tokens=12, seed=7, top_p=0.8)
generate("tales", "all filters", prompt=ONCE, max_tokens=12, seed=7, temperature=0.7, top_k=40, top_p=0.9)
generate("tales", "groups", prompt=ONCE, max_tokens=12, seed=7, sampler={"steps": 5})
generate("tales", "one group", prompt=ONCE, max_tokens=12, seed=7, sampler={"steps": 1})
generate("tales", "ancestral", prompt=ONCE, max_tokens=12, seed=7, sampler={"name": "ancestral", "steps": 40})
generate(
    "tales", "extrapolation", prompt=ONCE, max_tokens=12, seed=7, sampler={"steps": 8, "high_order": "extrapolation"}
)
generate("tales", "a gap before a suffix", prompt=ONCE, suffix=END, max_tokens=8, seed=3)
generate("tales", "holes", canvas=CANVAS, seed=4, n=2)
generate("tales", "nothing to do", canvas=[279, 260, 258], seed=4)
generate("tales", "samples", prompt=ONCE, max_tokens=5, seed=5, n=5)
generate("tales", "the whole length", prompt=ONCE, max_tokens=92, seed=6, sampler={"steps": 12})
generate("tales", "an end within", prompt=ONCE, suffix=[0], max_tokens=6, seed=8, n=3, temperature=0.5)
generate("tales", "time enough", prompt=ONCE, max_tokens=4, seed=9, deadline_ms=86_400_000)
generate("tales", "a stream", prompt=ONCE, max_tokens=8, seed=7, stream=True)
generate("tales", "a stream of samples", prompt=ONCE, max_tokens=4, seed=7, n=3, stream=True)
generate("tales", "a stream with candidates", prompt=ONCE, max_tokens=5, seed=7, stream=True, candidates=3)
generate(
    "tales",
    "a stream of groups with candidates",
    canvas=CANVAS,
    seed=7,
    stream=True,
    candidates=2,
    sampler={"steps": 4, "high_order": "extrapolation"},
)
generate(
    "tales", "a stream of time steps", max_tokens=5, seed=7, stream=True, sampler={"name": "ancestral", "steps": 30}
)
generate("tales", "a stream of nothing", canvas=[279, 260], seed=7, stream=True)
converse(
    "tales",
    "detached and followed",
    Sent("/generate", {"prompt": ONCE, "max_tokens": 20, "seed": 7, "detach": True}),
    Sent("/generate/{id}/events", method="GET"),
    Sent("/generate/{id}/events?after={event 0}", method="GET"),
    Sent("/generate/{id}/events?after={event 20}", method="GET"),
    Sent("/generate/{id}/events", method="GET", headers={"Last-Event-ID": "{event 30}"}),
    Sent("/generate/{id}/events?after={event 41}", method="GET"),
    Sent("/generate/{id}", method="GET"),
    Sent("/generate/{id}", method="DELETE"),
)
converse(
    "tales",
    "a key used twice",
    Sent("/generate", {"prompt": ONCE, "max_tokens": 4, "seed": 7}, headers={"Idempotency-Key": "{key}"}),
    Sent("/generate", {"prompt": ONCE, "max_tokens": 4, "seed": 7}, headers={"Idempotency-Key": "{key}"}),
    Sent("/generate", {"prompt": ONCE, "max_tokens": 4, "seed": 8}, headers={"Idempotency-Key": "{key}"}),
    Sent("/score", {"input": ONCE, "budget": 16, "seed": 7}, headers={"Idempotency-Key": "{key}"}),
)

TALE = "Once upon a time, there was a young bee named Oleg. Oleg kept a glowing puppet on the shelf."
score("tales", "orders", input=TALE, seed=1, budget=200)
score("tales", "integral", input=TALE, seed=1, budget=32, estimator="integral")
score("tales", "per token, with the published integrand", input=ONCE, seed=2, per_token=True, published_integrand=True)
score("tales", "all of it, by mask rates", input=ONCE, seed=2, budget=32, estimator="integral", per_token=True,
      published_integrand=True)  # fmt: skip
score("tales", "between a prompt and a suffix", input=" a little girl", prompt=ONCE, suffix=END, seed=3)
score("tales", "given positions", input=ONCE, given=[0, 2], seed=3, per_token=True)
score("tales", "windows", input=TALE * 8, seed=4, budget=24, estimator="integral", overlap=32)
score("tales", "until it is sure", input=ONCE, seed=5, budget=800, standard_error_per_token=0.5)
score("tales", "a stream", input=ONCE, seed=6, budget=64, stream=True, per_token=True)
converse(
    "tales",
    "score, detached and followed",
    Sent("/score", {"input": TALE, "seed": 7, "budget": 400, "detach": True}),
    Sent("/score/{id}/events", method="GET"),
    Sent("/score/{id}", method="GET"),
    Sent("/score/{id}/events?after=1000000", method="GET"),
)

plan("tales", "exact", prompt=ONCE, max_tokens=12, seed=7, n=3)
plan("tales", "groups", prompt=ONCE, suffix=END, seed=7, sampler={"steps": 9})
plan("tales", "ancestral", max_tokens=12, seed=7, n=4, sampler={"name": "ancestral", "steps": 100})
plan("tales", "holes", canvas=CANVAS, seed=7)

for path in ("/v1/models", "/health", "/ready", "/nowhere", "/generate", "/generate/gen-unknown", "/score/unknown"):
    read("tales", path)
read("tales", "/generate/gen-unknown", "DELETE")
read("tales", "/generate/gen-unknown/events?after=-1")
read("tales", "/generate/gen-unknown/events")
read("tales", "/score", "PUT")
read("tales", "/openapi.json")
read("tales", "/metrics")

refuse("tales", "too long", {"prompt": ONCE, "max_tokens": 125})
refuse("tales", "a prompt that is too long", {"prompt": "word " * 200})
refuse("tales", "nothing to generate", {"max_tokens": 0})
refuse("tales", "a fraction of a token", {"max_tokens": 1.5})
refuse("tales", "an id out of range", {"prompt": [2025]})
refuse("tales", "a canvas that is too long", {"canvas": [None] * 129})
refuse("tales", "a canvas with a prompt", {"canvas": [None], "prompt": "a"})
refuse("tales", "an empty canvas", {"canvas": []})
refuse("tales", "too many samples", {"n": 65})
refuse("tales", "a negative seed", {"seed": -1})
refuse("tales", "a negative temperature", {"temperature": -0.5})
refuse("tales", "top_p of 0", {"top_p": 0})
refuse("tales", "top_k of -1", {"top_k": -1})
refuse("tales", "an unknown sampler", {"sampler": {"name": "euler"}})
refuse("tales", "ancestral without steps", {"sampler": {"name": "ancestral"}})
refuse("tales", "no steps", {"sampler": {"steps": 0}})
refuse("tales", "high order without groups", {"sampler": {"high_order": "extrapolation"}})
refuse("tales", "an unknown high order", {"sampler": {"steps": 4, "high_order": "third"}})
refuse("tales", "a deadline for time steps", {"deadline_ms": 50, "sampler": {"name": "ancestral", "steps": 4}})
refuse("tales", "candidates without a stream", {"candidates": 2})
refuse("tales", "too many candidates", {"candidates": 17, "stream": True})
refuse("tales", "an unknown field", {"best_of": 3})
refuse("tales", "an unknown model", {"model": "another"})
refuse("tales", "half of an object", b'{"n": 1')
refuse("tales", "a list", b"[]")
refuse("tales", "bytes that are not UTF-8", b'{"prompt": "\xff"}')
refuse("tales", "half of a character", b'{"prompt": "\\ud800"}')
refuse("tales", "not a number", b'{"temperature": NaN}')
refuse("tales", "another content type", b'{"n": 1}', content_type="text/plain")
refuse("tales", "a body over the limit", b" " * (2**20 + 1))
refuse("tales", "a key that is too long", {"max_tokens": 1}, idempotency_key="k" * 5000)
refuse("tales", "plan, too long", {"max_tokens": 129}, "/plan")
refuse("tales", "score, no input", {"seed": 1}, "/score")
refuse("tales", "score, an empty input", {"input": ""}, "/score")
refuse("tales", "score, all given", {"input": [1, 2], "given": [0, 1]}, "/score")
refuse("tales", "score, given beyond the input", {"input": [1, 2], "given": [2]}, "/score")
refuse("tales", "score, a budget too small", {"input": TALE, "budget": 1}, "/score")
refuse("tales", "score, a budget too large", {"input": ONCE, "budget": 2**20 + 1}, "/score")
refuse("tales", "score, an overlap as long as the model", {"input": TALE * 8, "overlap": 96}, "/score")
refuse("tales", "score, an unknown estimator", {"input": ONCE, "estimator": "guess"}, "/score")

# --- models that are known exactly, without a tokenizer -------------------------------------------------------------

generate("table", "samples", n=40, seed=1)
generate("table", "one given", prompt=[2], n=12, seed=2)
generate("table", "one given behind", suffix=[3], max_tokens=1, n=12, seed=3)
generate("table", "holes", canvas=[None, 1], n=12, seed=4)
generate("table", "most probable", n=2, temperature=0, seed=5)
generate("table", "cooler", n=24, temperature=0.7, seed=5)
generate("table", "top_k", n=24, top_k=2, seed=6)
generate("table", "top_p", n=24, top_p=0.6, seed=7)
generate("table", "groups", n=24, sampler={"steps": 2}, seed=8)
generate("table", "ancestral", n=24, sampler={"name": "ancestral", "steps": 6}, seed=9)
generate("table", "extrapolation", n=24, sampler={"steps": 3, "high_order": "extrapolation"}, seed=10)
generate("table", "a stream with candidates", n=4, stream=True, candidates=4, seed=12)
generate("table", "impossible", prompt=[3], seed=1)
generate("table", "a stream of the impossible", prompt=[3], seed=1, stream=True)
score("table", "orders", input=[1, 3], seed=1, per_token=True)
score("table", "integral", input=[1, 3], seed=1, estimator="integral", published_integrand=True, per_token=True)
score("table", "after a prompt", input=[2], prompt=[1], seed=2)
score("table", "impossible", input=[3, 1], seed=2)
plan("table", "exact", n=3, seed=1)
refuse("table", "text", {"prompt": "text"})
refuse("table", "text to score", {"input": "text"}, "/score")
read("table", "/v1/models")

generate("chain", "the whole canvas", seed=1)
generate("chain", "less than the canvas", max_tokens=10, prompt=[1, 2], suffix=[0], n=6, seed=2)
generate("chain", "holes", canvas=[None, 1, None, None, 3, None], n=6, seed=3)
generate("chain", "most probable", max_tokens=30, temperature=0, seed=4)
generate("chain", "cooler, with filters", max_tokens=30, temperature=0.7, top_k=3, top_p=0.95, n=4, seed=4)
generate("chain", "groups", n=6, sampler={"steps": 20}, seed=5)
generate("chain", "ancestral", n=4, sampler={"name": "ancestral", "steps": 64}, seed=6)
generate("chain", "extrapolation", n=4, sampler={"steps": 16, "high_order": "extrapolation"}, seed=7)
generate("chain", "a stream", max_tokens=24, seed=9, stream=True)
generate("chain", "a stream with candidates", max_tokens=6, n=2, seed=10, stream=True, candidates=2)
converse(
    "chain",
    "detached and cancelled",
    Sent("/generate", {"n": 64, "seed": 7, "detach": True}),
    Sent("/generate/{id}", method="DELETE"),
    Sent("/generate/{id}/events", method="GET", ends_only=True),
    Sent("/generate/{id}", method="GET"),
)
converse(
    "chain",
    "a stream that goes on without its client",
    Sent("/generate", {"max_tokens": 12, "seed": 7, "stream": True, "detach": True, "sampler": {"steps": 6}}),
    Sent("/generate/{id}", method="GET", until_ended=True),
    Sent("/generate/{id}/events?after={event 4}", method="GET"),
)
score("chain", "orders", input=[1, 0, 2, 3, 1, 1], seed=1, per_token=True)
score("chain", "integral", input=[1, 0, 2, 3, 1, 1], seed=1, budget=64, estimator="integral", published_integrand=True)
score("chain", "windows", input=[0, 1, 2, 3, 3] * 30, seed=2, budget=120, estimator="integral", overlap=16)
score("chain", "windows of orders", input=[0, 1, 2, 3, 3] * 14, seed=2)
score("chain", "a stream", input=[1, 2, 3], seed=3, stream=True)
plan("chain", "ancestral", n=2, seed=1, sampler={"name": "ancestral", "steps": 50})


# --- what is kept of an answer ---------------------------------------------------------------------------------------

JOB_ID = re.compile(r"(?:gen|score)-[0-9a-f]{32}")
BLANKED = (
    (re.compile(r'"(queue_ms|first_unmask_ms|total_ms|created|rounds)":[\d.e+-]+'), r'"\1":0'),
    (re.compile(r'"eta_ms":(?:null|[\d.e+-]+)'), '"eta_ms":0'),
    (re.compile(r'"queue":\{"running":\d+,"waiting":\d+,"network_evaluations":\d+\}'), '"queue":{}'),
    (re.compile(r'"fingerprint":"[0-9a-f]+"'), '"fingerprint":""'),
    (re.compile(r'"message":"(?:[^"\\]|\\.)+"'), '"message":""'),
)
# of a job that has not ended, or was cancelled
UNFINISHED = (
    (re.compile(r'"state":"(?:waiting|running)"'), '"state":"unfinished"'),
    (re.compile(r'"progress":[\d.e+-]+'), '"progress":0'),
    (re.compile(r'"network_evaluations_done":\d+'), '"network_evaluations_done":0'),
)
# they differ in every answer, or with the length of what is blanked
PASSING_HEADERS = {"date", "content-length", "x-request-id", "connection", "transfer-encoding", "server"}


@dataclass
class Talk:
    """A conversation as it is held: what later requests need of earlier answers."""

    http: httpx.Client
    key: str = field(default_factory=lambda: secrets.token_hex(8))
    jobs: Lines = field(default_factory=list)  # ids in the order in which they were first seen
    events: Lines = field(default_factory=list)  # ids of the last whole stream

    def send(self, sent: Sent) -> Recording:
        """What is kept of the answer to a request."""
        if sent.until_ended:
            wait_for(lambda: self.http.get(self.filled(sent.path)).json()["state"] == "finished", ANSWER_SECONDS)
        content = sent.body if sent.body is None or isinstance(sent.body, bytes) else json.dumps(sent.body).encode()
        headers = {} if content is None else {"content-type": "application/json"}
        headers |= {name: self.filled(value) for name, value in sent.headers.items()}
        response = self.http.request(sent.method, self.filled(sent.path), content=content, headers=headers)
        text = response.content.decode()
        self.jobs += [job for job in dict.fromkeys(JOB_ID.findall(text)) if job not in self.jobs]
        kept = {name: value for name, value in response.headers.items() if name not in PASSING_HEADERS}
        return {
            "status": response.status_code,
            "headers": {name: self.blanked(value) for name, value in sorted(kept.items())},
            "body": [self.blanked(line) for line in self.lines(sent, response, text)],
        }

    def filled(self, template: str) -> str:
        """A path or header with the ids that it names."""
        with_events = re.sub(r"\{event (\d+)\}", lambda found: self.events[int(found[1])], template)
        return with_events.replace("{id}", self.jobs[-1] if self.jobs else "").replace("{key}", self.key)

    def lines(self, sent: Sent, response: httpx.Response, text: str) -> Lines:
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            return self.stream(text, whole="after" not in sent.path and not sent.headers, ends_only=sent.ends_only)
        if sent.path == "/openapi.json":
            described = json.loads(text)
            return [f"{path}: {json.dumps(_shape(described, each))}" for path, each in described["paths"].items()]
        if sent.path == "/metrics":
            return sorted(line for line in text.split("\n") if line.startswith("# TYPE unmask_"))
        return text.split("\n")

    def stream(self, text: str, whole: bool, ends_only: bool) -> Lines:
        """The lines of a stream's events without their ids; events of one sample in order, one sample after another.

        How the samples of a request take turns depends on speculation, as does which `progress` events there are.
        """
        assert text.endswith("\n\n"), "the stream ended within an event"
        ids: Lines = []
        events = []
        for block in text.replace("\r\n", "\n").split("\n\n"):
            lines = [line for line in block.split("\n") if line and not line.startswith(":")]
            if lines:
                assert lines[0].startswith("id: "), lines
                ids.append(lines[0].removeprefix("id: "))
                events.append(lines[1:])
        numbers = [int(each) for each in ids]
        assert numbers == sorted(set(numbers)), f"event ids must increase: {numbers}"
        if whole:
            self.events = ids
        kinds = [event[0].removeprefix("event: ") for event in events]
        last_progress = max((place for place, kind in enumerate(kinds) if kind == "progress"), default=None)
        kept = [event for place, event in enumerate(events) if kinds[place] != "progress" or place == last_progress]
        if ends_only:
            kept = [kept[0], kept[-1]]
        kept.sort(key=_sample_of)  # stable
        return [line for event in kept for line in event]

    def blanked(self, text: str) -> str:
        for place, job in enumerate(self.jobs):
            text = text.replace(job, f"job {place}")
        for pattern, blank in BLANKED:
            text = pattern.sub(blank, text)
        if re.search(r'"state":"(?!finished)', text):
            for pattern, blank in UNFINISHED:
                text = pattern.sub(blank, text)
        return text


def _shape(described: Body, part: Any) -> Any:  # noqa: ANN401 — JSON
    """A part of an OpenAPI description without its prose and the names of classes and functions."""
    if isinstance(part, list):
        return [_shape(described, each) for each in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        _, *path = part["$ref"].split("/")
        return _shape(described, functools.reduce(lambda found, name: found[name], path, described))
    prose = {
        name
        for name in ("description", "title", "summary", "operationId", "tags")
        if isinstance(part.get(name), str | list)
    }
    return {name: _shape(described, each) for name, each in part.items() if name not in prose}


def _sample_of(event: Lines) -> int:
    """-1 before, and a number above all samples after the `unmask` events."""
    name, data = event
    if name == "event: unmask":
        return int(json.loads(data.removeprefix("data: "))["index"])
    return -1 if name == "event: start" else 1_000_000


# --- the test --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recording(request: pytest.FixtureRequest) -> Iterator[Recording]:
    """The recorded answers; with --record what the tests put into it is written when they have ended."""
    found: Recording = json.loads(RECORDING.read_text()) if RECORDING.exists() else {"fingerprints": {}, "answers": {}}
    yield found
    if request.config.getoption("--record"):
        found["answers"] = {name: found["answers"][name] for name in CONVERSATIONS if name in found["answers"]}
        RECORDING.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n")


@pytest.fixture(scope="module")
def servers(table: Server, chain: Server) -> Iterator[dict[str, Server]]:
    with Server(Path("tales")) as tales:
        yield {"tales": tales.until_ready(), "table": table, "chain": chain}


@pytest.fixture(scope="module")
def fingerprints(servers: dict[str, Server]) -> dict[str, str]:
    return {model: server.generate(max_tokens=1, seed=0)["fingerprint"] for model, server in servers.items()}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_answers_are_as_recorded(
    name: str,
    recording: Recording,
    servers: dict[str, Server],
    fingerprints: dict[str, str],
    pytestconfig: pytest.Config,
) -> None:
    conversation = CONVERSATIONS[name]
    same_machine = recording["fingerprints"].get(conversation.model) == fingerprints[conversation.model]
    record = pytestconfig.getoption("--record")
    if conversation.model == "tales" and conversation.arithmetic and not same_machine and not record:
        pytest.skip("the tokens of tales were recorded on another kind of machine")
    talk = Talk(servers[conversation.model].http)
    answers = [talk.send(sent) for sent in conversation.sent]
    if record:
        recording["fingerprints"][conversation.model] = fingerprints[conversation.model]
        recording["answers"][name] = answers
    elif same_machine:
        assert answers == recording["answers"][name]
    else:
        told, expected = (json.dumps(each).split('"') for each in (answers, recording["answers"][name]))
        assert list(_without_decimals(told)) == list(_without_decimals(expected))
        assert list(_decimals(told)) == pytest.approx(list(_decimals(expected)), rel=1e-4, abs=1e-6)


def test_nothing_else_is_recorded(recording: Recording) -> None:
    assert set(recording["answers"]) == set(CONVERSATIONS)
    assert set(recording["fingerprints"]) == set(MODELS)


DECIMAL = re.compile(r"-?\d+\.\d+(?:e[+-]?\d+)?|-?\d+e[+-]?\d+")


def _without_decimals(texts: Iterable[str]) -> Iterator[str]:
    return (DECIMAL.sub("decimal", text) for text in texts)


def _decimals(texts: Iterable[str]) -> Iterator[float]:
    return (float(found) for text in texts for found in DECIMAL.findall(text))
