"""Scores over HTTP: the truth on models that know it, reproducible in any company, followed, cancelled."""

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from unmask_diffusion import score
from unmask_model_store import open_bundle

from tests.conftest import possible_table
from tests.helpers_server import ANSWER_SECONDS, Body, Server, Stream, parse_events, post_together, wait_for

TEXT = " the other weather is then, and there the rest of it"
ANSWER = {
    "id", "model", "created", "nats", "standard_error", "nats_per_token", "standard_error_per_token",
    "perplexity_per_token", "perplexity_per_word", "bits_per_byte", "tokens", "words", "bytes", "estimator", "windows",
    "window", "overlap", "seed", "published_integrand", "token_nats", "timings", "fingerprint",
}  # fmt: skip


def scored(server: Server, **body: object) -> Body:
    response = server.http.post("/score", json=body)
    assert response.status_code == 200, response.text
    answer: Body = response.json()
    assert set(answer) == ANSWER
    return answer


def streamed(server: Server, **body: object) -> Stream:
    with server.http.stream("POST", "/score", json=body | {"stream": True}) as response:
        assert response.status_code == 200, response.read()
        return Stream(list(parse_events(response.iter_lines())))


def refused(server: Server, **body: object) -> tuple[int, dict[str, Any]]:
    response = server.http.post("/score", json=body)
    error: dict[str, Any] = response.json()["error"]
    return response.status_code, error


def numbers(answer: Body) -> Body:
    """Without what differs from one asking to the next."""
    return {name: value for name, value in answer.items() if name not in ("id", "created", "timings")}


# --- what it says ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [[0, 0], [1, 3], [2, 1]])
def test_on_a_table_every_order_is_the_likelihood(table: Server, ids: list[int]) -> None:
    answer = scored(table, input=ids, seed=3)
    truth = -float(possible_table()[ids[0], ids[1]])
    assert answer["nats"] == pytest.approx(truth, abs=1e-5)
    assert answer["nats_per_token"] == pytest.approx(truth / 2, abs=1e-5)
    assert answer["standard_error"] == pytest.approx(0, abs=1e-5)
    assert (answer["tokens"], answer["words"], answer["bytes"]) == (2, None, None)
    assert answer["perplexity_per_word"] is answer["bits_per_byte"] is None


def test_what_is_given_is_a_condition(table: Server) -> None:
    """Before, behind or within the input: it is all the same."""
    given = possible_table().exp()
    after = -float((given[1, 2] / given[1].sum()).log())
    before = -float((given[1, 2] / given[:, 2].sum()).log())
    assert scored(table, input=[2], prompt=[1])["nats"] == pytest.approx(after, abs=1e-5)
    assert scored(table, input=[1, 2], given=[0])["nats"] == pytest.approx(after, abs=1e-5)
    assert scored(table, input=[1], suffix=[2])["nats"] == pytest.approx(before, abs=1e-5)


@pytest.mark.parametrize("estimator", ["orders", "integral"])
def test_the_server_reads_what_the_library_reads(writer: Server, bundles: Path, estimator: str) -> None:
    asked: Body = {"input": TEXT, "seed": 5, "estimator": estimator, "published_integrand": True, "per_token": True}
    answer, expected = scored(writer, **asked), score(open_bundle(bundles / "writer", dtype="auto"), **asked)
    assert (answer["nats"], answer["standard_error"]) == (expected.bound.nats, expected.bound.standard_error)
    assert answer["published_integrand"]["nats"] == expected.published.nats  # type: ignore[union-attr]
    assert answer["published_integrand"]["is_a_bound"] is False
    told = [(position, token, nats) for position, token, _, nats in answer["token_nats"]]
    assert told == [(each.position, each.token, each.nats) for each in expected.token_nats]
    assert "".join(text for _, _, text, _ in answer["token_nats"]) == TEXT
    assert sum(nats for *_, nats in told) == pytest.approx(answer["nats"])
    assert answer["estimator"]["network_evaluations"] == expected.network_evaluations


def test_a_token_that_no_mask_rate_met_is_told_too(long_chain: Server) -> None:
    answer = scored(long_chain, input=[1] * 1000, per_token=True, estimator="integral", budget=2, seed=1)
    assert [position for position, *_ in answer["token_nats"]] == [*range(1000)]
    assert min(nats for *_, nats in answer["token_nats"]) == 0
    assert sum(nats for *_, nats in answer["token_nats"]) == pytest.approx(answer["nats"])


def test_a_long_text_is_cut_into_windows(writer: Server) -> None:
    answer = scored(writer, input=TEXT, seed=5, overlap=8, estimator="integral")
    assert (answer["window"], answer["overlap"]) == (24, 8)
    assert answer["tokens"] == len(scored(writer, input=TEXT, per_token=True)["token_nats"]) > 24
    assert answer["windows"] == -(-(answer["tokens"] - 24) // 16) + 1
    assert (answer["words"], answer["bytes"]) == (len(TEXT.split()), len(TEXT.encode()))


def test_it_stops_at_the_wished_standard_error(writer: Server) -> None:
    exact = scored(writer, input=" the end", seed=1, budget=4000)
    wished = 2.5 * exact["standard_error_per_token"]
    stopped = scored(writer, input=" the end", seed=1, budget=4000, standard_error_per_token=wished)
    assert stopped["standard_error_per_token"] <= wished
    assert stopped["estimator"]["network_evaluations"] < stopped["estimator"]["planned"] <= 4000
    assert exact["estimator"]["network_evaluations"] == exact["estimator"]["planned"]


# --- reproducible ----------------------------------------------------------------------------------------------------


def test_seeds_reproduce_in_any_company(writer: Server) -> None:
    """Alone, or among generations and other scores that share its evaluations."""
    asked: list[Body] = [
        {"input": TEXT, "seed": 9, "budget": 1500},
        {"input": TEXT, "seed": 9, "estimator": "integral", "per_token": True, "published_integrand": True},
        {"input": " the end", "seed": 9, "budget": 4000, "standard_error_per_token": 0.4},
    ]
    alone = [numbers(scored(writer, **body)) for body in asked]
    stop = threading.Event()

    def keep_generating() -> None:
        while not stop.is_set():
            post_together(writer.url, [{"prompt": " the", "seed": seed, "n": 3} for seed in range(6)])

    crowd = threading.Thread(target=keep_generating)
    crowd.start()
    try:
        wait_for(lambda: writer.metric("unmask_requests_running") > 0, ANSWER_SECONDS)
        together = [numbers(scored(writer, **body)) for body in asked]
    finally:
        stop.set()
        crowd.join()
    assert together == alone
    assert numbers(scored(writer, **asked[0] | {"seed": 10})) != alone[0]


def test_generations_do_not_notice(writer: Server) -> None:
    alone = writer.generate(prompt=" the", max_tokens=20, seed=3)
    with writer.http.stream("POST", "/score", json={"input": TEXT, "budget": 50_000, "stream": True}) as response:
        chunks = response.iter_raw()
        assert b"start" in next(chunks)
        assert writer.generate(prompt=" the", max_tokens=20, seed=3)["choices"] == alone["choices"]
        assert next(chunks)
    writer.until_idle()


# --- followed --------------------------------------------------------------------------------------------------------


def test_a_stream_tells_the_course_and_ends_with_the_answer(writer: Server) -> None:
    body: Body = {"input": TEXT, "seed": 2}
    stream = streamed(writer, **body)
    assert [event.name for event in stream.events[1:-1]] == ["progress"] * (len(stream.events) - 2)
    assert [event.id for event in stream.events] == sorted({event.id for event in stream.events})
    done = [event.data["network_evaluations_done"] for event in stream.events[1:-1]]
    assert done == sorted(set(done))
    assert done[-1] == stream.start["network_evaluations"] == stream.done["estimator"]["planned"]
    assert stream.events[-2].data["nats_per_token"] == stream.done["nats_per_token"]
    assert numbers(stream.done) == numbers(scored(writer, **body))
    assert {name: stream.start[name] for name in ("tokens", "windows", "window", "overlap", "seed")} == {
        name: stream.done[name] for name in ("tokens", "windows", "window", "overlap", "seed")
    }


def test_a_detached_score_is_read_later(writer: Server) -> None:
    body: Body = {"input": TEXT, "seed": 2}
    response = writer.http.post("/score", json=body | {"detach": True}, headers={"Idempotency-Key": "once"})
    assert response.status_code == 202
    path = response.headers["location"]
    assert path == f"score/{response.json()['id']}"
    wait_for(lambda: writer.http.get(path).json()["state"] == "finished", ANSWER_SECONDS)
    status = writer.http.get(path).json()
    assert numbers(status["answer"]) == numbers(scored(writer, **body))
    again = writer.http.post("/score", json=body | {"detach": True}, headers={"Idempotency-Key": "once"})
    assert again.json()["id"] == status["id"]
    with writer.http.stream("GET", f"{path}/events", params={"after": 3}) as events:
        told = Stream(list(parse_events(events.iter_lines())))
    assert told.events[0].id > 3
    assert told.done == status["answer"]
    assert writer.http.get(f"{path}/events", params={"after": told.last.id}).status_code == 204


def test_generations_and_scores_are_not_taken_for_each_other(writer: Server) -> None:
    generation = writer.http.post("/generate", json={"max_tokens": 2, "detach": True}).json()["id"]
    a_score = writer.http.post("/score", json={"input": " the", "detach": True}).json()["id"]
    for path, code in ((f"/score/{generation}", "score_not_found"), (f"/generate/{a_score}", "generation_not_found")):
        for method, url in (("GET", path), ("DELETE", path), ("GET", f"{path}/events")):
            response = writer.http.request(method, url)
            assert (response.status_code, response.json()["error"]["code"]) == (404, code)


def test_cancelling_saves_the_rest(long_chain: Server) -> None:
    body: Body = {"input": [1] * 1024, "detach": True}
    saved = long_chain.metric('unmask_network_evaluations_saved_total{model="long-chain"}')
    path = long_chain.http.post("/score", json=body).headers["location"]
    wait_for(lambda: long_chain.http.get(path).json()["network_evaluations_done"] > 0, ANSWER_SECONDS)
    status = long_chain.http.delete(path).json()
    assert (status["state"], status["answer"], status["error"]["code"]) == ("cancelled", None, "cancelled")
    wait_for(lambda: long_chain.metric('unmask_network_evaluations_saved_total{model="long-chain"}') > saved, 60)


def test_a_client_that_goes_away_takes_its_score_along(long_chain: Server) -> None:
    with long_chain.http.stream("POST", "/score", json={"input": [1] * 1024, "stream": True}) as response:
        chunks = response.iter_raw()
        assert b"start" in next(chunks)
        wait_for(lambda: long_chain.metric("unmask_requests_running") == 1, ANSWER_SECONDS)
    long_chain.until_idle()


# --- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, "input", "required"),
        ({"input": ""}, "input", "at least 1"),
        ({"input": []}, "input", "at least 1"),
        ({"input": 5}, "input", "string"),
        ({"input": [1, 260]}, "input", "0 … 259"),
        ({"input": [1, -1]}, "input.1", "greater than or equal to 0"),
        ({"input": ["a"] * 100_000}, "input.0", "integer"),
        ({"input": [1], "given": [-1] * 100_000}, "given.0", "greater than or equal to 0"),
        ({"input": " the", "prompt": [999]}, "prompt", "0 … 259"),
        ({"input": " the", "suffix": [999]}, "suffix", "0 … 259"),
        ({"input": [1, 2], "given": [2]}, "given", "0 … 1"),
        ({"input": [1, 2], "given": [0, 1]}, "given", "nothing is left"),
        ({"input": [1, 2], "overlap": 24}, "overlap", "at most 23"),
        ({"input": [1, 2], "budget": 0}, "budget", "greater than or equal to 1"),
        ({"input": [1, 2], "budget": 15}, "budget", "needs 16 network evaluations"),
        ({"input": [1, 2], "budget": 1, "estimator": "integral"}, "budget", "needs 2 network evaluations"),
        ({"input": [1, 2], "budget": 2**20 + 1}, "budget", "1048576"),
        ({"input": [1] * 300_000}, "input", "1048576"),
        ({"input": [1, 2], "estimator": "guess"}, "estimator", "'orders', 'integral' or 'left_to_right'"),
        ({"input": [1, 2], "standard_error_per_token": 0}, "standard_error_per_token", "greater than 0"),
        ({"input": [1, 2], "seed": -1}, "seed", "greater than or equal to 0"),
        ({"input": [1, 2], "temperature": 1.0}, "temperature", "no such field"),
    ],
)
def test_what_cannot_be_scored_is_named(writer: Server, body: Body, param: str, words: str) -> None:
    status, error = refused(writer, **body)
    assert (status, error["param"]) == (422, param)
    assert words in error["message"]
    assert param in error["message"]


def test_text_needs_a_tokenizer(table: Server) -> None:
    status, error = refused(table, input="text")
    assert (status, error["param"]) == (422, "input")
    assert "no tokenizer" in error["message"]


def test_an_unknown_model(table: Server) -> None:
    status, error = refused(table, input=[1], model="another")
    assert (status, error["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("estimator", ["orders", "integral"])
def test_a_text_of_probability_zero(table: Server, estimator: str) -> None:
    """Its neighbours are served."""
    status, error = refused(table, input=[3, 0], estimator=estimator)
    assert (status, error["code"]) == (422, "impossible")
    assert scored(table, input=[0, 0])["nats"] > 0


def test_refusals_are_counted(table: Server) -> None:
    name = 'unmask_requests_total{endpoint="/score",model="table",outcome="rejected",reason="invalid_value"}'
    refused(table, input=[99])
    before = table.metric(name)
    refused(table, input=[99])
    assert table.metric(name) == before + 1


def memory_of(server: Server) -> int:
    """Resident bytes of a server's process."""
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_text_that_is_too_long_takes_no_memory(writer: Server) -> None:
    """Four at once, each a token a byte: 300 MB each, if they were split as a whole, and kept."""
    text = "a\u0301" * 330_000
    small = writer.http.post("/score", json={"input": "a\u0301" * 100, "budget": 1})
    assert small.status_code == 422
    before, most = memory_of(writer), 0
    responses: list[httpx.Response] = []

    def post() -> None:
        responses.append(httpx.post(f"{writer.url}/score", json={"input": text}, timeout=ANSWER_SECONDS))

    clients = [threading.Thread(target=post) for _ in range(4)]
    for client in clients:
        client.start()
    while any(client.is_alive() for client in clients):
        most = max(most, memory_of(writer))
        time.sleep(0.02)
    assert [response.status_code for response in responses] == [422] * 4
    for response in responses:
        assert response.json()["error"]["param"] == "input"
        assert "too long" in response.json()["error"]["message"]
    assert most - before < 100e6
    assert memory_of(writer) - before < 40e6
