"""The broker over a real Redis where things happen at the worst moment: replies in another order, lost, refused."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import redis as redis_package
from hypothesis import given
from hypothesis import strategies as st
from redis._parsers import BaseParser
from redis.exceptions import InvalidResponse
from unmask_diffusion import Outline, Reveal
from unmask_service.broker import BrokerAwayError, Failed, Finished, IdempotencyKey, Job, LogEntry, Revealed, Started
from unmask_service.broker.redis import Keys, RedisApiBroker, RedisEngineBroker, Timing, api_side, connect
from unmask_service.broker.redis.connection import is_away
from unmask_service.broker.redis.format import decode_job
from unmask_service.broker.redis.side import RedisClock
from unmask_service.forecast import Capacity, Pace
from unmask_service.metrics import Metrics

from tests.helpers import plan_for, table_model
from tests.helpers_redis import Redis

MODEL = table_model(classes=3, length=2, digits=2)
CAPACITY = Capacity(7, Pace(1.0, 1.0, 1.0))
LEASE = 0.4
ORPHAN = 1.0

Renewal = Callable[[Capacity], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


def job(name: str, submitted_at: float = 0.0) -> Job:
    return Job(name, plan_for(MODEL, canvas=[None, None], seed=1), submitted_at, detached=True)


def revealed(step: int) -> Revealed:
    return Revealed(1.0, Reveal(0, step, ((step // 2, step % 2, 1),)))


@dataclass
class House:
    """Processes of one cluster, each with metrics of its own."""

    redis: Redis
    timing: Timing
    keys: Keys
    stack: contextlib.AsyncExitStack

    def make_api(self) -> RedisApiBroker:
        return RedisApiBroker(connect(self.redis.url), self.keys, Metrics("toy"), self.timing, MODEL, 100)

    async def api(self) -> RedisApiBroker:
        broker = self.make_api()
        await self.stack.enter_async_context(broker.running())
        return broker

    async def engine(self) -> RedisEngineBroker:
        broker = RedisEngineBroker(connect(self.redis.url), self.keys, Metrics("toy"), self.timing, MODEL)
        await self.stack.enter_async_context(broker.running())
        await broker.report(CAPACITY)
        return broker


def run(redis: Redis, test: Callable[[House], Awaitable[None]], **timing: float) -> None:
    async def body() -> None:
        with redis.client() as client:
            client.flushall()
        async with asyncio.timeout(60), contextlib.AsyncExitStack() as stack:
            await test(House(redis, Timing(**{"lease": LEASE} | timing), Keys("races", "toy"), stack))

    asyncio.run(body())


def after_reply(owner: Any, name: str, then: Callable[[], Awaitable[object]]) -> None:  # noqa: ANN401
    """Let something else happen between Redis' answer to a script and its being read; once."""
    script = getattr(owner, name)

    async def call(*arguments: object) -> object:
        setattr(owner, name, script)
        reply = await script(*arguments)
        await then()
        return reply

    setattr(owner, name, call)


def stop_renewing(engine: RedisEngineBroker) -> Renewal:
    async def nothing(capacity: Capacity) -> None: ...

    renew, engine._renew = engine._renew, nothing  # type: ignore[method-assign]
    return renew


@contextlib.asynccontextmanager
async def silent(engine: RedisEngineBroker) -> AsyncIterator[None]:
    """An engine whose process stands still: it renews nothing."""
    renew = stop_renewing(engine)
    try:
        yield
    finally:
        engine._renew = renew  # type: ignore[method-assign, assignment]


async def log_of(api: RedisApiBroker, name: str) -> list[LogEntry]:
    return [entry async for _, entry in api.follow(name)]


# --- a renewal is answered between an append and the reading of its reply --------------------------------------------


def test_a_renewal_that_overtakes_the_last_append(redis: Redis) -> None:
    """The generation has ended by this engine's own doing: nobody has taken or cancelled it."""

    async def test(house: House) -> None:
        api, engine = await house.api(), await house.engine()
        await api.submit(job("a"))
        await engine.claim()
        after_reply(engine._scripts, "append", lambda: engine._renew(CAPACITY))
        entries: list[LogEntry] = [Started(1.0), *map(revealed, range(4)), Finished(2.0)]
        assert await engine.append([("a", entry) for entry in entries]) == {}
        assert await log_of(api, "a") == entries

    run(redis, test)


def test_a_cancel_and_a_renewal_that_overtake_an_append(redis: Redis) -> None:
    async def test(house: House) -> None:
        api, engine = await house.api(), await house.engine()
        await api.submit(job("a"))
        await engine.claim()

        async def cancel() -> None:
            await api.cancel("a")
            await engine._renew(CAPACITY)

        after_reply(engine._scripts, "append", cancel)
        departed = dict(await engine.append([("a", Started(1.0)), ("a", revealed(0))]))
        departed |= await engine.departed(["a"])
        assert departed == {"a": "cancelled"}
        last = (await log_of(api, "a"))[-1]
        assert isinstance(last, Failed)
        assert last.reason == "cancelled"

    run(redis, test)


# --- a worker that was gone for a while ------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["renewal", "append"])
def test_what_another_has_finished_was_taken_over_not_cancelled(redis: Redis, first: str) -> None:
    """Whichever way the sleeper learns of it, its write counts as refused, and the request is not counted twice."""

    async def test(house: House) -> None:
        api, sleeper, other = await house.api(), await house.engine(), await house.engine()
        await api.submit(job("a"))
        await sleeper.claim()
        async with silent(sleeper):
            await sleeper.append([("a", Started(1.0)), ("a", revealed(0))])
            claim = await other.claim()
            assert len(claim.log) == 2
            await other.append(
                [("a", Started(2.0)), *(("a", revealed(step)) for step in (1, 2, 3)), ("a", Finished(3.0))]
            )
        if first == "renewal":
            await sleeper._renew(CAPACITY)
        assert await sleeper.append([("a", revealed(1))]) == {"a": "taken over"}
        refused = sleeper._metrics.registry.get_sample_value("unmask_late_writes_refused_total", {"model": "toy"})
        assert refused == 1
        assert [type(entry) for entry in await log_of(api, "a")].count(Revealed) == 4

    run(redis, test)


def test_no_generation_is_counted_against_for_a_worker_that_made_progress(redis: Redis) -> None:
    async def test(house: House) -> None:
        api = await house.api()
        await api.submit(job("a"))
        for step in range(4):
            engine = await house.engine()
            claim = await engine.claim()
            assert (claim.attempts, len(claim.log)) == (1, 2 * step)
            await engine.append([("a", Started(1.0)), ("a", revealed(step))])
            stop_renewing(engine)

    run(redis, test)


def test_what_was_taken_over_and_then_cancelled_is_counted_by_who_had_it_last(redis: Redis) -> None:
    async def test(house: House) -> None:
        api, sleeper, other = await house.api(), await house.engine(), await house.engine()
        await api.submit(job("a"))
        await sleeper.claim()
        async with silent(sleeper):
            await other.claim()
            assert await api.cancel("a") is None
            assert await other.append([("a", Started(1.0))]) == {"a": "cancelled"}
        await sleeper._renew(CAPACITY)
        assert await sleeper.departed(["a"]) == {"a": "taken over"}

    run(redis, test)


def test_a_renewal_of_before_does_not_end_a_claim_of_after(redis: Redis) -> None:
    """A worker that was paused takes its own generation over, while a renewal under the old token is answered late."""

    async def test(house: House) -> None:
        api, engine = await house.api(), await house.engine()
        await api.submit(job("a"))
        await engine.claim()
        renew, claims = engine._scripts.renew, []

        async def late(*arguments: str | int) -> object:
            engine._scripts.renew = renew
            stop_renewing(engine)
            claims.append(await engine.claim())
            return await renew(*arguments)

        engine._scripts.renew = late  # type: ignore[assignment]
        await engine._renew(CAPACITY)
        assert claims[0].attempts == 2
        assert await engine.append([("a", Started(1.0))]) == {}

    run(redis, test)


def test_a_worker_that_ends_signs_off(redis: Redis) -> None:
    """Its task has been cancelled: that must not keep it from its last words."""

    async def test(house: House) -> None:
        api = await house.api()
        engine = RedisEngineBroker(connect(house.redis.url), house.keys, Metrics("toy"), house.timing, MODEL)
        holding = asyncio.Event()

        async def work() -> None:
            async with engine.running():
                await engine.report(CAPACITY)
                await engine.claim()
                holding.set()
                await asyncio.Event().wait()

        await api.submit(job("a"))
        working = asyncio.create_task(work())
        await holding.wait()
        load = await api.load()
        assert load.capacity is not None
        assert len(load.running) == 1
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        load = await api.load()
        assert load.capacity is None
        assert len(load.waiting) == 1

    run(redis, test, lease=60.0)


# --- Redis comes back after long -------------------------------------------------------------------------------------


def test_nothing_is_an_orphan_because_redis_was_away(redis: Redis) -> None:
    """An idle API process comes back first: it must not cancel what another follows, which comes back later."""

    async def test(house: House) -> None:
        engine, idle, busy = await house.engine(), await house.api(), await house.api()
        await idle.submit(job("a"))
        await engine.claim()
        reading = asyncio.create_task(log_of(busy, "a"))
        await asyncio.sleep(ORPHAN)
        assert await engine.append([("a", Started(1.0))]) == {}
        redis.kill()
        attended = come_back_late(busy)
        await asyncio.sleep(ORPHAN)
        redis.start()
        await attended.wait()
        entries: list[LogEntry] = [*map(revealed, range(4)), Finished(2.0)]
        assert await engine.append([("a", entry) for entry in entries]) == {}
        assert await reading == [Started(1.0), *entries]

    run(redis, test, lease=2.0, orphan=ORPHAN)


def come_back_late(api: RedisApiBroker) -> asyncio.Event:
    """What it follows, it says a while after Redis has answered the others; the event says that it has."""
    attend, attended = api._scripts.attend, asyncio.Event()

    async def late(*arguments: Any) -> object:  # noqa: ANN401
        await api._connections.commands.ping()
        await asyncio.sleep(0.3)
        reply = await attend(*arguments)
        attended.set()
        return reply

    api._scripts.attend = late  # type: ignore[assignment]
    return attended


def test_a_request_on_its_way_is_not_cancelled(redis: Redis) -> None:
    """What must be cancelled after an outage is what nobody knows of, not what is being submitted meanwhile."""

    async def test(house: House) -> None:
        api = await house.api()
        attend, attended = api._scripts.attend, asyncio.Event()

        async def note(*arguments: Any) -> object:  # noqa: ANN401
            attended.set()
            return await attend(*arguments)

        async def a_while_later() -> None:
            for _ in range(2):
                attended.clear()
                await attended.wait()

        api._began_at = -math.inf  # as if it had run for long
        api._scripts.attend = note  # type: ignore[assignment]
        after_reply(api._scripts, "submit", a_while_later)
        await api.submit(job("a"))
        assert len((await api.load()).waiting) == 1

    run(redis, test, orphan=ORPHAN)


def test_who_asks_finds_out_that_redis_is_back(redis: Redis) -> None:
    """Without waiting for what runs in the background."""

    async def test(house: House) -> None:
        api = house.make_api()
        redis.kill()
        with pytest.raises(BrokerAwayError):
            await api.load()
        redis.start()
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(BrokerAwayError):
                    await api.load()
                    break
                await asyncio.sleep(0.05)
        await api._connections.close()

    run(redis, test)


def test_a_client_that_leaves_while_redis_is_away_is_not_worked_for_afterwards(redis: Redis) -> None:
    async def test(house: House) -> None:
        api = await house.api()
        await api.submit(job("a"))
        with redis.client() as client:
            client.zadd(house.keys.base + "attended", {"a": 2**53})  # it is no orphan for a long time
        redis.kill()
        assert await api.leave("a") is None
        redis.start()
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(BrokerAwayError):
                    if not (await api.load()).waiting:
                        break
                await asyncio.sleep(0.1)

    run(redis, test, orphan=1.0)


# --- a Redis that takes no writes ------------------------------------------------------------------------------------


def take_no_writes(client: redis_package.Redis, fault: str, yes: bool) -> None:
    if fault == "full":
        client.config_set("maxmemory", int(yes))
    else:
        client.replicaof(*(("127.0.0.1", "1") if yes else ("NO", "ONE")))


@pytest.mark.parametrize("fault", ["full", "a replica"])
def test_a_redis_that_takes_no_writes_is_away(redis: Redis, fault: str) -> None:
    """What is asked gets 503, what runs waits until it is mended; then it goes on."""

    async def test(house: House) -> None:
        api, engine = await house.api(), await house.engine()
        await api.submit(job("a"))
        await engine.claim()
        with redis.client() as client:
            take_no_writes(client, fault, yes=True)
            try:
                with pytest.raises(BrokerAwayError):
                    await api.submit(job("b"))
                entries: list[LogEntry] = [Started(1.0), *map(revealed, range(4)), Finished(2.0)]
                appending = asyncio.create_task(engine.append([("a", entry) for entry in entries]))
                await asyncio.sleep(0.5)
                assert not appending.done()
            finally:
                take_no_writes(client, fault, yes=False)
        assert await appending == {}
        assert await log_of(api, "a") == entries
        await api.submit(job("b"))
        assert (await engine.claim()).job.id == "b"

    run(redis, test, lease=5.0)


# --- machines whose wall clocks differ -------------------------------------------------------------------------------


def test_times_are_by_one_clock_whatever_each_machine_says(redis: Redis) -> None:
    """An API process is an hour ahead, a worker an hour behind: both say Redis' time."""

    async def test(house: House) -> None:
        api = house.make_api()
        engine = RedisEngineBroker(connect(redis.url), house.keys, Metrics("toy"), house.timing, MODEL)
        for broker, ahead in ((api, 3600.0), (engine, -3600.0)):
            broker._clock = RedisClock(wall=lambda ahead=ahead: time.time() + ahead)  # type: ignore[misc]
            assert broker.now() == pytest.approx(time.time() + ahead, abs=60), "until Redis has answered"
            await house.stack.enter_async_context(broker.running())
        await api.refuse_if_full()
        await api.submit(job("a", api.now()))
        claim = await engine.claim()
        started_at = engine.now()
        assert 0 <= started_at - claim.job.submitted_at + 0.5 < 30
        with redis.client() as client:
            assert api.now() == pytest.approx(client.time()[0], abs=10)

    run(redis, test)


def test_the_clock_is_read_before_anything_is_stamped_where_redis_was_away_at_first(redis: Redis) -> None:
    async def test(house: House) -> None:
        api = house.make_api()
        api._clock = RedisClock(wall=lambda: time.time() + 3600)
        redis.kill()
        with pytest.raises(BrokerAwayError):
            await api.refuse_if_full()
        redis.start()
        await until_there(api.refuse_if_full)
        assert api.now() == pytest.approx(time.time(), abs=60)
        await api._connections.close()

    run(redis, test)


@given(
    st.floats(-1e5, 1e5),
    st.lists(st.tuples(st.floats(0, 60), st.floats(0, 2), st.floats(0, 1)), min_size=1, max_size=20),
)
def test_an_estimate_is_wrong_by_no_more_than_the_fastest_answer_allows(
    offset: float, answers: list[tuple[float, float, float]]
) -> None:
    """Each answer: seconds since the last one, its duration, and the share of it that had gone by in Redis."""
    now, best = 1000.0, math.inf
    clock = RedisClock(monotonic=lambda: now, wall=lambda: 5e4)
    for pause, seconds, share in answers:
        asked = now + pause
        now = asked + seconds
        clock.note(asked + share * seconds + offset, asked, now)
        best = min(best + pause + seconds, seconds / 2 + 1e-6)  # an old estimate is trusted ever less
        assert abs(clock.now() - now - offset) <= best


def test_a_clock_that_is_set_is_followed() -> None:
    clock = RedisClock(monotonic=lambda: 10.0, wall=lambda: 0.0)
    clock.note(100.0, 9.9, 10.0)
    clock.note(3700.0, 9.0, 10.0)
    assert clock.now() == pytest.approx(3700.5)


# --- a Redis that has forgotten its scripts --------------------------------------------------------------------------


def flush_scripts(broker: RedisApiBroker | RedisEngineBroker, redis: Redis, times: int) -> None:
    """Let Redis forget all scripts before each of the next so many commands."""
    pool: Any = broker._connections.commands.connection_pool
    get_connection, left = pool.get_connection, [times]

    async def flush_first(*arguments: Any, **more: Any) -> Any:  # noqa: ANN401
        if left[0]:
            left[0] -= 1
            with redis.client() as client:
                client.script_flush()
        return await get_connection(*arguments, **more)

    pool.get_connection = flush_first


def test_scripts_that_are_flushed_again_and_again(redis: Redis) -> None:
    """Whatever is under way goes on, and no request is refused for good."""

    async def test(house: House) -> None:
        api, engine = await house.api(), await house.engine()
        for broker in (api, engine):
            flush_scripts(broker, redis, times=6)
        await until_there(lambda: api.submit(job("a")))
        assert (await engine.claim()).job.id == "a"
        entries: list[LogEntry] = [Started(1.0), *map(revealed, range(4)), Finished(2.0)]
        flush_scripts(engine, redis, times=6)
        assert await engine.append([("a", entry) for entry in entries]) == {}
        assert await log_of(api, "a") == entries

    run(redis, test, lease=5.0)


async def until_there(command: Callable[[], Awaitable[object]]) -> None:
    """Ask again for as long as Redis is away, as a client does that is told so."""
    while True:
        with contextlib.suppress(BrokerAwayError):
            await command()
            return
        await asyncio.sleep(0.05)


def error_of(line: str) -> Exception:
    """What redis-py makes of an error that Redis sends."""
    error: Exception = BaseParser.parse_error(line)  # type: ignore[no-untyped-call]
    return error


@pytest.mark.parametrize("line", ["NOSCRIPT No matching script", "WRONGTYPE Operation against a key", "ERR unknown"])
def test_a_release_does_not_fail_whatever_redis_says(redis: Redis, line: str) -> None:
    """An engine that has failed hands back its jobs: another failure must not hide the first."""

    async def test(house: House) -> None:
        api, engine = await house.api(), await house.engine()
        await api.submit(job("a"))
        await engine.claim()

        async def refuse(*_: object) -> object:
            raise error_of(line)

        release, engine._scripts.release = engine._scripts.release, refuse  # type: ignore[assignment]
        async with silent(engine):
            await engine.release(blameless=False)
            engine._scripts.release = release
            assert (await (await house.engine()).claim()).job.id == "a", "its lease has run out"

    run(redis, test)


SCRIPT = "ERR Error running script (call to f_0123abcd): @user_script:17: @user_script: 17: -"


@pytest.mark.parametrize(
    "line",
    [
        "LOADING Redis is loading the dataset in memory",
        "READONLY You can't write against a read only replica.",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "NOSCRIPT No matching script. Please use EVAL.",
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        "MISCONF Errors writing to the AOF file: No space left on device",
        "NOREPLICAS Not enough good replicas to write.",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "CLUSTERDOWN The cluster is down",
        "CLUSTERDOWN Hash slot not served",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "MOVED 3999 127.0.0.1:6381",
        "ASK 3999 127.0.0.1:6381",
        "NOPERM this user has no permissions to run the 'evalsha' command",
        "NOAUTH Authentication required.",
        "WRONGPASS invalid username-password pair or user is disabled.",
        "ERR max number of clients reached",
        SCRIPT + "OOM command not allowed when used memory > 'maxmemory'.",
        SCRIPT + "READONLY You can't write against a read only replica.",
        SCRIPT[:-1] + "The user executing the script can't run this command or subcommand",
    ],
)
def test_what_an_operator_can_mend_is_tried_again(line: str) -> None:
    """None of these may end a worker that holds jobs and a loaded model."""
    assert is_away(error_of(line))


@pytest.mark.parametrize("error", [InvalidResponse("Protocol Error: b'<'"), OSError(), TimeoutError()])
def test_an_answer_that_is_none_is_tried_again(error: Exception) -> None:
    assert is_away(error)


@pytest.mark.parametrize(
    "line", ["WRONGTYPE Operation against a key holding the wrong kind of value", "ERR unknown command 'X'"]
)
def test_a_fault_of_ours_is_not_called_an_outage(line: str) -> None:
    assert not is_away(error_of(line))


# --- odd moments -----------------------------------------------------------------------------------------------------


def test_requests_of_the_same_moment(redis: Redis) -> None:
    async def test(house: House) -> None:
        api = await house.api()
        now = time.time()
        for name in "abc":
            await api.submit(job(name, now))
        assert len((await api.load()).waiting) == 3

    run(redis, test)


def test_a_key_whose_generation_redis_has_evicted(redis: Redis) -> None:
    async def test(house: House) -> None:
        api, key = await house.api(), IdempotencyKey("mine", "digest")
        await api.submit(job("a"), key=key)
        with redis.client() as client:
            client.delete(house.keys.base + "generation:a")
        assert await api.submit(job("b"), key=key) == "b"
        assert await api.id_of(key) == "b"

    run(redis, test)


def test_the_first_job_after_all_workers_have_died(redis: Redis) -> None:
    """A worker that has never claimed anything is silent for long; a job comes before any other worker does."""

    async def test(house: House) -> None:
        early = await house.engine()
        stop_renewing(early)
        with redis.client() as client:
            # whatever the early one's look for work has made: the jobs' stream is made by the first job
            client.delete(house.keys.jobs)
            client.zadd(house.keys.base + "workers", {"worker-long-gone": 1})
        await (await house.api()).submit(job("a"))
        late = await house.engine()
        assert (await late.claim()).job.id == "a"

    run(redis, test)


def test_a_claim_whose_reply_is_lost_is_made_up_for(redis: Redis) -> None:
    """Redis has carried it out, the worker does not know: after a lease somebody else takes it."""

    async def test(house: House) -> None:
        api, engine = await house.api(), await house.engine()
        await api.submit(job("a"))
        script = engine._scripts.claim
        lost: list[object] = []

        async def lose(*arguments: object) -> object:
            reply = await script(*arguments)  # type: ignore[arg-type]
            if len(reply) > 1 and not lost:
                lost.append(reply)
                raise redis_package.exceptions.TimeoutError
            return reply

        engine._scripts.claim = lose  # type: ignore[assignment]
        claim = await asyncio.wait_for(engine.claim(), 20)
        assert (claim.job.id, len(lost)) == ("a", 1)
        entries: list[LogEntry] = [Started(1.0), *map(revealed, range(4)), Finished(2.0)]
        assert await engine.append([("a", entry) for entry in entries]) == {}
        assert await log_of(api, "a") == entries

    run(redis, test)


def test_an_append_whose_reply_is_lost_is_made_once(redis: Redis) -> None:
    async def test(house: House) -> None:
        api, engine = await house.api(), await house.engine()
        await api.submit(job("a"))
        await engine.claim()
        script = engine._scripts.append

        async def lose(*arguments: object) -> object:
            await script(*arguments)  # type: ignore[arg-type]
            engine._scripts.append = script
            raise redis_package.exceptions.TimeoutError

        entries: list[LogEntry] = [Started(1.0), *map(revealed, range(4)), Finished(2.0)]
        for part in (entries[:2], entries[2:4], entries[4:]):
            engine._scripts.append = lose  # type: ignore[assignment]
            assert await engine.append([("a", entry) for entry in part]) == {}
        assert await log_of(api, "a") == entries
        assert (await api.load()).evaluations == 0

    run(redis, test)


def test_a_log_that_cannot_be_read_stops_no_other(redis: Redis) -> None:
    async def test(house: House) -> None:
        api, engine = await house.api(), await house.engine()
        for name in "ab":
            await api.submit(job(name))
            await engine.claim()
        with redis.client() as client:
            client.xadd(house.keys.log("a"), {"e": "no entry"}, id="1-0")
        reading = [asyncio.create_task(log_of(api, name)) for name in "ab"]
        await asyncio.sleep(0.2)
        entries: list[LogEntry] = [Started(1.0), *map(revealed, range(4)), Finished(2.0)]
        await engine.append([("b", entry) for entry in entries])
        bad, good = await asyncio.wait_for(asyncio.gather(*reading), 10)
        assert good == entries
        assert isinstance(bad[-1], Failed)

    run(redis, test)


# --- looking up ------------------------------------------------------------------------------------------------------


def test_a_job_is_decoded_once_however_often_it_is_looked_up(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []

    def decode(text: bytes, model: Outline) -> Job:
        decoded.append(text)
        return decode_job(text, model)

    monkeypatch.setattr(api_side, "decode_job", decode)

    async def test(house: House) -> None:
        api, other, engine = await house.api(), await house.api(), await house.engine()
        await api.submit(job("a"))
        first = await api.look_up("a")
        assert first is not None
        assert first.state == "waiting"
        await engine.claim()
        await engine.append([("a", revealed(0))])
        second = await api.look_up("a")
        assert second is not None
        assert (second.job, second.state) == (first.job, "running")
        assert second.evaluations_left == first.evaluations_left - 1
        assert len(decoded) == 1
        await other.look_up("a")
        assert len(decoded) == 2

    run(redis, test)


def test_decoded_jobs_are_bounded_in_number_and_in_size() -> None:
    jobs = {name: job(name) for name in "abc"}
    places = 2 + jobs["a"].plan.sub_tokens
    for kept in (api_side.DecodedJobs(most_jobs=2), api_side.DecodedJobs(most_places=2 * places)):
        kept.put(jobs["a"])
        kept.put(jobs["b"])
        assert kept.get("a") is jobs["a"]  # used last
        kept.put(jobs["c"])
        assert [kept.get(name) for name in "abc"] == [jobs["a"], None, jobs["c"]]
        kept.put(replace(job("large"), plan=plan_for(MODEL, max_tokens=2, n=64)))
        kept.put(jobs["b"])
        assert kept.get("b") is jobs["b"]
    assert kept.get("large") is None
    assert kept.get("c") is jobs["c"]
