"""What a request is told when it is let in, or why it is not: forecasts, deadlines, bounds."""

import asyncio
import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from unmask_diffusion import GenerationRequest, Model, Plan, make_plan
from unmask_service.api import (
    MAX_DEADLINE_MS,
    Gate,
    ModelCard,
    Models,
    ServedModel,
    Service,
    Vocabulary,
    admission,
    create_app,
)
from unmask_service.api.errors import RefusedError
from unmask_service.api.followers import AnyFollower, Generation
from unmask_service.api.schemas import GenerateAnswer, GenerateBody
from unmask_service.api.score_schemas import ScoreBody
from unmask_service.api.service import PLANS_AT_A_TIME, Cache
from unmask_service.broker import Finished, Job, MemoryBroker
from unmask_service.forecast import Capacity, Pace, Work, outlook, seconds_of_work
from unmask_service.metrics import Metrics

from tests.helpers import ToyModel, plan_for, prime_model
from tests.helpers_asgi import ask_here
from tests.helpers_server import Body, OpenStream, Server, token_ids, unmask, wait_for, with_open_streams

PRIME = prime_model(length=24)
SECOND_A_TICK = Capacity(tokens_per_tick=100, pace=Pace(evaluation=1.0, token=1e-6, row=1e-6))


# --- without HTTP: an engine that only says how fast it is ---------------------------------------------------------


class Desk:
    """A service in front of a queue that nobody serves."""

    def __init__(self, max_requests: int = 10, max_evaluations: int | None = None, model: ToyModel = PRIME) -> None:
        self.broker = MemoryBroker(max_requests, max_evaluations)
        card = SimpleNamespace(id="toy", limits=SimpleNamespace(max_samples=64, max_body_bytes=1 << 20))
        self.service = Service(cast(ModelCard, card), self.broker, Metrics("toy"))
        self.service.gate.open(ServedModel("toy", model, Vocabulary(model)))

    async def admit(self, **body: Any) -> AnyFollower:  # noqa: ANN401 — JSON
        return await admission.admit(self.service, GenerateBody.model_validate(body))


def test_a_full_queue_refuses_before_anything_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = 0

    def counted(*_: object) -> None:
        nonlocal planned
        planned += 1
        raise AssertionError

    async def test() -> None:
        desk = Desk(max_requests=1)
        await desk.admit(max_tokens=2)
        monkeypatch.setattr(admission, "make_plan", counted)
        for _ in range(3):
            with pytest.raises(RefusedError) as refused:
                await desk.admit(max_tokens=2)
            assert (refused.value.status_code, refused.value.code) == (429, "queue_full")

    asyncio.run(test())
    assert planned == 0


def test_of_a_crowd_only_as_many_are_planned_in_vain_as_are_planned_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = []

    def counted(model: Model, request: GenerationRequest, max_tokens: int) -> Plan:
        planned.append(request)
        return make_plan(model, request, max_tokens)

    monkeypatch.setattr(admission, "make_plan", counted)

    async def test() -> None:
        desk = Desk(max_requests=2)
        answers = await asyncio.gather(*(desk.admit(max_tokens=2) for _ in range(50)), return_exceptions=True)
        assert sum(isinstance(answer, Generation) for answer in answers) == 2
        assert sum(isinstance(answer, RefusedError) and answer.code == "queue_full" for answer in answers) == 48

    asyncio.run(test())
    assert len(planned) < 10


def test_retry_after_is_when_the_work_at_hand_should_be_done() -> None:
    async def test() -> None:
        desk = Desk(max_requests=3)
        await desk.broker.report(SECOND_A_TICK)
        for tokens in (4, 24, 10):
            await desk.admit(max_tokens=tokens, seed=1)
        with pytest.raises(RefusedError, match="the queue is full") as refused:
            await desk.admit(max_tokens=1)
        expected = seconds_of_work(await desk.broker.load(), SECOND_A_TICK)
        assert refused.value.headers == {"Retry-After": str(math.ceil(expected))}
        assert expected == pytest.approx(48, rel=0.01), "all share the ticks of the longest"

    asyncio.run(test())


def test_without_an_engine_nothing_is_promised() -> None:
    async def test() -> None:
        desk = Desk(max_requests=1)
        with pytest.raises(RefusedError) as unavailable:
            await desk.admit(max_tokens=2, deadline_ms=1000)
        assert (unavailable.value.status_code, unavailable.value.code) == (503, "no_worker")
        assert (await desk.admit(max_tokens=2)).job.expected_seconds is None
        with pytest.raises(RefusedError, match="the queue is full") as refused:
            await desk.admit(max_tokens=2)
        assert refused.value.headers == {"Retry-After": "1"}

    asyncio.run(test())


def test_the_forecast_goes_with_the_job() -> None:
    async def test() -> None:
        desk = Desk()
        await desk.broker.report(SECOND_A_TICK)
        for tokens in (24, 24, 24, 24, 24, 3):
            load = await desk.broker.load()
            job = (await desk.admit(max_tokens=tokens, n=2, seed=1)).job
            work = Work.of(job.plan)
            assert job.expected_seconds == outlook(load, SECOND_A_TICK, work).seconds_of(work)

    asyncio.run(test())


@pytest.mark.parametrize(("deadline_ms", "steps"), [(61_000, 48), (50_000, 39), (12_600, 10), (1300, 1)])
def test_a_deadline_takes_as_many_groups_as_fit(deadline_ms: int, steps: int) -> None:
    """A tick takes a second; four fifths of the deadline are planned."""

    async def test() -> None:
        desk = Desk()
        await desk.broker.report(SECOND_A_TICK)
        plan = (await desk.admit(max_tokens=24, n=2, seed=3, deadline_ms=deadline_ms)).job.plan
        assert plan == plan_for(PRIME, max_tokens=24, n=2, seed=3, sampler={"steps": steps})

    asyncio.run(test())


def test_what_is_asked_for_is_never_exceeded_for_a_deadline() -> None:
    async def test() -> None:
        desk = Desk()
        await desk.broker.report(SECOND_A_TICK)
        plan = (await desk.admit(max_tokens=24, seed=3, sampler={"steps": 7}, deadline_ms=MAX_DEADLINE_MS)).job.plan
        assert plan == plan_for(PRIME, max_tokens=24, seed=3, sampler={"steps": 7})
        done = (await desk.admit(canvas=[1, 2], seed=3, deadline_ms=1)).job
        assert done.plan.network_evaluations == 0

    asyncio.run(test())


def test_queueing_is_taken_off_a_deadline() -> None:
    """Four canvases fill the ticks for 48 s; the fifth has what is left."""

    async def test() -> None:
        desk = Desk()
        await desk.broker.report(SECOND_A_TICK)
        for _ in range(5):
            await desk.admit(max_tokens=24, seed=3)
        with pytest.raises(RefusedError) as refused:
            await desk.admit(max_tokens=24, seed=3, deadline_ms=50_000)
        shortest = int(str(refused.value.message).split()[-1])
        assert refused.value.param == "deadline_ms"
        assert 49_000 / admission.PLANNED_SHARE <= shortest <= 80_000
        with pytest.raises(RefusedError, match="deadline_ms"):
            await desk.admit(max_tokens=24, seed=3, deadline_ms=shortest - 2)
        plan = (await desk.admit(max_tokens=24, seed=3, deadline_ms=shortest)).job.plan
        assert plan == plan_for(PRIME, max_tokens=24, seed=3, sampler={"steps": 1})

    asyncio.run(test())


A_SECOND_A_CANVAS = Capacity(tokens_per_tick=1000, pace=Pace(evaluation=1e-6, token=1 / 24, row=1e-6))


async def claimed(desk: Desk, **body: Any) -> Generation:  # noqa: ANN401 — JSON
    """Queue a generation and claim it."""
    admitted = await desk.admit(**body)
    claim = await desk.broker.claim_now()
    assert claim is not None
    assert claim.job.id == admitted.job.id
    return await Generation.known(desk.service, admitted.job.id)


@pytest.mark.parametrize("samples", [1, 4])
def test_a_running_job_is_not_its_own_competitor(samples: int) -> None:
    """48 evaluations of each sample, a second each, alone: not twice that."""

    async def test() -> None:
        desk = Desk()
        await desk.broker.report(A_SECOND_A_CANVAS)
        status = await (await claimed(desk, max_tokens=24, n=samples, seed=1)).status()
        assert status.state == "running"
        assert status.eta_ms == pytest.approx(48_000 * samples, rel=0.01)

    asyncio.run(test())


def test_others_that_run_are_competitors() -> None:
    async def test() -> None:
        desk = Desk()
        await desk.broker.report(A_SECOND_A_CANVAS)
        first = await claimed(desk, max_tokens=24, seed=1)
        second = await claimed(desk, max_tokens=24, seed=2)
        for job in (first, second):
            assert (await job.status()).eta_ms == pytest.approx(96_000, rel=0.01)

    asyncio.run(test())


def test_cancelling_does_not_wait_for_the_plans_of_others() -> None:
    async def test() -> None:
        desk = Desk()
        app = create_app(Models([desk.service]))
        job = (await desk.admit(max_tokens=24, seed=1)).job
        for _ in range(PLANS_AT_A_TIME):
            await desk.service.shared.planning.acquire()
        for method, state in (("GET", "waiting"), ("DELETE", "cancelled"), ("GET", "cancelled")):
            asked = await asyncio.wait_for(ask_here(app, f"/generate/{job.id}", method), 10)
            assert (asked.status, asked.json()["state"]) == (200, state)

    asyncio.run(test())


def test_a_job_that_is_forgotten_once_it_is_cancelled_is_cancelled() -> None:
    """Its client reads the end and leaves before the one that cancels has looked again."""

    async def test() -> None:
        desk = Desk()
        admitted = await desk.admit(max_tokens=24, seed=1)
        follower = await Generation.known(desk.service, admitted.job.id)
        cancel = desk.broker.cancel

        async def cancel_and_forget(job_id: str) -> int | None:
            saved = await cancel(job_id)
            desk.broker.cancel = cancel  # type: ignore[method-assign]  # which leave calls
            await desk.broker.leave(job_id)
            return saved

        desk.broker.cancel = cancel_and_forget  # type: ignore[method-assign]
        status = await follower.cancel()
        assert (status.state, status.error and status.error.code) == ("cancelled", "cancelled")
        with pytest.raises(RefusedError, match="does not exist"):
            await Generation.known(desk.service, admitted.job.id)

    asyncio.run(test())


def test_an_answer_that_is_asked_for_again_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0

    async def answer(_: Generation) -> GenerateAnswer:
        nonlocal made
        made += 1
        return GenerateAnswer.model_construct()

    monkeypatch.setattr(Generation, "answer", answer)
    monkeypatch.setattr(Generation, "_finished", lambda _self, status, _answer: status)

    async def test() -> None:
        desk = Desk()
        job = (await desk.admit(canvas=[1, 2], seed=1, detach=True)).job
        await desk.broker.claim_now()
        await desk.broker.append([(job.id, Finished(1.0))])
        texts = {await (await Generation.known(desk.service, job.id)).status_json() for _ in range(5)}
        assert len(texts) == 1

    asyncio.run(test())
    assert made == 1


def test_what_is_kept_is_bounded() -> None:
    cache = Cache(10)
    for key in "abc":
        cache.put(key, b"1234")
        assert cache.get("a") == b"1234"
    assert [cache.get(key) for key in "abc"] == [b"1234", None, b"1234"], "the least recently used is dropped"
    cache.put("b", b"12345678901")
    assert [cache.get(key) for key in "abc"] == [None] * 3
    cache.put("d", b"1234567890")
    assert cache.get("d") == b"1234567890"


def test_a_gate_can_be_paused_and_closed() -> None:
    served = ServedModel("toy", PRIME, Vocabulary(PRIME))
    gate = Gate()
    for code in ("loading", "engine_failed"):
        with pytest.raises(RefusedError) as shut:
            gate.pass_through()
        assert shut.value.code == code
        gate.open(served)
        assert gate.pass_through() is served
        gate.pause("engine_failed", "one moment")
    gate.close("draining", "good night")
    gate.pause("engine_failed", "one moment")
    gate.open(served)
    with pytest.raises(RefusedError, match="good night") as shut:
        gate.pass_through()
    assert shut.value.code == "draining"


# --- over HTTP -----------------------------------------------------------------------------------------------------


def test_start_says_when_done_is_expected(writer: Server) -> None:
    eta = writer.stream(max_tokens=12, seed=1).start["eta_ms"]
    assert isinstance(eta, int)
    assert 0 < eta < 60_000
    assert writer.stream(canvas=[1, 2, 3], seed=1).start["eta_ms"] == 0


@pytest.mark.parametrize(
    ("sampler", "steps"),
    [({}, None), ({"steps": 3}, 3), ({"steps": 99}, 99), ({"name": "ancestral", "steps": 5}, 5)],
)
def test_an_answer_says_the_samplers_steps(writer: Server, sampler: Body, steps: int | None) -> None:
    assert writer.generate(max_tokens=5, seed=1, sampler=sampler)["sampling"]["steps"] == steps


def test_a_deadline_is_met_with_fewer_groups_and_the_same_sub_tokens(long_chain: Server) -> None:
    body: Body = {"max_tokens": 1024, "seed": 5}
    answer = long_chain.generate(**body, deadline_ms=1500)
    steps = answer["sampling"]["steps"]
    assert 1 <= steps < 2048
    assert answer["sampling"]["network_evaluations"] == steps
    assert answer["sampling"]["sub_tokens"] == 2048
    assert token_ids(long_chain.generate(**body, sampler={"steps": steps})) == token_ids(answer)


def test_a_deadline_with_time_to_spare_changes_no_token(writer: Server) -> None:
    body: Body = {"max_tokens": 9, "n": 3, "seed": 5}
    answer = writer.generate(**body, deadline_ms=MAX_DEADLINE_MS)
    assert answer["sampling"]["steps"] == 18
    assert token_ids(answer) == token_ids(writer.generate(**body, deadline_ms=None))
    stream = writer.stream(**body, deadline_ms=MAX_DEADLINE_MS)
    assert stream.done["choices"] == answer["choices"]


def test_a_deadline_that_nothing_can_meet_is_refused_with_the_shortest(long_chain: Server) -> None:
    response = long_chain.http.post("/generate", json={"max_tokens": 1024, "n": 64, "deadline_ms": 1})
    assert response.status_code == 422
    error = response.json()["error"]
    assert error["param"] == "deadline_ms"
    assert error["message"].startswith("deadline_ms is 1;")
    assert int(error["message"].split()[-1]) > 1


@pytest.mark.parametrize("deadline", [0, -1, 1.5, "5", True, MAX_DEADLINE_MS + 1, 10**40])
def test_a_deadline_out_of_range_is_named(writer: Server, deadline: object) -> None:
    response = writer.http.post("/generate", json={"max_tokens": 2, "deadline_ms": deadline})
    assert response.status_code == 422
    assert response.json()["error"]["param"] == "deadline_ms"


def test_a_deadline_is_for_first_hitting(writer: Server) -> None:
    body: Body = {"max_tokens": 2, "deadline_ms": 5000, "sampler": {"name": "ancestral", "steps": 3}}
    response = writer.http.post("/generate", json=body)
    assert response.status_code == 422
    error = response.json()["error"]
    assert error["param"] == "deadline_ms"
    assert "first_hitting" in error["message"]


def test_models_list_the_new_limits(writer: Server) -> None:
    limits = writer.http.get("/v1/models").json()["data"][0]["limits"]
    assert limits["max_evaluations"] is None
    assert limits["max_deadline_ms"] == MAX_DEADLINE_MS


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_probes_may_ask_for_the_head_alone(writer: Server, path: str) -> None:
    response = writer.http.head(path)
    assert response.status_code == 200
    assert response.content == b""


def test_what_was_saved_and_what_was_done_is_what_was_planned(long_chain: Server) -> None:
    """Streams that are left half-sent, one of them while it waits for its turn."""
    done, saved = (f'unmask_network_evaluations{kind}_total{{model="long-chain"}}' for kind in ("", "_saved"))
    before = long_chain.metric(done) + long_chain.metric(saved)
    body: Body = {"max_tokens": 1024, "n": 2}

    async def then(_: object, streams: list[OpenStream]) -> None:
        assert len(streams) == 8

    with_open_streams(long_chain.url, [body] * 8, then)
    long_chain.until_idle()
    planned = before + 8 * 2 * 2048
    wait_for(lambda: long_chain.metric(done) + long_chain.metric(saved) == planned, 60)


def test_a_queue_bounded_by_evaluations(bundles: Path) -> None:
    """One request of 32768 evaluations is let in where 100 may wait or run, and then nobody else is."""
    with Server(bundles / "long-chain", "--max-evaluations", "100") as server:
        server.until_ready()
        assert server.http.get("/v1/models").json()["data"][0]["limits"]["max_evaluations"] == 100

        async def then(client: Any, streams: list[OpenStream]) -> None:  # noqa: ANN401 — httpx.AsyncClient
            assert len(streams) == 1
            refusal = await client.post("/generate", json={"max_tokens": 1})
            assert refusal.status_code == 429
            assert int(refusal.headers["retry-after"]) >= 1
            assert "100 network evaluations" in refusal.json()["error"]["message"]

        with_open_streams(server.url, [{"max_tokens": 1024, "n": 16}], then)
        server.until_idle()
        server.generate(max_tokens=1)


def test_a_model_that_does_not_fit_the_memory_budget_is_refused(bundles: Path) -> None:
    ended = unmask("serve", "--model", bundles / "long-chain", "--port", "0", "--memory-budget", "1000")
    assert ended.returncode == 2, ended.stderr
    last = ended.stderr.strip().splitlines()[-1]
    assert "1024 tokens" in last
    assert "1000 bytes" in last


def test_a_small_memory_budget_bounds_the_ticks(bundles: Path, writer: Server) -> None:
    """Room for one canvas: the ticks are as small as that, and the tokens the same."""
    body: Body = {"max_tokens": 20, "n": 4, "seed": 3}
    with Server(bundles / "writer", "--memory-budget", "60000") as server:
        assert token_ids(server.until_ready().generate(**body)) == token_ids(writer.generate(**body))
        ticks = server.metric('unmask_evaluation_seconds_count{model="writer"}')
        assert "tokens a tick" in server.output()
    assert ticks == 4 * 40


def test_jobs_carry_no_forecast_unless_told() -> None:
    assert Job("a", plan_for(PRIME, max_tokens=1), 0.0).expected_seconds is None


def test_large_texts_are_planned_one_at_a_time_and_others_do_not_wait_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A megabyte of text that may fit the model, for all that its length says, is counted in pieces first."""
    pieces: list[int] = []

    class Tokenizer:
        longest = 100_000

        def get_vocab(self) -> dict[str, int]:
            return {"a" * self.longest: 0}

        def encode_batch_fast(self, texts: list[str], add_special_tokens: bool) -> list[SimpleNamespace]:
            assert not add_special_tokens
            pieces.append(len(texts[0]))
            return [SimpleNamespace(ids=[0] * len(texts[0]))]

    model = dataclasses.replace(PRIME, tokenizer=cast(Any, Tokenizer()))
    monkeypatch.setattr(admission, "return_freed_memory", lambda: None)
    for body in (GenerateBody(prompt="a" * 400_000), ScoreBody(input="a" * 400_000, prompt="b")):
        with pytest.raises(RefusedError) as refused:
            admission.plan_of(model, body)
        assert refused.value.param in ("prompt", "input")
        assert max(pieces) <= admission.SLICE
    pieces.clear()
    Tokenizer.longest = 1000
    with pytest.raises(RefusedError, match="at most 24000 characters"):
        admission.plan_of(model, GenerateBody(prompt="a" * 400_000))
    assert not pieces, "a text that is longer than all tokens of the model's length is not even counted"
    assert not admission.is_large(GenerateBody(prompt="a" * 1000))
    assert not admission.is_large(ScoreBody(input=[1] * 100_000))
