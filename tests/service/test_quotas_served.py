"""Quotas over HTTP, of a server with a file of keys: who is refused, why and until when; and the file read anew."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from unmask_service.api_keys import line_of
from unmask_service.metrics import MOST_CLIENTS, Registry

from tests.helpers_server import Body, Server, wait_for

KEYS = {name: f"unmask-key-{name}-{'x' * 40}" for name in ("alice", "bob", "carol", "dan", "erin")}
# 8192 evaluations, one after the other: it does not end by itself while a test looks
LONG: Body = {"n": 64, "detach": True}
# four evaluations
SHORT: Body = {"sampler": {"steps": 4}}


@dataclass(frozen=True)
class Guarded:
    """A server that takes one canvas at a time, and its file of keys."""

    server: Server
    file: Path

    def post(self, client: str, body: Body, path: str = "/generate") -> httpx.Response:
        return self.server.http.post(path, json=body, headers=self.bearer(client))

    def start(self, client: str, body: Body = LONG) -> str:
        answer = self.post(client, body | {"detach": True})
        assert answer.status_code == 202, answer.text
        found: str = answer.json()["id"]
        return found

    def state(self, client: str, generation: str) -> str:
        found: str = self.server.http.get(f"/generate/{generation}", headers=self.bearer(client)).json()["state"]
        return found

    def cancel(self, client: str, *generations: str) -> None:
        for generation in generations:
            assert self.server.http.delete(f"/generate/{generation}", headers=self.bearer(client)).status_code == 200

    def count(self, name: str, **labels: str) -> float:
        """A counter of the model; 0 before it has been counted."""
        sample = "{}{{{}}} ".format(name, ",".join(f'{key}="{labels[key]}"' for key in sorted(labels)))
        lines = self.server.http.get("/metrics", headers=self.bearer("carol")).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(sample))

    @staticmethod
    def bearer(client: str) -> dict[str, str]:
        return {"authorization": f"Bearer {KEYS[client]}"}


def write_keys(file: Path, **limits: dict[str, float]) -> None:
    file.write_text("\n".join(line_of(name, KEYS[name], **of_key) for name, of_key in limits.items()))


LIMITS: dict[str, dict[str, float]] = {
    "alice": {"requests": 3},
    "bob": {"evaluations_per_minute": 200},
    "carol": {},
    "dan": {},
}


@pytest.fixture(scope="module")
def guarded(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    file = tmp_path_factory.mktemp("keys") / "api-keys"
    write_keys(file, **LIMITS)
    options = ["--api-keys-file", str(file), "--tokens-per-tick", "64", "--speculation", "off"]
    with Server(bundles / "chain", *options) as server:
        yield Guarded(server.until_ready(), file)


def refused(answer: httpx.Response, *words: str) -> int:
    """Seconds after which to retry, of an answer that names the limit, its value and no key."""
    assert answer.status_code == 429, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["type"], error["param"]) == ("rate_limit_exceeded", "rate_limit_error", None)
    assert all(word in error["message"] for word in words), error["message"]
    assert "unmask-key" not in answer.text
    return int(answer.headers["retry-after"])


def test_a_client_has_so_many_requests_at_a_time(guarded: Guarded) -> None:
    started = [guarded.start("alice") for _ in range(3)]
    assert refused(guarded.post("alice", {}), "'alice'", "at most 3 requests", "(requests)") >= 1
    others = guarded.start("carol")
    call = guarded.post("alice", {"prompt": [[1]] * 2}, "/v1/completions")
    assert refused(call, "at most 3 requests") >= 1
    guarded.cancel("alice", started.pop())
    assert guarded.post("alice", {"prompt": [[1]] * 2}, "/v1/completions").status_code == 429, "all or none"
    started.append(guarded.start("alice"))
    guarded.cancel("alice", *started)
    guarded.cancel("carol", others)
    assert guarded.post("alice", {"prompt": [[1]] * 3, "max_tokens": 1}, "/v1/completions").status_code == 200
    never = guarded.post("alice", {"prompt": [[1]] * 4}, "/v1/completions")
    assert (never.status_code, never.json()["error"]["param"]) == (400, "prompt")
    assert "requests" in never.json()["error"]["message"]


def test_a_client_that_is_told_to_wait_for_one_of_its_requests_may_come_when_it_ends(guarded: Guarded) -> None:
    blocker = guarded.start("carol")
    started = [guarded.start("alice", body) for body in (SHORT, LONG, LONG)]
    refused(guarded.post("alice", {}), "'alice'")
    guarded.cancel("carol", blocker)
    wait_for(lambda: guarded.state("alice", started[0]) == "finished", 60)
    started.append(guarded.start("alice"))
    guarded.cancel("alice", *started[1:])


def test_a_client_plans_so_many_evaluations_a_minute(guarded: Guarded) -> None:
    body: Body = {"n": 25, "sampler": {"steps": 4}}
    accepted = guarded.count("unmask_client_network_evaluations_total", client="bob", model="chain")
    assert guarded.post("bob", body | {"n": 15}).status_code == 200
    assert guarded.post("bob", body).status_code == 200
    seconds = refused(guarded.post("bob", body), "200 network evaluations a minute", "evaluations_per_minute", "100")
    assert 1 <= seconds <= 18, "there is room for 40 of 100 evaluations, and for one more every 0.3 s"
    counted = guarded.count("unmask_client_network_evaluations_total", client="bob", model="chain")
    assert counted - accepted == 2 * (30 + 50)
    assert guarded.count("unmask_client_requests_total", client="bob", model="chain", outcome="over_quota") == 1
    assert guarded.count("unmask_client_requests_total", client="bob", model="chain", outcome="accepted") == 2
    rejected = {"endpoint": "/generate", "outcome": "rejected", "reason": "rate_limit_exceeded"}
    assert guarded.count("unmask_requests_total", model="chain", **rejected) >= 1
    assert guarded.post("dan", body).status_code == 200


def test_a_client_with_many_requests_does_not_hold_up_another(guarded: Guarded) -> None:
    started = [guarded.start("carol", SHORT | {"n": 4}) for _ in range(30)]
    answer = guarded.post("dan", SHORT)
    assert answer.status_code == 200
    assert guarded.state("carol", started[-1]) == "waiting", "thirty that came first, and dan's has ended"
    guarded.cancel("carol", *started)


def test_the_forecast_of_another_client_does_not_count_them(guarded: Guarded) -> None:
    started = [guarded.start("carol", LONG) for _ in range(8)]
    own, others = (guarded.post(client, {}, "/plan").json()["eta_ms"] for client in ("carol", "dan"))
    assert others < own / 2
    guarded.cancel("carol", *started)


# --- SIGHUP --------------------------------------------------------------------------------------------------------


def hang_up(server: Server) -> None:
    """Send the signal, and wait until the server has said what it makes of it."""
    said = server.output().count("SIGHUP:")
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: server.output().count("SIGHUP:") > said, 60, server.check_alive)


def status(guarded: Guarded, client: str) -> int:
    return guarded.server.http.get("/v1/models", headers=guarded.bearer(client)).status_code


def test_keys_are_read_again_and_a_bad_file_changes_nothing(guarded: Guarded) -> None:
    kept = [guarded.start("carol") for _ in range(2)]
    write_keys(guarded.file, alice={"requests": 1}, carol={}, erin={"requests": 1})
    hang_up(guarded.server)
    assert [status(guarded, name) for name in ("alice", "bob", "carol", "erin")] == [200, 401, 200, 200]
    assert [guarded.state("carol", each) for each in kept] != ["cancelled"] * 2
    begun = guarded.start("erin")
    refused(guarded.post("erin", {}), "at most 1 requests of 'erin'")
    for bad in (f"bob:{KEYS['bob']}", "", f"{line_of('erin', KEYS['erin'])}:requests=0"):
        guarded.file.write_text(bad)
        hang_up(guarded.server)
        assert [status(guarded, name) for name in ("alice", "bob", "erin")] == [200, 401, 200]
        refused(guarded.post("erin", {}), "at most 1 requests")
    guarded.file.unlink()
    hang_up(guarded.server)
    assert status(guarded, "erin") == 200
    output = guarded.server.output()
    assert output.count("the API keys stay as they were") == 4
    assert KEYS["bob"] not in output
    guarded.cancel("erin", begun)
    guarded.cancel("carol", *kept)
    write_keys(guarded.file, **LIMITS)
    hang_up(guarded.server)
    assert [status(guarded, name) for name in ("bob", "erin")] == [200, 401]


# --- labels --------------------------------------------------------------------------------------------------------


def test_only_so_many_names_become_labels() -> None:
    registry = Registry()
    labels = {registry.client_label(f"client-{number}") for number in range(10 * MOST_CLIENTS)}
    assert len(labels) == MOST_CLIENTS + 1
    assert registry.client_label("client-0") == "client-0"
    assert registry.client_label("one more") == "(others)"
