"""The broker of one process: a bounded queue, a log for each job, nothing kept of those that left."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from unmask_diffusion import Reveal
from unmask_service.broker import Failed, Finished, Job, LogEntry, MemoryBroker, QueueFullError, Revealed, Started
from unmask_service.forecast import Capacity, Load, Pace, Work

from tests.helpers import plan_for, table_model

MODEL = table_model(classes=3, length=2, digits=2)


def job(name: str) -> Job:
    return Job(name, plan_for(MODEL, seed=1), submitted_at=0.0)


def revealed(step: int = 0) -> Revealed:
    return Revealed(1.0, Reveal(0, step, ((0, 0, 1),)))


def run(
    test: Callable[[MemoryBroker], Awaitable[None]], max_requests: int = 2, max_evaluations: int | None = None
) -> None:
    async def body() -> None:
        async with asyncio.timeout(30):
            await test(MemoryBroker(max_requests, max_evaluations))

    asyncio.run(body())


async def read(broker: MemoryBroker, job_id: str, after: int = 0) -> list[tuple[int, LogEntry]]:
    return [pair async for pair in broker.follow(job_id, after)]


def test_jobs_are_claimed_in_the_order_of_their_arrival() -> None:
    async def test(broker: MemoryBroker) -> None:
        await broker.submit(job("a"))
        await broker.submit(job("b"))
        assert [(await broker.claim()).id, (await broker.claim()).id] == ["a", "b"]
        assert await broker.claim_now() is None

    run(test)


def test_a_claim_waits_for_a_job() -> None:
    async def test(broker: MemoryBroker) -> None:
        claiming = asyncio.create_task(broker.claim())
        await asyncio.sleep(0)
        assert not claiming.done()
        await broker.submit(job("a"))
        assert (await claiming).id == "a"

    run(test)


def test_followers_see_every_entry_once_in_order_from_any_position() -> None:
    async def test(broker: MemoryBroker) -> None:
        await broker.submit(job("a"))
        early = asyncio.create_task(read(broker, "a"))
        second = asyncio.create_task(read(broker, "a"))
        entries: list[LogEntry] = [Started(1.0), revealed(0), revealed(1), Finished(2.0)]
        for entry in entries:
            await broker.append([("a", entry)])
            await asyncio.sleep(0)
        expected = list(enumerate(entries, 1))
        assert await early == expected
        assert await second == expected
        assert await read(broker, "a") == expected
        assert await read(broker, "a", after=2) == expected[2:]

    run(test)


def test_a_log_ends_with_a_failure_too() -> None:
    async def test(broker: MemoryBroker) -> None:
        await broker.submit(job("a"))
        await broker.append([("a", Started(1.0)), ("a", Failed(2.0, "impossible", "no"))])
        assert [position for position, _ in await read(broker, "a")] == [1, 2]

    run(test)


def test_the_queue_is_bounded_and_places_come_free() -> None:
    async def test(broker: MemoryBroker) -> None:
        await broker.submit(job("a"))
        await broker.submit(job("b"))
        with pytest.raises(QueueFullError, match="2"):
            await broker.submit(job("c"))
        with pytest.raises(QueueFullError, match="2"):
            await broker.refuse_if_full()
        await broker.claim()
        with pytest.raises(QueueFullError):
            await broker.submit(job("c"))
        await broker.append([("a", Finished(1.0))])
        await broker.refuse_if_full()
        await broker.submit(job("c"))
        await broker.leave("b")
        await broker.submit(job("d"))
        assert [(await broker.claim()).id, (await broker.claim()).id] == ["c", "d"]

    run(test)


def test_those_who_left_are_neither_claimed_nor_kept() -> None:
    async def test(broker: MemoryBroker) -> None:
        await broker.submit(job("a"))
        await broker.submit(job("b"))
        assert (await broker.claim()).id == "a"
        assert await broker.leave("a") == 0, "its engine counts what it saves"
        assert await broker.leave("b") == 4
        assert await broker.leave("never was") == 0
        assert await broker.claim_now() is None
        assert await broker.left(["a"]) == {"a"}
        await broker.append([("a", revealed())])
        assert await broker.load() == Load((), (), None)

    run(test)


def test_load_is_the_work_that_is_left() -> None:
    async def test(broker: MemoryBroker) -> None:
        await broker.submit(job("a"))
        await broker.submit(job("b"))
        whole = Work.of(job("a").plan)
        assert whole == Work(tokens=2, samples=1, evaluations=4, rows=4 * 2 * (1 - (3 / 4) ** 2))
        assert await broker.load() == Load((), (whole, whole), None)
        await broker.claim()
        await broker.append([("a", Started(1.0)), ("a", revealed())])
        load = await broker.load()
        assert load == Load((whole.left(3),), (whole,), None)
        assert load.evaluations == 7
        await broker.append([("a", Finished(2.0)), ("a", revealed())])
        assert await broker.load() == Load((), (whole,), None)
        assert len(await read(broker, "a")) == 3, "nothing comes after the end"

    run(test)


def test_load_says_what_the_engine_has_reported() -> None:
    async def test(broker: MemoryBroker) -> None:
        capacity = Capacity(7, Pace(1.0, 1.0, 1.0))
        await broker.report(capacity)
        assert (await broker.load()).capacity == capacity

    run(test)


def test_the_queue_is_bounded_by_work_too() -> None:
    """A request takes 4 evaluations; two fit into 9, and the second has a place in 8 exactly."""

    async def test(broker: MemoryBroker) -> None:
        await broker.submit(job("a"))
        await broker.submit(job("b"))
        with pytest.raises(QueueFullError, match="9"):
            await broker.submit(job("c"))
        await broker.claim()
        await broker.append([("a", revealed(step)) for step in range(3)])
        await broker.submit(job("c"))
        await broker.leave("b")
        await broker.submit(job("d"))
        with pytest.raises(QueueFullError, match="9"):
            await broker.submit(job("e"))

    run(test, max_requests=100, max_evaluations=9)


def test_one_request_is_let_in_whatever_its_work() -> None:
    async def test(broker: MemoryBroker) -> None:
        await broker.refuse_if_full()
        await broker.submit(job("a"))
        for ask in (broker.refuse_if_full(), broker.submit(job("b"))):
            with pytest.raises(QueueFullError, match="network evaluations"):
                await ask
        await broker.claim()
        await broker.append([("a", Failed(1.0, "engine", "no"))])
        await broker.submit(job("b"))

    run(test, max_requests=100, max_evaluations=3)


def test_answers_that_nobody_reads_are_bounded() -> None:
    async def test(broker: MemoryBroker) -> None:
        for name in "abcdefgh":
            await broker.submit(job(name))
            await broker.claim()
            await broker.append([(name, Finished(1.0))])
        with pytest.raises(QueueFullError, match="8 answers"):
            await broker.submit(job("i"))
        await broker.leave("a")
        await broker.submit(job("i"))

    run(test)
