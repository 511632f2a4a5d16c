"""The benchmarks of a cluster: that they count right, and see what must not be."""

import argparse
import json
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.__main__ import run_one
from benchmarks.cluster import cluster
from benchmarks.cluster.cluster import Bill, kept
from benchmarks.serving.server import mixed_lengths
from tests.helpers_redis import Redis
from tests.helpers_server import Server

BEFORE = Bill(Counter(xadd=5, info=1), 1.0, 100, 1000)
AFTER = Bill(Counter(xadd=25, evalsha=10, info=2), 1.5, 300, 5000)


def test_a_bill_is_what_came_between_two_readings_without_them() -> None:
    bill = AFTER.since(BEFORE)
    assert bill.commands == Counter(xadd=20, evalsha=10)
    each = bill.each(10)
    assert each["commands"] == 3
    assert each["by_command"] == {"xadd": 2, "evalsha": 1}
    assert each["cpu_microseconds"] == pytest.approx(50_000)
    assert (each["bytes_received"], each["bytes_sent"]) == (20, 400)


def test_what_redis_did_and_keeps_is_read_from_it() -> None:
    with Redis(persistent=False) as redis, redis.client() as client:
        before = Bill.of(client)
        client.xadd("log:gen-1", {"entry": "12345"}, id="1-0")
        client.xadd("log:gen-1", {"entry": "12"}, id="2-0")
        client.set("plan:gen-1", "x" * 100)
        client.set("plan:gen-2", "x" * 100)
        assert Bill.of(client).since(before).commands == Counter(xadd=2, set=2)
        found = kept(client, "gen-1")
    assert (found.entries, found.log_payload) == (2, 5 + 5 + 5 + 2)
    assert found.log_memory > found.log_payload
    assert 100 < found.rest_memory < 400


def test_a_window_is_what_came_between_two_readings() -> None:
    before = cluster.Reading(10.0, 100.0, 50.0, {"workers": 1.0, "API": 2.0}, BEFORE)
    after = cluster.Reading(12.0, 300.0, 75.0, {"workers": 4.0, "API": 2.5}, AFTER)
    window = cluster.window_of(2, before, after)
    assert (window.workers, window.evaluations_a_second, window.samples_a_tick) == (2, 100.0, 8.0)
    assert window.cpu_shares == {"workers": 1.5, "API": 0.25}
    assert window.redis["commands"] == 30 / 200


def test_figures_of_a_cluster_are_medians_of_what_was_taken_in_turns() -> None:
    rates = [(1, 100.0), (2, 150.0), (1, 50.0), (2, 100.0), (1, 100.0), (2, 190.0)]
    windows = [cluster.Window(workers, rate, 8.0, {}, {}) for workers, rate in rates]
    ways = {"one process": 100.0, "Redis in memory": 105.0, "Redis, appendfsync always": 120.0}
    slower = {name: {"median_e2el_ms": value} for name, value in ways.items()}
    faster, added = cluster.figures_of(windows, slower)
    assert (faster.value, faster.met) == (1.9, True)
    assert (added.value, added.met) == (1.2, False)


def test_one_worker_and_two_under_load(bundles: Path) -> None:
    given = ["--clients", "4", "--seconds", "0.5", "--repeats", "1", "--kept-tokens", "4"]
    parser, mix = argparse.ArgumentParser(), mixed_lengths(24)
    cluster.add_options(parser)
    with Redis() as redis:
        windows, taken = cluster.throughput(
            bundles / "writer", redis, {"tokens_per_tick": 48}, parser.parse_args(given), mix
        )
    assert [window.workers for window in windows] == [1, 2]
    for window in windows:
        assert window.evaluations_a_second > 0
        assert window.samples_a_tick >= 1
        assert min(window.cpu_shares.values()) > 0
        assert window.redis["commands"]
    assert taken["entries"] == 1 + 4 * 2 + 1
    assert taken["tokens"] == 4


def test_latencies_are_told_for_each_way(writer: Server) -> None:
    found = cluster.latencies({"one way": writer.url, "another": writer.url}, tokens=4, requests=2, repeats=1)
    assert list(found) == ["one way", "another"]
    assert all(0 < each["median_ttft_ms"] <= each["median_e2el_ms"] for each in found.values())


def test_chaos(bundles: Path, tmp_path: Path) -> None:
    file = tmp_path / "chaos.json"
    given = ["--model", str(bundles / "chain"), "--dtype", "float32", "--json", str(file)]
    assert run_one("chaos", [*given, "--kills", "1", "--others", "0", "--workers", "2", "--clients", "4"]) == 0
    found = json.loads(file.read_text())
    assert not any(found["findings"].values())
    assert found["facts"]["requests"] >= 4
    assert found["facts"]["events"] > found["facts"]["requests"]
