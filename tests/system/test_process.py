"""The server as a process: it starts, says when it is ready, drains, and says in one line why it can't."""

import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.helpers import byte_tokenizer
from tests.helpers_server import UNMASK, Body, Server, parse_events, token_ids, wait_for

# started as a user starts it, and not forked
Started = partial(Server, program=(UNMASK,))


def ends_well(server: Server, kind: signal.Signals) -> None:
    server.process.send_signal(kind)
    assert server.process.wait(120) == 0, server.output()
    assert "Traceback" not in server.output()


def test_term_lets_what_runs_end_and_refuses_what_is_new(bundles: Path) -> None:
    """In the order of events: two requests run, TERM comes, a third is refused, the two are answered, exit code 0."""
    body: Body = {"max_tokens": 200, "seed": 5, "sampler": {"steps": 80}}
    answers: dict[str, list[list[int]]] = {}
    with Started(bundles / "long-chain", "--drain-seconds", "200") as server:
        server.until_ready()
        started = threading.Event()

        def whole() -> None:
            answers["whole"] = token_ids(httpx.post(f"{server.url}/generate", json=body, timeout=120).json())

        def streamed() -> None:
            posted = body | {"stream": True}
            with httpx.stream("POST", f"{server.url}/generate", json=posted, timeout=120) as response:
                for event in parse_events(response.iter_lines()):
                    if event.name == "unmask":
                        started.set()
                    if event.name == "done":
                        answers["streamed"] = token_ids(event.data)

        clients = [threading.Thread(target=whole), threading.Thread(target=streamed)]
        for client in clients:
            client.start()
        assert started.wait(120)
        gauges = ("unmask_requests_running", "unmask_requests_waiting")
        wait_for(lambda: sum(map(server.metric, gauges)) == 2, 120)
        server.terminate()
        wait_for(lambda: server.status_of("/ready") == 503, 120)
        refusal = httpx.post(f"{server.url}/generate", json={"max_tokens": 1}, timeout=120)
        assert refusal.status_code == 503
        assert int(refusal.headers["retry-after"]) >= 1
        assert set(refusal.json()["error"]) == {"message", "type", "param", "code"}
        assert server.status_of("/health") == 200
        for client in clients:
            client.join(120)
        assert server.process.wait(120) == 0, server.output()
        assert "Traceback" not in server.output()
    assert [len(ids) for ids in answers["whole"]] == [200]
    assert answers["streamed"] == answers["whole"]


def test_a_restart_changes_no_tokens_and_an_idle_server_ends(bundles: Path, writer: Server) -> None:
    body: Body = {"prompt": " the", "max_tokens": 9, "n": 3, "seed": 5}
    expected = writer.generate(**body)
    with Started(bundles / "writer") as server:
        answer = server.until_ready().generate(**body)
        assert answer["choices"] == expected["choices"]
        assert answer["fingerprint"] == expected["fingerprint"]
        ends_well(server, signal.SIGTERM)


def test_speculation_changes_no_tokens(bundles: Path) -> None:
    bodies: list[Body] = [
        {"prompt": " the", "max_tokens": 20, "n": 2, "seed": 5},
        {"max_tokens": 24, "seed": 6, "temperature": 0},
        {"max_tokens": 24, "seed": 7, "sampler": {"name": "ancestral", "steps": 30}, "top_k": 9},
    ]
    answers = []
    for speculation in ("off", "auto", "6"):
        with Server(bundles / "writer", "--speculation", speculation) as server:
            answers.append([server.until_ready().generate(**body) for body in bodies])
            lanes, rounds = (server.metric(f'unmask_{name}_total{{model="writer"}}') for name in ("lanes", "rounds"))
        assert rounds == sum(answer["sampling"]["rounds"] for answer in answers[-1])
        assert (lanes > rounds) if speculation == "6" else (lanes >= rounds)
    off, *others = ([answer["choices"] for answer in each] for each in answers)
    assert others == [off, off]
    assert all(answer["sampling"]["rounds"] == answer["sampling"]["network_evaluations"] for answer in answers[0])


def slow_model(bundles: Path, tmp_path: Path) -> Path:
    """A model whose tokenizer is a pipe: loading waits until somebody writes to it."""
    folder = tmp_path / "slow"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).symlink_to(bundles / "writer" / name)
    os.mkfifo(folder / "tokenizer.json")
    return folder


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT] * 3])
def test_a_process_that_loads_ends_at_once(bundles: Path, tmp_path: Path, signals: list[signal.Signals]) -> None:
    """The interpreter does not wait for a model that nobody needs any more."""
    with Started(slow_model(bundles, tmp_path)) as server:
        wait_for(lambda: server.status_of("/health") == 200, 120)
        for kind in signals:
            server.process.send_signal(kind)
            time.sleep(0.1)
        assert server.process.wait(30) == 0, server.output()
        assert "Traceback" not in server.output()


def test_the_log_says_what_loads_and_where_it_can_be_reached(bundles: Path) -> None:
    with Started(bundles / "table") as server:
        server.until_ready()
        wait_for(lambda: f"ready: {server.url}" in server.output(), 120)
        before, _, after = server.output().partition(f"ready: {server.url}")
        assert "loading table …" in before
        assert "playground" in after.splitlines()[0]


def test_a_process_beside_kubernetes_services_and_prometheus_folders(
    bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables that others have set: it starts, says which it ignores, and writes no metrics into files."""
    metrics = tmp_path / "metrics"
    metrics.mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(metrics))
    settings = {"port": "tcp://10.0.0.1:8000", "service_host": "10.0.0.1", "api_key": "unmask-key-client"}
    with Started(bundles / "table", settings=settings) as server:
        server.until_ready().generate(seed=1)
        assert server.metric('unmask_rounds_total{model="table"}') > 0
        assert "ignored, as set by Kubernetes for a Service: UNMASK_PORT, UNMASK_SERVICE_HOST" in server.output()
        assert not list(metrics.iterdir())


def test_until_the_model_is_loaded_requests_are_refused(bundles: Path, tmp_path: Path) -> None:
    """Its tokenizer is a pipe that nobody has written to yet, so loading waits for this test."""
    folder = slow_model(bundles, tmp_path)
    with Started(folder) as server:
        wait_for(lambda: server.status_of("/health") == 200, 120)
        assert server.status_of("/ready") == 503
        refusal = server.http.post("/generate", json={"max_tokens": 1})
        assert refusal.status_code == 503
        assert int(refusal.headers["retry-after"]) >= 1
        assert set(refusal.json()["error"]) == {"message", "type", "param", "code"}
        assert server.status_of("/metrics") == 200
        assert server.status_of("/v1/models") in (200, 503)
        (folder / "tokenizer.json").write_text(byte_tokenizer().to_str())
        server.until_ready()
        assert server.generate(max_tokens=1)["model"] == "slow"
        ends_well(server, signal.SIGINT)
