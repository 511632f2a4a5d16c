"""The pictures of docs/playground.md: taken each time, and kept where UNMASK_TEST_PICTURES says (docs/playground)."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers_server import Server
from tests.system.playground.browser import Playground
from tests.system.playground.conftest import OpenPage

pytestmark = pytest.mark.system

REQUEST: dict[str, str | int] = {
    "prompt": "Once upon a time, there was a",
    "max_tokens": 64,
    "seed": 23,
}
WIDTH = 1180
WINDOW = {"viewport": {"width": WIDTH, "height": 1000}, "reduced_motion": "reduce"}


@pytest.fixture(scope="module")
def faces() -> Iterator[Server]:
    """The image model that ships."""
    with Server(Path("faces")) as server:
        yield server.until_ready()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("UNMASK_TEST_PICTURES", tmp_path))
    folder.mkdir(exist_ok=True)
    return folder


def take(playground: Playground, file: Path, first: str, last: str) -> None:
    """A picture of the page from one element down to another."""
    top = playground.page.locator(first).bounding_box()
    bottom = playground.page.locator(last).bounding_box()
    assert top is not None
    assert bottom is not None
    scrolled = playground.page.evaluate("scrollY")
    y, end = top["y"] + scrolled - 16, bottom["y"] + scrolled + bottom["height"] + 16
    playground.page.screenshot(path=file, full_page=True, clip={"x": 0, "y": y, "width": WIDTH, "height": end - y})
    with Image.open(file) as picture:
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 20  # something is on it
        picture.convert("RGB").quantize(128).save(file, optimize=True)  # half as many bytes, to the eye the same


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures(tales: Server, open_page: OpenPage, pictures: Path, scheme: str) -> None:
    playground = open_page(tales.url, exact=False, color_scheme=scheme, **WINDOW)
    playground.generate(**REQUEST, speed=0)
    playground.until_done()
    playground.until("/evaluations · about/.test(document.getElementById('plan').textContent)")
    playground.seek(52)
    playground.at("#canvas .token[data-state=intermediate]").first.hover()
    take(playground, pictures / f"canvas_{scheme}.png", "header", ".stage .transport")
    playground.page.click("#compare")
    playground.until("!document.getElementById('compare-scrubber').disabled")
    playground.seek(11, "compare-scrubber")
    take(playground, pictures / f"compare_{scheme}.png", "#compare-title", "#comparison")
    playground.page.click("#measure")
    playground.until("document.querySelectorAll('#idle-plot circle').length === 16")
    take(playground, pictures / f"idle_steps_{scheme}.png", "#idle-title", "#idle-figure")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_of_pictures(faces: Server, open_page: OpenPage, pictures: Path, scheme: str) -> None:
    playground = open_page(faces.url, exact=False, color_scheme=scheme, **WINDOW)
    playground.generate(n=12, seed=23, speed=0)
    playground.until_done()
    playground.seek(56)
    playground.at("#canvas .pixel[data-state=intermediate]").first.hover()
    take(playground, pictures / f"pictures_{scheme}.png", "header", ".stage .transport")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_of_a_score(tales: Server, open_page: OpenPage, pictures: Path, scheme: str) -> None:
    playground = open_page(tales.url, exact=False, color_scheme=scheme, **WINDOW)
    playground.generate(**REQUEST, speed=0)
    playground.until_done()
    playground.page.click("#take-over")
    playground.page.check("#score-published_integrand")
    playground.score(budget=1024, seed=1)
    playground.until_scored()
    playground.at("#heat .heat:not([data-level='given'])").last.hover()
    take(playground, pictures / f"score_{scheme}.png", "#score-title", "#score-outcome .beside")
