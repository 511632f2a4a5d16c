"""Quotas and calls of several prompts where two API processes and two workers share one Redis."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from unmask_service.api_keys import line_of

from tests.helpers_cluster import Cluster
from tests.helpers_redis import Redis
from tests.helpers_server import Body, Server, wait_for

KEYS = {name: f"unmask-key-{name}-{'x' * 40}" for name in ("alice", "bob", "carol")}
LONG: Body = {"n": 64, "detach": True}
SHORT: Body = {"sampler": {"steps": 4}}
GAUGES = ("unmask_requests_running", "unmask_requests_waiting")


@pytest.fixture(scope="module")
def guarded(bundles: Path) -> Iterator[Cluster]:
    """A worker takes one canvas at a time."""
    limits: dict[str, dict[str, float]] = {
        "alice": {"requests": 4},
        "bob": {"evaluations_per_minute": 100},
        "carol": {},
    }
    lines = [line_of(name, KEYS[name], **of_key) for name, of_key in limits.items()]
    with Redis(persistent=False) as redis:
        settings = {"redis_prefix": "quotas", "tokens_per_tick": 64, "api_keys": ",".join(lines)}
        with Cluster(bundles / "chain", redis.url, **settings) as cluster:
            yield cluster.start(apis=2, workers=2)


def bearer(client: str) -> dict[str, str]:
    return {"authorization": f"Bearer {KEYS[client]}"}


def post(api: Server, client: str, body: Body, path: str = "/generate") -> httpx.Response:
    return api.http.post(path, json=body, headers=bearer(client))


def start(api: Server, client: str, body: Body = LONG) -> str:
    answer = post(api, client, body | {"detach": True})
    assert answer.status_code == 202, answer.text
    found: str = answer.json()["id"]
    return found


def state(api: Server, generation: str) -> str:
    found: str = api.http.get(f"/generate/{generation}", headers=bearer("carol")).json()["state"]
    return found


def cancel(api: Server, generations: list[str]) -> None:
    for generation in generations:
        assert api.http.delete(f"/generate/{generation}", headers=bearer("carol")).status_code == 200


def queued(api: Server) -> list[float]:
    """Requests that run, and that wait, as an API process sees them."""
    lines = [line.split() for line in api.http.get("/metrics", headers=bearer("carol")).text.splitlines()]
    return [float(words[1]) for gauge in GAUGES for words in lines if words[0] == gauge]


def is_refused(answer: httpx.Response) -> bool:
    assert answer.status_code == 429, answer.text
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"
    return int(answer.headers["retry-after"]) >= 1


def test_a_quota_of_requests_is_one_for_all_processes_and_outlives_a_worker(guarded: Cluster) -> None:
    apis = guarded.apis
    started = [start(apis[number % 2], "alice") for number in range(4)]
    wait_for(lambda: queued(apis[0]) == [2, 2], 60)
    for api in apis:
        assert is_refused(post(api, "alice", {}))
    guarded.workers[0].kill()
    guarded.replace(guarded.workers[0])
    guarded.until_ready()
    for api in apis:
        assert is_refused(post(api, "alice", {})), "what a dead worker had claimed is still alice's"
    cancel(apis[1], started)
    started = [start(apis[number % 2], "alice") for number in range(4)]
    cancel(apis[0], started)
    assert queued(apis[1]) == [0, 0]


def test_evaluations_a_minute_are_those_of_all_processes(guarded: Cluster) -> None:
    one, other = guarded.apis
    body = SHORT | {"n": 12}
    assert post(one, "bob", body).status_code == 200
    assert post(other, "bob", body).status_code == 200
    answers = [post(api, "bob", body) for api in (one, other)]
    assert all(map(is_refused, answers))
    assert all(int(answer.headers["retry-after"]) <= 27 for answer in answers), "96 of 100 are used, 48 more are wanted"


def test_a_client_with_many_requests_does_not_hold_up_another(guarded: Cluster) -> None:
    one, other = guarded.apis
    started = [start(one, "carol", SHORT | {"n": 4}) for _ in range(30)]
    assert post(other, "alice", SHORT).status_code == 200
    assert state(other, started[-1]) == "waiting", "thirty came first, and alice's has ended"
    cancel(one, started)


# --- a call of several prompts ---------------------------------------------------------------------------------------


def test_a_call_of_several_prompts_is_answered_by_several_workers(guarded: Cluster) -> None:
    body: Body = {"prompt": [[1], [2], [3], [0, 1]], "max_tokens": 8, "seed": 5, "n": 2}
    answers = [post(api, "alice", body, "/v1/completions") for api in guarded.apis]
    assert [answer.status_code for answer in answers] == [200, 200], [answer.text for answer in answers]
    one, other = (answer.json() for answer in answers)
    assert [choice["index"] for choice in one["choices"]] == list(range(8))
    assert one["choices"] == other["choices"]
    assert one["usage"] == other["usage"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_cancels_its_whole_call(guarded: Cluster, stream: bool) -> None:
    """Two of its jobs run, each in another worker, and two wait."""
    one, other = guarded.apis
    body: Body = {"prompt": [[1], [2], [3], [0]], "max_tokens": 60, "n": 32, "stream": stream}
    if stream:
        with one.http.stream("POST", "/v1/completions", json=body, headers=bearer("alice")) as response:
            assert response.status_code == 200
            wait_for(lambda: queued(other) == [2, 2], 60)
    else:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{one.url}/v1/completions", json=body, headers=bearer("alice"), timeout=5)
    wait_for(lambda: queued(other) == [0, 0], 60)
    assert post(other, "alice", {"prompt": [[1]] * 4, "max_tokens": 1}, "/v1/completions").status_code == 200


def test_a_call_that_is_over_its_quota_leaves_nothing(guarded: Cluster) -> None:
    one, other = guarded.apis
    started = [start(one, "alice")]
    assert is_refused(post(other, "alice", {"prompt": [[1]] * 4}, "/v1/completions"))
    assert sum(queued(one)) == 1
    cancel(other, started)
