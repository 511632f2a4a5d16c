"""`unmask bench` against real servers: what it prints agrees with what they counted."""

import asyncio
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from unmask_bench import report as load_report
from unmask_bench.client import connect
from unmask_bench.load import Load, LoadRun, Mix
from unmask_bench.report import summarise
from unmask_service.api_keys import line_of, new_key

from tests.helpers_command_line import Ended, Run
from tests.helpers_server import UNMASK, Body, OpenStream, Server, environment, wait_for, with_open_streams

LATENCIES = [
    f"{kind}_{name}_ms" for kind in ("mean", "median", "std", "p50", "p90", "p99") for name in ("ttft", "itl", "e2el")
]
# keys of `vllm bench serve --save-result` that mean the same here, or what docs/bench.md says
SHARED_KEYS = {
    *LATENCIES,
    "date",
    "backend",
    "model_id",
    "num_prompts",
    "request_rate",
    "burstiness",
    "max_concurrency",
    "duration",
    "completed",
    "failed",
    "total_input_tokens",
    "total_output_tokens",
    "request_throughput",
    "request_goodput",
    "output_throughput",
    "total_token_throughput",
    "max_concurrent_requests",
}
COUNTERS = {
    "total_network_evaluations": "unmask_network_evaluations_total",
    "total_sub_tokens": "unmask_sub_tokens_total",
    "completed": "unmask_request_seconds_count",
}


def figures_of(ended: Ended) -> dict[str, Any]:
    assert ended.code == 0, ended.stderr
    figures: dict[str, Any] = json.loads(ended.stdout)
    return figures


def counters(server: Server) -> dict[str, float]:
    label = json.dumps(server.http.get("/v1/models").json()["data"][0]["id"])
    return {key: server.metric(f"{name}{{model={label}}}") for key, name in COUNTERS.items()}


@pytest.mark.parametrize("load", [["--concurrency", "3"], ["--request-rate", "500"]])
def test_figures_are_what_the_server_counted(run: Run, writer: Server, load: list[str]) -> None:
    before = counters(writer)
    given = ["--requests", "9", "--warm-up", "0", "--max-tokens", "2:6", "--n", "1:2", "--stream-share", "0.5"]
    samplers = ["--sampler", "first_hitting", "--sampler", "ancestral", "--steps", "4"]
    figures = figures_of(run("bench", "--url", writer.url, *given, *samplers, *load, "--json"))
    assert figures.keys() >= SHARED_KEYS
    after = counters(writer)
    assert {key: figures[key] for key in COUNTERS} == {key: after[key] - before[key] for key in COUNTERS}
    assert (figures["completed"], figures["failed"], figures["errors_by_kind"]) == (9, 0, {})
    assert figures["total_token_throughput"] == pytest.approx(figures["output_throughput"])  # nothing was given
    assert figures["request_throughput"] == pytest.approx(9 / figures["duration"])
    assert 0 < figures["p50_ttft_ms"] <= figures["p90_ttft_ms"] <= figures["p99_ttft_ms"]
    assert figures["request_goodput"] is None


def test_the_same_seed_sends_the_same_load(run: Run, writer: Server) -> None:
    given = ["--requests", "5", "--max-tokens", "1:9", "--json", "--seed"]
    totals = [
        figures_of(run("bench", "--url", writer.url, *given, seed))["total_sub_tokens"] for seed in ("1", "1", "2")
    ]
    assert totals[0] == totals[1] != totals[2]


def test_prompts_and_objectives(run: Run, writer: Server, tmp_path: Path) -> None:
    lines = [{"prompt": " the", "max_tokens": 2}, {"canvas": [1, None, None, 2]}]
    (tmp_path / "fields.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "prompts.txt").write_text("the \n\n a\n")
    given = ["--prompt", "the", "--requests", "6", "--goodput", "first_unmask:1e9", "e2e:1e9", "--json"]
    for file in ("fields.jsonl", "prompts.txt"):
        figures = figures_of(run("bench", "--url", writer.url, "--prompts", tmp_path / file, *given))
        assert figures["failed"] == 0
        assert figures["total_input_tokens"] > 0
        assert figures["request_goodput"] == pytest.approx(figures["request_throughput"])


def test_a_sweep_is_a_table_a_file_and_a_picture(run: Run, writer: Server, tmp_path: Path) -> None:
    given = ["--sweep", "1,2", "--requests", "3", "--max-tokens", "3"]
    ended = run("bench", "--url", writer.url, *given, "--out", tmp_path / "out.json", "--plot", tmp_path / "load.png")
    assert ended.code == 0, ended.stderr
    assert "end to" in ended.stdout
    points = json.loads((tmp_path / "out.json").read_text())["sweep"]
    assert [point["max_concurrency"] for point in points] == [1, 2]
    assert (tmp_path / "load.png").read_bytes().startswith(b"\x89PNG")


def test_a_table_for_people(run: Run, writer: Server) -> None:
    ended = run("bench", "--url", writer.url, "--requests", "3", "--max-tokens", "3", "--goodput", "e2e:1e9")
    assert ended.code == 0, ended.stderr
    for words in ("requests completed", "within the objectives", "to the first unmask", "between unmasks", "p99"):
        assert words in ended.stdout


def test_requests_that_can_never_be_served(run: Run, writer: Server) -> None:
    ended = run("bench", "--url", writer.url, "--requests", "3", "--max-tokens", "999", "--json")
    assert ended.code == 1
    figures = json.loads(ended.stdout)
    assert figures["errors_by_kind"] == {"422 invalid_value": 3}
    assert "max_tokens" in figures["error_messages"]["422 invalid_value"]
    assert figures["mean_e2el_ms"] is None


def test_a_full_server(bundles: Path) -> None:
    """Both places are taken by endless streams: every request is refused, and none of them hurts."""
    endless: Body = {"max_tokens": 1024, "n": 16}

    async def then(http: httpx.AsyncClient, streams: list[OpenStream]) -> None:
        assert len(streams) == 2
        async with connect(str(http.base_url), 60) as client:
            run = LoadRun(client, Mix(stream_share=0.5), Load(request_rate=200.0, requests=12))
            await run.run()
        figures = summarise(run)
        assert figures["errors_by_kind"] == {"429 queue_full": 12}
        assert (figures["completed"], figures["failed"]) == (0, 12)
        assert all(record.retry_after is not None and record.retry_after >= 1 for record in run.records)

    with Server(bundles / "long-chain", "--max-requests", "2") as server:
        server.until_ready()
        with_open_streams(server.url, [endless] * 2, then)


def test_clients_that_leave(long_chain: Server) -> None:
    async def leave() -> LoadRun:
        async with connect(long_chain.url, 120) as client:
            run = LoadRun(client, Mix(common={"max_tokens": 1024}, leave_share=1.0), Load(3, requests=3))
            await run.run()
            return run

    figures = summarise(asyncio.run(leave()))
    assert (figures["left"], figures["completed"], figures["failed"]) == (3, 0, 0)
    long_chain.until_idle()


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupt_shows_what_was_measured(long_chain: Server) -> None:
    before = counters(long_chain)["completed"]
    command: list[str | Path] = [UNMASK, "bench", "--url", long_chain.url, "--requests", "100000", "--concurrency", "1"]
    process = subprocess.Popen(
        [*command, "--max-tokens", "4", "--json"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # where these tests run in the background of a shell, interrupts are ignored, by children too
        preexec_fn=_heed_interrupts,
    )
    try:
        # one after the other: when a third has ended, the client has seen the end of one after the warm-up
        wait_for(lambda: counters(long_chain)["completed"] - before >= 3, 60)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, err
    assert err == b""
    figures = json.loads(out)
    assert figures["interrupted"]
    assert figures["completed"] >= 1
    assert figures["failed"] == 0


@pytest.mark.parametrize(
    ("options", "needle"),
    [
        (["--url", "http://127.0.0.1:9"], "cannot be reached"),
        (["--url", "nowhere"], "nowhere"),
        (["--sweep", "1,b"], "--sweep"),
        (["--concurrency", "2", "--request-rate", "2"], "choose one"),
        (["--goodput", "speed:9"], "speed:9"),
        (["--max-tokens", "9:2"], "9:2"),
        (["--sampler", "ancestral:many"], "ancestral:many"),
        (["--prompts", "/nowhere/at/all"], "/nowhere/at/all"),
    ],
)
def test_what_cannot_be_measured(run: Run, options: list[str], needle: str) -> None:
    ended = run("bench", *options)
    assert ended.code == 2
    assert needle in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stdout == ""


def test_a_line_that_is_no_request(run: Run, tmp_path: Path) -> None:
    for line in ("{", "[1]", '{"stream": true}'):
        (tmp_path / "fields.jsonl").write_text(line)
        ended = run("bench", "--prompts", tmp_path / "fields.jsonl")
        assert ended.code == 2
        assert line in ended.stderr


def test_a_picture_needs_matplotlib(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_report, "find_spec", lambda _: None)
    ended = run("bench", "--plot", "load.png")
    assert ended.code == 2
    assert "unmask[lab]" in ended.stderr


# --- API keys --------------------------------------------------------------------------------------------------------


def test_a_server_with_keys(run: Run, bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = new_key()
    given = ["--requests", "2", "--json", "--out", "/dev/null"]
    with Server(bundles / "table", settings={"api_keys": line_of("alice", key)}) as server:
        bench = ["bench", "--url", server.until_ready().url, *given]
        assert figures_of(run(*bench, "--api-key", key))["completed"] == 2
        monkeypatch.setenv("UNMASK_API_KEY", key)
        assert figures_of(run(*bench))["completed"] == 2
        monkeypatch.delenv("UNMASK_API_KEY")
        for words, needle in (([], "wants an API key"), (["--api-key", "wrong"], "refuses the API key")):
            ended = run(*bench, *words)
            assert (ended.code, ended.stdout) == (2, "")
            assert needle in ended.stderr
            assert "--api-key" in ended.stderr


def test_credentials_of_a_url_are_never_printed(run: Run, writer: Server) -> None:
    url = writer.url.replace("//", "//user:unmask-secret@")
    ended = run("bench", "--url", url, "--requests", "1", "--json")
    assert figures_of(ended)["url"] == writer.url
    for wrong in ("http://user:unmask-secret@127.0.0.1:9", "http://user:unmask-secret@[", f"{url}/nowhere"):
        refused = run("bench", "--url", wrong)
        assert refused.code == 2
        assert "unmask-secret" not in ended.stdout + ended.stderr + refused.stdout + refused.stderr
