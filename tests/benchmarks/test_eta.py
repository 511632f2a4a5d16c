"""The forecast benchmark on tiny sizes: that it counts right and ends."""

import asyncio
import json
from pathlib import Path

import pytest

from benchmarks.__main__ import run_one
from benchmarks.serving import eta
from tests.helpers_server import Server


def answer(deadline_ms: int | None, eta_ms: float, took_ms: float) -> eta.Answer:
    return eta.Answer(deadline_ms, eta_ms, took_ms, evaluations=1)


def test_errors_and_deadlines_are_counted() -> None:
    asked = [answer(None, 110, 100), answer(None, 50, 100), answer(None, 100, 100)]
    row = eta.figures_of("some", asked, [answer(100, 0, 50), answer(100, 0, 120), answer(100, 0, 80), None])
    assert row["median_absolute_error"] == pytest.approx(0.1)
    assert row["median_error"] == 0
    assert (row["deadlines"], row["refused_as_too_short"]) == (4, 1)
    assert row["kept"] == 2 / 3
    assert row["median_of_time_used"] == 0.8


def test_a_closed_loop_counts_what_comes_after_the_first_of_each_client(writer: Server) -> None:
    def body(number: int) -> eta.Body:
        deadline = {} if number % 2 else {"deadline_ms": 10_000}
        return eta.body_of(24, number) | deadline

    answers = asyncio.run(eta.closed_loop(writer.url, clients=2, requests=6, make_body=body))
    assert len(answers) == 6
    for each in answers:
        assert each is not None
        assert each.deadline_ms in (None, 10_000)
        assert each.eta_ms > 0
        assert each.evaluations in (1, 3, 4, 6)


def test_all_kinds_of_load_are_written(bundles: Path, tmp_path: Path) -> None:
    file = tmp_path / "eta.json"
    given = ["--model", str(bundles / "writer"), "--concurrency", "2", "--requests", "3", "--json", str(file)]
    assert run_one("eta", given) == 0
    loads = json.loads(file.read_text())["loads"]
    assert [each["load"] for each in loads] == ["one client", "2 clients", "2 clients, queueing"]
    assert all(each["requests"] == 3 for each in loads)
