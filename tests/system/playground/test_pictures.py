"""The page of an image model: pictures that unmask together, a brush, pictures from files, and a choice of models."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from unmask_model_store import open_outline

from tests.helpers_server import Server
from tests.system.playground.browser import Playground
from tests.system.playground.conftest import OpenPage

pytestmark = pytest.mark.system

MASK, SIDE = 3, 4
Canvas = list[list[int | None]]


@pytest.fixture(scope="module")
def both(bundles: Path) -> Iterator[Server]:
    """A model of text, and one of pictures."""
    with Server(bundles / "writer", "--model", str(bundles / "pixels")) as server:
        yield server.until_ready()


@pytest.fixture
def page(pixels: Server, open_page: OpenPage) -> Playground:
    return open_page(pixels.url)


def colours_of(playground: Playground) -> list[str]:
    """The colour of every pixel of the large picture."""
    colours: list[str] = playground.page.eval_on_selector_all(
        "#canvas .pixel", "pixels => pixels.map(pixel => pixel.style.getPropertyValue('--colour'))"
    )
    return colours


def thumbnails(playground: Playground) -> list[list[int]]:
    """The bytes of all small pictures."""
    pictures: list[list[int]] = playground.page.eval_on_selector_all(
        "#canvas canvas",
        "all => all.map((c) => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data])",
    )
    return pictures


def painted(bundles: Path, canvas: Canvas) -> list[str]:
    """The colours of a canvas of digits, as the server paints it."""
    painter = open_outline(bundles / "pixels").image
    assert painter is not None
    pixels = painter.paint([[MASK if digit is None else digit for digit in token] for token in canvas]).view(-1, 4)
    return [f"rgb({red} {green} {blue} / {_css(alpha / 255)})" for red, green, blue, alpha in pixels.tolist()]


def _css(number: float) -> str:
    return str(int(number)) if number == int(number) else repr(number)


def masked(playground: Playground) -> list[int]:
    """The pixels that the brush has masked."""
    found: list[bool] = playground.page.eval_on_selector_all(
        "#canvas .pixel", "pixels => pixels.map(pixel => pixel.hasAttribute('data-masked'))"
    )
    return [pixel for pixel, is_masked in enumerate(found) if is_masked]


def drag(playground: Playground, start: int, end: int) -> None:
    """Press at a pixel, and let go at another one; hovering waits until a pixel stands still and nothing covers it."""
    playground.at(f"#pixel-{start}").hover()
    playground.page.mouse.down()
    playground.at(f"#pixel-{end}").hover()
    playground.page.mouse.up()


def fill(playground: Playground) -> dict[str, Any]:
    """Fill the masked pixels again; what was asked of the server."""
    posted = len(playground.bodies("/generate"))
    playground.page.click("#fill")
    playground.until_done()
    bodies = playground.bodies("/generate")
    assert len(bodies) == posted + 1
    return bodies[-1]


def chosen(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 — values of controls
    return {"n": 3, "seed": 8, "speed": 0} | fields


def test_all_pictures_unmask_together_in_the_servers_colours(page: Playground, pixels: Server, bundles: Path) -> None:
    page.generate(**chosen())
    page.until_done()
    stream = pixels.stream(n=3, seed=8)
    for step in (0, 1, 17, 32):
        page.seek(step)
        canvases: list[Canvas] = [[[None, None] for _ in range(16)] for _ in range(3)]
        for unmask in stream.unmasks:
            for position, j, digit in unmask["sub_tokens"]:
                if unmask["step"] <= step:
                    canvases[unmask["index"]][position][j] = digit
        for sample, canvas in enumerate(canvases):
            page.page.click(f"#canvas .thumbnail >> nth={sample}")
            assert colours_of(page) == painted(bundles, canvas)
    # what is opaque can be read back as it was drawn
    for drawn, choice in zip(thumbnails(page), stream.done["choices"], strict=True):
        palette = pixels.http.get("/v1/models").json()["data"][0]["image"]["palette"]
        assert drawn == [byte for token in choice["token_ids"] for byte in palette[token]]


def test_codes_of_the_models_own_are_read_from_its_card(page: Playground, pixels: Server) -> None:
    codes = [3, 1, 2, 0]
    page.fake_card(codes=codes)
    page.generate(**chosen(n=1))
    page.until_done()
    palette = pixels.http.get("/v1/models").json()["data"][0]["image"]["palette"]
    written = [3 * first + second for first, second in pixels.stream(seed=8).canvases()[0]]  # type: ignore[operator]
    colours = [palette[codes.index(code)] for code in written]
    assert colours_of(page) == [
        f"rgb({red} {green} {blue} / {_css(alpha / 255)})" for red, green, blue, alpha in colours
    ]


def test_a_pixel_shows_its_digits_and_the_colours_they_leave(page: Playground) -> None:
    page.generate(**chosen(candidates=3))
    page.until_done()
    page.seek(14)
    page.at("#canvas .pixel[data-state=intermediate]").first.hover()
    inspected = page.text("inspector")
    assert "of 4" in inspected
    assert "·" in inspected
    assert page.at("#inspector .likeliest .swatch").count() > 0
    page.page.focus("#canvas .pixels")
    for key, where in (
        ("Home", "row 1, column 1"),
        ("ArrowDown", "row 2, column 1"),
        ("ArrowRight", "row 2, column 2"),
    ):
        page.page.keyboard.press(key)
        assert where in page.text("inspector")
    page.page.keyboard.press("Space")
    assert masked(page) == [5]
    page.page.keyboard.press("Space")
    assert masked(page) == []


def test_what_the_brush_masks_is_filled_and_the_rest_stays(page: Playground, pixels: Server) -> None:
    page.generate(**chosen())
    page.until_done()
    page.page.click("#canvas .thumbnail >> nth=1")
    page.set_value("brush-size", "1")
    drag(page, 5, 6)
    assert masked(page) == [5, 6]
    assert page.text("masked") == "2 pixels masked."
    page.page.check("input[name=tool][value=rectangle]")
    drag(page, 0, 9)
    assert masked(page) == [0, 1, 4, 5, 6, 8, 9]
    page.page.check("input[name=tool][value=eraser]")
    drag(page, 9, 9)
    holes = [0, 1, 4, 5, 6, 8]
    assert masked(page) == holes
    before = pixels.generate(n=3, seed=8)["choices"][1]["token_ids"]
    body = fill(page)
    assert body["canvas"] == [None if position in holes else token for position, token in enumerate(before)]
    after = pixels.generate(canvas=body["canvas"], n=3, seed=8)["choices"]
    palette = pixels.http.get("/v1/models").json()["data"][0]["image"]["palette"]
    assert thumbnails(page) == [[byte for token in each["token_ids"] for byte in palette[token]] for each in after]
    assert masked(page) == [], "a new picture has no mask"


def test_first_digits_are_kept(page: Playground, pixels: Server) -> None:
    page.generate(**chosen(n=1))
    page.until_done()
    assert page.at("#fill").is_disabled()
    page.page.check("#keep-first")
    page.page.click("#mask-all")
    codes = [[0, 0], [0, 1], [0, 2], [1, 0]]
    before = pixels.generate(n=1, seed=8)["choices"][0]["token_ids"]
    body = fill(page)
    assert body["sub_tokens"] == [[codes[token][0], None] for token in before]
    page.seek(0)
    assert page.at("#canvas .pixel[data-state=intermediate]").count() == 16
    page.page.click("#mask-none")
    assert page.at("#fill").is_enabled(), "what the shown step has not revealed is a hole too"


def test_a_half_is_mirrored(page: Playground) -> None:
    page.generate(**chosen(n=1))
    page.until_done()
    before = colours_of(page)
    page.page.click("#mirror")
    rows = [before[SIDE * row : SIDE * row + SIDE // 2] for row in range(SIDE)]
    assert colours_of(page) == [colour for half in rows for colour in half + half[::-1]]


def test_a_picture_is_saved_opened_and_completed(page: Playground, pixels: Server, tmp_path: Path) -> None:
    page.generate(**chosen(n=1))
    page.until_done()
    before = colours_of(page)
    with page.page.expect_download() as download:
        page.page.click("#save-png")
    download.value.save_as(tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as saved:
        assert saved.size == (8 * SIDE, 8 * SIDE)
    page.generate(seed=9)
    page.until_done()
    assert colours_of(page) != before
    page.page.set_input_files("#png-file", tmp_path / "picture.png")
    page.until("document.getElementById('outcome').hidden")
    assert colours_of(page) == before
    drag(page, 5, 5)
    before_ids = pixels.generate(n=1, seed=8)["choices"][0]["token_ids"]
    canvas = [None if position in (0, 1, 4, 5) else token for position, token in enumerate(before_ids)]
    assert fill(page)["canvas"] == canvas, "the brush covers two by two pixels"


def test_a_sheet_and_a_film_are_saved(page: Playground, tmp_path: Path) -> None:
    page.generate(**chosen(n=4))
    page.until_done()
    for button, scale, frames in (("#save-sheet", 8, 1), ("#save-film", 4, 33)):
        with page.page.expect_download() as download:
            page.page.click(button)
        download.value.save_as(tmp_path / "saved.png")
        with Image.open(tmp_path / "saved.png") as saved:
            assert saved.size[0] * saved.size[1] == 4 * (scale * SIDE) ** 2
            assert getattr(saved, "n_frames", 1) == frames


def test_a_png_that_is_dropped_takes_the_nearest_colours(page: Playground, bundles: Path) -> None:
    page.generate(**chosen(n=1))
    page.until_done()
    picture = Image.new("RGBA", (SIDE, SIDE), (250, 20, 30, 255))
    picture.putpixel((0, 0), (10, 10, 12, 255))
    picture.putpixel((1, 0), (240, 250, 240, 255))
    picture.putpixel((2, 0), (0, 0, 0, 0))
    file = io.BytesIO()
    picture.save(file, "PNG")
    drop = """bytes => {
      const data = new DataTransfer();
      const content = Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0));
      data.items.add(new File([content], 'dropped.png', { type: 'image/png' }));
      document.body.dispatchEvent(new DragEvent('drop', { bubbles: true, cancelable: true, dataTransfer: data }));
    }"""
    page.page.evaluate(drop, base64.b64encode(file.getvalue()).decode())
    page.until("document.getElementById('outcome').hidden")
    codes: Canvas = [[1, 0], [0, 1], [0, 0]]
    codes.extend([0, 2] for _ in range(13))
    assert colours_of(page) == painted(bundles, codes)
    page.page.evaluate(drop, base64.b64encode(b"no picture").decode())
    page.until("document.getElementById('error').textContent.includes('dropped.png')")


def test_samplers_are_compared_picture_by_picture(page: Playground, pixels: Server) -> None:
    page.choose(n=2, seed=4)
    for i in (0, 1):
        page.set_value(f"contestant-{i}-steps", "4")
    page.page.click("#compare")
    page.until("document.querySelectorAll('#compare-table tbody tr').length === 3")
    page.until("!document.getElementById('compare-scrubber').disabled")
    assert page.at("#compare-canvases canvas").count() == 6
    clocks = [body.get("sampler", {}).get("clock") for body in page.bodies("/generate")]
    assert clocks == [1, 3, None]
    first = page.at("#compare-canvases .contestant").first.locator("canvas").first
    drawn: list[int] = first.evaluate("c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]")
    palette = pixels.http.get("/v1/models").json()["data"][0]["image"]["palette"]
    tokens = pixels.generate(n=2, seed=4, sampler={"steps": 4, "clock": 1})["choices"][0]["token_ids"]
    assert drawn == [byte for token in tokens for byte in palette[token]]


def test_visitors_choose_among_the_models(both: Server, open_page: OpenPage) -> None:
    playground = open_page(both.url)
    assert playground.at("#model-choice option").all_text_contents() == ["writer", "pixels"]
    assert playground.at("#prompt").is_visible()
    playground.page.select_option("#model-choice", "pixels")
    playground.page.wait_for_url("**/?model=pixels")
    playground.until("document.getElementById('plan').textContent !== ''")
    assert playground.text("canvas-title") == "Pictures"
    assert not playground.at("#prompt").is_visible()
    assert not playground.at("#score").is_visible()
    playground.generate(**chosen(n=1))
    playground.until_done()
    assert playground.bodies("/generate")[-1]["model"] == "pixels"
    assert playground.bodies("/plan")[-1]["model"] == "pixels"
    assert '"model":"pixels"' in (playground.at("#curl").text_content() or "")
