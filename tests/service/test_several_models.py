"""Several models in one process: a request names one, and each has its own queue, engine and metrics."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from unmask_model_store import find_bundle
from unmask_service.settings import SHIPPED_MODELS, SettingsError, read_settings
from unmask_service.startup import describe

from tests.helpers_cluster import Cluster
from tests.helpers_redis import Redis
from tests.helpers_server import ANSWER_SECONDS, Body, Server, parse_events, unmask, wait_for


@pytest.fixture(scope="module")
def both(bundles: Path) -> Iterator[Server]:
    """Serves `writer`, the default, and `long-chain`."""
    with Server(bundles / "writer", "--model", str(bundles / "long-chain")) as server:
        yield server.until_ready()


def tokens_of(answer: Body) -> list[list[int]]:
    return [choice["token_ids"] for choice in answer["choices"]]


def error_of(response: httpx.Response) -> tuple[int, str, str]:
    error = response.json()["error"]
    return response.status_code, error["code"], error["message"]


def test_the_list_has_the_default_first(both: Server) -> None:
    cards = both.http.get("/v1/models").json()["data"]
    assert [card["id"] for card in cards] == ["writer", "long-chain"]
    assert [card["length"] for card in cards] == [24, 1024]
    for card in cards:
        assert both.http.get(f"/v1/models/{card['id']}").json() == card
    assert error_of(both.http.get("/v1/models/a/b"))[:2] == (404, "model_not_found")


def test_a_request_chooses_its_model(both: Server, writer: Server, long_chain: Server) -> None:
    """The tokens are those of a server with this model alone."""
    request = {"max_tokens": 9, "seed": 3}
    for body, alone in (({}, writer), ({"model": "writer"}, writer), ({"model": "long-chain"}, long_chain)):
        answer, expected = both.generate(**request, **body), alone.generate(**request)
        assert answer["model"] == expected["model"]
        assert tokens_of(answer) == tokens_of(expected)


@pytest.mark.parametrize("path", ["/generate", "/plan", "/score"])
def test_a_third_model_is_not_found(both: Server, path: str) -> None:
    body = {"model": "tales", **({"input": [1, 2]} if path == "/score" else {})}
    message = "model 'tales' is not served here; 'writer' and 'long-chain' are"
    assert error_of(both.http.post(path, json=body)) == (404, "model_not_found", message)


def test_plans_scores_and_cards_are_the_models_own(both: Server) -> None:
    plan = both.http.post("/plan", json={"model": "long-chain", "max_tokens": 100}).json()
    assert (plan["model"], plan["length"]) == ("long-chain", 1024)
    too_long = both.http.post("/plan", json={"max_tokens": 100})
    assert too_long.status_code == 422, "the default's length is 24"
    score = both.http.post("/score", json={"model": "writer", "input": "hello", "seed": 1}).json()
    assert (score["model"], score["tokens"]) == ("writer", 5)
    assert both.http.get("/v1/models/writer/card").text == "# A random network\n"
    assert error_of(both.http.get("/v1/models/long-chain/card"))[:2] == (404, "card_not_found")


def test_jobs_of_both_are_found_by_their_ids(both: Server) -> None:
    for model in ("writer", "long-chain"):
        accepted = both.http.post("/generate", json={"model": model, "max_tokens": 4, "detach": True})
        path = f"/generate/{accepted.json()['id']}"
        wait_for(lambda path=path: both.http.get(path).json()["state"] == "finished", ANSWER_SECONDS)  # type: ignore[misc]
        assert both.http.get(path).json()["model"] == model
        events = list(parse_events(both.http.get(f"{path}/events").text.splitlines()))
        assert events[-1].data["model"] == model
    assert error_of(both.http.get("/generate/gen-1"))[:2] == (404, "generation_not_found")


def test_a_key_belongs_to_one_request_whatever_its_model(both: Server) -> None:
    headers = {"Idempotency-Key": "one"}
    first, second = (
        both.http.post("/generate", json={"model": model, "max_tokens": 2}, headers=headers)
        for model in ("writer", "long-chain")
    )
    assert first.status_code == 200
    assert error_of(second)[:2] == (422, "idempotency_key_reused")


def samples(server: Server, name: str) -> dict[str, float]:
    """The value of a metric, by its labels."""
    lines = server.http.get("/metrics").text.splitlines()
    found = (line.rsplit(" ", 1) for line in lines if line.startswith(name + "{"))
    return {labels.removeprefix(name): float(value) for labels, value in found}


def count(server: Server, model: str, outcome: str) -> float:
    counted = samples(server, "unmask_requests_total").items()
    return sum(n for labels, n in counted if f'model="{model}"' in labels and f'outcome="{outcome}"' in labels)


def test_under_load_each_model_has_its_turns_its_metrics_and_its_cancellations(both: Server) -> None:
    """A request of 64 × 2048 evaluations does not keep another model waiting, and its end is counted for its model."""
    finished, cancelled = count(both, "writer", "finished"), count(both, "long-chain", "cancelled")
    long = [
        both.http.post("/generate", json={"model": "long-chain", "max_tokens": 1024, "n": 64, "detach": True}).json()
        for _ in range(3)
    ]
    running = '{model="long-chain",state="running"}'
    wait_for(lambda: samples(both, "unmask_queue_requests")[running] == 3, ANSWER_SECONDS)

    def ask(seed: int) -> list[int]:
        response = httpx.post(f"{both.url}/generate", json={"max_tokens": 8, "seed": seed}, timeout=ANSWER_SECONDS)
        tokens: list[int] = response.json()["choices"][0]["token_ids"]
        return tokens

    with ThreadPoolExecutor(8) as clients:
        crowded = list(clients.map(ask, range(24)))
    assert samples(both, "unmask_queue_requests")[running] == 3, "they run all the while"
    assert both.metric("unmask_requests_running") == 3
    assert count(both, "writer", "finished") == finished + 24
    assert both.http.delete(f"/generate/{long[0]['id']}").json()["state"] == "cancelled"
    wait_for(lambda: samples(both, "unmask_queue_requests")[running] == 2, ANSWER_SECONDS)
    for each in long[1:]:
        both.http.delete(f"/generate/{each['id']}")
    both.until_idle()
    wait_for(lambda: count(both, "long-chain", "cancelled") == cancelled + 3, ANSWER_SECONDS)
    assert count(both, "writer", "cancelled") == 0
    assert crowded == [ask(seed) for seed in range(24)], "no token depends on the other model"
    assert set(samples(both, "unmask_tokens_per_tick")) == {'{model="writer"}', '{model="long-chain"}'}


def test_each_model_can_be_ready_by_itself(both: Server) -> None:
    assert both.status_of("/ready?model=long-chain") == 200
    assert both.status_of("/ready?model=tales") == 404


# --- over Redis ------------------------------------------------------------------------------------------------------


def test_an_api_serves_the_models_of_several_workers(bundles: Path, writer: Server, chain: Server) -> None:
    """A worker has one model; the queues, and who is missing, are each model's own."""
    request = {"max_tokens": 9, "seed": 3}
    with Redis(persistent=False) as redis, Cluster(bundles / "chain", redis.url) as cluster:
        api = cluster.start_api("--model", str(bundles / "writer"))
        cluster.start_worker().until_ready()
        wait_for(lambda: api.status_of("/ready?model=chain") == 200, ANSWER_SECONDS, api.check_alive)
        assert error_of(api.http.get("/ready")) == (503, "no_worker", "no worker of 'writer' is alive")
        assert samples(api, "unmask_workers") == {'{model="chain"}': 1, '{model="writer"}': 0}
        accepted = api.http.post("/generate", json=request | {"model": "writer", "detach": True}).json()
        assert accepted["eta_ms"] is None
        assert tokens_of(api.generate(**request)) == tokens_of(chain.generate(**request))
        assert api.http.get(f"/generate/{accepted['id']}").json()["state"] == "waiting"
        assert samples(api, "unmask_queue_requests")['{model="writer",state="waiting"}'] == 1

        cluster.workers.append(Server(bundles / "writer", command="worker", settings=cluster.settings))
        api.until_ready()
        path = f"/generate/{accepted['id']}"
        wait_for(lambda: api.http.get(path).json()["state"] == "finished", ANSWER_SECONDS)
        assert tokens_of(api.http.get(path).json()) == tokens_of(writer.generate(**request))
        assert api.stream(**request, model="writer").done["model"] == "writer"
        assert error_of(api.http.post("/generate", json={"model": "tales"}))[:2] == (404, "model_not_found")


# --- which models ----------------------------------------------------------------------------------------------------


def test_the_variable_names_several(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings().models_of("serve") == SHIPPED_MODELS
    assert read_settings().models_of("worker") == read_settings().models_of("api") == ("tales",)
    assert [describe(find_bundle(name, None), read_settings()).id for name in SHIPPED_MODELS] == ["tales", "faces"]
    monkeypatch.setenv("UNMASK_MODEL", "one,./two")
    settings = read_settings()
    assert settings.models_of("serve") == settings.models_of("api") == ("one", "./two")
    assert settings.first_model == "one"
    with pytest.raises(SettingsError, match="a worker evaluates one model"):
        settings.models_of("worker")
    assert read_settings(model=["a,b"]).model == ("a,b",), "on the command line a comma is a part of the path"
    monkeypatch.setenv("UNMASK_MODEL", "one,")
    with pytest.raises(SettingsError, match="UNMASK_MODEL"):
        read_settings()


def test_two_models_of_one_name_are_refused(bundles: Path) -> None:
    ended = unmask("serve", "--model", bundles / "chain", "--model", bundles / "chain", "--port", "0")
    assert ended.returncode == 2
    assert "two models have the name 'chain'" in ended.stderr
