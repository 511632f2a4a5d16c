"""Connections that break: the generation goes on, and the page takes up its log where it left it."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.helpers_server import Server, wait_for
from tests.system.playground.browser import PATIENCE_MS, Playground
from tests.system.playground.conftest import OpenPage
from tests.system.playground.proxy import Network

pytestmark = pytest.mark.system

REQUEST = {"max_tokens": 100, "seed": 21}
LOST = "document.getElementById('status').textContent.startsWith('The connection is lost')"
BYTES = 4000  # of an answer of 200 events: some of them


@pytest.fixture
def network(long_chain: Server) -> Iterator[Network]:
    with Network(long_chain.port) as network:
        yield network


def shows_the_answer(playground: Playground, server: Server) -> None:
    """The canvas is what the same request gives to others."""
    assert playground.digits() == server.stream(**REQUEST).canvases()[0][: REQUEST["max_tokens"]]


def test_a_dropped_connection_is_resumed(long_chain: Server, network: Network, open_page: OpenPage) -> None:
    playground = open_page(network.url)
    network.allowance = BYTES
    playground.generate(**REQUEST, speed=0)
    playground.until(LOST)
    network.mend()
    playground.until_done()
    shows_the_answer(playground, long_chain)
    assert len(playground.bodies("/generate")) == 1
    resumed = [each for each in playground.requests if urlsplit(each.url).path.endswith("/events")]
    # the log goes on behind the last event that was seen, and comes to its end
    assert int(resumed[-1].headers["last-event-id"]) > 5
    assert playground.text("error") == ""


def test_it_is_resumed_as_often_as_it_takes(long_chain: Server, network: Network, open_page: OpenPage) -> None:
    playground = open_page(network.url)
    network.allowance = BYTES
    playground.generate(**REQUEST, speed=0)
    for allowance in (BYTES, BYTES, None):
        wait_for(lambda: network.is_cut, PATIENCE_MS / 1000, lambda: playground.page.wait_for_timeout(10))
        playground.until(LOST)
        network.mend(allowance)
    playground.until_done()
    shows_the_answer(playground, long_chain)
    begun = [int(each.headers["last-event-id"]) for each in playground.requests if each.url.endswith("/events")]
    # behind the last event that was seen, which a connection may not bring forward: a stream that fails drops some
    assert len(begun) >= 3
    assert begun == sorted(begun)
    assert begun[0] > 0


def test_an_answer_that_never_came_is_asked_for_again(
    long_chain: Server, network: Network, open_page: OpenPage
) -> None:
    long_chain.until_idle()
    playground = open_page(network.url)
    network.allowance = 0
    playground.generate(max_tokens=8, seed=3, speed=0)
    playground.until(LOST)
    network.mend()
    playground.until_done()
    first, second = (each for each in playground.requests if urlsplit(each.url).path == "/generate")
    # one generation: the second request asked for the first one's
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert playground.digits() == long_chain.stream(max_tokens=8, seed=3).canvases()[0][:8]


def test_a_server_that_has_fallen_silent_is_asked_again(long_chain: Server, open_page: OpenPage) -> None:
    playground = open_page(long_chain.url)
    playground.page.clock.install()
    playground.page.reload()
    playground.page.clock.run_for(1000)
    playground.until("document.getElementById('plan').textContent !== ''")
    playground.generate(max_tokens=1024, n=16, seed=1)
    playground.until("document.getElementById('status').textContent.includes('planned')")
    long_chain.pause()
    try:
        playground.page.clock.run_for(40_000)
        playground.until(LOST)
    finally:
        long_chain.resume()
    playground.page.click("#cancel")
    playground.page.clock.run_for(10_000)
    playground.until("document.getElementById('status').textContent.startsWith('Cancelled')")


def test_a_server_that_is_gone_is_a_sentence_in_the_end(network: Network, open_page: OpenPage) -> None:
    playground = open_page(network.url)
    playground.page.clock.install()
    playground.page.reload()
    playground.page.clock.run_for(1000)
    playground.until("document.getElementById('plan').textContent !== ''")
    network.cut()
    playground.page.click("#generate")
    for _ in range(12):
        playground.page.wait_for_timeout(50)
        playground.page.clock.run_for(9000)
    playground.until("document.getElementById('error').textContent === 'The server cannot be reached.'")
    assert playground.at("#cancel").is_hidden()
