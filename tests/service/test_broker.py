"""The broker of one process: a bounded queue, a log for each job, nothing kept of those that left."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from unmask_diffusion import Reveal
from unmask_service.broker import Failed, Finished, Job, LogEntry, MemoryBroker, QueueFullError, Revealed, Started

from tests.helpers import plan_for, table_model

MODEL = table_model(classes=3, length=2, digits=2)


def job(name: str) -> Job:
    return Job(name, plan_for(MODEL, seed=1), submitted_at=0.0)


def revealed(step: int = 0) -> Revealed:
    return Revealed(1.0, Reveal(0, step, ((0, 0, 1),)))


def run(test: Callable[[MemoryBroker], Awaitable[None]], max_requests: int = 2) -> None:
    async def body() -> None:
        async with asyncio.timeout(30):
            await test(MemoryBroker(max_requests))

    asyncio.run(body())


async def read(broker: MemoryBroker, job_id: str, after: int = 0) -> list[tuple[int, LogEntry]]:
    return [pair async for pair in broker.follow(job_id, after)]


def test_jobs_are_claimed_in_the_order_of_their_arrival() -> None:
    async def test(broker: MemoryBroker) -> None:
        await broker.submit(job("a"))
        await broker.submit(job("b"))
        assert [(await broker.claim()).id, (await broker.claim()).id] == ["a", "b"]
        assert broker.claim_now() is None

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
        with pytest.raises(QueueFullError, match="2") as full:
            await broker.submit(job("c"))
        assert full.value.retry_after_seconds >= 1
        await broker.claim()
        with pytest.raises(QueueFullError):
            await broker.submit(job("c"))
        await broker.append([("a", Finished(1.0))])
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
        await broker.leave("a")
        await broker.leave("b")
        await broker.leave("never was")
        assert broker.claim_now() is None
        assert broker.left(["a"]) == {"a"}
        await broker.append([("a", revealed())])
        load = broker.load()
        assert (load.running, load.waiting, load.evaluations) == (0, 0, 0)

    run(test)


def test_load_counts_the_work_that_is_left() -> None:
    async def test(broker: MemoryBroker) -> None:
        await broker.submit(job("a"))
        await broker.submit(job("b"))
        assert (broker.load().running, broker.load().waiting, broker.load().evaluations) == (0, 2, 8)
        await broker.claim()
        await broker.append([("a", Started(1.0)), ("a", revealed())])
        assert (broker.load().running, broker.load().waiting, broker.load().evaluations) == (1, 1, 7)
        await broker.append([("a", Finished(2.0))])
        assert (broker.load().running, broker.load().waiting) == (0, 1)

    run(test)


def test_a_full_queue_says_when_to_come_again() -> None:
    async def test(broker: MemoryBroker) -> None:
        await broker.submit(job("a"))
        await broker.claim()
        for step in range(3):
            await broker.append([("a", revealed(step))])
            await asyncio.sleep(0.01)
        load = broker.load()
        assert load.evaluations_per_second is not None
        assert load.evaluations_per_second > 0
        with pytest.raises(QueueFullError) as full:
            await broker.submit(job("b"))
        assert 1 <= full.value.retry_after_seconds < 60

    run(test, max_requests=1)
