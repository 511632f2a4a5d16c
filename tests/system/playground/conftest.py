"""A browser, and pages of three models: one with text, one that is slow and takes ids, one with four digits a token."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from unmask_model_store import MarkovConfig, write_bundle

from tests.helpers import random_chain
from tests.helpers_server import Server
from tests.system.playground.browser import Playground, chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser

OpenPage = Callable[..., Playground]


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A module long: while it is there, its event loop lies around the tests, and others want one of their own."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def tales() -> Iterator[Server]:
    """The model that ships."""
    with Server(Path("tales")) as server:
        yield server.until_ready()


@pytest.fixture(scope="session")
def four_digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """1024 tokens of four binary digits."""
    folder = tmp_path_factory.mktemp("bundles") / "four-digits"
    initial, transition = random_chain(16, seed=33)
    markov = MarkovConfig(architecture="markov", length=1024, vocabulary_size=16, sub_tokens_per_token=4, base=2)
    write_bundle(folder, markov, {"log_initial": initial.float(), "log_transition": transition.float()})
    with Server(folder) as server:
        yield server.until_ready()


@pytest.fixture
def open_page(browser: "Browser") -> Iterator[OpenPage]:
    """Open the page of a server. At the end of the test: nothing foreign, no policy violated, nothing uncaught."""
    opened: list[Playground] = []

    def open_at(url: str, *, exact: bool = True, **context: Any) -> Playground:  # noqa: ANN401 — Playwright's own options
        playground = Playground(browser.new_context(**context).new_page(), url)
        opened.append(playground)
        playground.open(exact=exact)
        return playground

    yield open_at
    for playground in opened:
        playground.page.context.close()
        assert not playground.faults


def ids_of(server: Server, text: str) -> list[int]:
    """A text's token ids, as the server splits it."""
    return [token_id for _, token_id, _ in server.stream(prompt=text, max_tokens=1).start["canvas"][0]]


def whole_tale(server: Server) -> dict[str, Any]:
    """A request whose sample ends before its canvas does: in short blocks, with the first seed that does so."""
    request = {"prompt": "Once upon a time, there was a", "max_tokens": 80, "temperature": 0.7}
    request["sampler"] = {"block_length": 8}
    for seed in range(1, 33):
        (choice,) = server.generate(**request, seed=seed)["choices"]
        if choice["finish_reason"] == "stop" and choice["text"]:
            return request | {"seed": seed}
    pytest.fail("no sample ended")
