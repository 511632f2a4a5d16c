"""The engine without HTTP: who shares an evaluation, who leaves it, and what one job's fate does to the others."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from unmask_diffusion import Denoiser, TableDenoiser, read_sample, replay, sample
from unmask_service.broker import Failed, Finished, Job, LogEntry, MemoryBroker, Revealed, Started
from unmask_service.engine import Engine
from unmask_service.metrics import Metrics

from tests.helpers import ToyModel, code_table, plan_for, prime_model

PRIME = prime_model(length=12)


class Watched:
    """A denoiser that notes how long the canvases of each evaluation are, and fails when told to."""

    def __init__(self, inner: Denoiser) -> None:
        self.inner = inner
        self.evaluations: list[list[int]] = []
        self.broken = False

    @property
    def length(self) -> int:
        return self.inner.length

    @property
    def vocabulary_size(self) -> int:
        return self.inner.vocabulary_size

    def trunk(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        self.evaluations.append([len(canvas) for canvas in canvases])
        if self.broken:
            raise RuntimeError("the network is broken")
        return self.inner.trunk(canvases, rows)

    def head(self, features: Tensor) -> Tensor:
        return self.inner.head(features)

    def joint_logits(self, sub_tokens: Tensor) -> Tensor:
        return self.inner.joint_logits(sub_tokens)


class House:
    """A broker with a running engine."""

    def __init__(self, model: ToyModel = PRIME, tokens_per_tick: int = 1000) -> None:
        self.network = Watched(model.denoiser)
        self.model = replace(model, denoiser=self.network)
        self.broker = MemoryBroker(max_requests=100)
        self.engine = Engine(self.model, self.broker, Metrics("toy"), tokens_per_tick)

    async def submit(self, name: str, **fields: object) -> None:
        await self.broker.submit(Job(name, plan_for(self.model, **fields), submitted_at=0.0))

    async def log(self, name: str) -> list[LogEntry]:
        return [entry async for _, entry in self.broker.follow(name)]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        engine = asyncio.create_task(self.engine.run())
        try:
            yield
        finally:
            engine.cancel()
            await asyncio.gather(engine, return_exceptions=True)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(bounded())


def test_a_log_is_started_the_reveals_and_finished() -> None:
    async def test() -> None:
        house = House()
        fields: dict[str, object] = {"prompt": [1], "max_tokens": 5, "n": 3, "seed": 4}
        await house.submit("a", **fields)
        async with house.running():
            log = await house.log("a")
        plan = plan_for(PRIME, **fields)
        assert isinstance(log[0], Started)
        assert isinstance(log[-1], Finished)
        reveals = [entry.reveal for entry in log[1:-1] if isinstance(entry, Revealed)]
        assert len(reveals) == len(log) - 2 == plan.network_evaluations
        for index in range(3):
            assert [reveal.step for reveal in reveals if reveal.sample == index] == list(range(10))
        answers = [read_sample(PRIME, plan, i, state) for i, state in enumerate(replay(PRIME, plan, reveals))]
        assert answers == sample(PRIME, **fields)

    run(test)


def test_jobs_share_evaluations() -> None:
    async def test() -> None:
        house = House()
        for name, tokens in (("a", 4), ("b", 6), ("c", 2)):
            await house.submit(name, max_tokens=tokens, seed=1)
        async with house.running():
            for name in "abc":
                await house.log(name)
        assert len(house.network.evaluations) == 12, "as many as the longest needs"
        assert sorted(house.network.evaluations[0]) == [2, 4, 6]

    run(test)


def test_an_evaluation_is_bounded_and_the_first_come_go_first() -> None:
    async def test() -> None:
        house = House(tokens_per_tick=10)
        await house.submit("big", max_tokens=4, n=4, seed=1)
        await house.submit("small", max_tokens=3, seed=2)
        async with house.running():
            for name in ("small", "big"):
                assert isinstance((await house.log(name))[-1], Finished)
        assert all(sum(lengths) <= 10 for lengths in house.network.evaluations)
        assert sum(map(len, house.network.evaluations)) == 4 * 8 + 6
        assert house.network.evaluations[0] == [4, 4]

    run(test)


def test_a_sample_longer_than_an_evaluation_may_be_goes_alone() -> None:
    async def test() -> None:
        house = House(tokens_per_tick=3)
        await house.submit("a", max_tokens=5, n=2, seed=1)
        async with house.running():
            assert isinstance((await house.log("a"))[-1], Finished)
        assert {len(lengths) for lengths in house.network.evaluations} == {1}

    run(test)


def test_what_a_client_leaves_is_evaluated_once_more_at_most() -> None:
    async def test() -> None:
        house = House()
        await house.submit("gone", max_tokens=12, n=4, seed=1)
        await house.submit("waiting", max_tokens=2, seed=1)
        await house.broker.leave("waiting")
        async with house.running():
            async for position, _ in house.broker.follow("gone"):
                if position == 9:
                    break
            done = len(house.network.evaluations)
            await house.broker.leave("gone")
            await house.submit("next", max_tokens=3, seed=1)
            await house.log("next")
        lengths = house.network.evaluations[done:]
        assert sum(12 in each for each in lengths) <= 1
        assert not any(2 in each for each in house.network.evaluations), "nobody waited for it"

    run(test)


def test_an_impossible_job_fails_alone() -> None:
    async def test() -> None:
        sub_tokenizer = code_table(2, 1)
        table = torch.tensor([[0.3, 0.7], [0.0, 0.0]]).log()
        model = ToyModel(TableDenoiser(table, sub_tokenizer), sub_tokenizer)
        house = House(model)
        await house.submit("good", n=5, seed=3)
        await house.submit("bad", canvas=[1, None], n=3, seed=3)
        await house.submit("fine", n=2, seed=4)
        async with house.running():
            good, bad, fine = [await house.log(name) for name in ("good", "bad", "fine")]
        assert isinstance(good[-1], Finished)
        assert isinstance(fine[-1], Finished)
        failure = bad[-1]
        assert isinstance(failure, Failed)
        assert failure.reason == "impossible"
        assert failure.message
        assert [type(entry) for entry in bad].count(Failed) == 1
        alone = [answer.token_ids for answer in sample(model, n=5, seed=3)]
        reveals = [entry.reveal for entry in good if isinstance(entry, Revealed)]
        plan = plan_for(model, n=5, seed=3)
        assert [read_sample(model, plan, i, s).token_ids for i, s in enumerate(replay(model, plan, reveals))] == alone

    run(test)


def test_a_network_that_fails_ends_what_runs_and_the_engine_goes_on() -> None:
    async def test() -> None:
        house = House()
        house.network.broken = True
        await house.submit("a", max_tokens=3, seed=1)
        await house.submit("b", max_tokens=4, seed=1)
        async with house.running():
            for name in "ab":
                failure = (await house.log(name))[-1]
                assert isinstance(failure, Failed)
                assert failure.reason == "engine"
                assert "RuntimeError" not in failure.message
            house.network.broken = False
            assert house.engine.alive
            await house.submit("c", max_tokens=3, seed=1)
            assert isinstance((await house.log("c"))[-1], Finished)

    run(test)


def test_nothing_to_reveal_takes_no_evaluation() -> None:
    async def test() -> None:
        house = House()
        await house.submit("a", canvas=[1, 2, 3], n=2, seed=1)
        async with house.running():
            assert [type(entry) for entry in await house.log("a")] == [Started, Finished]
        assert house.network.evaluations == []

    run(test)


def test_draining_lets_everything_end() -> None:
    async def test() -> None:
        house = House(tokens_per_tick=5)
        for name in "abc":
            await house.submit(name, max_tokens=4, seed=1)
        async with house.running():
            await house.engine.drain(50)
            for name in "abc":
                assert isinstance((await house.log(name))[-1], Finished)

    run(test)


def test_what_cannot_end_in_time_ends_with_an_error() -> None:
    async def test() -> None:
        house = House(tokens_per_tick=12)
        await house.submit("running", max_tokens=12, n=60, seed=1)
        await house.submit("waiting", max_tokens=12, n=60, seed=1)
        async with house.running():
            async for _ in house.broker.follow("running"):
                break
            await house.engine.drain(0)
            for name in ("running", "waiting"):
                failure = (await house.log(name))[-1]
                assert isinstance(failure, Failed)
                assert failure.reason == "draining"

    run(test)


def test_alive_is_while_it_runs() -> None:
    async def test() -> None:
        house = House()
        alive = [house.engine.alive]
        async with house.running():
            await house.submit("a", max_tokens=1, seed=1)
            await house.log("a")
            alive.append(house.engine.alive)
        alive.append(house.engine.alive)
        assert alive == [False, True, False]

    run(test)
