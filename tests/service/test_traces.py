"""Traces: one for a request across API, Redis and workers, as a collector receives it; and nothing without one."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import httpx
import pytest
from unmask_service import traces
from unmask_service.settings import SettingsError
from unmask_service.traces import start_traces

from tests.helpers_cluster import Cluster
from tests.helpers_redis import Redis
from tests.helpers_server import ANSWER_SECONDS, NO_CERTIFICATES, Body, environment, parse_events, wait_for
from tests.helpers_traces import Receiver, Span

BODY: Body = {"max_tokens": 20, "seed": 5, "sampler": {"steps": 40}, "n": 2, "temperature": 0.5, "top_k": 7}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def send_to(receiver: Receiver, patch: pytest.MonkeyPatch) -> None:
    """Processes that start from now on send their spans after 50 ms."""
    patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")


@pytest.fixture(scope="module")
def traced(bundles: Path, receiver: Receiver) -> Iterator[Cluster]:
    """An API process and a worker, whose tick has room for one canvas."""
    settings = {"tokens_per_tick": 64, "drain_seconds": 0, "log_format": "json"}
    with Redis() as redis, Cluster(bundles / "chain", redis.url, **settings) as cluster:
        with pytest.MonkeyPatch.context() as patch:
            send_to(receiver, patch)
            cluster.start(apis=1, workers=1)
        yield cluster


def new_trace() -> tuple[str, str, dict[str, str]]:
    """The ids of a client's trace and span, and the header that says them."""
    trace, span = token_hex(16), token_hex(8)
    return trace, span, {"traceparent": f"00-{trace}-{span}-01"}


def by_name(spans: list[Span]) -> dict[str, Span]:
    found = {span.name: span for span in spans}
    assert len(found) == len(spans), [span.name for span in spans]
    return found


def test_one_trace_across_api_redis_and_worker(traced: Cluster, receiver: Receiver) -> None:
    trace, client, headers = new_trace()
    api = traced.apis[0]
    answer = api.http.post("/generate", json=BODY, headers=headers).json()
    spans = by_name(receiver.of_trace(trace, 5))
    assert set(spans) == {"POST /generate", "admission", "answer", "queue", "text_completion chain"}
    request, admission, whole, queue, part = (
        spans[name] for name in ("POST /generate", "admission", "answer", "queue", "text_completion chain")
    )
    assert request.parent == client
    assert {span.parent for span in (admission, whole, queue, part)} == {request.id}
    assert {span.service for span in (request, admission, whole)} == {"unmask-api"}
    assert {span.service for span in (queue, part)} == {"unmask-worker"}
    assert not any(span.failed for span in spans.values())
    assert queue.begun <= queue.ended == part.begun < part.ended
    assert request.attributes["http.response.status_code"] == 200

    inference = {"gen_ai.operation.name": "text_completion", "gen_ai.provider.name": "unmask"}
    inference |= {"gen_ai.request.model": "chain"}
    for span in (admission, whole, queue, part):
        assert inference.items() <= span.attributes.items()
    usage = answer["usage"]
    assert whole.attributes["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert whole.attributes["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
    evaluations, rounds = (answer["sampling"][name] for name in ("network_evaluations", "rounds"))
    assert part.attributes == inference | {
        "gen_ai.response.id": answer["id"],
        "gen_ai.request.seed": 5,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.request.top_k": 7,
        "gen_ai.request.max_tokens": 20,
        "gen_ai.request.choice.count": 2,
        "unmask.sampler": "first_hitting",
        "unmask.network_evaluations": evaluations,
        "unmask.idle_steps": answer["sampling"]["idle_steps"],
        "unmask.takeover": False,
        "unmask.fingerprint": answer["fingerprint"],
        "unmask.rounds": rounds,
        "unmask.outcome": "finished",
    }
    sampled = [2**i for i in range(rounds.bit_length())]
    assert [(name, event["unmask.rounds"]) for name, event in part.events] == [("tick", each) for each in sampled]
    assert part.events[0][1]["unmask.network_evaluations_left"] == evaluations - 1

    wait_for(lambda: trace in traced.workers[0].output(), ANSWER_SECONDS)  # logs name the trace too


def test_streams_chats_and_scores(traced: Cluster, receiver: Receiver) -> None:
    api = traced.apis[0]
    trace, _, headers = new_trace()
    with api.http.stream("POST", "/generate", json=BODY | {"stream": True}, headers=headers) as response:
        done = [*parse_events(response.iter_lines())][-1].data
    stream = by_name(receiver.of_trace(trace, 5))["stream"]
    assert stream.attributes["gen_ai.usage.output_tokens"] == done["usage"]["completion_tokens"]

    trace, _, headers = new_trace()
    answer = api.http.post("/score", json={"input": [1, 2, 3], "budget": 40}, headers=headers)
    assert answer.status_code == 200, answer.text
    spans = by_name(receiver.of_trace(trace, 5))
    assert set(spans) == {"POST /score", "admission", "answer", "queue", "score chain"}
    assert spans["score chain"].attributes["gen_ai.operation.name"] == "score"

    trace, _, headers = new_trace()  # a call of two jobs
    asked = {"model": "chain", "prompt": [[1], [2]], "max_tokens": 3}
    completion = api.http.post("/v1/completions", json=asked, headers=headers).json()
    spans_of_call = receiver.of_trace(trace, 7)
    assert sum(span.name == "text_completion chain" for span in spans_of_call) == 2
    (whole,) = (span for span in spans_of_call if span.name == "answer")
    assert whole.attributes["gen_ai.usage.output_tokens"] == completion["usage"]["completion_tokens"] == 6


def test_a_refusal_is_seen(traced: Cluster, receiver: Receiver) -> None:
    trace, _, headers = new_trace()
    body = BODY | {"max_tokens": 10**6}
    assert traced.apis[0].http.post("/generate", json=body, headers=headers).status_code == 422
    spans = by_name(receiver.of_trace(trace, 2))
    assert set(spans) == {"POST /generate", "admission"}
    assert spans["admission"].failed
    assert spans["admission"].attributes["error.type"] == "invalid_value"
    assert not spans["POST /generate"].failed  # an error of the client is none of the server


def test_each_worker_has_its_part_of_a_generation(
    traced: Cluster, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that drains gives a generation back; another one resumes it, in the same trace."""
    trace, _, headers = new_trace()
    api, (first,) = traced.apis[0], traced.workers
    body = BODY | {"n": 4, "max_tokens": 60, "sampler": {}, "detach": True}
    accepted = api.http.post("/generate", json=body, headers=headers).json()
    path = f"/generate/{accepted['id']}"
    wait_for(lambda: api.http.get(path).json()["network_evaluations_done"] > 0, ANSWER_SECONDS)
    first.terminate()
    assert first.process.wait(ANSWER_SECONDS) == 0, first.output()
    assert api.http.get(path).json()["state"] != "finished"
    send_to(receiver, monkeypatch)
    traced.replace(first)
    wait_for(lambda: api.http.get(path).json()["state"] == "finished", ANSWER_SECONDS, api.check_alive)
    spans = receiver.of_trace(trace, 5)
    assert sorted(span.name for span in spans) == sorted(
        ["POST /generate", "admission", "queue", *2 * ["text_completion chain"]]
    )
    parts = sorted((span for span in spans if span.name == "text_completion chain"), key=lambda span: span.begun)
    assert [part.attributes["unmask.outcome"] for part in parts] == ["released", "finished"]
    assert [part.attributes["unmask.takeover"] for part in parts] == [False, True]


def test_what_operators_and_pages_ask_makes_no_spans(traced: Cluster, receiver: Receiver) -> None:
    api = traced.apis[0]
    for path in ("/health", "/ready", "/metrics", "/docs", "/"):
        assert httpx.get(api.url + path, verify=NO_CERTIFICATES).status_code == 200
    trace, _, headers = new_trace()
    assert api.http.get("/v1/models", headers=headers).status_code == 200
    receiver.of_trace(trace, 1)  # sent after those before it
    asked = {span.attributes.get("url.path") for span in receiver.spans}
    assert not asked & {"/health", "/ready", "/metrics", "/docs", "/"}


# --- settings --------------------------------------------------------------------------------------------------------


def test_nothing_is_imported_without_an_endpoint() -> None:
    """Off by default and then free: a process that serves has loaded neither the SDK's traces nor an exporter."""
    text = (
        "import sys, unmask_service.app, unmask_service.traces as traces\n"
        "traces.start_traces('serve')\n"
        "assert traces.tracer() is None and traces.trace_context() is None\n"
        "mine = ('opentelemetry.sdk.trace', 'opentelemetry.exporter')\n"
        "loaded = [name for name in sys.modules if name.startswith(mine)]\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", text], check=True, env=environment(), timeout=120)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
    ],
)
def test_traces_are_off(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    start_traces("serve")
    assert traces.tracer() is None


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"OTEL_TRACES_EXPORTER": "console"}, r"OTEL_TRACES_EXPORTER: must be otlp or none \(got 'console'\)"),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317"},
            r"OTEL_EXPORTER_OTLP_PROTOCOL: must be http/protobuf.*\(got 'grpc'\)",
        ),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json", "OTEL_TRACES_EXPORTER": "otlp"},
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: must be http/protobuf",
        ),
    ],
)
def test_what_is_not_supported_is_refused(
    variables: dict[str, str], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=complaint):
        start_traces("serve")


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(SettingsError, match=r"pip install 'unmask\[otel\]'"):
        start_traces("serve")
