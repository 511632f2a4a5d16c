"""Engines that fail: a fresh engine goes on with what was begun, but not for ever."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from unmask_diffusion import Denoiser, replay, sample
from unmask_service.broker import Departure, Failed, Finished, Job, LogEntry, MemoryBroker, Revealed, Started
from unmask_service.engine import Engine, EvaluationThread, HungEvaluationError, Supervisor, supervisor
from unmask_service.engine.isolation import BrokenModelError
from unmask_service.forecast import Capacity, Pace
from unmask_service.metrics import Metrics

from tests.helpers import DenoiserAround, ToyModel, plan_for, prime_model

PRIME = prime_model(length=12)


class Fragile(DenoiserAround):
    """A denoiser that fails so many more times, or stands still."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__(inner)
        self.failures_left = 0
        self.evaluations = 0
        self.hold = threading.Event()
        self.hold.set()

    def trunk(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        self.evaluations += 1
        self.hold.wait(30)
        if self.failures_left:
            self.failures_left -= 1
            raise RuntimeError("no device")
        return super().trunk(canvases, rows)


class House:
    """A supervised engine, and whether it says that it is up."""

    def __init__(self, hang_seconds: float | None = None) -> None:
        self.network = Fragile(PRIME.denoiser)
        self.model = replace(PRIME, denoiser=self.network)
        self.broker = MemoryBroker(max_requests=100)
        self.metrics = Metrics("toy")
        self.hang_seconds = hang_seconds
        self.states: list[str] = []
        self.up = asyncio.Event()
        self.supervisor = Supervisor(self.make, self.note_up, self.note_down, self.metrics, pause_seconds=0)
        self.running_task: asyncio.Task[None] | None = None

    def make(self, failed: Engine | None) -> Engine:
        capacity = Capacity(1000, Pace(1.0, 1.0, 1.0)) if failed is None else failed.capacity
        return Engine(self.model, self.broker, self.metrics, capacity, EvaluationThread(self.hang_seconds))

    def note_up(self) -> None:
        self.states.append("up")
        self.up.set()

    def note_down(self) -> None:
        self.states.append("down")
        self.up.clear()

    @property
    def restarts(self) -> float | None:
        return self.count("unmask_engine_restarts_total")

    def count(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"model": "toy"})

    async def until_started(self, name: str) -> None:
        await self.until_revealed(name, 0)

    async def until_revealed(self, name: str, reveals: int) -> None:
        async for position, _ in self.broker.follow(name):
            if position == 1 + reveals:
                return

    async def submit(self, name: str, **fields: object) -> None:
        await self.broker.submit(Job(name, plan_for(self.model, **fields), submitted_at=0.0))

    async def last(self, name: str) -> LogEntry:
        return [entry async for _, entry in self.broker.follow(name)][-1]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(self.supervisor.run())
        try:
            async with asyncio.timeout(60):
                yield task
        finally:
            self.network.hold.set()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def test_a_model_that_evaluates_nothing_fails_the_engine_and_the_next_one_goes_on() -> None:
    """Two evaluations raise: a request's own and the one that tries the model."""

    async def test() -> None:
        house = House()
        await house.submit("running", max_tokens=3, seed=1)
        async with house.running():
            await house.until_revealed("running", 2)
            house.network.failures_left = 2
            assert isinstance(await house.last("running"), Finished)
            assert house.states == ["up", "down", "up"]
            assert house.restarts == 1
            log = [entry async for _, entry in house.broker.follow("running")]
        reveals = [entry.reveal for entry in log if isinstance(entry, Revealed)]
        assert len(reveals) == 6, "nothing is revealed twice"
        states = replay(PRIME, plan_for(PRIME, max_tokens=3, seed=1), reveals)
        assert sub_tokens_of(states) == sub_tokens_of_answers(PRIME, max_tokens=3, seed=1)
        assert sum(isinstance(entry, Started) for entry in log) == 2
        assert house.count("unmask_takeovers_total") == 1
        assert house.count("unmask_network_evaluations_total") == 6

    asyncio.run(test())


def test_what_waits_is_evaluated_by_the_next_engine() -> None:
    async def test() -> None:
        house = House()
        house.network.hold.clear()
        house.network.failures_left = 3
        await house.submit("running", max_tokens=3, n=2, seed=1)
        async with house.running():
            await asyncio.wait_for(house.up.wait(), 30)
            await house.submit("waiting", max_tokens=3, seed=1)
            house.network.hold.set()
            for name in ("running", "waiting"):
                assert isinstance(await house.last(name), Finished)
            load = await house.broker.load()
            assert load.evaluations == 0
            assert house.restarts == 1

    asyncio.run(test())


def test_a_failure_outside_of_any_evaluation_restarts_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        house = House()
        failing = [True]
        publish = MemoryBroker.report

        async def report(self: MemoryBroker, capacity: Capacity) -> None:
            if capacity.pace != Pace(1.0, 1.0, 1.0) and failing:
                failing.clear()
                raise OSError("no broker")
            await publish(self, capacity)

        monkeypatch.setattr(MemoryBroker, "report", report)
        await house.submit("a", max_tokens=3, seed=1)
        async with house.running():
            assert isinstance(await house.last("a"), Finished)
            assert house.restarts == 1

    asyncio.run(test())


def test_a_generation_that_brings_down_every_engine_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault that no evaluation shows: the engine cannot publish what this generation reveals."""

    async def test() -> None:
        house = House()
        publish = MemoryBroker.append

        async def append(self: MemoryBroker, entries: Sequence[tuple[str, LogEntry]]) -> Mapping[str, Departure]:
            if any(name == "poison" and isinstance(entry, Revealed) for name, entry in entries):
                raise OSError("no such thing can be written")
            return await publish(self, entries)

        monkeypatch.setattr(MemoryBroker, "append", append)
        for name in ("before", "poison", "behind"):
            await house.submit(name, max_tokens=3, seed=1)
        async with house.running():
            failure = await house.last("poison")
            assert isinstance(failure, Failed)
            assert failure.reason == "poison"
            for name in ("before", "behind"):
                assert isinstance(await house.last(name), Finished)
        assert house.restarts == 3

    asyncio.run(test())


def test_an_engine_that_fails_again_and_again_is_given_up() -> None:
    """What it had accepted waits until somebody says what becomes of it."""

    async def test() -> None:
        house = House()
        house.network.failures_left = 1000
        await house.submit("a", max_tokens=3, seed=1)
        async with house.running() as task:
            with pytest.raises(BrokenModelError):
                await task
            assert house.restarts == supervisor.MOST_RESTARTS
            assert house.states[0] == "up"
            assert "up" not in house.states[1:], "a model that evaluates nothing is not ready"
            assert len((await house.broker.load()).waiting) == 1
            await house.supervisor.engine.end_all("engine", "the engine has stopped")
            failure = await house.last("a")
            assert isinstance(failure, Failed)
            assert failure.reason == "engine"

    asyncio.run(test())


def test_a_hung_evaluation_is_not_restarted() -> None:
    async def test() -> None:
        house = House(hang_seconds=0.05)
        house.network.hold.clear()
        await house.submit("a", max_tokens=3, seed=1)
        async with house.running() as task:
            with pytest.raises(HungEvaluationError, match=r"0\.05"):
                await task
            assert house.states == ["up", "down"]
            assert house.restarts == 0
            assert house.network.evaluations == 1
            await house.supervisor.engine.end_all("engine", "the engine has stopped")
            assert isinstance(await house.last("a"), Failed)

    asyncio.run(test())


def test_draining_lets_everything_end() -> None:
    """Also what a next engine goes on with, after one that fails meanwhile."""

    async def test() -> None:
        house = House()
        for name in "abc":
            await house.submit(name, max_tokens=4, seed=1)
        async with house.running():
            await asyncio.wait_for(house.up.wait(), 30)
            house.network.failures_left = 3
            await house.supervisor.drain(50)
            for name in "abc":
                assert isinstance(await house.last(name), Finished)
        assert house.restarts == 1

    asyncio.run(test())


def test_what_cannot_end_in_time_ends_with_an_error() -> None:
    async def test() -> None:
        house = House()
        house.network.hold.clear()
        await house.submit("running", max_tokens=12, n=60, seed=1)
        async with house.running():
            await house.until_started("running")
            await house.submit("waiting", max_tokens=12, n=60, seed=1)
            await house.supervisor.drain(0)
            for name in ("running", "waiting"):
                failure = await house.last(name)
                assert isinstance(failure, Failed)
                assert failure.reason == "draining"

    asyncio.run(test())


def test_retiring_claims_no_more_and_leaves_the_rest_to_others() -> None:
    async def test() -> None:
        house = House()
        house.network.hold.clear()
        await house.submit("running", max_tokens=3, seed=1)
        async with house.running():
            await house.until_started("running")
            await house.submit("waiting", max_tokens=3, seed=1)
            retiring = asyncio.create_task(house.supervisor.retire(50))
            await asyncio.sleep(0)
            house.network.hold.set()
            await retiring
            assert isinstance(await house.last("running"), Finished)
            assert len((await house.broker.load()).waiting) == 1

    asyncio.run(test())


def sub_tokens_of(states: Sequence[Tensor]) -> list[list[list[int]]]:
    return [state.tolist() for state in states]


def sub_tokens_of_answers(model: ToyModel, **fields: object) -> list[list[list[int]]]:
    return [model.sub_tokenizer.encode(torch.tensor(each.token_ids)).tolist() for each in sample(model, **fields)]
