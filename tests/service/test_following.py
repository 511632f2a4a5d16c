"""Coming back to a generation: its status, its events from anywhere, cancelling it, asking twice, asking beforehand."""

import threading
from collections.abc import Iterator
from urllib.parse import urljoin

import httpx
import pytest

from tests.helpers_server import ANSWER_SECONDS, Body, Event, Server, Stream, parse_events, token_ids, wait_for

STATUS = {
    "id", "model", "created", "state", "progress", "network_evaluations", "network_evaluations_done", "eta_ms", "error",
    "choices", "usage", "sampling", "timings", "fingerprint",
}  # fmt: skip


def detached(server: Server, **body: object) -> Body:
    response = server.http.post("/generate", json={**body, "detach": True})
    assert response.status_code == 202, response.text
    status: Body = response.json()
    assert set(status) == STATUS
    assert response.headers["location"] == f"generate/{status['id']}"
    assert urljoin("https://h.example/behind/a/proxy/generate", response.headers["location"]) == (
        f"https://h.example/behind/a/proxy/generate/{status['id']}"
    )
    return status


def status_of(server: Server, generation: str) -> Body:
    response = server.http.get(f"/generate/{generation}")
    assert response.status_code == 200, response.text
    status: Body = response.json()
    assert set(status) == STATUS
    return status


def ended(server: Server, generation: str) -> Body:
    wait_for(lambda: status_of(server, generation)["state"] not in ("waiting", "running"), ANSWER_SECONDS)
    return status_of(server, generation)


def events_of(server: Server, generation: str, after: int | None = None, in_header: bool = False) -> list[Event]:
    asked = {} if after is None or in_header else {"after": after}
    headers = {"Last-Event-ID": str(after)} if in_header else {}
    path = f"/generate/{generation}/events"
    with server.http.stream("GET", path, params=asked, headers=headers) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].partition(";")[0] == "text/event-stream"
        return list(parse_events(response.iter_lines()))


def without_times(answer: Body) -> Body:
    return {name: value for name, value in answer.items() if name not in ("id", "created", "timings")} | {
        "sampling": {name: value for name, value in answer["sampling"].items() if name != "rounds"}
    }


def test_a_detached_generation_is_answered_later(writer: Server) -> None:
    body: Body = {"prompt": " the", "max_tokens": 9, "n": 3, "seed": 5}
    begun = detached(writer, **body)
    assert begun["state"] in ("waiting", "running", "finished")
    assert begun["network_evaluations"] == 3 * 18
    status = ended(writer, begun["id"])
    assert (status["state"], status["progress"], status["error"]) == ("finished", 1.0, None)
    assert status["network_evaluations_done"] == 3 * 18
    answer = writer.generate(**body)
    assert without_times({name: status[name] for name in answer}) == without_times(answer)


def test_progress_can_be_watched(long_chain: Server) -> None:
    begun = detached(long_chain, max_tokens=1024, n=8, seed=5)
    path = begun["id"]
    wait_for(lambda: status_of(long_chain, path)["network_evaluations_done"] > 0, ANSWER_SECONDS)
    status = status_of(long_chain, path)
    assert status["state"] == "running"
    assert 0 < status["progress"] < 1
    assert status["progress"] == status["network_evaluations_done"] / (8 * 2048)
    assert status["eta_ms"] > 0
    assert status["choices"] is None
    cancelled = long_chain.http.delete(f"/generate/{path}").json()
    assert (cancelled["state"], cancelled["error"]["code"]) == ("cancelled", "cancelled")
    assert status_of(long_chain, path) == cancelled
    long_chain.until_idle()


def test_events_go_on_from_anywhere(writer: Server) -> None:
    begun = detached(writer, prompt=" the", max_tokens=6, n=2, seed=9)
    ended(writer, begun["id"])
    every = events_of(writer, begun["id"])
    streamed = writer.stream(prompt=" the", max_tokens=6, n=2, seed=9)
    for sample in range(2):
        assert [e.data for e in every[1:-1] if e.data["index"] == sample] == [
            unmask for unmask in streamed.unmasks if unmask["index"] == sample
        ]
    for after in (0, 1, 7, every[-2].id):
        rest = [event for event in every if event.id > after]
        assert events_of(writer, begun["id"], after) == rest
        assert events_of(writer, begun["id"], after, in_header=True) == rest


def test_a_browser_that_has_seen_all_stops(writer: Server) -> None:
    begun = detached(writer, max_tokens=2, seed=9)
    ended(writer, begun["id"])
    last = events_of(writer, begun["id"])[-1].id
    path = f"/generate/{begun['id']}/events"
    for response in (
        writer.http.get(path, params={"after": last}),
        writer.http.get(path, headers={"Last-Event-ID": str(last)}),
        writer.http.get(path, params={"after": last}, headers={"Last-Event-ID": "0"}),
    ):
        assert response.status_code == 204
        assert response.content == b""


def test_a_stream_that_was_dropped_is_resumed_without_gap_or_repeat(long_chain: Server) -> None:
    body: Body = {"max_tokens": 300, "seed": 11, "sampler": {"steps": 150}}
    seen: list[Event] = []
    with long_chain.http.stream("POST", "/generate", json=body | {"stream": True, "detach": True}) as response:
        for event in parse_events(response.iter_lines()):
            seen.append(event)
            if len(seen) == 20:
                break
    generation = seen[0].data["id"]
    wait_for(lambda: status_of(long_chain, generation)["network_evaluations_done"] > 20, ANSWER_SECONDS)
    resumed = Stream(seen + events_of(long_chain, generation, after=seen[-1].id))
    assert [event.id for event in resumed.events] == sorted({event.id for event in resumed.events})
    assert len(resumed.unmasks) == 150
    assert token_ids(resumed.done) == token_ids(long_chain.generate(**body))


def test_several_clients_follow_one_generation(long_chain: Server) -> None:
    begun = detached(long_chain, max_tokens=200, seed=3, sampler={"steps": 60})
    seen: list[list[Event]] = []

    def follow() -> None:
        seen.append(events_of(long_chain, begun["id"]))

    clients = [threading.Thread(target=follow) for _ in range(3)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(ANSWER_SECONDS)
    assert len(seen) == 3
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][-1].name == "done"


def test_cancelling_ends_the_stream_and_saves_the_rest(long_chain: Server) -> None:
    saved = 'unmask_network_evaluations_saved_total{model="long-chain"}'
    before = long_chain.metric(saved)
    body: Body = {"max_tokens": 1024, "n": 4, "stream": True}
    with long_chain.http.stream("POST", "/generate", json=body) as response:
        events = parse_events(response.iter_lines())
        start = next(events)
        assert next(events).name == "unmask"
        answered = httpx.delete(f"{long_chain.url}/generate/{start.data['id']}", timeout=ANSWER_SECONDS)
        assert answered.status_code == 200
        last = list(events)[-1]
    assert (last.name, last.data["error"]["code"]) == ("error", "cancelled")
    long_chain.until_idle()
    wait_for(lambda: long_chain.metric(saved) > before, ANSWER_SECONDS)


def test_an_answer_that_is_cancelled_is_an_error(long_chain: Server) -> None:
    """Two clients ask with one key; who streams learns the id, and cancels what the other waits for."""
    body: Body = {"max_tokens": 1024, "n": 4, "stream": True}
    headers = {"Idempotency-Key": "cancelled"}
    seen: list[Event] = []

    def follow() -> None:
        with httpx.stream(
            "POST", f"{long_chain.url}/generate", json=body, headers=headers, timeout=ANSWER_SECONDS
        ) as response:
            seen.extend(parse_events(response.iter_lines()))

    following = threading.Thread(target=follow)
    following.start()
    with long_chain.http.stream("POST", "/generate", json=body, headers=headers) as response:
        start = next(parse_events(response.iter_lines()))
    httpx.delete(f"{long_chain.url}/generate/{start.data['id']}", timeout=ANSWER_SECONDS)
    following.join(ANSWER_SECONDS)
    assert seen[0].data["id"] == start.data["id"]
    assert seen[-1].data["error"]["code"] == "cancelled"
    whole = long_chain.http.get(f"/generate/{start.data['id']}/events", headers={"Last-Event-ID": str(seen[-1].id)})
    assert whole.status_code == 204


@pytest.fixture
def keyed(writer: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=writer.url, timeout=ANSWER_SECONDS) as client:
        yield client


def test_the_same_key_gives_the_same_generation(keyed: httpx.Client) -> None:
    body: Body = {"max_tokens": 5, "n": 2}
    headers = {"Idempotency-Key": "the-same-key"}
    first, second = (keyed.post("/generate", json=body, headers=headers) for _ in range(2))
    assert first.status_code == second.status_code == 200
    assert first.json() == second.json(), "the seed was drawn once"
    other = keyed.post("/generate", json=body, headers={"Idempotency-Key": "another-key"}).json()
    assert other["id"] != first.json()["id"]
    refused = keyed.post("/generate", json=body | {"n": 3}, headers=headers)
    assert refused.status_code == 422
    error = refused.json()["error"]
    assert (error["param"], error["code"]) == ("Idempotency-Key", "idempotency_key_reused")


def test_the_same_key_gives_the_same_stream(keyed: httpx.Client) -> None:
    streams = []
    for _ in range(2):
        posting = keyed.stream(
            "POST", "/generate", json={"max_tokens": 4, "stream": True}, headers={"Idempotency-Key": "a-stream"}
        )
        with posting as response:
            streams.append(list(parse_events(response.iter_lines())))
    assert streams[0] == streams[1]


@pytest.mark.parametrize("key", ["", "two words", "x" * 256, "\u00e9"])
def test_a_key_that_is_none_is_refused(keyed: httpx.Client, key: str) -> None:
    response = keyed.post("/generate", json={"max_tokens": 1}, headers=[(b"Idempotency-Key", key.encode("latin-1"))])
    assert response.status_code == 422
    assert response.json()["error"]["param"] == "Idempotency-Key"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("path", ["", "/events"])
@pytest.mark.parametrize("generation", ["gen-0", "%00", "x" * 300])
def test_what_is_not_known_is_not_found(writer: Server, method: str, path: str, generation: str) -> None:
    response = writer.http.request(method, f"/generate/{generation}{path}")
    assert response.status_code == (405 if (method, path) == ("DELETE", "/events") else 404)
    assert len(response.text) < 600


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "9" * 40, "\u0661"])
def test_an_id_that_is_none_is_named(writer: Server, last: str) -> None:
    begun = detached(writer, max_tokens=1, seed=1)
    path = f"/generate/{begun['id']}/events"
    for response, param in (
        (writer.http.get(path, headers=[(b"Last-Event-ID", last.encode())]), "Last-Event-ID"),
        (writer.http.get(path, params={"after": last}), "after"),
    ):
        assert response.status_code == 422
        assert response.json()["error"]["param"] == param


def test_an_id_of_too_many_digits_to_be_read_is_named(writer: Server) -> None:
    response = writer.http.get("/generate/gen-0/events", headers={"Last-Event-ID": "0" * 5000})
    assert response.status_code == 422
    assert response.json()["error"]["param"] == "Last-Event-ID"


def test_a_plan_costs_nothing_and_tells_what_the_request_will(writer: Server) -> None:
    body: Body = {"prompt": " the", "max_tokens": 12, "n": 2, "seed": 5, "sampler": {"name": "ancestral", "steps": 30}}
    writer.until_idle()  # other tests leave work behind
    response = writer.http.post("/plan", json=body)
    assert response.status_code == 200, response.text
    plan = response.json()
    answer = writer.generate(**body)
    assert plan["masked"] == answer["sampling"]["sub_tokens"]
    assert (
        plan["network_evaluations"] == answer["sampling"]["network_evaluations"] == sum(plan["evaluations_per_sample"])
    )
    assert plan["idle_steps"] == answer["sampling"]["idle_steps"]
    assert (plan["seed"], plan["steps"], plan["samples"], plan["length"]) == (5, 30, 2, 13)
    assert plan["eta_ms"] > 0
    assert plan["queue"] == {"running": 0, "waiting": 0, "network_evaluations": 0}
    counter = 'unmask_requests_total{endpoint="/generate",model="writer",outcome="rejected",reason="invalid_value"}'
    assert writer.http.post("/generate", json={"max_tokens": 10**6}).status_code == 422
    before = writer.metric(counter)
    refused = writer.http.post("/plan", json={"max_tokens": 10**6})
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "max_tokens")
    assert writer.metric(counter) == before, "no generation was asked for"


def test_candidates_are_told_of_partly_revealed_tokens(writer: Server) -> None:
    body: Body = {"max_tokens": 12, "seed": 5}
    plain, told = writer.stream(**body), writer.stream(**body, candidates=3)
    assert token_ids(plain.done) == token_ids(told.done)
    assert all("candidates" not in unmask for unmask in plain.unmasks)
    final = told.tokens()[0]
    seen = 0
    for unmask in told.unmasks:
        complete = {position for position, _, _ in unmask["tokens"]}
        touched = {position for position, _, _ in unmask["sub_tokens"]}
        assert {position for position, _, _ in unmask["candidates"]} == touched - complete
        for position, left, likeliest in unmask["candidates"]:
            seen += 1
            assert 1 <= len(likeliest) <= min(3, left)
            probabilities = [probability for _, _, probability in likeliest]
            assert probabilities == sorted(probabilities, reverse=True)
            assert sum(probabilities) <= 1 + 1e-6
            assert left < 17 or final[position] is not None
            assert all(isinstance(text, str) for _, text, _ in likeliest)
    assert seen == 12, "each token of two digits is partly revealed once"


@pytest.mark.parametrize("wanted", [-1, 17, 1.5, "3", True])
def test_candidates_out_of_range_are_named(writer: Server, wanted: object) -> None:
    response = writer.http.post("/generate", json={"max_tokens": 2, "stream": True, "candidates": wanted})
    assert response.status_code == 422
    assert response.json()["error"]["param"] == "candidates"


def test_candidates_without_a_stream_are_refused(writer: Server) -> None:
    response = writer.http.post("/generate", json={"max_tokens": 2, "candidates": 3})
    assert response.status_code == 422
    assert response.json()["error"]["param"] == "candidates"
