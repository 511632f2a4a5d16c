"""Both brokers keep one contract: a bounded queue, a log for each generation, and nothing kept of those that left."""

import asyncio
import contextlib
import gc
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace

import pytest
from unmask_diffusion import Reveal, ScoreRequest, make_score_plan
from unmask_service.broker import (
    ApiBroker,
    Claim,
    EngineBroker,
    Failed,
    Finished,
    IdempotencyKey,
    Job,
    KeyReusedError,
    LogEntry,
    MemoryBroker,
    QueueFullError,
    Revealed,
    Started,
)
from unmask_service.broker.memory import plan_bytes
from unmask_service.broker.redis import Keys, RedisApiBroker, RedisEngineBroker, Timing, connect
from unmask_service.forecast import Capacity, Load, Pace, Work
from unmask_service.metrics import Metrics

from tests.helpers import plan_for, prime_model, table_model
from tests.helpers_redis import Redis

MODEL = table_model(classes=3, length=2, digits=2)
CAPACITY = Capacity(7, Pace(1.0, 1.0, 1.0))
WHOLE = Work(tokens=2, samples=1, evaluations=4, rows=4 * 2 * (1 - (3 / 4) ** 2))


def job(name: str, detached: bool = False) -> Job:
    return Job(name, plan_for(MODEL, canvas=[None, None], seed=1), submitted_at=0.0, detached=detached)


def revealed(step: int = 0, lane: int = 0) -> Revealed:
    return Revealed(1.0, Reveal(0, step, ((0, 0, 1),)), lane)


@dataclass(frozen=True)
class Sides:
    """A broker's two sides, and a third party who reaches the same queue."""

    api: ApiBroker
    engine: EngineBroker
    other_api: ApiBroker

    async def read(self, job_id: str) -> list[tuple[int, LogEntry]]:
        return [pair async for pair in self.other_api.follow(job_id)]

    async def claim(self) -> Claim:
        return await asyncio.wait_for(self.engine.claim(), 20)

    async def nothing_waits(self) -> bool:
        return not (await self.api.load()).waiting


Broken = Callable[..., contextlib.AbstractAsyncContextManager[Sides]]
Test = Callable[[Sides], Awaitable[None]]


@contextlib.asynccontextmanager
async def in_memory(
    max_requests: int = 2, max_evaluations: int | None = None, orphan: float = 600.0, keep: float = 600.0
) -> AsyncIterator[Sides]:
    broker = MemoryBroker(max_requests, max_evaluations, orphan, keep)
    yield Sides(broker, broker, broker)


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis(persistent=False) as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
def run(request: pytest.FixtureRequest, redis: Redis) -> Callable[..., None]:
    """Run a test on a broker."""

    @contextlib.asynccontextmanager
    async def over_redis(
        max_requests: int = 2, max_evaluations: int | None = None, orphan: float = 600.0, keep: float = 600.0
    ) -> AsyncIterator[Sides]:
        keys, timing = Keys(f"test-{id(asyncio.current_task())}", "toy {of braces}"), Timing(0.5, orphan, keep)
        with redis.client() as client:
            client.flushall()

        def api() -> RedisApiBroker:
            return RedisApiBroker(
                connect(redis.url), keys, Metrics("toy"), timing, MODEL, max_requests, max_evaluations
            )

        engine = RedisEngineBroker(connect(redis.url), keys, Metrics("toy"), timing, MODEL)
        one, two = api(), api()
        async with one.running(), two.running(), engine.running():
            yield Sides(one, engine, two)

    make = in_memory if request.param == "memory" else over_redis

    def run_on_broker(test: Test, **bounds: float | None) -> None:
        async def body() -> None:
            async with asyncio.timeout(60), make(**bounds) as sides:  # type: ignore[arg-type]
                await test(sides)

        asyncio.run(body())

    return run_on_broker


Run = Callable[..., None]


def test_jobs_are_claimed_in_the_order_of_their_arrival(run: Run) -> None:
    async def test(broker: Sides) -> None:
        assert await broker.api.submit(job("a")) == "a"
        await broker.api.submit(job("b"))
        assert [await broker.claim(), await broker.claim()] == [Claim(job("a")), Claim(job("b"))]
        assert await broker.engine.claim_now() is None

    run(test)


def test_a_claim_waits_for_a_job(run: Run) -> None:
    async def test(broker: Sides) -> None:
        claiming = asyncio.create_task(broker.engine.claim())
        await asyncio.sleep(0.01)
        assert not claiming.done()
        await broker.api.submit(job("a"))
        assert (await claiming).job.id == "a"

    run(test)


def test_followers_see_every_entry_once_in_order_whenever_they_come(run: Run) -> None:
    async def test(broker: Sides) -> None:
        await broker.api.submit(job("a"))
        await broker.claim()
        early = asyncio.create_task(broker.read("a"))
        second = asyncio.create_task(broker.read("a"))
        entries: list[LogEntry] = [Started(1.0, "kind"), revealed(0), revealed(1, lane=1), Finished(2.0)]
        for entry in entries:
            assert await broker.engine.append([("a", entry)]) == {}
            await asyncio.sleep(0)
        expected = list(enumerate(entries, 1))
        assert await early == expected
        assert await second == expected
        assert await broker.read("a") == expected

    run(test)


def test_logs_of_several_generations_grow_in_one_call(run: Run) -> None:
    async def test(broker: Sides) -> None:
        for name in "ab":
            await broker.api.submit(job(name))
            await broker.claim()
        reading = [asyncio.create_task(broker.read(name)) for name in "ab"]
        failed = Failed(2.0, "impossible", "no")
        await broker.engine.append([("a", Started(1.0)), ("b", Started(1.0)), ("a", revealed()), ("b", failed)])
        await broker.engine.append([("a", Finished(3.0))])
        a, b = await asyncio.gather(*reading)
        assert [entry for _, entry in a] == [Started(1.0), revealed(), Finished(3.0)]
        assert b == [(1, Started(1.0)), (2, failed)]

    run(test)


def test_the_queue_is_bounded_and_places_come_free(run: Run) -> None:
    async def test(broker: Sides) -> None:
        await broker.api.submit(job("a"))
        await broker.api.submit(job("b"))
        for api in (broker.api, broker.other_api):
            with pytest.raises(QueueFullError, match="2"):
                await api.submit(job("c"))
            with pytest.raises(QueueFullError, match="2"):
                await api.refuse_if_full()
        await broker.claim()
        with pytest.raises(QueueFullError):
            await broker.api.submit(job("c"))
        await broker.engine.append([("a", Finished(1.0))])
        await broker.api.refuse_if_full()
        await broker.api.submit(job("c"))
        await broker.api.leave("b")
        await broker.api.submit(job("d"))
        assert [(await broker.claim()).job.id, (await broker.claim()).job.id] == ["c", "d"]

    run(test)


def test_the_queue_is_bounded_by_work_too(run: Run) -> None:
    """A request takes 4 evaluations; two fit into 9, and the second has a place in 8 exactly."""

    async def test(broker: Sides) -> None:
        await broker.api.submit(job("a"))
        await broker.api.submit(job("b"))
        with pytest.raises(QueueFullError, match="9"):
            await broker.api.submit(job("c"))
        await broker.claim()
        await broker.engine.append([("a", revealed(step)) for step in range(3)])
        await broker.api.submit(job("c"))
        await broker.api.leave("b")
        await broker.api.submit(job("d"))
        with pytest.raises(QueueFullError, match="9"):
            await broker.api.submit(job("e"))

    run(test, max_requests=100, max_evaluations=9)


def test_one_request_is_let_in_whatever_its_work(run: Run) -> None:
    async def test(broker: Sides) -> None:
        await broker.api.refuse_if_full()
        await broker.api.submit(job("a"))
        for ask in (broker.api.refuse_if_full(), broker.api.submit(job("b"))):
            with pytest.raises(QueueFullError, match="network evaluations"):
                await ask
        await broker.claim()
        await broker.engine.append([("a", Failed(1.0, "engine", "no"))])
        await broker.api.submit(job("b"))

    run(test, max_requests=100, max_evaluations=3)


def test_those_who_left_are_neither_claimed_nor_kept(run: Run) -> None:
    async def test(broker: Sides) -> None:
        await broker.api.submit(job("a"))
        await broker.api.submit(job("b"))
        assert (await broker.claim()).job.id == "a"
        assert await broker.api.leave("a") is None, "its engine counts what it saves"
        assert await broker.api.leave("b") == 4
        assert await broker.api.leave("never was") is None
        assert await broker.engine.claim_now() is None
        assert await broker.engine.append([("a", revealed())]) == {"a": "cancelled"}
        assert (await broker.api.load()).evaluations == 0

    run(test)


def test_cancelling_ends_the_log_for_all_who_follow(run: Run) -> None:
    async def test(broker: Sides) -> None:
        for name in ("running", "waiting"):
            await broker.api.submit(job(name, detached=True))
        await broker.claim()
        await broker.engine.append([("running", revealed())])
        following = [asyncio.create_task(broker.read(name)) for name in ("running", "waiting")]
        assert await broker.other_api.cancel("waiting") == 4
        assert await broker.other_api.cancel("running") is None
        assert await broker.other_api.cancel("running") is None, "it has ended"
        for log in await asyncio.gather(*following):
            last = log[-1][1]
            assert isinstance(last, Failed)
            assert last.reason == "cancelled"
        assert await broker.engine.append([("running", Finished(1.0))]) == {"running": "cancelled"}
        records = [await broker.api.look_up(name) for name in ("running", "waiting")]
        assert [record and record.state for record in records] == ["cancelled", "cancelled"]
        assert [record and record.evaluations_left for record in records] == [3, 4]

    run(test)


def test_a_record_says_where_a_generation_is(run: Run) -> None:
    async def test(broker: Sides) -> None:
        assert await broker.api.look_up("a") is None
        submitted = replace(job("a", detached=True), expected_seconds=2.5, request_id="req")
        await broker.api.submit(submitted)
        seen = []

        async def look() -> None:
            record = await broker.other_api.look_up("a")
            assert record is not None
            assert record.job == submitted
            seen.append((record.state, record.evaluations_left, record.log_length, record.ended))

        await look()
        await broker.claim()
        await look()
        await broker.engine.append([("a", Started(1.0)), ("a", revealed())])
        await look()
        await broker.engine.append([*(("a", revealed(step)) for step in (1, 2, 3)), ("a", Finished(1.0))])
        await look()
        assert seen == [
            ("waiting", 4, 0, False),
            ("running", 4, 0, False),
            ("running", 3, 2, False),
            ("finished", 0, 6, True),
        ]

    run(test)


def test_the_jobs_of_a_call_are_queued_together_or_not_at_all(run: Run) -> None:
    """Each takes 4 evaluations; a call that would fit in part has no part in the queue."""

    async def test(broker: Sides) -> None:
        key = IdempotencyKey("mine", "digest")
        assert await broker.api.submit(job("a", detached=True), job("b", detached=True), key=key) == "a"
        assert await broker.other_api.submit(job("c"), job("d"), key=key) == "a"
        with pytest.raises(QueueFullError, match="3"):
            await broker.api.submit(job("e"), job("f"))
        assert len((await broker.api.load()).waiting) == 2
        await broker.api.submit(job("g"))
        assert [(await broker.claim()).job.id for _ in range(3)] == ["a", "b", "g"]

    run(test, max_requests=3)


def test_the_work_of_a_call_is_bounded_as_a_whole(run: Run) -> None:
    async def test(broker: Sides) -> None:
        await broker.api.submit(*map(job, "abc"))
        assert len((await broker.api.load()).waiting) == 3, "a call is accepted whatever its work if it is alone"
        for name in "ab":
            await broker.api.leave(name)
        with pytest.raises(QueueFullError, match="9"):
            await broker.api.submit(job("d"), job("e"))
        assert len((await broker.api.load()).waiting) == 1
        await broker.api.submit(job("d"))

    run(test, max_requests=100, max_evaluations=9)


def test_a_key_stands_for_one_generation(run: Run) -> None:
    async def test(broker: Sides) -> None:
        key, other = IdempotencyKey("mine", "digest"), IdempotencyKey("mine", "of something else")
        assert await broker.api.id_of(key) is None
        assert await broker.api.submit(job("a", detached=True), key=key) == "a"
        assert await broker.other_api.submit(job("b", detached=True), key=key) == "a"
        assert await broker.other_api.id_of(key) == "a"
        for ask in (broker.api.id_of(other), broker.api.submit(job("c", detached=True), key=other)):
            with pytest.raises(KeyReusedError):
                await ask
        assert len((await broker.api.load()).waiting) == 1
        await broker.claim()
        await broker.engine.append([("a", Finished(1.0))])
        assert await broker.api.submit(job("d", detached=True), key=key) == "a", "finished ones too"

    run(test)


def test_a_key_is_forgotten_with_its_generation(run: Run) -> None:
    """Nothing else happens meanwhile: it is the key that is asked for first."""

    async def test(broker: Sides) -> None:
        key = IdempotencyKey("mine", "digest")
        await broker.api.submit(job("a", detached=True), key=key)
        await broker.claim()
        await broker.engine.append([("a", Finished(1.0))])
        while await broker.api.id_of(key) is not None:
            await asyncio.sleep(0.05)
        assert await broker.api.look_up("a") is None
        assert await broker.api.submit(job("b", detached=True), key=key) == "b"

    run(test, keep=1.0)


def test_load_is_the_work_that_is_left(run: Run) -> None:
    async def test(broker: Sides) -> None:
        await broker.api.submit(job("a"))
        await broker.api.submit(job("b"))
        assert await broker.api.load() == Load((), (WHOLE, WHOLE), None)
        await broker.claim()
        await broker.engine.append([("a", Started(1.0)), ("a", revealed())])
        load = await broker.api.load()
        assert load == Load((WHOLE.left(3),), (WHOLE,), None)
        assert load.evaluations == 7
        await broker.engine.append([("a", Finished(2.0))])
        assert await broker.api.load() == Load((), (WHOLE,), None)
        assert await broker.engine.append([("a", revealed())]) == {"a": "cancelled"}
        assert len(await broker.read("a")) == 3, "nothing comes after the end"

    run(test)


def test_load_says_what_the_engine_has_reported(run: Run) -> None:
    async def test(broker: Sides) -> None:
        assert (await broker.api.load()).capacity is None
        await broker.engine.report(CAPACITY)
        assert (await broker.api.load()).capacity == CAPACITY

    run(test)


def test_what_is_released_is_claimed_again_with_its_log(run: Run) -> None:
    async def test(broker: Sides) -> None:
        for name in "ab":
            await broker.api.submit(job(name))
            await broker.claim()
        await broker.engine.append([("a", Started(1.0)), ("a", revealed())])
        await broker.engine.release(blameless=False)
        assert len((await broker.api.load()).waiting) == 2
        assert await broker.engine.append([("a", revealed(1))]) == {"a": "cancelled"}, "not ours any more"
        assert await broker.claim() == Claim(job("a"), (Started(1.0), revealed()), attempts=1)
        assert await broker.claim() == Claim(job("b"), (), attempts=2)
        await broker.engine.append([("a", revealed(1)), ("a", Finished(2.0))])
        assert [position for position, _ in await broker.read("a")] == [1, 2, 3, 4]

    run(test)


def test_attempts_count_engines_without_a_reveal_in_between(run: Run) -> None:
    async def test(broker: Sides) -> None:
        await broker.api.submit(job("a"))
        attempts = []
        for blameless in (False, True, False):
            attempts.append((await broker.claim()).attempts)
            await broker.engine.append([("a", Started(1.0))])
            await broker.engine.release(blameless)
        assert attempts == [1, 2, 2]
        await broker.claim()
        await broker.engine.append([("a", revealed())])
        await broker.engine.release(blameless=False)
        for attempt in (1, 2, 3):
            assert (await broker.claim()).attempts == attempt
            await broker.engine.release(blameless=False)
        assert await broker.engine.claim_now() is None
        log = await broker.read("a")
        assert [position for position, _ in log] == [1, 2, 3, 4, 5]
        end = log[-1][1]
        assert isinstance(end, Failed)
        assert end.reason == "poison"

    run(test)


def test_nobody_asks_for_it_any_more(run: Run) -> None:
    """Of two detached generations one is followed, one waits for nobody; a third has ended and is kept for a while."""

    async def test(broker: Sides) -> None:
        for name in ("ended", "followed", "orphan"):
            await broker.api.submit(job(name, detached=True))
        await broker.claim()
        await broker.engine.append([("ended", Finished(1.0))])
        following = asyncio.create_task(broker.read("followed"))
        while (await broker.api.load()).waiting != (WHOLE,):
            await asyncio.sleep(0.05)
        while await broker.api.look_up("ended") is not None:
            await asyncio.sleep(0.05)
        orphan = await broker.api.look_up("orphan")
        assert orphan is not None
        assert orphan.state == "cancelled"
        assert not following.done()
        assert await broker.api.cancel("followed") == 4
        assert len(await following) == 1

    run(test, max_requests=9, orphan=1.0, keep=2.0)


def test_what_is_forgotten_before_it_is_followed_is_lost(run: Run) -> None:
    """Between looking it up and reading it a generation's time may have come."""

    async def test(broker: Sides) -> None:
        ((_, end),) = await broker.read("forgotten")
        assert isinstance(end, Failed)
        assert end.reason == "lost"

    run(test, orphan=1.0)


def test_answers_that_nobody_reads_are_bounded_in_memory() -> None:
    """Those that are detached make room, the oldest first; of attached ones the client is still there."""

    async def test() -> None:
        broker = MemoryBroker(max_requests=2)
        for name in "abcdefgh":
            await broker.submit(job(name))
            await broker.claim()
            await broker.append([(name, Finished(1.0))])
        with pytest.raises(QueueFullError, match="8 answers"):
            await broker.submit(job("i"))
        await broker.leave("a")
        await broker.submit(job("i", detached=True))
        await broker.claim()
        await broker.append([("i", Finished(1.0))])
        await broker.submit(job("j"))
        assert await broker.look_up("i") is None

    asyncio.run(test())


def test_a_wall_clock_that_is_set_does_not_change_how_long_things_take() -> None:
    """Times that are compared with one another are by a clock that only goes on."""

    async def test() -> None:
        wall, clock = [1e9], [50.0]
        broker = MemoryBroker(max_requests=2, clock=lambda: clock[0], wall_clock=lambda: wall[0])
        await broker.refuse_if_full()
        assert broker.now() == 1e9
        await broker.submit(job("a"))
        wall[0] += 3600
        clock[0] += 2
        assert broker.now() == 1e9 + 2
        await broker.refuse_if_full()
        assert broker.now() == 1e9 + 2, "something waits"
        await broker.leave("a")
        await broker.refuse_if_full()
        assert broker.now() == 1e9 + 3600, "nothing is at hand that the step could touch"

    asyncio.run(test())


@pytest.mark.parametrize("fields", [{"max_tokens": 64, "n": 64}, {"max_tokens": 64, "n": 32, "sampler": {"steps": 4}}])
def test_a_plan_takes_no_more_memory_than_is_counted(fields: dict[str, object]) -> None:
    model = prime_model(length=64, digits=4)
    plan_for(model, seed=1, **fields)
    tracemalloc.start()
    try:
        plan = plan_for(model, seed=2, **fields)
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken <= plan_bytes(plan) <= 10 * taken
    score = make_score_plan(model, ScoreRequest(input=[1, 2, 0] * 1000, seed=1))
    assert 8 * len(score.tokens) < plan_bytes(score) < 1000 * len(score.tokens)


def test_the_memory_of_plans_is_bounded() -> None:
    """Whatever waits, runs or is kept for those who come back; the oldest answers make room, those that run do not."""
    plan = plan_for(MODEL, canvas=[None, None], seed=1, n=8)
    most = 3 * plan_bytes(plan)

    def large(name: str) -> Job:
        return Job(name, plan, submitted_at=0.0, detached=True)

    async def test() -> None:
        broker = MemoryBroker(max_requests=100, max_plan_bytes=most)
        for name in "abc":
            await broker.submit(large(name))
        for _ in range(2):
            with pytest.raises(QueueFullError, match=f"plans .* at most {most} bytes"):
                await broker.submit(large("d"))
        assert len((await broker.load()).waiting) == 3
        assert [(await broker.claim()).job.id for _ in "ab"] == ["a", "b"]
        await broker.append([("a", Finished(1.0))])
        await broker.submit(large("d"))
        assert await broker.look_up("a") is None, "it made room"
        with pytest.raises(QueueFullError, match="bytes"):
            await broker.submit(large("e"))
        assert await broker.cancel("d") == plan.network_evaluations
        await broker.submit(large("e"))
        assert [await broker.look_up(name) is not None for name in "bcde"] == [True, True, False, True]

    asyncio.run(test())


def test_no_answer_is_forgotten_for_a_request_that_is_refused_all_the_same() -> None:
    one, large = plan_for(MODEL, canvas=[None, None], seed=1), plan_for(MODEL, canvas=[None, None], seed=1, n=8)

    async def test() -> None:
        broker = MemoryBroker(max_requests=100, max_plan_bytes=plan_bytes(one) + plan_bytes(large) - 1)
        for name in ("answered", "waiting"):
            await broker.submit(Job(name, one, submitted_at=0.0, detached=True))
        await broker.claim()
        await broker.append([("answered", Finished(1.0))])
        with pytest.raises(QueueFullError, match="bytes"):
            await broker.submit(Job("large", large, submitted_at=0.0))
        assert await broker.look_up("answered") is not None

    asyncio.run(test())


def test_one_request_is_let_in_whatever_its_plan_takes() -> None:
    async def test() -> None:
        broker = MemoryBroker(max_requests=100, max_plan_bytes=1)
        await broker.submit(job("a"))
        for ask in (broker.refuse_if_full(), broker.submit(job("b"))):
            with pytest.raises(QueueFullError, match="of at most 1 bytes"):
                await ask
        await broker.leave("a")
        await broker.submit(job("b"))

    asyncio.run(test())
