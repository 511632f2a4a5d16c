"""The engine without HTTP: who shares an evaluation, who leaves it, and what one job's fate does to the others."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from unmask_diffusion import (
    ActiveSample,
    Denoiser,
    Model,
    Plan,
    TableDenoiser,
    read_sample,
    replay,
    sample,
)
from unmask_service.broker import Failed, Finished, Job, LogEntry, MemoryBroker, Revealed, Started
from unmask_service.engine import Engine, Speculation, loop
from unmask_service.forecast import Capacity, Pace
from unmask_service.metrics import Metrics

from tests.helpers import DenoiserAround, ToyModel, code_table, plan_for, prime_model

PRIME = prime_model(length=12)


class Poison(Exception):
    """What a canvas with the poisonous token raises."""


class Watched(DenoiserAround):
    """A denoiser that notes how long the canvases of each evaluation are, and fails, or waits, when told to."""

    poison: int | None = None

    def __init__(self, inner: Denoiser) -> None:
        super().__init__(inner)
        self.evaluations: list[list[int]] = []
        self.broken = False
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.begun = threading.Event()

    def trunk(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        self.evaluations.append([len(canvas) for canvas in canvases])
        self.begun.set()
        self.may_go_on.wait(30)
        if self.broken:
            raise RuntimeError("the network is broken")
        if self.poison is not None and any(int(canvas[0, 0]) == self.poison for canvas in canvases):
            raise Poison
        return super().trunk(canvases, rows)


class NanFor(DenoiserAround):
    """A denoiser that gives NaN for canvases of one length."""

    def __init__(self, inner: Denoiser, length: int) -> None:
        super().__init__(inner)
        self.cursed = length

    def trunk(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        features = super().trunk(canvases, rows)
        cursed = [len(canvas) == self.cursed for canvas, asked in zip(canvases, rows, strict=True) for _ in asked]
        return features.masked_fill(torch.tensor(cursed)[:, None], torch.nan)


class House:
    """A broker with a running engine."""

    def __init__(self, model: ToyModel = PRIME, tokens_per_tick: int = 1000, speculation: Speculation = "off") -> None:
        self.network = Watched(model.denoiser)
        self.model = replace(model, denoiser=self.network)
        self.broker = MemoryBroker(max_requests=100)
        self.metrics = Metrics("toy")
        capacity = Capacity(tokens_per_tick, Pace(1e-3, 1e-5, 1e-5))
        self.engine = Engine(self.model, self.broker, self.metrics, capacity, speculation=speculation)

    async def submit(self, name: str, **fields: object) -> None:
        await self.broker.submit(Job(name, plan_for(self.model, **fields), submitted_at=0.0))

    async def log(self, name: str) -> list[LogEntry]:
        return [entry async for _, entry in self.broker.follow(name)]

    def count(self, name: str) -> float:
        value = self.metrics.registry.get_sample_value(name, {"model": "toy"})
        assert value is not None
        return value

    def guesses(self, right: str) -> float:
        values = (
            self.metrics.registry.get_sample_value(
                "unmask_guesses_total", {"model": "toy", "ahead": str(ahead), "right": right}
            )
            for ahead in (1, 2, 4, 8, 16, 32)
        )
        return sum(value or 0.0 for value in values)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        engine = asyncio.create_task(self.engine.run())
        try:
            yield
        finally:
            self.network.may_go_on.set()
            engine.cancel()
            await asyncio.gather(engine, return_exceptions=True)


def tokens_of(model: ToyModel, log: Sequence[LogEntry], **fields: object) -> list[tuple[int, ...]]:
    """The tokens that a finished log says."""
    assert isinstance(log[-1], Finished), log[-1]
    plan = plan_for(model, **fields)
    states = replay(model, plan, [entry.reveal for entry in log if isinstance(entry, Revealed)])
    return [read_sample(model, plan, index, state).token_ids for index, state in enumerate(states)]


def alone(model: ToyModel, **fields: object) -> list[tuple[int, ...]]:
    return [answer.token_ids for answer in sample(model, **fields)]


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


def test_an_evaluation_is_bounded_and_goes_round_the_requests() -> None:
    async def test() -> None:
        house = House(tokens_per_tick=10)
        await house.submit("big", max_tokens=4, n=4, seed=1)
        await house.submit("small", max_tokens=3, seed=2)
        async with house.running():
            for name in ("small", "big"):
                assert isinstance((await house.log(name))[-1], Finished)
        assert all(sum(lengths) <= 10 for lengths in house.network.evaluations)
        assert sum(map(len, house.network.evaluations)) == 4 * 8 + 6
        assert house.network.evaluations[:6] == [[4, 3]] * 6, "a place for each, the oldest first"
        assert house.network.evaluations[6] == [4, 4]

    run(test)


def test_a_sample_longer_than_an_evaluation_may_be_goes_alone() -> None:
    async def test() -> None:
        house = House(tokens_per_tick=3)
        await house.submit("a", max_tokens=5, n=2, seed=1)
        async with house.running():
            assert isinstance((await house.log("a"))[-1], Finished)
        assert {len(lengths) for lengths in house.network.evaluations} == {1}

    run(test)


def test_samples_of_one_request_run_in_different_ticks_and_end_together() -> None:
    """Five canvases where two have room: the ticks take turns, so that none is left to be evaluated alone."""

    async def test() -> None:
        house = House(tokens_per_tick=8)
        fields: dict[str, object] = {"max_tokens": 4, "n": 5, "seed": 1}
        await house.submit("a", **fields)
        async with house.running():
            log = await house.log("a")
        assert tokens_of(PRIME, log, **fields) == alone(PRIME, **fields)
        assert [len(lengths) for lengths in house.network.evaluations] == [2] * 20
        steps = [entry.reveal.step for entry in log if isinstance(entry, Revealed)]
        assert steps == sorted(steps)

    run(test)


def test_a_long_request_and_a_stream_of_short_ones_both_progress() -> None:
    """Two canvases have room. The long request fills the server by itself; short ones come, one after the other."""

    async def test() -> None:
        house = House(tokens_per_tick=24)
        await house.submit("long", max_tokens=12, n=6, seed=1)
        progress = []
        async with house.running():
            for number in range(10):
                await house.submit(f"short {number}", max_tokens=3, seed=number)
                assert isinstance((await house.log(f"short {number}"))[-1], Finished)
                progress.append((await house.broker.load()).evaluations)
            assert isinstance((await house.log("long"))[-1], Finished)
        assert progress == sorted(progress, reverse=True)
        assert len(set(progress)) == 10, "the long one has gone on meanwhile"
        assert progress[-1] > 0, "the short ones did not have to wait for its end"

    run(test)


def test_nobody_starves_behind_a_crowd_that_never_ends() -> None:
    """One canvas has room at a time. Requests keep coming, five at a time; each is served in its turn."""

    async def test() -> None:
        house = House(tokens_per_tick=6)
        order: list[str] = []

        async def client(name: str) -> None:
            for number in range(4):
                await house.submit(f"{name}{number}", max_tokens=3, n=1 + number % 2, seed=number)
                assert isinstance((await house.log(f"{name}{number}"))[-1], Finished)
                order.append(f"{name}{number}")

        async with house.running():
            await asyncio.gather(*(client(name) for name in "abcde"))
        for number in range(4):
            assert {name[1] for name in order[5 * number : 5 * number + 5]} == {str(number)}

    run(test)


@pytest.mark.parametrize("tokens_per_tick", [12, 100])
def test_what_a_client_leaves_is_evaluated_once_more_at_most(tokens_per_tick: int) -> None:
    """With room for one canvas or for all; the evaluations that were not done are counted as saved, each once."""

    async def test() -> None:
        house = House(tokens_per_tick=tokens_per_tick)
        await house.submit("gone", max_tokens=12, n=4, seed=1)
        await house.submit("waiting", max_tokens=2, seed=1)
        assert await house.broker.leave("waiting") == 4
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
        evaluated = house.count("unmask_network_evaluations_total")
        assert evaluated + house.count("unmask_network_evaluations_saved_total") == 4 * 24 + 6

    run(test)


def test_a_client_that_leaves_while_its_evaluation_runs() -> None:
    async def test() -> None:
        house = House()
        house.network.may_go_on.clear()
        await house.submit("gone", max_tokens=12, n=2, seed=1)
        async with house.running():
            await asyncio.to_thread(house.network.begun.wait, 30)
            await house.broker.leave("gone")
            await house.submit("next", max_tokens=3, seed=1)
            house.network.may_go_on.set()
            assert tokens_of(PRIME, await house.log("next"), max_tokens=3, seed=1) == alone(PRIME, max_tokens=3, seed=1)
        assert house.network.evaluations == [[12, 12]] + [[3]] * 6
        assert house.count("unmask_network_evaluations_saved_total") == 2 * 24 - 2

    run(test)


def test_an_evaluation_that_takes_long_holds_nobody_up_but_the_evaluations() -> None:
    async def test() -> None:
        house = House()
        house.network.may_go_on.clear()
        await house.submit("slow", max_tokens=3, seed=1)
        async with house.running():
            await asyncio.to_thread(house.network.begun.wait, 30)
            await house.submit("next", max_tokens=3, seed=1)
            load = await house.broker.load()
            assert (len(load.running), len(load.waiting)) == (1, 1)
            house.network.may_go_on.set()
            for name in ("slow", "next"):
                assert isinstance((await house.log(name))[-1], Finished)

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


@pytest.mark.parametrize("places", [1, 3, 1000])
def test_an_exception_ends_the_request_that_causes_it_and_no_other(places: int) -> None:
    async def test() -> None:
        house = House(tokens_per_tick=places * 4)
        house.network.poison = 1
        good = [{"prompt": [0], "max_tokens": 3, "n": 3, "seed": seed} for seed in range(5)]
        for number, fields in enumerate(good):
            await house.submit(f"good {number}", **fields)
            await house.submit(f"bad {number}", **(fields | {"prompt": [10], "n": 2}))  # 10 begins with the digit 1
        async with house.running():
            for number, fields in enumerate(good):
                assert tokens_of(PRIME, await house.log(f"good {number}"), **fields) == alone(PRIME, **fields)
                failure = (await house.log(f"bad {number}"))[-1]
                assert isinstance(failure, Failed)
                assert failure.reason == "engine"
                assert "Poison" not in failure.message

    run(test)


def test_logits_that_are_no_numbers_end_the_request_that_they_are_for() -> None:
    async def test() -> None:
        model = replace(PRIME, denoiser=NanFor(PRIME.denoiser, 5))
        house = House(model)
        fields: dict[str, object] = {"max_tokens": 4, "n": 2, "seed": 1}
        await house.submit("good", **fields)
        await house.submit("cursed", max_tokens=5, n=2, seed=1)
        async with house.running():
            failure = (await house.log("cursed"))[-1]
            assert isinstance(failure, Failed)
            assert failure.reason == "engine"
            assert "NaN" in failure.message
            assert tokens_of(PRIME, await house.log("good"), **fields) == alone(PRIME, **fields)

    run(test)


def test_a_job_that_cannot_even_begin_ends_with_an_error_and_no_other_does(monkeypatch: pytest.MonkeyPatch) -> None:
    start = ActiveSample.start

    def start_unless_bad(model: Model, plan: Plan, index: int) -> ActiveSample:
        if plan.request.seed == 13:
            raise MemoryError
        return start(model, plan, index)

    async def test() -> None:
        house = House()
        await house.submit("bad", max_tokens=3, seed=13)
        await house.submit("good", max_tokens=3, seed=1)
        async with house.running():
            failure = (await house.log("bad"))[-1]
            assert isinstance(failure, Failed)
            assert failure.reason == "engine"
            assert isinstance((await house.log("good"))[-1], Finished)
            await house.submit("bad, alone", max_tokens=3, seed=13)
            assert isinstance((await house.log("bad, alone"))[-1], Failed)

    monkeypatch.setattr(ActiveSample, "start", start_unless_bad)
    run(test)


def test_nothing_to_reveal_takes_no_evaluation() -> None:
    async def test() -> None:
        house = House()
        await house.submit("a", canvas=[1, 2, 3], n=2, seed=1)
        async with house.running():
            assert [type(entry) for entry in await house.log("a")] == [Started, Finished]
        assert house.network.evaluations == []

    run(test)


def test_ticks_are_measured() -> None:
    async def test() -> None:
        house = House()
        before = house.engine.capacity
        await house.submit("a", max_tokens=4, n=2, seed=1)
        await house.submit("b", max_tokens=4, seed=2)
        async with house.running():
            assert (await house.log("a"))[-1]
            assert (await house.log("b"))[-1]
        after = house.engine.capacity
        assert after == (await house.broker.load()).capacity
        assert after.pace != before.pace
        assert after.tokens_per_tick == before.tokens_per_tick
        assert 0 < after.company_tokens < 6, "three canvases of 4 tokens share a tick, two of one request"

    run(test)


# --- speculation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("speculation", ["auto", 3, 8])
def test_guesses_save_rounds_and_change_no_entry_of_the_log(speculation: Speculation) -> None:
    fields: dict[str, object] = {"max_tokens": 12, "n": 2, "seed": 5, "temperature": 0.2}

    async def reveals(speculation: Speculation) -> tuple[House, list[Revealed]]:
        house = House(speculation=speculation)
        await house.submit("a", **fields)
        async with house.running():
            log = await house.log("a")
        return house, [entry for entry in log if isinstance(entry, Revealed)]

    async def test() -> None:
        house, found = await reveals(speculation)
        _, expected = await reveals("off")
        for index in range(2):
            of_sample = [entry.reveal for entry in found if entry.reveal.sample == index]
            assert of_sample == [entry.reveal for entry in expected if entry.reveal.sample == index]
        rounds = sum(entry.lane == 0 for entry in found)
        assert rounds == house.count("unmask_rounds_total") < len(found)
        assert house.count("unmask_lanes_total") >= house.count("unmask_network_evaluations_total") == len(found)
        judged = house.guesses("true") + house.guesses("false")
        assert house.guesses("true") == len(found) - rounds
        assert judged <= house.count("unmask_lanes_total") - rounds

    run(test)


def test_a_full_tick_has_no_lanes_to_spare() -> None:
    async def test() -> None:
        house = House(tokens_per_tick=24, speculation="auto")
        for name in "ab":
            await house.submit(name, max_tokens=12, seed=3)
        async with house.running():
            await asyncio.gather(house.log("a"), house.log("b"))
        shared = [lengths for lengths in house.network.evaluations if len(lengths) > 1]
        assert all(sum(lengths) <= 24 for lengths in shared)
        assert house.count("unmask_lanes_total") == house.count("unmask_rounds_total") == 48

    run(test)


def test_a_guess_whose_state_breaks_the_network_breaks_nothing() -> None:
    """The network raises where a canvas begins with a certain digit that only wrong guesses put there."""
    fields: dict[str, object] = {"max_tokens": 12, "seed": 5}
    (tokens,) = alone(PRIME, **fields)
    true_digit = int(PRIME.sub_tokenizer.codes[tokens[0], 0])

    async def test() -> None:
        for poison in range(PRIME.sub_tokenizer.base):
            if poison != true_digit:
                house = House(speculation=8)
                house.network.poison = poison
                await house.submit("a", **fields)
                async with house.running():
                    assert tokens_of(PRIME, await house.log("a"), **fields) == [tokens]

    run(test)


def test_jobs_that_end_at_once_do_not_hold_up_a_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "MOST_CLAIMS", 4)

    async def test() -> None:
        house = House()
        await house.submit("running", max_tokens=2, seed=1)
        for number in range(10):
            await house.submit(f"nothing-{number}", canvas=[1] * 12, seed=1)
        waiting = []
        for _ in range(3):
            await house.engine.tick()
            waiting.append(len((await house.broker.load()).waiting))
        assert waiting == [7, 3, 0]
        assert len(house.network.evaluations) == 3

    run(test)
