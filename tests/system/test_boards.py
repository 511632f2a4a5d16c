"""Every query of every panel has data, on a real Prometheus that watched a real cluster under `unmask bench`.

With UNMASK_TEST_DRAW_BOARDS=1 the model that ships is watched for two minutes, and docs/boards/ is drawn anew.
"""

import dataclasses
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from unmask_service.api_keys import line_of

from tests.helpers_cluster import Cluster
from tests.helpers_metrics import documented_metrics, metrics_in
from tests.helpers_redis import Redis
from tests.helpers_server import (
    ANSWER_SECONDS,
    UNMASK,
    OpenStream,
    Server,
    environment,
    free_port,
    with_open_streams,
)
from tests.system.boards import REPOSITORY, Board, Panel, Query, boards
from tests.system.draw_boards import COLUMNS, Drawn, draw
from tests.system.prometheus import SCRAPE_SECONDS, Prometheus

pytestmark = pytest.mark.system

DRAWING = os.environ.get("UNMASK_TEST_DRAW_BOARDS") == "1"
DOCUMENTATION = REPOSITORY / "docs"
TALES = REPOSITORY / "model_store" / "bundles" / "tales"
KEY = f"unmask-key-{'x' * 43}"

BOARDS = boards()
PANELS = [(board, panel) for board in BOARDS for panel in board.panels]
# as Grafana makes of $__rate_interval: four scrapes; more for a quiet picture
RATE_SECONDS = (15 if DRAWING else 4) * SCRAPE_SECONDS
UNITS = {"none", "s", "bytes", "percentunit", "reqps", "cps", "ops", "bool"}


@dataclass(frozen=True)
class Observed:
    """What Prometheus saw, from `start` to `end`, Unix times in seconds."""

    prometheus: Prometheus
    start: float
    end: float

    def data_of(self, panel: Panel) -> dict[str, Drawn]:
        """By query: the named series of a panel that have data."""
        return {query.expression: self._series(query, panel.kind == "table") for query in panel.queries}

    def _series(self, query: Query, instant: bool) -> Drawn:
        asked = query.over(RATE_SECONDS)
        steps = (self.start, self.end, SCRAPE_SECONDS)
        found = self.prometheus.now(asked) if instant else self.prometheus.over(asked, *steps)
        return [(query.name(series.labels), series) for series in found if series.has_data]


@pytest.fixture(scope="module")
def observed(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """A cluster under a load that is partly refused, with clients that leave, and a worker that is killed."""
    model = TALES if DRAWING else bundles / "writer"
    ports, places = {"api": free_port(), "api-keys": free_port()}, 11 if DRAWING else 6
    with Redis() as redis, Cluster(model, redis.url) as cluster:
        api = cluster.start_api("--max-requests", str(places), "--metrics-port", str(ports["api"]))
        options = ("--metrics-port", str(ports["api-keys"]), "--api-keys", line_of("alice", KEY))
        with_keys = cluster.start_api(*options)
        for number in range(3):
            # so many lanes that there are guesses, however small the model is
            ports[f"worker-{number}"] = cluster.start_worker("--speculation", "auto" if DRAWING else "4").port
        cluster.until_ready()
        targets = {instance: f"127.0.0.1:{port}" for instance, port in ports.items()}
        with Prometheus(targets, tmp_path_factory.mktemp("prometheus")) as prometheus:
            prometheus.until(f'sum(up{{job="unmask"}}) == {len(targets)}')
            with_keys.http.post("/generate", json={}, headers={"authorization": f"Bearer {KEY}"}).raise_for_status()
            start = put_load_on(api, cluster.workers[-1], prometheus)
            yield Observed(prometheus, start, time.time())


def put_load_on(api: Server, worker: Server, prometheus: Prometheus) -> float:
    """Clients that leave, then `unmask bench`; meanwhile a worker dies, and others take over what it had.

    Returns:
        The time of the first answer.
    """
    with_open_streams(api.url, [{"n": 2, "seed": seed} for seed in range(2)], then=nothing)
    seconds, answers = (120, 20) if DRAWING else (10, 2)
    finished = 'sum(increase(unmask_requests_total{outcome="finished"}[5m]))'
    mix = ["--n", "1:3", "--sampler", "first_hitting", "--sampler", "first_hitting:8", "--sampler", "ancestral:48"]
    load = ["--url", api.url, "--concurrency", "12", "--duration", str(seconds), *mix]
    with subprocess.Popen([UNMASK, "bench", *load], env=environment(), stdout=subprocess.PIPE, text=True) as bench:
        prometheus.until(f"{finished} > 0")
        begun = time.time()
        prometheus.until(f"{finished} > {answers}")
        worker.kill()
        output, _ = bench.communicate(timeout=seconds + ANSWER_SECONDS)
        assert bench.returncode == 0, output
    prometheus.until("max(unmask_requests_running + unmask_requests_waiting) == 0")
    return begun


async def nothing(client: httpx.AsyncClient, streams: list[OpenStream]) -> None:
    """Leave at once."""


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_every_query_of_every_panel_has_data(board: Board, observed: Observed) -> None:
    found = {panel: observed.data_of(panel) for panel in board.panels}
    empty = [f"{panel.title}: {asked}" for panel, data in found.items() for asked, drawn in data.items() if not drawn]
    assert not empty
    if DRAWING:
        series = {panel.id: [each for drawn in data.values() for each in drawn] for panel, data in found.items()}
        draw(board, series, observed.start, DOCUMENTATION / "boards" / f"{board.name}.png")


def test_what_is_exported_is_what_the_documentation_lists(observed: Observed) -> None:
    exported = metrics_in(" ".join(name for name in observed.prometheus.names() if ":" not in name))
    assert exported == documented_metrics()


def test_a_query_without_data_is_noticed(observed: Observed) -> None:
    """A misspelt metric, and a rate of what never was: neither is an error for Prometheus."""
    for expression in ("unmask_request_running", 'rate(unmask_requests_total{outcome="lost"}[1m])', "0 * up / 0"):
        panel = dataclasses.replace(BOARDS[0].panels[0], queries=(Query(expression, ""),))
        assert observed.data_of(panel) == {expression: []}


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=lambda each: getattr(each, "name", getattr(each, "title", "")))
def test_a_panel_explains_itself(board: Board, panel: Panel) -> None:
    assert panel.title
    assert panel.unit in UNITS
    assert panel.description.endswith(".")
    assert panel.queries
    assert [other.id for other in board.panels].count(panel.id) == 1
    assert [other.title for other in board.panels].count(panel.title) == 1


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_a_board_asks_the_data_source_that_its_reader_chooses(board: Board) -> None:
    assert board.variables == {"datasource": "datasource"}
    assert {panel.source for panel in board.panels} == {"${datasource}"}


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_no_panel_covers_another(board: Board) -> None:
    cells = [(column, row) for x, y, w, h in places(board) for column in range(x, x + w) for row in range(y, y + h)]
    assert len(set(cells)) == len(cells)
    assert max(column for column, _ in cells) < COLUMNS


def places(board: Board) -> list[tuple[int, int, int, int]]:
    return [panel.place for panel in board.panels]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_the_documentation_shows_the_board(board: Board) -> None:
    assert f"](boards/{board.name}.png)" in (DOCUMENTATION / "boards.md").read_text()
    assert (DOCUMENTATION / "boards" / f"{board.name}.png").stat().st_size
