"""The playground in a real browser, and what must hold whatever a test does with it."""

import json
import math
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:  # Playwright is asked for when a browser is started, so that tests can be listed without it
    from collections.abc import Iterable

    from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, Route

CHROMIUM = os.environ.get("UNMASK_TEST_CHROMIUM", "/usr/bin/chromium")
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# a guard against a page that hangs, no measure of a good one
PATIENCE_MS = 120_000


@contextmanager
def chromium() -> Iterator["Browser"]:
    """Debian's Chromium, driven by Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


class Playground:
    """The page of one server, watched: foreign requests, violated policies and uncaught exceptions are kept."""

    def __init__(self, page: "Page", url: str) -> None:
        self.page = page
        self.url = url
        self.requests: list[Request] = []
        self.faults: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", self._on_request)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.faults.append(f"uncaught: {error}"))

    def _on_request(self, request: "Request") -> None:
        self.requests.append(request)
        if urlsplit(request.url).scheme != "blob" and not request.url.startswith(f"{self.url}/"):
            self.faults.append(f"a request to another host: {request.url}")

    def _on_console(self, message: "ConsoleMessage") -> None:
        if "Content Security Policy" in message.text:
            self.faults.append(message.text)

    def open(self, *, exact: bool = True) -> None:
        """Load the page and wait until it knows the model; `exact`: take the API's settings, not recommended ones."""
        self.page.goto(f"{self.url}/")
        self.until("document.getElementById('plan').textContent !== ''")
        if exact and self.at("#use-exact").is_visible():
            self.page.click("#use-exact")

    def fake_card(self, **fields: object) -> None:
        """Open the page with these fields in the model's card."""

        def answer(route: "Route") -> None:
            response = route.fetch()
            card = response.json()
            card["data"][0] |= fields
            route.fulfill(response=response, json=card)

        self.page.route("**/v1/models", answer)
        self.open(exact=False)

    def fake_stream(self, events: "Iterable[tuple[str, dict[str, Any]]]") -> None:
        """Answer the next generations with these events, (name, data)."""
        stream = "".join(
            f"id: {i}\nevent: {name}\ndata: {json.dumps(data)}\n\n" for i, (name, data) in enumerate(events, start=1)
        )
        self.page.route("**/generate", lambda route: route.fulfill(body=stream, content_type="text/event-stream"))

    def at(self, selector: str) -> "Locator":
        return self.page.locator(selector)

    def until(self, condition: str) -> None:
        """Look again and again until an expression in the page holds. (Playwright's own way needs unsafe-eval.)"""
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while not self.page.evaluate(condition):
            assert time.monotonic() < deadline, f"waited too long for {condition}"
            self.page.wait_for_timeout(20)

    def text(self, element_id: str) -> str:
        return self.page.locator(f"#{element_id}").inner_text()

    def choose(self, **fields: str | float) -> None:
        """Fill in controls, by their ids; `sampler`, `speed`, `sample` and `score-estimator` are chosen."""
        for element_id, value in fields.items():
            if element_id in {"sampler", "speed", "sample", "score-estimator"}:
                self.page.select_option(f"#{element_id}", str(value))
            else:
                self.set_value(element_id, str(value))

    def set_value(self, element_id: str, value: str) -> None:
        """As if typed, in fields that are out of sight too."""
        self.page.eval_on_selector(
            f"#{element_id}",
            "(field, value) => { field.value = value; field.dispatchEvent(new Event('input', { bubbles: true })); }",
            value,
        )

    def generate(self, **fields: str | int) -> None:
        """Press the button, with fields filled in before."""
        self.choose(**fields)
        self.page.click("#generate")

    def until_done(self) -> None:
        """Wait for the answer, and until the canvas shows its last step."""
        self.until(
            "document.getElementById('status').textContent.startsWith('Done')"
            " || document.getElementById('error').textContent !== ''"
        )
        assert self.text("error") == ""
        self.until("document.getElementById('play').textContent === 'Play'")

    def score(self, **fields: str | float) -> None:
        """Press the section's button, with its fields filled in before, named as the request names them."""
        self.choose(**{f"score-{name}": value for name, value in fields.items()})
        self.page.click("#score")

    def until_scored(self) -> None:
        """Wait for the answer to a score."""
        self.until(
            "document.getElementById('score-status').textContent.startsWith('Done')"
            " || document.getElementById('score-error').textContent !== ''"
        )
        assert self.text("score-error") == ""

    def seek(self, step: int, scrubber: str = "scrubber") -> None:
        """Drag the slider."""
        self.set_value(scrubber, str(step))

    def states(self) -> Counter[str]:
        """How many tokens of the canvas are in each state."""
        states: list[str] = self.page.eval_on_selector_all(
            "#canvas .token", "tokens => tokens.map(token => token.dataset.state)"
        )
        return Counter(states)

    def digits(self) -> list[list[int | None]]:
        """The digits of every token as the page knows them, None where masked; no digits for given tokens."""
        digits: list[list[float]] = self.page.eval_on_selector_all(
            "#canvas .token",
            """tokens => tokens.map(token => token.dataset.state === 'given' ? []
                 : [...token.querySelectorAll('.digit')].map(digit => Number(digit.dataset.digit || NaN)))""",
        )
        return [[None if math.isnan(digit) else int(digit) for digit in token] for token in digits]

    def words(self) -> list[str]:
        """What every token of the canvas reads."""
        return self.page.locator("#canvas .token").all_text_contents()

    def bodies(self, path: str) -> list[dict[str, Any]]:
        """What was posted to a path."""
        posts = [each for each in self.requests if each.method == "POST" and urlsplit(each.url).path == path]
        return [json.loads(post.post_data or "null") for post in posts]
