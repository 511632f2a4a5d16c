"""Blocks through the engine, the brokers and the API: an end token makes later blocks needless everywhere."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from unmask_diffusion import ActiveSample, Plan, Reveal, sample
from unmask_service.api import Gate, ModelCard, ServedModel, Service, Vocabulary, admission
from unmask_service.api.errors import RefusedError
from unmask_service.api.followers import Generation
from unmask_service.api.schemas import GenerateBody
from unmask_service.broker import EngineBroker, Finished, Job, LogEntry, MemoryBroker, Revealed, Started
from unmask_service.broker.redis import Keys, RedisApiBroker, RedisEngineBroker, Timing, connect
from unmask_service.engine import Engine, Speculation
from unmask_service.forecast import Capacity, Pace, Work, rows_of
from unmask_service.metrics import Metrics

from tests.helpers import markov_model, plan_for, run_to_end
from tests.helpers_redis import Redis
from tests.helpers_server import Server

MODEL = dataclasses.replace(markov_model(6, 16, 2, seed=5), end_token_ids=(4,))
FIELDS: dict[str, Any] = {"n": 4, "seed": 2, "max_tokens": 14, "sampler": {"block_length": 3}}
CAPACITY = Capacity(200, Pace(1e-3, 1e-5, 1e-5))
SECOND_A_TICK = Capacity(tokens_per_tick=100, pace=Pace(evaluation=1.0, token=1e-6, row=1e-6))


def logs_alone(plan: Plan) -> list[list[Reveal]]:
    return [run_to_end(MODEL, [ActiveSample.start(MODEL, plan, index)])[0] for index in range(len(plan.schedules))]


def logs_in(entries: Sequence[LogEntry], samples: int) -> list[list[Reveal]]:
    reveals = [entry.reveal for entry in entries if isinstance(entry, Revealed)]
    return [[reveal for reveal in reveals if reveal.sample == index] for index in range(samples)]


def count(metrics: Metrics, name: str) -> float:
    return metrics.registry.get_sample_value(name, {"model": "toy"}) or 0.0


@contextlib.asynccontextmanager
async def serving(broker: EngineBroker, metrics: Metrics, speculation: Speculation = "off") -> AsyncIterator[None]:
    task = asyncio.create_task(Engine(MODEL, broker, metrics, CAPACITY, speculation=speculation).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def service_of(broker: MemoryBroker) -> Service:
    card = SimpleNamespace(id="toy", image=None, limits=SimpleNamespace(max_samples=64, max_body_bytes=1 << 20))
    service = Service(cast(ModelCard, card), broker, Metrics("toy"))
    gate: Gate = service.gate
    gate.open(ServedModel("toy", MODEL, Vocabulary(MODEL)))
    return service


@pytest.mark.parametrize("speculation", ["off", 5])
def test_an_answer_says_what_was_done_and_what_was_saved(speculation: Speculation) -> None:
    async def test() -> None:
        broker, metrics = MemoryBroker(max_requests=10), Metrics("toy")
        service = service_of(broker)
        plan = plan_for(MODEL, **FIELDS)
        done = sum(map(len, logs_alone(plan)))
        saved = plan.network_evaluations - done
        assert done > 0
        assert saved > 0
        async with asyncio.timeout(60), serving(broker, metrics, speculation):
            follower = cast(
                Generation, await admission.admit(service, GenerateBody(**FIELDS, stream=True, detach=True))
            )
            events = [event async for event in follower.events()]
            answer = await (await Generation.known(service, follower.job.id)).answer()
            status = await (await Generation.known(service, follower.job.id)).status()
            load = await broker.load()
            plain = cast(Generation, await admission.admit(service, GenerateBody(n=1, seed=2, max_tokens=3)))
            plain_answer = await plain.answer()
        assert [event.event for event in events] == ["start", *["unmask"] * done, "done"]
        assert (answer.sampling.network_evaluations, answer.sampling.evaluations_saved) == (done, saved)
        assert answer.sampling.sub_tokens == done
        expected = sample(MODEL, **FIELDS)
        assert [tuple(choice.token_ids) for choice in answer.choices] == [each.token_ids for each in expected]
        assert [choice.finish_reason for choice in answer.choices] == [each.finish_reason for each in expected]
        assert (status.progress, status.network_evaluations_done) == (1.0, plan.network_evaluations)
        assert load.evaluations == 0
        assert count(metrics, "unmask_network_evaluations_saved_total") == saved
        assert count(metrics, "unmask_network_evaluations_total") == done + 6
        assert "evaluations_saved" not in plain_answer.model_dump()["sampling"]
        assert '"evaluations_saved"' not in plain_answer.model_dump_json()
        assert '"evaluations_saved"' in answer.model_dump_json()

    asyncio.run(test())


def test_what_is_left_shrinks_by_what_is_needless() -> None:
    """A sample that has ended does not make others wait: neither for the queue's bound nor for the forecast."""

    async def test() -> None:
        broker, metrics = MemoryBroker(max_requests=10), Metrics("toy")
        plan = plan_for(MODEL, **FIELDS)
        await broker.submit(Job("a", plan, submitted_at=0.0))
        async with asyncio.timeout(60), serving(broker, metrics):
            log = [entry async for _, entry in broker.follow("a")]
        assert isinstance(log[-1], Finished)
        assert logs_in(log, 4) == logs_alone(plan)
        revealed = [entry for entry in log if isinstance(entry, Revealed)]
        assert sum(1 + entry.saved for entry in revealed) == plan.network_evaluations
        record = await broker.look_up("a")
        assert record is not None
        assert record.evaluations_left == 0

    asyncio.run(test())


def test_over_redis_another_engine_goes_on_from_any_entry() -> None:
    """After none, some, and all reveals: where every sample had ended, but the log did not say so yet."""
    plan = plan_for(MODEL, **FIELDS)
    timing = Timing(lease=0.4)

    async def test(redis: Redis, name: str, kept: int) -> None:
        async with asyncio.timeout(60), contextlib.AsyncExitStack() as stack:
            keys = Keys(name, "toy")
            api = RedisApiBroker(connect(redis.url), keys, Metrics("toy"), timing, MODEL, 100)
            first = RedisEngineBroker(connect(redis.url), keys, Metrics("toy"), timing, MODEL)
            second = RedisEngineBroker(connect(redis.url), keys, Metrics("toy"), timing, MODEL)
            for broker in (api, first, second):
                await stack.enter_async_context(broker.running())
            await first.report(CAPACITY)
            await api.submit(Job("a", plan, submitted_at=api.now(), detached=True))
            await first.claim()
            await first.append([("a", Started(first.now())), *(("a", entry) for entry in entries[:kept])])
            await first.release(blameless=True)
            metrics = Metrics("toy")
            async with serving(second, metrics):
                log = [entry async for _, entry in api.follow("a")]
            assert isinstance(log[-1], Finished)
            assert logs_in(log, 4) == logs_alone(plan)
            record = await api.look_up("a")
            assert record is not None
            assert (record.state, record.evaluations_left) == ("finished", 0)
            saved_before = sum(entry.saved for entry in entries[:kept])
            saved = plan.network_evaluations - sum(map(len, logs_alone(plan)))
            assert count(metrics, "unmask_network_evaluations_saved_total") == saved - saved_before

    async def drawn() -> list[Revealed]:
        broker = MemoryBroker(max_requests=10)
        await broker.submit(Job("a", plan, submitted_at=0.0))
        async with asyncio.timeout(60), serving(broker, Metrics("toy")):
            return [entry async for _, entry in broker.follow("a") if isinstance(entry, Revealed)]

    entries = asyncio.run(drawn())
    with Redis() as redis:
        for kept in (0, len(entries) // 2, len(entries) - 1, len(entries)):
            asyncio.run(test(redis, f"blocks{kept}", kept))


# --- deadlines and forecasts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("deadline_ms", "steps"), [(61_000, 28), (25_100, 20), (6_300, 5)])
def test_a_deadline_leaves_a_step_for_each_block(deadline_ms: int, steps: int) -> None:
    async def test() -> None:
        broker = MemoryBroker(max_requests=10)
        service = service_of(broker)
        await broker.report(SECOND_A_TICK)
        follower = await admission.admit(service, GenerateBody(**FIELDS, deadline_ms=deadline_ms))
        expected = FIELDS | {"sampler": {"block_length": 3, "steps": steps}}
        assert follower.job.plan == plan_for(MODEL, **expected)

    asyncio.run(test())


def test_a_deadline_too_short_for_the_blocks_names_the_shortest() -> None:
    async def test() -> None:
        broker = MemoryBroker(max_requests=10)
        service = service_of(broker)
        await broker.report(SECOND_A_TICK)
        with pytest.raises(RefusedError, match=r"deadline_ms is 6000.*is 62\d\d") as refused:
            await admission.admit(service, GenerateBody(**FIELDS, deadline_ms=6000))
        assert refused.value.code == "deadline_too_short"

    asyncio.run(test())


def test_rows_of_blocks() -> None:
    """Two blocks in six steps draw what two samples of half the holes in three steps draw; one sub-token, one row."""
    assert rows_of(8, 2, 6, blocks=2) == pytest.approx(2 * rows_of(4, 2, 3))
    assert rows_of(8, 2, 2, blocks=2) == pytest.approx(8)
    plan = plan_for(MODEL, **FIELDS | {"sampler": {"block_length": 1, "steps": 14}})
    assert Work.of(plan).rows == pytest.approx(4 * 14)


# --- over HTTP -----------------------------------------------------------------------------------------------------


def test_errors_over_http(table: Server) -> None:
    def refused(path: str, body: dict[str, Any]) -> dict[str, Any]:
        response = table.http.post(path, json=body)
        assert response.status_code == 422, response.text
        error: dict[str, Any] = response.json()["error"]
        return error

    for path in ("/generate", "/plan"):
        error = refused(path, {"max_tokens": 2, "sampler": {"steps": 1, "block_length": 1}})
        assert error["param"] == "sampler.steps"
        assert "sampler.steps is 1" in error["message"]
        assert "2 blocks" in error["message"]
        assert "at least 2" in error["message"]
    assert refused("/generate", {"sampler": {"block_length": 0}})["param"] == "sampler.block_length"
    assert refused("/score", {"input": [1], "block_length": 0})["param"] == "block_length"
    integral = refused("/score", {"input": [1, 2], "block_length": 1, "estimator": "integral"})
    assert integral["param"] == "block_length"
    assert "orders" in integral["message"]
    both = refused("/score", {"input": [1, 2], "block_length": 1, "published_integrand": True})
    assert both["param"] == "block_length"


def test_a_plan_and_an_answer_over_http(table: Server) -> None:
    body = {"max_tokens": 2, "seed": 1, "n": 3, "sampler": {"block_length": 1}}
    plan = table.http.post("/plan", json=body).json()
    answer = table.http.post("/generate", json=body).json()
    assert plan["network_evaluations"] == answer["sampling"]["network_evaluations"]
    assert answer["sampling"]["evaluations_saved"] == 0, "this model has no end token"
    one = table.http.post("/score", json={"input": [1, 2], "seed": 1, "block_length": 1}).json()
    whole = table.http.post("/score", json={"input": [1, 2], "seed": 1}).json()
    assert one["nats"] == pytest.approx(whole["nats"], abs=1e-5), "every order of an exact model gives the likelihood"
