"""Two API processes behind nginx and behind Caddy, with the documentation's own configurations, under a path."""

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import httpx
import pytest
import yaml
from unmask_service.settings import read_settings

from tests.helpers_cluster import Cluster, Follower, check_logs, follow_all, until_seen
from tests.helpers_redis import Redis
from tests.helpers_server import ANSWER_SECONDS, NO_CERTIFICATES, Body, Mortal, free_port, parse_events, wait_for
from tests.system.playground.browser import Playground, chromium

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.system

PROXY = Path(__file__).parents[2] / "docker" / "proxy"
PREFIX = "/llm"
LONG: Body = {"max_tokens": 30, "seed": 5, "sampler": {"steps": 60}}

NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    include {folder}/unmask.conf;
}}
"""


class Proxy(Mortal):
    """nginx or Caddy on a free port, its configuration the documentation's but for the addresses."""

    def __init__(self, name: str, folder: Path, ports: list[int]) -> None:
        assert shutil.which(name), f"this test needs Debian's package {name}: make test-system installs it"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}{PREFIX}"
        text = (PROXY / {"nginx": "nginx.conf", "caddy": "Caddyfile"}[name]).read_text()
        for number, port in enumerate(ports, 1):
            text = replaced(text, f"api-{number}:8000", f"127.0.0.1:{port}")
        if name == "nginx":
            (folder / "unmask.conf").write_text(replaced(text, "listen 80;", f"listen 127.0.0.1:{self.port};"))
            (folder / "nginx.conf").write_text(NGINX.format(folder=folder))
            self._command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
        else:
            text = "{\n\tadmin off\n}\n" + replaced(text, "unmask.example.org {", f"http://:{self.port} {{")
            (folder / "Caddyfile").write_text(text)
            self._command = ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]
        self._environment = {"HOME": str(folder), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        self.log = folder / "log"

    def __enter__(self) -> "Proxy":
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log)
        wait_for(self._answers, ANSWER_SECONDS, self._check_alive)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/ready", verify=NO_CERTIFICATES).status_code == 200
        except httpx.TransportError:
            return False

    def _check_alive(self) -> None:
        assert self.process.poll() is None, self.log.read_text()


def replaced(text: str, old: str, new: str) -> str:
    assert old in text, f"the configuration has no {old!r}"
    return text.replace(old, new)


@pytest.fixture(scope="module")
def house(bundles: Path) -> Iterator[Cluster]:
    """Two API processes and a worker, which may be paused for as long as a test needs."""
    settings = {"lease_seconds": 600, "tokens_per_tick": 64, "root_path": PREFIX}
    with Redis() as redis, Cluster(bundles / "chain", redis.url, **settings) as cluster:
        yield cluster.start(apis=2, workers=1)


@pytest.fixture(params=["nginx", "caddy"])
def proxy(request: pytest.FixtureRequest, house: Cluster, tmp_path: Path) -> Iterator[Proxy]:
    house.heal()
    with Proxy(request.param, tmp_path, [api.port for api in house.apis]) as proxy:
        yield proxy


def test_events_arrive_while_the_generation_runs(proxy: Proxy, house: Cluster) -> None:
    """In the order of events: while the worker stands still, the client gets what was there before."""
    (worker,), api = house.workers, house.apis[0]
    worker.pause()
    try:
        body = LONG | {"n": 8, "stream": True}
        url = f"{proxy.url}/generate"
        with httpx.stream("POST", url, json=body, timeout=20, verify=NO_CERTIFICATES) as response:
            assert response.status_code == 200
            events = parse_events(response.iter_lines())
            start = next(events)
            assert start.name == "start"
            worker.resume()
            path = f"/generate/{start.data['id']}"
            wait_for(lambda: api.http.get(path).json()["network_evaluations_done"] > 0, ANSWER_SECONDS)
            worker.pause()
            assert api.http.get(path).json()["state"] == "running"
            assert next(events).name == "unmask"
            worker.resume()
            assert [event.name for event in events][-1] == "done"
    finally:
        worker.resume()


def test_whole_answers_refusals_and_locations(proxy: Proxy, house: Cluster) -> None:
    """All is the same through the proxy: tokens, the server's own errors, and where a detached generation is."""
    with httpx.Client(base_url=proxy.url, timeout=ANSWER_SECONDS, verify=NO_CERTIFICATES) as http:
        answers = [http.post("/generate", json=LONG).json()["choices"] for _ in range(4)]  # from both processes
        assert answers == 4 * [house.apis[0].generate(**LONG)["choices"]]
        too_large = http.post("/generate", content=b" " * (3 << 19))
        assert (too_large.status_code, too_large.json()["error"]["code"]) == (413, "body_too_large")
        accepted = http.post("/generate", json=LONG | {"detach": True})
        location = urljoin(str(accepted.request.url), accepted.headers["Location"])
        assert location == f"{proxy.url}/generate/{accepted.json()['id']}"
        assert {http.get(location).json()["id"] for _ in range(4)} == {accepted.json()["id"]}
        assert http.get("/openapi.json").json()["servers"] == [{"url": "."}]
        # the prefix alone leads to the page
        page = http.get(f"http://127.0.0.1:{proxy.port}{PREFIX}", follow_redirects=True)
        assert str(page.url) == f"{proxy.url}/"
        assert f'<base href="{PREFIX}/">' in page.text


def test_a_process_that_drains_or_dies_is_not_missed(proxy: Proxy, house: Cluster) -> None:
    """A client follows its generation through the proxy while one process after the other goes away."""

    async def meanwhile(followers: list[Follower]) -> None:
        await until_seen(followers, 20)
        house.apis[0].terminate()
        await until_seen(followers, 60)

    bodies = [LONG | {"max_tokens": 60, "seed": seed, "n": 2} for seed in range(6)]
    followers = follow_all([proxy.url], bodies, meanwhile)
    assert all(follower.events[-1].name == "done" for follower in followers)
    house.apis[0].kill()
    for _ in range(4):
        answer = httpx.post(f"{proxy.url}/generate", json=LONG, timeout=ANSWER_SECONDS, verify=NO_CERTIFICATES)
        assert answer.status_code == 200
    check_logs([proxy.url], followers)


def test_the_playground_and_the_documentation_work_under_the_prefix(proxy: Proxy) -> None:
    with chromium() as browser:
        page: Page = browser.new_page()
        playground = Playground(page, proxy.url)
        playground.open()
        playground.generate(max_tokens=8, seed=5)
        playground.until_done()
        page.goto(f"{proxy.url}/docs")
        page.get_by_text("/v1/completions").first.wait_for()
        assert not playground.faults


def test_proxies_close_idle_connections_first() -> None:
    """A request on a connection that the server is just closing would be a 502."""
    ours = read_settings().keep_alive_seconds
    found = [
        re.findall(r"keepalive_timeout (\d+)s;", (PROXY / "nginx.conf").read_text()),
        re.findall(r"keepalive (\d+)s", (PROXY / "Caddyfile").read_text()),
        re.findall(r"idleConnTimeout: (\d+)s", (PROXY / "traefik.yml").read_text()),
    ]
    assert all(len(seconds) == 1 and 0 < int(seconds[0]) < ours for seconds in found)


def test_the_configuration_of_traefik_refers_to_what_it_has() -> None:
    """Traefik itself is in none of Debian's packages: names and paths are all that is checked."""
    http: dict[str, Any] = yaml.safe_load((PROXY / "traefik.yml").read_text())["http"]
    assert set(http) == {"routers", "middlewares", "services", "serversTransports"}
    (router,) = http["routers"].values()
    (middleware,) = router["middlewares"]
    assert http["middlewares"][middleware]["stripPrefix"]["prefixes"] == [PREFIX]
    assert router["rule"] == f"PathPrefix(`{PREFIX}/`) || Path(`{PREFIX}`)"
    balancer = http["services"][router["service"]]["loadBalancer"]
    assert balancer["serversTransport"] in http["serversTransports"]
    assert [server["url"] for server in balancer["servers"]] == ["http://api-1:8000", "http://api-2:8000"]
    assert balancer["healthCheck"]["path"] == "/ready"
