"""`unmask api` and `unmask worker` over a real Redis: the contract holds whichever process is asked."""

import asyncio
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.helpers_cluster import Cluster, check_logs, counted, follow_all, until_seen, whole_log
from tests.helpers_redis import Redis, tls_in_front_of
from tests.helpers_server import (
    NO_CERTIFICATES,
    Body,
    Event,
    Server,
    generate_together,
    parse_events,
    post_together,
    token_ids,
    wait_for,
)
from tests.system.conftest import EVALUATIONS, PLACES

# 64 canvases of 128 evaluations each: seconds of work, so nothing ends by itself while a test looks
LONG: Body = {"n": 64, "detach": True}
LONG_EVALUATIONS = 64 * 128
# as short as the model has them
SHORT: Body = {"n": 1, "seed": 3, "sampler": {"steps": 4}}


def bodies(count: int) -> list[Body]:
    """Requests of the chain, each of another kind."""
    kinds: list[Body] = [
        {},
        {"prompt": [1, 2], "max_tokens": 20, "suffix": [3]},
        {"n": 3, "temperature": 0.7, "sampler": {"steps": 16}},
        {"n": 2, "top_k": 2, "sampler": {"name": "ancestral", "steps": 40}},
        {"n": 2, "sampler": {"name": "remasking", "steps": 40, "rate": 0.2}},
        {"n": 2, "sampler": {"name": "entropy_bounded", "bound": 1.5, "block_length": 30}},
        {"max_tokens": 40, "temperature": 0, "sampler": {"steps": 1}},
    ]
    return [kinds[i % len(kinds)] | {"seed": i} for i in range(count)]


def post(api: Server, body: Body, **headers: str) -> httpx.Response:
    return api.http.post("/generate", json=body, headers=headers)


def start(api: Server, body: Body) -> str:
    """Begin a generation that goes on by itself; its id."""
    response = post(api, body | {"detach": True})
    assert response.status_code == 202, response.text
    found: str = response.json()["id"]
    assert response.headers["location"] == f"generate/{found}"
    return found


def status(api: Server, generation: str) -> Body:
    response = api.http.get(f"/generate/{generation}")
    assert response.status_code == 200, response.text
    found: Body = response.json()
    return found


def until_state(api: Server, generation: str, state: str) -> Body:
    wait_for(lambda: status(api, generation)["state"] == state, 60, api.check_alive)
    return status(api, generation)


def events_after(api: Server, generation: str, **question: str) -> httpx.Response:
    """The answer to a question for events; `after` is asked in the query, `last_event_id` in the header."""
    headers = {"Last-Event-ID": question["last_event_id"]} if "last_event_id" in question else {}
    query = {"after": question["after"]} if "after" in question else {}
    return api.http.get(f"/generate/{generation}/events", params=query, headers=headers)


def read(response: httpx.Response) -> list[Event]:
    assert response.status_code == 200, response.text
    return list(parse_events(response.text.split("\n")))


def check_error(response: httpx.Response, status_code: int, code: str) -> Body:
    assert response.status_code == status_code, response.text
    error: Body = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    return error


# --- the same answers ----------------------------------------------------------------------------------------------


def test_answers_are_those_of_one_process(cluster: Cluster, chain: Server) -> None:
    asked = bodies(10)
    expected = generate_together(chain.url, asked)
    one, other = cluster.apis
    plain = generate_together(one.url, asked)
    assert [answer["choices"] for answer in plain] == [answer["choices"] for answer in expected]
    assert [answer["usage"] for answer in plain] == [answer["usage"] for answer in expected]
    assert {answer["fingerprint"] for answer in plain} == {answer["fingerprint"] for answer in expected}
    streams = [other.stream(**body) for body in asked[:5]]
    assert [stream.done["choices"] for stream in streams] == [answer["choices"] for answer in expected[:5]]
    served = chain.stream(**asked[1])
    assert streams[1].unmasks == served.unmasks, "the log is the same, entry by entry"
    assert {k: v for k, v in streams[1].start.items() if k not in ("id", "eta_ms")} == {
        k: v for k, v in served.start.items() if k not in ("id", "eta_ms")
    }


def test_scores_are_those_of_one_process_and_followed_on_any_api(cluster: Cluster, chain: Server) -> None:
    """Beside generations: they share the workers' ticks."""
    body: Body = {"input": [position % 4 for position in range(64)], "seed": 2, "per_token": True}
    own = ("id", "created", "timings")
    one, other = cluster.apis
    accepted = one.http.post("/score", json=body | {"detach": True})
    assert accepted.status_code == 202, accepted.text
    path = accepted.headers["location"]
    beside = generate_together(one.url, bodies(4))
    told = read(other.http.get(f"{path}/events"))
    assert [told[0].name, told[-1].name] == ["start", "done"]
    assert {event.name for event in told[1:-1]} == {"progress"}
    assert read(one.http.get(f"{path}/events", headers={"Last-Event-ID": str(told[4].id)})) == told[5:]
    assert one.http.get(path).json()["answer"] == told[-1].data
    calm = chain.http.post("/score", json=body).json()
    assert {k: v for k, v in told[-1].data.items() if k not in own} == {k: v for k, v in calm.items() if k not in own}
    assert [answer["choices"] for answer in beside] == [
        answer["choices"] for answer in generate_together(chain.url, bodies(4))
    ]


def test_both_workers_work_and_everybody_says_the_same_of_it(cluster: Cluster) -> None:
    before = [counted(worker, "unmask_network_evaluations_total") for worker in cluster.workers]
    answers = generate_together(
        cluster.urls[0], [{"n": 4, "seed": seed, "sampler": {"steps": 40}} for seed in range(8)]
    )
    after = [counted(worker, "unmask_network_evaluations_total") for worker in cluster.workers]
    done = [now - then for now, then in zip(after, before, strict=True)]
    assert sum(done) == sum(answer["sampling"]["network_evaluations"] for answer in answers)
    assert min(done) > 0
    for api in cluster.apis:
        assert api.metric('unmask_workers{model="chain"}') == 2
        assert api.metric('unmask_broker_up{model="chain"}') == 1


# A program whose machine's wall clock is so many seconds ahead.
AHEAD = """
import sys, time
right = time.time
time.time = lambda: right() + SECONDS
from unmask_service.cli import main
sys.argv[0] = "unmask"
main()
"""


@pytest.mark.parametrize("ahead", [3600, -3600])
def test_machines_whose_wall_clocks_are_an_hour_apart(bundles: Path, redis: Redis, ahead: int) -> None:
    with Cluster(bundles / "chain", redis.url, redis_prefix=f"clocks{ahead}") as cluster:
        api = cluster.start_api()
        program = (sys.executable, "-c", AHEAD.replace("SECONDS", str(ahead)))
        worker = cluster.start_worker(program=program)
        cluster.until_ready()
        begun = time.perf_counter()
        answer = api.generate(**SHORT)
        most = 1000 * (time.perf_counter() - begun) + 500
        timings = answer["timings"]
        assert 0 < timings["queue_ms"] <= timings["first_unmask_ms"] <= timings["total_ms"] < most
        assert abs(answer["created"] - time.time()) < 60
        generation = start(api, LONG)
        until_state(api, generation, "running")
        api.http.delete(f"/generate/{generation}")
        for process, names in ((worker, ("queue", "first_unmask", "request")), (api, ("log_lag",))):
            for name in names:
                assert counted(process, f"unmask_{name}_seconds_count") > 0, name
                assert 0 < counted(process, f"unmask_{name}_seconds_sum") < 600, name


# --- a generation belongs to no API process --------------------------------------------------------------------------


def test_a_detached_generation_can_be_asked_for_anywhere(cluster: Cluster, chain: Server) -> None:
    one, other = cluster.apis
    body: Body = {"n": 2, "seed": 11, "sampler": {"steps": 40}}
    generation = start(one, body)
    first = status(other, generation)
    assert first["id"] == generation
    assert first["network_evaluations"] == 2 * 40
    ended = until_state(other, generation, "finished")
    assert (ended["progress"], ended["network_evaluations_done"], ended["error"]) == (1, 2 * 40, None)
    expected = chain.generate(**body)
    assert (ended["choices"], ended["usage"]) == (expected["choices"], expected["usage"])
    assert ended == status(one, generation)


def test_events_go_on_from_any_id_on_any_api(cluster: Cluster) -> None:
    one, other = cluster.apis
    generation = start(one, {"seed": 12, "sampler": {"steps": 20}})
    whole = read(events_after(other, generation))
    assert [event.name for event in whole] == ["start", *["unmask"] * 20, "done"]
    assert whole[0].id == 0
    assert [event.id for event in whole] == sorted({event.id for event in whole})
    for api in cluster.apis:
        for place in (0, 7, 20):
            seen = str(whole[place].id)
            assert read(events_after(api, generation, last_event_id=seen)) == whole[place + 1 :]
            assert read(events_after(api, generation, after=seen, last_event_id="0")) == whole[place + 1 :]
        assert events_after(api, generation, last_event_id=str(whole[-1].id)).status_code == 204
        assert events_after(api, generation, after=str(whole[-1].id + 5)).status_code == 204
        for bad in ("x", "-1", "1.5", ""):
            assert events_after(api, generation, after=bad).status_code == 422, bad
        check_error(events_after(api, "gen-" + 32 * "0"), 404, "generation_not_found")


def test_many_may_read_one_generation_while_it_runs(cluster: Cluster) -> None:
    generation = start(cluster.apis[0], {"n": 2, "seed": 13})
    with ThreadPoolExecutor(6) as readers:
        logs = list(readers.map(lambda url: whole_log(url, generation), cluster.urls * 3))
    assert len(logs[0]) == 1 + 2 * 128 + 1
    assert all(log == logs[0] for log in logs)


def test_what_nobody_knows_is_not_found(cluster: Cluster) -> None:
    for api in cluster.apis:
        for unknown in ("gen-" + 32 * "0", "x", "*", "gen-%00"):
            check_error(api.http.get(f"/generate/{unknown}"), 404, "generation_not_found")
            check_error(api.http.delete(f"/generate/{unknown}"), 404, "generation_not_found")


# --- cancelling ------------------------------------------------------------------------------------------------------


def test_delete_on_another_api_ends_the_stream(cluster: Cluster) -> None:
    one, other = cluster.apis

    async def cancel(followers: list) -> None:  # type: ignore[type-arg]
        await until_seen(followers, 10)
        response = await asyncio.to_thread(other.http.delete, f"/generate/{followers[0].id}")
        assert (response.status_code, response.json()["state"]) == (200, "cancelled")

    (follower,) = follow_all([one.url], [LONG | {"seed": 1}], cancel)
    assert follower.stream.last.name == "error"
    assert follower.stream.last.data["error"]["code"] == "cancelled"
    assert follower.connections == 1
    found = status(one, follower.id)
    assert (found["state"], found["error"]["code"], found["eta_ms"]) == ("cancelled", "cancelled", None)
    assert 0 < found["network_evaluations_done"] < LONG_EVALUATIONS
    assert one.http.delete(f"/generate/{follower.id}").json()["state"] == "cancelled"
    one.until_idle()
    check_logs(cluster.urls, [follower])


def test_what_waits_can_be_cancelled_and_what_has_ended_stays_as_it_was(cluster: Cluster) -> None:
    one, other = cluster.apis
    running = [start(one, LONG | {"seed": seed}) for seed in range(2)]
    generations = [start(one, LONG | {"seed": seed}) for seed in range(2, 8)]
    for generation in generations + running:
        assert other.http.delete(f"/generate/{generation}").json()["state"] == "cancelled"
    assert {status(one, generation)["state"] for generation in generations} == {"cancelled"}
    one.until_idle()
    generation = start(one, SHORT)
    until_state(other, generation, "finished")
    assert other.http.delete(f"/generate/{generation}").json()["state"] == "finished"
    assert status(one, generation)["state"] == "finished"


def test_a_client_that_leaves_takes_its_generation_along(cluster: Cluster) -> None:
    one, other = cluster.apis
    with one.http.stream("POST", "/generate", json={"n": 64, "stream": True}) as response:
        events = parse_events(response.iter_lines())
        generation = next(events).data["id"]
        next(events)
    other.until_idle()
    found = other.http.get(f"/generate/{generation}")
    assert found.status_code == 404 or found.json()["state"] == "cancelled"


def test_a_detached_stream_that_is_left_goes_on(cluster: Cluster) -> None:
    one, other = cluster.apis
    with one.http.stream("POST", "/generate", json={"n": 3, "stream": True, "detach": True}) as response:
        generation = next(parse_events(response.iter_lines())).data["id"]
    until_state(other, generation, "finished")
    assert len(status(one, generation)["choices"]) == 3


# --- one key, one generation -----------------------------------------------------------------------------------------


def test_a_key_is_one_generation_wherever_it_is_sent(cluster: Cluster) -> None:
    one, other = cluster.apis
    body: Body = {"seed": 21, "sampler": {"steps": 30}}
    key = {"Idempotency-Key": "a-key:21"}
    first = post(one, body, **key)
    assert first.status_code == 200
    again = post(other, body, **key)
    assert again.json() == first.json()
    detached = post(other, body | {"detach": True}, **key)
    if detached.status_code != 202:
        check_error(detached, 422, "idempotency_key_reused")
    refused = check_error(post(other, body | {"seed": 22}, **key), 422, "idempotency_key_reused")
    assert refused["param"] == "Idempotency-Key"
    assert post(other, body, **{"Idempotency-Key": "another"}).json()["id"] != first.json()["id"]
    for bad in (b"", b"x" * 256, "caf\u00e9".encode(), b"a\tb"):
        response = one.http.post("/generate", json=body, headers=[(b"Idempotency-Key", bad)])
        assert response.status_code == 422, bad


def test_a_key_sent_many_times_at_once_is_one_generation(cluster: Cluster) -> None:
    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=60) as http:
            body, key = {"n": 4, "seed": 23, "detach": True}, {"Idempotency-Key": "at-once"}
            urls = [f"{url}/generate" for url in cluster.urls * 8]
            return await asyncio.gather(*(http.post(url, json=body, headers=key) for url in urls))

    responses = asyncio.run(ask())
    assert {response.status_code for response in responses} == {202}
    assert len({response.json()["id"] for response in responses}) == 1
    assert sum(cluster.apis[0].metric(f"unmask_requests_{each}") for each in ("running", "waiting")) <= 1


def test_a_keyed_stream_begins_again_from_the_start(cluster: Cluster) -> None:
    def stream(api: Server) -> list[Event]:
        body = {"n": 2, "seed": 24, "stream": True}
        return read(post(api, body, **{"Idempotency-Key": "a-stream"}))

    assert stream(cluster.apis[0]) == stream(cluster.apis[1])


# --- one queue -------------------------------------------------------------------------------------------------------


def test_the_bound_on_requests_is_the_clusters(cluster: Cluster) -> None:
    """Sent to both at once, exactly as many are taken as there are places."""

    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=60) as http:
            urls = [f"{url}/generate" for url in cluster.urls]
            asked = [(urls[i % 2], {"n": 16, "seed": i, "detach": True}) for i in range(PLACES + 20)]
            return await asyncio.gather(*(http.post(url, json=body) for url, body in asked))

    responses = asyncio.run(ask())
    taken = [response for response in responses if response.status_code == 202]
    refused = [response for response in responses if response.status_code == 429]
    assert (len(taken), len(refused)) == (PLACES, 20)
    assert all(int(response.headers["retry-after"]) >= 1 for response in refused)
    assert all(str(PLACES) in response.json()["error"]["message"] for response in refused)
    for i, response in enumerate(taken):
        cluster.apis[i % 2].http.delete(f"/generate/{response.json()['id']}")
    cluster.apis[0].until_idle()
    assert len(cluster.apis[0].generate(**SHORT)["choices"]) == 1


def test_the_bound_on_work_is_the_clusters(cluster: Cluster) -> None:
    fit = EVALUATIONS // LONG_EVALUATIONS
    responses = [post(cluster.apis[i % 2], LONG | {"seed": i}) for i in range(fit + 4)]
    generations = [response.json()["id"] for response in responses if response.status_code == 202]
    # those that run make room meanwhile
    assert fit <= len(generations) < fit + 4
    assert {response.status_code for response in responses} == {202, 429}
    assert str(EVALUATIONS) in next(r for r in responses if r.status_code == 429).json()["error"]["message"]
    for generation in generations:
        cluster.apis[0].http.delete(f"/generate/{generation}")
    cluster.apis[1].until_idle()


# --- how things are --------------------------------------------------------------------------------------------------


def test_ready_says_what_is_missing(bundles: Path) -> None:
    with Redis(persistent=False) as redis, Cluster(bundles / "chain", redis.url) as cluster:
        api = cluster.start_api()
        wait_for(lambda: _why_not_ready(api) == "no_worker", 60, api.check_alive)
        assert api.status_of("/health") == 200
        assert api.http.get("/v1/models").json()["data"][0]["id"] == "chain"
        worker = cluster.start_worker().until_ready()
        api.until_ready()
        generation = start(api, SHORT)
        until_state(api, generation, "finished")
        redis.kill()
        for process in (api, worker):
            wait_for(lambda process=process: _why_not_ready(process) == "broker_away", 60, process.check_alive)  # type: ignore[misc]
            assert process.status_of("/health") == 200
            assert process.status_of("/metrics") == 200
        assert api.metric('unmask_broker_up{model="chain"}') == 0
        for response in (
            post(api, SHORT),
            post(api, SHORT | {"stream": True}),
            api.http.get(f"/generate/{generation}"),
        ):
            check_error(response, 503, "broker_away")
            assert int(response.headers["retry-after"]) >= 1
        assert post(api, {"n": 0}).status_code == 422
        redis.start()  # it comes back, and has lost all
        api.until_ready()
        worker.until_ready()
        check_error(api.http.get(f"/generate/{generation}"), 404, "generation_not_found")
        assert post_together(api.url, bodies(4))[-1].status_code == 200
        worker.terminate()
        assert worker.process.wait(60) == 0, worker.output()
        wait_for(lambda: _why_not_ready(api) == "no_worker", 60, api.check_alive)


def _why_not_ready(process: Server) -> str | None:
    """The code of /ready's error; None where it is ready, or does not answer yet."""
    try:
        response = httpx.get(f"{process.url}/ready", timeout=60, verify=NO_CERTIFICATES)
    except httpx.ConnectError:
        return None
    return None if response.is_success else response.json()["error"]["code"]


# --- a Redis that is shared with others ------------------------------------------------------------------------------


# what docs/scaling.md says that a user of Redis must be allowed
ALLOWED = [
    "+ping",
    "+select",
    "+client|setname",
    "+client|setinfo",
    "+evalsha",
    "+script|load",
    "+time",
    "+exists",
    "+expire",
    "+pexpire",
    "+xadd",
    "+xread",
    "+xrange",
    "+xlen",
    "+xinfo",
    "+xdel",
    "+xack",
    "+xgroup",
    "+xclaim",
    "+xautoclaim",
    "+xpending",
    "+hset",
    "+hget",
    "+hmget",
    "+hgetall",
    "+hkeys",
    "+hvals",
    "+hlen",
    "+hexists",
    "+hincrby",
    "+hdel",
    "+zadd",
    "+zrem",
    "+zrangebyscore",
    "+zscore",
    "+sadd",
    "+srem",
    "+scard",
]


@pytest.fixture
def guarded(bundles: Path, tmp_path: Path) -> Iterator[tuple[Redis, Cluster]]:
    """Over TLS, as a user who may touch nothing but keys of one prefix; generations are not kept for long."""
    with Redis(persistent=False) as redis, tls_in_front_of(redis.port, tmp_path) as (port, authority):
        with redis.client() as admin:
            admin.execute_command("ACL", "SETUSER", "unmask", "on", ">a+b/c", "~ours:*", *ALLOWED)  # type: ignore[no-untyped-call]
        url = f"rediss://unmask:a%2Bb%2Fc@127.0.0.1:{port}?ssl_ca_certs={authority}"
        settings = {"redis_prefix": "ours", "orphan_seconds": 5, "keep_seconds": 3}
        with Cluster(bundles / "chain", url, **settings) as cluster:
            yield redis, cluster.start(apis=2, workers=1)


def test_tls_users_prefixes_orphans_and_expiry(guarded: tuple[Redis, Cluster], chain: Server) -> None:
    redis, cluster = guarded
    one, other = cluster.apis
    asked = bodies(5)
    expected = [token_ids(answer) for answer in generate_together(chain.url, asked)]
    assert [token_ids(answer) for answer in generate_together(one.url, asked)] == expected
    with redis.client() as admin:
        keys = [str(key) for key in admin.keys("*")]
        assert keys
        assert [key for key in keys if not key.startswith("ours:")] == []
    _orphans_are_cancelled(one, other, cluster.workers[0])
    _what_has_ended_is_forgotten(redis, other)


def _orphans_are_cancelled(one: Server, other: Server, worker: Server) -> None:
    """A generation that nobody asks for, and one whose API process has been killed with its client's connection.

    The worker stands still meanwhile, so that none of them ends by itself.
    """
    worker.pause()
    generation = start(other, LONG)
    with one.http.stream("POST", "/generate", json={"n": 64, "stream": True}) as response:
        attached = next(parse_events(response.iter_lines())).data["id"]
        one.kill()
    other.until_idle()
    worker.resume()
    for each in (generation, attached):
        found = other.http.get(f"/generate/{each}")
        assert found.status_code == 404 or found.json()["state"] == "cancelled", found.text


def _what_has_ended_is_forgotten(redis: Redis, api: Server) -> None:
    generation = start(api, SHORT)
    until_state(api, generation, "finished")
    wait_for(lambda: api.http.get(f"/generate/{generation}").status_code == 404, 60)
    with redis.client() as admin:
        wait_for(lambda: not [key for key in admin.keys("*") if generation in str(key)], 60)
