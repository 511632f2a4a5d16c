"""Fair queueing and quotas: one client cannot take everything, in memory or over Redis, and nothing of it stays."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unmask_diffusion import Plan
from unmask_service.api_keys import Quota
from unmask_service.broker import (
    ApiBroker,
    EngineBroker,
    Failed,
    Finished,
    IdempotencyKey,
    Job,
    LogEntry,
    MemoryBroker,
    QueueFullError,
    QuotaExceededError,
    Started,
)
from unmask_service.broker.fair_queue import FairQueue
from unmask_service.broker.redis import Keys, RedisApiBroker, RedisEngineBroker, Timing, connect
from unmask_service.forecast import Capacity, Load, Pace, Work, outlook, seconds_until_an_end
from unmask_service.metrics import Metrics

from tests.helpers import markov_model, plan_for
from tests.helpers_redis import Redis

MODEL = markov_model(classes=4, length=8, digits=2)
PLANS: dict[int, Plan] = {tokens: plan_for(MODEL, max_tokens=tokens, seed=1) for tokens in range(1, 9)}  # 2 each
ALICE, BOB = Quota(client="alice"), Quota(client="bob")
CAPACITY = Capacity(8, Pace(1.0, 0.0, 0.0))


def job(name: str, tokens: int = 2) -> Job:
    """A job of twice as many network evaluations as it has tokens."""
    return Job(name, PLANS[tokens], submitted_at=0.0)


@dataclass(frozen=True)
class Queue:
    """A queue with two API processes and two engines; in memory they are one."""

    apis: tuple[ApiBroker, ApiBroker]
    engines: tuple[EngineBroker, EngineBroker]

    async def submit(self, client: Quota, *jobs: Job) -> None:
        for each in jobs:
            await self.apis[0].submit(each, quota=client)

    async def claims(self, most: int = 1000) -> list[str]:
        """Ids in the order of their claims, by the engines in turn."""
        claimed: list[str] = []
        while len(claimed) < most and (name := await claim_now(self.engines[len(claimed) % 2])) is not None:
            claimed.append(name)
        return claimed

    async def end(self, *entries: LogEntry) -> None:
        """Claim all jobs that wait, and append these entries to their logs."""
        while (name := await claim_now(self.engines[0])) is not None:
            await self.engines[0].append([(name, entry) for entry in entries])


async def claim_now(engine: EngineBroker) -> str | None:
    """The id of the next job; an engine over Redis asks even if it has not seen anything arrive yet."""
    if isinstance(engine, RedisEngineBroker):
        engine._arrived.set()
    claim = await engine.claim_now()
    return None if claim is None else claim.job.id


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with Redis(persistent=False) as server:
        yield server


Run = Callable[..., None]


@pytest.fixture(params=["memory", "redis"])
def run(request: pytest.FixtureRequest, redis: Redis) -> Run:
    """Run a test on a queue."""

    @contextlib.asynccontextmanager
    async def in_memory(most: int) -> AsyncIterator[Queue]:
        broker = MemoryBroker(most, orphan_seconds=1e6)
        yield Queue((broker, broker), (broker, broker))

    @contextlib.asynccontextmanager
    async def over_redis(most: int) -> AsyncIterator[Queue]:
        keys, timing = Keys("quotas", "toy"), Timing(600.0, 1e6)  # engines that report nothing renew no lease
        with redis.client() as client:
            client.flushall()
        parts = [(connect(redis.url), keys, Metrics("toy"), timing, MODEL) for _ in range(4)]
        apis = RedisApiBroker(*parts[0], most), RedisApiBroker(*parts[1], most)
        engines = RedisEngineBroker(*parts[2]), RedisEngineBroker(*parts[3])
        async with apis[0].running(), apis[1].running(), engines[0].running(), engines[1].running():
            yield Queue(apis, engines)

    make = in_memory if request.param == "memory" else over_redis

    def run_on_queue(test: Callable[[Queue], Awaitable[None]], most: int = 1000) -> None:
        async def body() -> None:
            async with asyncio.timeout(120), make(most) as queue:
                await test(queue)

        asyncio.run(body())

    return run_on_queue


def ids(client: str, count: int) -> list[str]:
    return [f"{client}{number}" for number in range(count)]


# --- whose job is next -----------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 8), max_size=20), st.sampled_from(["", "alice"]))
def test_jobs_of_one_client_are_taken_in_the_order_of_their_arrival(costs: list[int], client: str) -> None:
    queue = FairQueue()
    for number, cost in enumerate(costs):
        queue.put(str(number), client, cost)
    assert [queue.take() for _ in costs] == [str(number) for number in range(len(costs))]
    assert queue.take() is None


@given(st.randoms(use_true_random=False), st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=2, max_size=5))
def test_clients_that_wait_share_in_proportion_to_their_weights(source: random.Random, weights: list[float]) -> None:
    """For as long as each has jobs, their shares differ by less than the largest jobs: the theorem of the paper."""
    queue, costs, done = FairQueue(), dict[str, int](), Counter[int]()
    for client, weight in enumerate(weights):
        for number in range(source.randint(20, 60)):
            costs[f"{client}-{number}"] = source.randint(1, 8)
            queue.put(f"{client}-{number}", str(client), costs[f"{client}-{number}"] / weight)
    left = Counter(name.partition("-")[0] for name in costs)
    while all(left.values()):
        taken = queue.take()
        assert taken is not None
        done[int(taken.partition("-")[0])] += costs[taken]
        left[taken.partition("-")[0]] -= 1
        shares = [done[client] / weight for client, weight in enumerate(weights)]
        assert max(shares) - min(shares) <= 2 * 8 / min(weights)


def test_two_hundred_requests_of_one_client_do_not_hold_up_another(run: Run) -> None:
    async def test(queue: Queue) -> None:
        await queue.submit(ALICE, *map(job, ids("a", 200)))
        assert await queue.claims(20) == ids("a", 20)
        await queue.submit(BOB, *map(job, ids("b", 3)))
        claimed = await queue.claims()
        assert claimed[:6] == ["b0", "a20", "b1", "a21", "b2", "a22"]
        assert claimed[6:] == ids("a", 200)[23:]

    run(test)


def test_large_jobs_cost_more_and_weights_count(run: Run) -> None:
    async def test(queue: Queue) -> None:
        await queue.submit(ALICE, *(job(name, 6) for name in ids("a", 4)))
        await queue.submit(BOB, *(job(name, 2) for name in ids("b", 12)))
        await queue.submit(Quota(client="carol", weight=2), *(job(name, 6) for name in ids("c", 8)))
        # one of alice's takes as much as three of bob's, and carol may have twice as much as each of them
        expected = ["a0", "b0", "c0", "b1", "c1", "b2", "a1", "b3", "c2", "b4", "c3", "b5", "a2", "b6", "c4"]
        assert await queue.claims(15) == expected

    run(test)


def test_who_begins_to_wait_has_saved_no_turns_up(run: Run) -> None:
    async def test(queue: Queue) -> None:
        await queue.submit(BOB, job("b0"))
        await queue.submit(ALICE, *map(job, ids("a", 20)))
        assert await queue.claims(10) == ["b0", *ids("a", 9)]
        await queue.submit(BOB, *map(job, ids("b", 11)[1:]))
        assert await queue.claims(4) == ["b1", "a9", "b2", "a10"], "not eight of bob's first"

    run(test)


def test_jobs_that_are_cancelled_while_they_wait_cost_no_turn(run: Run) -> None:
    async def test(queue: Queue) -> None:
        await queue.submit(ALICE, *map(job, ids("a", 5)))
        await queue.submit(BOB, *map(job, ids("b", 5)))
        for name in ids("a", 4):
            await queue.apis[1].leave(name)
        await queue.submit(ALICE, job("a5"))
        assert await queue.claims() == ["a4", "b0", "b1", "a5", "b2", "b3", "b4"]

    run(test)


def test_what_an_engine_hands_back_goes_first_and_costs_no_second_turn(run: Run) -> None:
    async def test(queue: Queue) -> None:
        await queue.submit(ALICE, *map(job, ids("a", 4)))
        await queue.submit(BOB, *map(job, ids("b", 4)))
        assert await queue.claims(2) == ["a0", "b0"]
        for engine in queue.engines:
            await engine.release(blameless=True)
        assert sorted(await queue.claims(2)) == ["a0", "b0"]
        assert await queue.claims() == ["a1", "b1", "a2", "b2", "a3", "b3"]

    run(test)


@pytest.mark.parametrize("seed", range(3))
def test_both_brokers_claim_in_the_same_order(run: Run, seed: int) -> None:
    """Jobs come, are claimed and are cancelled at random; `FairQueue` alone says in which order."""

    async def test(queue: Queue) -> None:
        source, reference, waiting = random.Random(seed), FairQueue(), dict[str, Quota]()
        clients = [Quota(client=name, weight=weight) for name, weight in (("a", 1), ("b", 0.3), ("c", 2.5), ("d", 1))]
        for number in range(150):
            kind = source.random()
            if kind < 0.5:
                client, new = source.choice(clients), job(str(number), source.randint(1, 8))
                await queue.submit(client, new)
                reference.put(new.id, client.client, Work.of(new.plan, client).cost)
                waiting[new.id] = client
            elif kind < 0.6 and waiting:
                name = source.choice([*waiting])
                await queue.apis[1].leave(name)
                reference.remove(name, waiting.pop(name).client)
            else:
                claimed, expected = await queue.claims(1), reference.take()
                assert claimed == ([] if expected is None else [expected])
                waiting.pop(expected or "", None)

    run(test)


# --- what a forecast makes of it --------------------------------------------------------------------------------------


def test_a_forecast_counts_what_goes_before(run: Run) -> None:
    async def test(queue: Queue) -> None:
        await queue.submit(ALICE, *map(job, ids("a", 6)))
        assert await queue.claims(1) == ["a0"]
        load = await queue.apis[1].load()
        own, others = Work.of(PLANS[2], ALICE), Work.of(PLANS[2], BOB)
        assert (load.running, load.waiting) == ((own,), (own,) * 5)
        assert load.waiting_before(own) == (own,) * 5
        assert load.waiting_before(others) == (), "the next turn is bob's"
        load = replace(load, capacity=CAPACITY)
        assert outlook(load, CAPACITY, others).start_seconds == own.evaluations
        assert outlook(load, CAPACITY, own).start_seconds == 6 * own.evaluations

    run(test)


def test_a_forecast_agrees_with_the_claims(run: Run) -> None:
    """The jobs that a load says to go before one are those that are claimed before it."""

    async def test(queue: Queue) -> None:
        source = random.Random(5)
        clients = [Quota(client=name, weight=weight) for name, weight in (("a", 1.0), ("b", 2.0), ("c", 0.5))]
        for number in range(40):
            client = source.choice(clients)
            await queue.submit(client, job(f"{client.client}{number}", source.randint(1, 8)))
            if number % 4 == 3:
                await queue.claims(1)
        last = clients[1]
        before = len((await queue.apis[0].load()).waiting_before(Work.of(PLANS[1], last)))
        await queue.submit(last, job("last", 1))
        assert (await queue.claims()).index("last") == before

    run(test)


def test_the_seconds_until_a_request_of_a_client_ends() -> None:
    def work(client: str, evaluations: int) -> Work:
        return Work(8, 1, evaluations, 0.0, client)

    load = Load((work("a", 9),), (work("b", 3), work("a", 1), work("b", 2)), CAPACITY)
    assert seconds_until_an_end(load, CAPACITY, "a") == 9
    assert seconds_until_an_end(load, CAPACITY, "b") == 9 + 3
    assert seconds_until_an_end(load, CAPACITY, "nobody") == 0


# --- quotas -----------------------------------------------------------------------------------------------------------

TWO = Quota(client="alice", requests=2)


def test_a_quota_of_requests_counts_those_that_wait_or_run(run: Run) -> None:
    async def test(queue: Queue) -> None:
        one, other = queue.apis
        await one.submit(job("a0"), quota=TWO)
        await one.refuse_if_full(TWO)
        await other.submit(job("a1"), quota=TWO)
        await queue.claims(1)
        for api in queue.apis:
            for refused in (api.refuse_if_full(TWO), api.submit(job("a2"), quota=TWO)):
                with pytest.raises(QuotaExceededError, match=r"at most 2 requests of 'alice' .*, and 2 do") as error:
                    await refused
                assert error.value.seconds is None
        await one.submit(job("b0"), quota=BOB)
        await queue.end(Started(1.0), Finished(2.0))
        await other.cancel("a0")
        assert (await other.load()).running == ()
        await other.submit(job("a3"), job("a4"), quota=TWO)
        await queue.end(Started(1.0), Failed(2.0, "engine", "broken"))
        await other.submit(job("a5"), job("a6"), quota=TWO)

    run(test)


def test_a_call_of_several_jobs_counts_all_or_none(run: Run) -> None:
    async def test(queue: Queue) -> None:
        one, other = queue.apis
        await one.submit(job("a0"), quota=TWO)
        for refused in (other.refuse_if_full(TWO, 2), other.submit(job("a1"), job("a2"), quota=TWO)):
            with pytest.raises(QuotaExceededError):
                await refused
        assert await other.look_up("a1") is None
        await other.submit(job("a3"), quota=TWO)
        slow = Quota(client="carol", evaluations_per_minute=8)
        await one.submit(job("c0"), quota=slow)
        with pytest.raises(QuotaExceededError):
            await other.submit(job("c1"), job("c2"), quota=slow)
        await other.submit(job("c3"), quota=slow)

    run(test)


def test_a_full_queue_spends_nothing_of_a_quota(run: Run) -> None:
    async def test(queue: Queue) -> None:
        slow = Quota(client="alice", evaluations_per_minute=4)
        await queue.submit(BOB, job("b0"))
        with pytest.raises(QueueFullError):
            await queue.apis[0].submit(job("a0"), quota=slow)
        await queue.apis[0].leave("b0")
        await queue.apis[1].submit(job("a1"), quota=slow)

    run(test, most=1)


def test_an_idempotency_key_spends_once(run: Run) -> None:
    async def test(queue: Queue) -> None:
        slow, key = Quota(client="alice", requests=1, evaluations_per_minute=4), IdempotencyKey("k", "digest")
        for api in queue.apis:
            assert await api.submit(job("a0"), key=key, quota=slow) == "a0"

    run(test)


def test_evaluations_a_minute_are_those_of_all_processes_and_say_when_there_is_room(run: Run) -> None:
    async def test(queue: Queue) -> None:
        one, other = queue.apis
        slow = Quota(client="alice", evaluations_per_minute=10)
        await one.submit(job("a0"), quota=slow)
        await other.submit(job("a1"), quota=slow)
        for api in queue.apis:
            await api.refuse_if_full(slow)
            with pytest.raises(QuotaExceededError, match=r"'alice' may plan 10 network evaluations a minute") as error:
                await api.submit(job("a2"), quota=slow)
            assert error.value.seconds is not None
            assert 0 < error.value.seconds <= 12, "two evaluations more, of six seconds each, than there is room for"
        await other.submit(job("a3", 1), quota=slow)
        await other.submit(job("b0", 8), quota=BOB)

    run(test)


def test_a_call_of_more_than_a_minutes_evaluations_needs_the_whole_quota(run: Run) -> None:
    async def test(queue: Queue) -> None:
        slow = Quota(client="alice", evaluations_per_minute=8)
        await queue.submit(slow, job("a0", 8))
        with pytest.raises(QuotaExceededError) as error:
            await queue.submit(slow, job("a1", 1))
        assert error.value.seconds is not None
        assert 60 < error.value.seconds <= 75
        await queue.submit(replace_client(slow, "bob"), job("b0", 1))
        with pytest.raises(QuotaExceededError):
            await queue.submit(replace_client(slow, "bob"), job("b1", 8))

    run(test)


def replace_client(quota: Quota, client: str) -> Quota:
    return quota.model_copy(update={"client": client})


@pytest.mark.parametrize("claimed", [False, True])
def test_what_a_job_leaves_undone_is_given_back(run: Run, claimed: bool) -> None:
    async def test(queue: Queue) -> None:
        slow = Quota(client="alice", evaluations_per_minute=16)
        for number in range(3):
            await queue.submit(slow, job(f"a{number}", 8))
            if claimed:
                await queue.claims(1)
            await queue.apis[1].leave(f"a{number}")
        await queue.submit(slow, job("b0", 8))
        await queue.end(Started(1.0), Failed(2.0, "engine", "broken"))
        await queue.submit(slow, job("c0", 8))

    run(test)


def test_a_quota_that_is_lifted_or_lowered_counts_at_once(run: Run) -> None:
    async def test(queue: Queue) -> None:
        slow = Quota(client="alice", evaluations_per_minute=4)
        await queue.submit(slow, job("a0"))
        await queue.submit(ALICE, job("a1"))
        with pytest.raises(QuotaExceededError):
            await queue.submit(Quota(client="alice", requests=2), job("a2"))

    run(test)


def test_nothing_of_a_client_stays_in_redis(redis: Redis) -> None:
    """After errors, cancellations and a crash; the jobs themselves are kept for a while."""

    async def body() -> None:
        keys, timing = Keys("quotas", "toy"), Timing(0.5, 1e6, keep=0.2)
        parts = [(connect(redis.url), keys, Metrics("toy"), timing, MODEL) for _ in range(3)]
        api, dead, engine = RedisApiBroker(*parts[0], 100), RedisEngineBroker(*parts[1]), RedisEngineBroker(*parts[2])
        quota = Quota(client="alice", requests=10, evaluations_per_minute=100)
        async with asyncio.timeout(60), api.running(), engine.running():
            for name in ids("a", 4):
                await api.submit(job(name), quota=quota)
            async with dead.running():
                assert (await dead.claim()).job.id == "a0"
                dead._held.clear()  # it dies without handing anything back
            await api.cancel("a3")
            for number in range(3):
                claim = await engine.claim()
                assert claim.job.id in ids("a", 3)
                end = Failed(2.0, "engine", "broken") if number else Finished(2.0)
                await engine.append([(claim.job.id, Started(1.0)), (claim.job.id, end)])
        with redis.client() as client:
            names = {name.partition("}:")[2].partition(":")[0] for name in client.scan_iter()}
        assert "fair" in names
        assert not names & {"waiting", "requests", "whole", "open", "left", "owners", "attended"}

    with redis.client() as client:
        client.flushall()
    asyncio.run(body())
