"""For whom and where: screen readers, keyboards, phones, strict policies."""

from importlib.resources import files
from typing import TYPE_CHECKING

import pytest

from tests.helpers_server import Server, wait_for
from tests.system.playground.browser import PATIENCE_MS, Playground
from tests.system.playground.conftest import OpenPage

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.system

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


def violations(playground: Playground) -> "Sequence[str]":
    """What axe-core finds wrong."""
    playground.page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text())
    found = playground.page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    return [f"{each['id']}: {[node['html'] for node in each['nodes']]}" for each in found]


def sticks_out(playground: Playground) -> "Sequence[str]":
    """What is wider than the window, and cannot be scrolled by itself."""
    wide: list[str] = playground.page.evaluate(
        """() => [...document.querySelectorAll('body *:not(.scrolling *, .unseen)')]
             .filter(each => each.getBoundingClientRect().right > innerWidth + 1)
             .concat(document.documentElement.scrollWidth > innerWidth ? [document.documentElement] : [])
             .map(each => each.outerHTML.slice(0, 80))"""
    )
    return wide


def fill_the_page(playground: Playground) -> None:
    """Everything that there is to see: a canvas half done, a token inspected, a comparison, points on the plot."""
    playground.generate(prompt="Once upon a time", suffix="The end.", max_tokens=24, n=2, seed=5, speed=0)
    playground.until_done()
    playground.page.click("#compare")
    playground.until("!document.getElementById('compare-scrubber').disabled")
    playground.page.click("#measure")
    playground.until("document.querySelectorAll('#idle-plot circle').length === 16")
    playground.page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    playground.seek(20)
    playground.seek(20, "compare-scrubber")
    playground.at("#canvas .token[data-state=intermediate]").first.hover()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(tales: Server, open_page: OpenPage, scheme: str) -> None:
    playground = open_page(tales.url, color_scheme=scheme, reduced_motion="reduce")
    assert not violations(playground)
    fill_the_page(playground)
    assert not violations(playground)
    playground.page.check("input[name=view][value=text]")
    playground.generate(max_tokens=4000)
    playground.until("document.getElementById('error').textContent !== ''")
    assert not violations(playground)


def test_axe_would_find_something(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    playground.page.evaluate("document.querySelector('label[for=prompt]').remove()")
    assert any(each.startswith("label") for each in violations(playground))


def test_the_policy_is_strict_and_holds(tales: Server, open_page: OpenPage) -> None:
    policy = tales.http.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    playground = open_page(tales.url)
    fill_the_page(playground)  # violations would be found at the end of the test, and here they are provoked:
    assert not playground.faults
    playground.page.evaluate(
        """() => {
          document.body.append(Object.assign(document.createElement('script'), { textContent: 'window.ran = true' }));
          document.body.append(Object.assign(document.createElement('img'), { src: 'https://example.org/x.png' }));
        }"""
    )
    wait_for(lambda: len(playground.faults) >= 2, PATIENCE_MS / 1000, lambda: playground.page.wait_for_timeout(10))
    assert playground.page.evaluate("window.ran") is None
    playground.faults.clear()


def test_nothing_is_asked_of_others(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    fill_the_page(playground)
    assert {each.url.split("/")[2] for each in playground.requests} == {f"127.0.0.1:{tales.port}"}


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/page/styles/base.css", "/page/icon.svg"])
def test_its_files_come_with_their_types_and_may_be_kept(tales: Server, path: str) -> None:
    response = tales.http.get(path)
    types = {"/": "text/html", ".js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    assert response.headers["content-type"].startswith(types[path[-3:] if path != "/" else path])
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert tales.http.get(path, headers={"If-None-Match": response.headers["etag"]}).status_code == 304
    assert tales.http.head(path).status_code == 200


@pytest.mark.parametrize(
    "path", ["/page", "/page/", "/page/../settings.py", "/page/%2e%2e/settings.py", "/page/none.js"]
)
def test_it_serves_no_other_files(tales: Server, path: str) -> None:
    response = tales.http.get(path)
    assert response.status_code == 404
    assert response.json()["error"]["message"]


def test_everything_can_be_done_from_the_keyboard(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    keyboard = playground.page.keyboard
    playground.choose(speed=0, max_tokens=16, seed=3)
    playground.at("#prompt").focus()
    keyboard.press("Control+Enter")
    playground.until_done()
    playground.at("#scrubber").focus()
    keyboard.press("Home")
    for _ in range(12):
        keyboard.press("ArrowRight")
    assert playground.text("step") == "step 12 of 32"
    assert playground.at("#scrubber").get_attribute("aria-valuetext") == "step 12 of 32"
    playground.at("#canvas [role=listbox]").focus()
    keyboard.press("End")
    keyboard.press("ArrowLeft")
    active = playground.page.evaluate("document.activeElement.getAttribute('aria-activedescendant')")
    last = playground.at("#canvas .token").count() - 1
    assert active == f"token-{last - 1}"
    assert playground.at(f"#{active}").get_attribute("aria-selected") == "true"
    assert (playground.at(f"#{active}").get_attribute("aria-label") or "").startswith(f"token {last - 1}, ")
    assert playground.at("#canvas [aria-selected=true]").count() == 1
    keyboard.press("Home")
    keyboard.press("ArrowDown")
    columns = playground.page.evaluate(
        "getComputedStyle(document.querySelector('#canvas .tokens')).gridTemplateColumns.split(' ').length"
    )
    assert playground.text("inspector").startswith(f"Token {columns}")


def test_the_live_region_speaks_rarely(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    playground.page.evaluate(
        """() => {
          window.said = [];
          for (const region of document.querySelectorAll('[role=status], [role=alert], [aria-live]')) {
            new MutationObserver(() => region.textContent && window.said.push(region.textContent))
              .observe(region, { subtree: true, childList: true, characterData: true });
          }
        }"""
    )
    playground.generate(max_tokens=32, speed=0)
    playground.until_done()
    said = playground.page.evaluate("window.said")
    assert len(said) == 2, said
    assert said[0] == "64 network evaluations planned."
    assert said[1].startswith("Done: ")


def test_a_phone_needs_no_sideways_scrolling(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url, **PHONE)
    fill_the_page(playground)
    for view in ("cells", "text"):
        playground.page.check(f"input[name=view][value={view}]")
        assert sticks_out(playground) == []


def test_a_key_is_sent_where_one_is_needed(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    playground.generate(key="secret", max_tokens=8, speed=0)
    playground.until_done()
    (post,) = [each for each in playground.requests if each.method == "POST" and each.url.endswith("/generate")]
    assert post.headers["authorization"] == "Bearer secret"
    command = playground.at("#curl").text_content() or ""
    assert "secret" not in command
    assert "Bearer $API_KEY" in command  # $UNMASK_… would be taken for a setting by every `unmask` command
