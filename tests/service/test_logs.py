"""Logs: lines that machines and people can rely on, and that give away neither prompts nor secrets."""

import io
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from unmask_diffusion import Reveal, ScoreRequest, make_score_plan
from unmask_service.broker import Finished, Job, JobProgress, Revealed, Started
from unmask_service.logs import LogFormat, LogHandler, facts_of, log_rejection, log_request

from tests.helpers import plan_for, table_model
from tests.helpers_server import ANSWER_SECONDS, Body, Server, environment, wait_for

MODEL = table_model(classes=3, length=4, digits=2)


class Log:
    """A logger whose lines are written as the server's are."""

    def __init__(self, log_format: LogFormat, log_prompts: bool = False, name: str = "tests.logs") -> None:
        self.handler = LogHandler(log_format, log_prompts)
        self.handler.setStream(io.StringIO())
        self.logger = logging.getLogger(name)
        self.logger.addHandler(self.handler)
        self.logger.setLevel(logging.DEBUG)
        self.logger.propagate = False

    @property
    def text(self) -> str:
        written: str = self.handler.stream.getvalue()
        return written

    def objects(self) -> list[Body]:
        return [json.loads(line) for line in self.text.splitlines()]

    def close(self) -> None:
        self.logger.removeHandler(self.handler)
        self.logger.propagate = True
        self.logger.setLevel(logging.NOTSET)


@pytest.fixture
def text() -> Iterator[Log]:
    log = Log("text")
    yield log
    log.close()


@pytest.fixture
def as_json() -> Iterator[Log]:
    log = Log("json")
    yield log
    log.close()


def log_a_fault(logger: logging.Logger, message: str) -> None:
    try:
        raise RuntimeError(message)
    except RuntimeError:
        logger.exception("it failed")


def test_a_json_line_is_an_object(as_json: Log) -> None:
    as_json.logger.warning("half of %d", 3, extra={"id": "gen-1", "queue_ms": 0.25, "worker": None})
    log_a_fault(as_json.logger, "inside")
    first, second = as_json.objects()
    said_at = first.pop("time")
    assert said_at.endswith("+00:00")
    assert said_at.startswith(time.strftime("%Y", time.gmtime()))
    assert first == {
        "level": "WARNING",
        "logger": "tests.logs",
        "message": "half of 3",
        "id": "gen-1",
        "queue_ms": 0.25,
        "worker": None,
    }
    assert second["message"] == "it failed"
    assert second["exc_info"].startswith("Traceback")
    assert second["exc_info"].endswith("RuntimeError: inside")


def test_a_text_line_is_for_people(text: Log) -> None:
    text.logger.warning("half of %d", 3, extra={"id": "gen-1", "queue_ms": 0.25, "who": 'a "b"=c'})
    said_at, _, rest = text.text.partition(" WARNING ")
    time.strptime(said_at, "%Y-%m-%d %H:%M:%S,%f")
    assert rest == 'tests.logs half of 3 id=gen-1 queue_ms=0.25 who="a \\"b\\"=c"\n'


@example("text", "2 lines\n2026-01-01 00:00:00,000 INFO unmask all is well", "\r\n")
@given(st.sampled_from(get_args(LogFormat)), st.text(max_size=60), st.text(max_size=60))
def test_what_is_quoted_can_not_break_a_line(log_format: LogFormat, message: str, value: str) -> None:
    log = Log(log_format)
    log.logger.info("%s", message, extra={"who": value})
    log.close()
    assert len(log.text.splitlines()) == 1, repr(log.text)
    if log_format == "json":
        assert [(line["message"], line["who"]) for line in log.objects()] == [(message, value)]


def test_what_an_exception_quotes_can_not_forge_a_line(text: Log) -> None:
    forged = "2026-01-01 00:00:00,000 INFO unmask all is well"
    for separator in ("\n", "\r", "\r\n", "\x0b", "\x85", "\u2028"):
        log_a_fault(text.logger, f"no{separator}{forged}\x1b[2J")
    assert forged in text.text
    assert not [line for line in text.text.splitlines() if line.startswith(forged)]
    assert "\x1b" not in text.text


# --- secrets ---------------------------------------------------------------------------------------------------------

KEY = f"unmask-key-{'Alice-7' * 6}x"


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        (KEY, f"refused {KEY}"),
        (KEY, f"Authorization: Bearer {KEY}"),
        ("abc.DEF-123=", "{'authorization': 'bearer abc.DEF-123='}"),
        ("hunter2", "cannot reach redis://:hunter2@redis:6379/0"),
        ("hunter2", "cannot reach rediss://user:hunter2@redis:6379/0, trying redis://user:hunter2@other"),
    ],
)
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_secrets_are_not_written(secret: str, message: str, log_format: LogFormat) -> None:
    log = Log(log_format)
    log.logger.error(message)
    log.logger.error("%s", {"value": message}, extra={"field": message, "fields": [message]})
    log_a_fault(log.logger, message)
    log.close()
    assert "***" in log.text
    assert secret not in log.text


def test_what_is_no_secret_is_written(text: Log) -> None:
    text.logger.info("listening on http://127.0.0.1:8000/generate/gen-1@x, unmask-key")
    assert "listening on http://127.0.0.1:8000/generate/gen-1@x, unmask-key" in text.text


# --- one line a request ----------------------------------------------------------------------------------------------


def a_progress() -> JobProgress:
    progress = JobProgress()
    progress.note(Started(10.5, "kind"))
    progress.note(Revealed(10.75, Reveal(0, 0, ((0, 0, 1),))))
    progress.note(Finished(12.0))
    return progress


def a_job() -> Job:
    plan = plan_for(MODEL, canvas=[2, None, 1, None], seed=7, n=2, sampler={"steps": 3})
    return Job("gen-1", plan, submitted_at=10.0, expected_seconds=1.5, request_id="mine", trace_id="ab")


def test_the_facts_of_a_generation() -> None:
    assert facts_of(a_job(), a_progress(), "failed", "engine", model="tales") == {
        "outcome": "failed",
        "reason": "engine",
        "model": "tales",
        "endpoint": "/generate",
        "id": "gen-1",
        "request_id": "mine",
        "trace_id": "ab",
        "sampler": "first_hitting",
        "steps": 3,
        "seed": 7,
        "samples": 2,
        "length": 4,
        "sub_tokens": 8,
        "network_evaluations": 6,
        "idle_steps": 0,
        "rounds": 1,
        "queue_ms": 500.0,
        "first_unmask_ms": 750.0,
        "total_ms": 2000.0,
        "eta_ms": 1500.0,
        "canvas": (2, None, 1, None),
    }


@pytest.fixture(params=[False, True])
def requests(request: pytest.FixtureRequest) -> Iterator[Log]:
    log = Log("json", log_prompts=request.param, name="unmask.requests")
    yield log
    log.close()


def test_a_request_is_one_line(requests: Log, request: pytest.FixtureRequest) -> None:
    log_request(a_job(), a_progress(), "finished", model="tales")
    (line,) = requests.objects()
    asked_for = request.node.callspec.params["requests"]
    fields = "outcome model endpoint id request_id trace_id sampler steps seed samples length sub_tokens "
    fields += "network_evaluations idle_steps rounds queue_ms first_unmask_ms total_ms eta_ms"
    expected = {*fields.split(), *(["canvas"] if asked_for else [])}
    assert line.keys() - {"time", "level", "logger", "message"} == expected
    assert line.get("canvas") == ([2, None, 1, None] if asked_for else None)
    assert (line["level"], line["logger"], line["message"]) == ("INFO", "unmask.requests", "request")


def test_a_score_is_one_line(requests: Log, request: pytest.FixtureRequest) -> None:
    """Its text is as private as a prompt."""
    plan = make_score_plan(MODEL, ScoreRequest(input=[2, 1, 1], prompt=[0], seed=7))
    log_request(Job("score-1", plan, submitted_at=10.0), a_progress(), "finished", model="tales")
    (line,) = requests.objects()
    assert (line["estimator"], line["seed"], line["samples"], line["sub_tokens"]) == ("orders", 7, 8, 6)
    assert line.get("canvas") == ([0, 2, 1, 1] if request.node.callspec.params["requests"] else None)
    assert "sampler" not in line


def test_a_rejected_request_is_a_line_too(requests: Log) -> None:
    log_rejection("queue_full", "tales", "/generate")
    (line,) = requests.objects()
    assert {name: line[name] for name in ("outcome", "reason", "model")} == {
        "outcome": "rejected",
        "reason": "queue_full",
        "model": "tales",
    }
    assert "id" not in line


# --- the whole, in a process of its own ------------------------------------------------------------------------------

SPEAK = """
import logging, sys, warnings
from unmask_service.logs import configure_logging
configure_logging(sys.argv[1], "json")
for name in ("unmask", "unmask.requests", "uvicorn.error", "redis.connection", "sse_starlette.sse"):
    for level in ("debug", "info", "warning"):
        getattr(logging.getLogger(name), level)("%s %s", level, name)
warnings.warn("old")
"""


def spoken(level: str) -> set[str]:
    ended = subprocess.run(
        [sys.executable, "-c", SPEAK, level], env=environment(), capture_output=True, text=True, check=True
    )
    assert not ended.stdout
    return {json.loads(line)["message"].splitlines()[0] for line in ended.stderr.splitlines()}


def test_libraries_are_quieter_than_we_are() -> None:
    said = spoken("info")
    assert {line for line in said if "unmask" in line} == {
        f"{level} {name}" for level in ("info", "warning") for name in ("unmask", "unmask.requests")
    }
    assert {line for line in said if "uvicorn" in line} == {"warning uvicorn.error"}
    assert {line for line in said if "redis" in line} == {"warning redis.connection"}
    assert any("UserWarning: old" in line for line in said), "warnings are lines too"


def test_at_debug_level_nothing_is_said_that_quotes_clients() -> None:
    """sse-starlette would write whole events, redis-py what a connection gets."""
    said = spoken("debug")
    assert "debug unmask" in said
    assert "debug uvicorn.error" in said
    assert not {"debug sse_starlette.sse", "debug redis.connection"} & said
    assert {"info redis.connection", "info sse_starlette.sse"} <= said


# --- a real server ---------------------------------------------------------------------------------------------------


def lines_of(server: Server) -> list[Body]:
    return [json.loads(line) for line in server.output().splitlines()]


def line_about(server: Server, generation: str) -> Body:
    """Written when the generation ends, which may be just after its answer."""

    def found() -> list[Body]:
        return [line for line in lines_of(server) if line.get("id") == generation]

    wait_for(lambda: bool(found()), ANSWER_SECONDS)
    (line,) = found()
    return line


@pytest.fixture(scope="module")
def telling(bundles: Path) -> Iterator[Server]:
    """A server that logs all it can, but no prompts."""
    with Server(bundles / "writer", "--log-format", "json", "--log-level", "debug") as server:
        yield server.until_ready()


def test_a_server_logs_one_line_a_request(telling: Server) -> None:
    headers = {"x-request-id": "mine", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    answer = telling.http.post("/generate", json={"prompt": "xyzzy", "max_tokens": 3}, headers=headers).json()
    line = line_about(telling, answer["id"])
    assert (line["outcome"], line["model"], line["request_id"]) == ("finished", "writer", "mine")
    assert line["seed"] == answer["sampling"]["seed"]
    assert line["network_evaluations"] == answer["sampling"]["network_evaluations"]
    assert 0 <= line["queue_ms"] <= line["first_unmask_ms"] <= line["total_ms"]


def test_a_server_logs_rejected_requests(telling: Server) -> None:
    refused = telling.http.post("/generate", json={"n": 0}, headers={"x-request-id": "refused-1"})
    assert refused.status_code == 422
    (line,) = (line for line in lines_of(telling) if line.get("request_id") == "refused-1")
    assert (line["outcome"], line["reason"]) == ("rejected", "invalid_value")


def test_a_server_logs_no_prompts(telling: Server) -> None:
    ids = [101, 103, 107, 109]
    for fields in ({"prompt": "xyzzy-plugh"}, {"prompt": ids, "suffix": "xyzzy-plugh"}):
        ended = [telling.generate(max_tokens=2, **fields), telling.stream(max_tokens=2, **fields).done]
        assert all(line_about(telling, answer["id"])["outcome"] == "finished" for answer in ended)
        telling.http.post("/generate", json={"n": 0, **fields})
        telling.http.post("/generate", json={"max_tokens": 9999, **fields})
    said = telling.output()
    assert "xyzzy" not in said
    assert "101, 103" not in said
    assert "canvas" not in {name for line in lines_of(telling) for name in line}


def test_a_server_logs_prompts_when_it_is_told_to(bundles: Path) -> None:
    with Server(bundles / "table", "--log-format", "json", "--log-prompts", "true") as server:
        answer = server.until_ready().generate(canvas=[1, None])
        assert line_about(server, answer["id"])["canvas"] == [1, None]
