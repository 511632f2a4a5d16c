"""The load test's parts: what is asked and when, what a client makes of bytes, figures of records."""

import asyncio
import contextlib
import json
import math
from array import array
from collections.abc import Callable
from dataclasses import replace
from itertools import islice, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import expon, kstest
from unmask_bench import LoadError, command
from unmask_bench.client import Call, Events, Record, connect
from unmask_bench.load import Load, LoadRun, Mix, Range, arrivals
from unmask_bench.report import Objective, distribution, summarise

from tests.helpers import FALSE_ALARM_RATE

# --- what is asked, and when ---------------------------------------------------------------------------------------


@given(st.integers(0, 2**63 - 1), st.floats(0.01, 1000))
def test_arrivals_repeat_and_scale_with_the_rate(seed: int, rate: float) -> None:
    once, again = (list(islice(arrivals(rate, seed), 20)) for _ in range(2))
    assert once == again
    assert all(earlier < later for earlier, later in pairwise([0.0, *once]))
    at_one = list(islice(arrivals(1.0, seed), 20))
    assert once == pytest.approx([at / rate for at in at_one])


def test_arrivals_are_a_poisson_process() -> None:
    """Independent exponential gaps; false alarm rate 2e-5."""
    times = [0.0, *islice(arrivals(4.0, seed=11), 4000)]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert kstest(gaps, expon(scale=0.25).cdf).pvalue > FALSE_ALARM_RATE
    # neighbours do not know of each other: their correlation is normal with deviation 1 / sqrt(n)
    mean = sum(gaps) / len(gaps)
    spread = sum((gap - mean) ** 2 for gap in gaps)
    correlation = sum((a - mean) * (b - mean) for a, b in pairwise(gaps)) / spread
    assert abs(correlation) < 4.42 / math.sqrt(len(gaps))


def bodies(mix: Mix, count: int = 200) -> list[dict[str, Any]]:
    return [json.loads(mix.call(number).body) for number in range(count)]


def test_a_request_depends_on_seed_and_number_alone() -> None:
    mix = Mix(seed=3, max_tokens=Range(2, 9), n=Range(1, 4), stream_share=0.5, leave_share=0.5)
    assert [mix.call(number) for number in (7, 2, 7)] == [mix.call(number) for number in (7, 2, 7)]
    assert len({body["seed"] for body in bodies(mix)}) == 200
    assert bodies(mix) != bodies(replace(mix, seed=4))
    changed = bodies(replace(mix, leave_share=0.0, samplers=({"name": "ancestral", "steps": 3},)))
    assert [body["seed"] for body in changed] == [body["seed"] for body in bodies(mix)]


def test_a_mix_has_all_that_it_was_given() -> None:
    samplers = ({"name": "first_hitting"}, {"name": "ancestral", "steps": 5})
    variants: tuple[dict[str, Any], ...] = ({"prompt": "a"}, {"canvas": [None, 1]})
    mix = Mix(0, {"temperature": 0.5}, variants, samplers, Range(2, 4), Range(1, 2), stream_share=0.5)
    made = bodies(mix)
    assert {body["max_tokens"] for body in made} == {2, 3, 4}
    assert {body["n"] for body in made} == {1, 2}
    assert {body["temperature"] for body in made} == {0.5}
    assert {json.dumps(body["sampler"]) for body in made} == {json.dumps(each) for each in samplers}
    assert all(("prompt" in body) != ("canvas" in body) for body in made)
    assert {body["stream"] for body in made} == {False, True}
    assert {body["stream"] for body in bodies(replace(mix, stream_share=0.0))} == {False}
    assert "max_tokens" not in bodies(Mix())[0]


def test_only_streams_are_left_before_the_end() -> None:
    calls = [Mix(stream_share=0.5, leave_share=1.0).call(number) for number in range(50)]
    assert all((call.leave_after is not None) == call.streamed for call in calls)
    assert all(call.leave_after is None for call in (Mix().call(number) for number in range(50)))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Range.parse("0", "--n"),
        lambda: Range.parse("9:3", "--n"),
        lambda: Range.parse("a", "--n"),
        lambda: Objective.parse("first_unmask"),
        lambda: Objective.parse("speed:3"),
        lambda: Objective.parse("e2e:-1"),
        lambda: Objective.parse("e2e:nan"),
        lambda: command.parse_sampler("ancestral:x", None),
        lambda: command.parse_loads(2, 2.0, None, None, None),
        lambda: command.parse_loads(None, None, "1,0", None, None),
        lambda: command.parse_loads(None, None, "rate:1,x", None, None),
        lambda: command.parse_loads(None, None, "width:1", None, None),
    ],
)
def test_options_that_mean_nothing(wrong: Callable[[], object]) -> None:
    with pytest.raises(LoadError):
        wrong()


def test_options_that_mean_something() -> None:
    assert command.parse_loads(None, None, None, None, None) == [Load(concurrency=8, requests=64)]
    assert command.parse_loads(None, 2.0, None, None, 5.0) == [Load(request_rate=2.0, seconds=5.0)]
    assert command.parse_loads(None, None, "1,4", 9, None) == [Load(1, requests=9), Load(4, requests=9)]
    assert command.parse_loads(None, None, "rate:0.5", 9, None) == [Load(request_rate=0.5, requests=9)]
    assert command.parse_sampler("ancestral", 4) == {"name": "ancestral", "steps": 4}
    assert command.parse_sampler("ancestral:8", 4) == {"name": "ancestral", "steps": 8}
    assert command.parse_objectives(["ttft:1,itl:2", "e2e:3"]) == [
        Objective("ttft", 1),
        Objective("itl", 2),
        Objective("e2el", 3),
    ]
    assert [command.usual_tokens(length) for length in (2, 1024)] == [Range(1, 2), Range(16, 64)]


# --- what a client makes of bytes ----------------------------------------------------------------------------------

ANSWER = {
    "choices": [],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    "sampling": {"seed": 1, "sub_tokens": 4, "network_evaluations": 4, "idle_steps": 0},
    "timings": {"queue_ms": 5.0, "first_unmask_ms": 6.0, "total_ms": 7.0},
}
START = {"network_evaluations": 4, "masked": 4, "eta_ms": 1500}
ERROR = {"error": {"message": "no place", "type": "overloaded_error", "param": None, "code": "queue_full"}}


def event(name: str, data: object) -> bytes:
    return f"id: 1\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()


UNMASKS = [event("unmask", {"index": i % 2, "tokens": [[0, 1, "\n\ndata: é"]]}) for i in range(4)]
STREAM = b"".join([event("start", START), UNMASKS[0], b": ping\n\n", *UNMASKS[1:], event("done", ANSWER)])


@given(st.lists(st.integers(0, len(STREAM)), max_size=12), st.booleans())
def test_events_however_they_are_cut(cuts: list[int], carriage_returns: bool) -> None:
    stream = STREAM.replace(b"\n", b"\r\n") if carriage_returns else STREAM
    record = Record(0.0)
    events = Events(record)
    for start, end in pairwise([0, *sorted(cuts), len(stream)]):
        events.feed(stream[start:end], elapsed=1.0)
    assert events.ended
    assert record.completed
    assert (record.unmasks, record.planned, record.masked, record.eta) == (4, 4, 4, 1.5)
    assert record.first_unmask == 1.0
    assert record.counted("usage", "completion_tokens") == 2


def test_between_unmasks_is_a_samples_own_time() -> None:
    record = Record(0.0)
    events = Events(record)
    for elapsed, index in ((1.0, 0), (1.5, 1), (2.0, 0), (4.0, 1)):
        events.feed(event("unmask", {"index": index}), elapsed)
    assert list(record.between_unmasks) == [1.0, 2.5]
    assert record.first_unmask == 1.0


OK, SSE = b"HTTP/1.1 200 OK\r\nConnection: close\r\n", b"Content-Type: text/event-stream\r\n\r\n"


@pytest.mark.parametrize(
    ("answered", "streamed", "outcome"),
    [
        (OK + SSE + STREAM, True, "completed"),
        (OK + SSE + STREAM[:-40], True, "stream cut off"),
        (OK + SSE + event("error", ERROR), True, "stream queue_full"),
        (OK + SSE + event("done", {}), True, "malformed answer"),
        (OK + b"\r\n" + json.dumps(ANSWER).encode(), False, "completed"),
        (OK + b"\r\n<html>", False, "malformed answer"),
        (OK + b"Content-Length: 99\r\n\r\n{", False, "connection RemoteProtocolError"),
        (b"", True, "connection RemoteProtocolError"),
        (b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n", True, "500 Internal Server Error"),
        (b"HTTP/1.1 429 Too Many\r\nConnection: close\r\n\r\n" + json.dumps(ERROR).encode(), True, "429 queue_full"),
        (None, True, "timeout"),
    ],
)
def test_kinds_of_ends(answered: bytes | None, streamed: bool, outcome: str) -> None:
    """A server that sends these bytes, or nothing for longer than its client waits."""

    gone = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        if answered is None:
            await reader.read()  # until the client goes
        writer.write(answered or b"")
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        gone.set()

    async def send() -> Record:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port, patience = server.sockets[0].getsockname()[1], 0.3 if answered is None else 60
            async with connect(f"http://127.0.0.1:{port}", patience) as client:
                record = await client.send(Call(b"{}", streamed))
            await gone.wait()
            return record

    assert asyncio.run(send()).outcome == outcome


def test_nobody_there() -> None:
    async def send() -> Record:
        async with connect("http://127.0.0.1:9", 60) as client:
            return await client.send(Call(b"{}", True))

    assert asyncio.run(send()).outcome == "connection ConnectError"


# --- loops ---------------------------------------------------------------------------------------------------------


class FakeClient:
    """Answers at once, or when it is told to."""

    def __init__(self, outcome: str = "completed") -> None:
        self.outcome = outcome
        self.calls: list[bytes] = []
        self.together = self.most = 0

    async def send(self, call: Call) -> Record:
        self.calls.append(call.body)
        self.together += 1
        self.most = max(self.most, self.together)
        for _ in range(3):
            await asyncio.sleep(0)
        self.together -= 1
        return Record(0.0, self.outcome, answer=ANSWER if self.outcome == "completed" else None)


@pytest.mark.parametrize("load", [Load(3, requests=10), Load(request_rate=1e5, requests=10)])
def test_every_request_is_sent_once(load: Load) -> None:
    client, mix = FakeClient(), Mix(seed=5)
    run = LoadRun(client, mix, load, first=4)  # type: ignore[arg-type]
    asyncio.run(run.run())
    assert sorted(client.calls) == sorted(mix.call(number).body for number in range(4, 14))
    assert len(run.records) == 10
    assert run.peak == client.most
    assert run.running == 0
    assert run.share == 1.0
    if load.concurrency:
        assert client.most == 3


def test_what_is_on_its_way_is_abandoned_where_asked() -> None:
    class Deaf(FakeClient):
        async def send(self, call: Call) -> Record:
            self.calls.append(call.body)
            await asyncio.Event().wait()
            raise AssertionError

    client = Deaf()
    run = LoadRun(client, Mix(), Load(3, seconds=0.05, abandon=True))  # type: ignore[arg-type]
    asyncio.run(run.run())
    assert (len(client.calls), run.records, run.running) == (3, [], 0)


# --- figures of records --------------------------------------------------------------------------------------------


def record_of(seconds: float, first_unmask: float | None = None, between: tuple[float, ...] = ()) -> Record:
    return Record(0.0, "completed", seconds, None, first_unmask, array("d", between), answer=ANSWER)


def run_of(records: list[Record], seconds: float) -> LoadRun:
    run = LoadRun(FakeClient(), Mix(), Load(4, requests=len(records)))  # type: ignore[arg-type]
    run.records = records
    run.begun, run._ended = 0.0, seconds
    return run


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=60))
def test_percentiles_are_interpolated_between_order_statistics(seconds: list[float]) -> None:
    found = distribution("e2el", iter(seconds))
    ordered = sorted(1000 * value for value in seconds)
    for percent in (50, 90, 99):
        place = (len(ordered) - 1) * percent / 100
        low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
        assert found[f"p{percent}_e2el_ms"] == pytest.approx(low + (high - low) * (place % 1), abs=1e-9)
    mean = sum(ordered) / len(ordered)
    assert found["mean_e2el_ms"] == pytest.approx(mean)
    assert found["std_e2el_ms"] == pytest.approx(
        math.sqrt(sum((v - mean) ** 2 for v in ordered) / len(ordered)), abs=1e-6
    )
    assert found["median_e2el_ms"] == found["p50_e2el_ms"]


def test_nothing_measured_is_null_not_zero() -> None:
    assert set(distribution("ttft", []).values()) == {None}


def test_rates_and_outcomes() -> None:
    refused = Record(0.0, "429 queue_full", message="no place")
    figures = summarise(
        run_of([record_of(1.0, 0.2, (0.1, 0.3)), record_of(3.0), refused, refused, Record(0.0, "left")], 4.0)
    )
    assert (figures["completed"], figures["failed"], figures["left"], figures["num_prompts"]) == (2, 2, 1, 5)
    assert figures["errors_by_kind"] == {"429 queue_full": 2}
    assert figures["error_messages"] == {"429 queue_full": "no place"}
    assert (figures["request_throughput"], figures["output_throughput"]) == (0.5, 1.0)
    assert (figures["total_token_throughput"], figures["evaluation_throughput"]) == (1.5, 2.0)
    assert (figures["mean_e2el_ms"], figures["mean_ttft_ms"], figures["mean_itl_ms"]) == (2000, 200, pytest.approx(200))
    assert figures["mean_queue_ms"] == 5
    assert figures["request_goodput"] is None


@pytest.mark.parametrize(
    ("objectives", "good"),
    [
        (["e2e:2000"], 2),
        (["e2el:999"], 0),
        (["first_unmask:200"], 2),
        (["first_unmask:199"], 1),
        (["between_unmasks:200"], 2),
        (["between_unmasks:199"], 1),
        (["first_unmask:200", "e2e:1000"], 1),
        (["e2e:1e9"], 4),
    ],
)
def test_goodput_counts_those_that_keep_every_objective(objectives: list[str], good: int) -> None:
    streamed = [record_of(1.0, 0.2, (0.1, 0.3)), record_of(3.0, 0.1)]
    records = [*streamed, record_of(2.0), record_of(9.0), Record(0.0, "429 queue_full", 0.001)]
    figures = summarise(run_of(records, 2.0), command.parse_objectives(objectives))
    assert figures["request_goodput"] == good / 2


def test_the_error_of_the_eta_is_its_median() -> None:
    records = [replace(record_of(2.0), planned_at=1.0, eta=eta) for eta in (0.5, 1.1, 1.2)]
    assert summarise(run_of(records, 1.0))["median_eta_error_percent"] == pytest.approx(20)
