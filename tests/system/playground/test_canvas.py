"""The canvas: in sight, its states told apart, what lies behind the end, characters of several tokens."""

import io
from typing import Any

import pytest
from PIL import Image, ImageStat

from tests.helpers_server import Server
from tests.system.playground.browser import Playground
from tests.system.playground.conftest import OpenPage, whole_tale

pytestmark = pytest.mark.system

DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
END = 0
# the widest text of every control in sight, in pixels, and the room that it has: [id, needed, there]
CUT_TEXTS = """() => {
  const pen = document.createElement('canvas').getContext('2d');
  return [...document.querySelectorAll('select, input:not([type=checkbox], [type=radio], [type=range])')]
    .filter(field => field.checkVisibility())
    .map(field => {
      const style = getComputedStyle(field);
      pen.font = style.font;
      const texts = field.options ? [...field.options].map(each => each.text) : [field.value, field.placeholder];
      const needed = Math.max(...texts.map(text => pen.measureText(text).width));
      const arrow = field.options ? 18 : 0;
      const padding = parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
      return [field.id, needed, field.clientWidth - padding - arrow];
    })
    .filter(([, needed, there]) => needed > there + 0.5);
}"""


def box(playground: Playground, selector: str) -> dict[str, float]:
    """Where an element stands in the window."""
    found: dict[str, float] = playground.page.eval_on_selector(
        selector,
        "each => { const { top, bottom, right } = each.getBoundingClientRect(); return { top, bottom, right }; }",
    )
    return found


@pytest.mark.parametrize("context", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_generating_brings_the_canvas_into_view(
    tales: Server, open_page: OpenPage, context: dict[str, Any], motion: str
) -> None:
    playground = open_page(tales.url, reduced_motion=motion, **context)
    height = context["viewport"]["height"]
    assert box(playground, "#canvas")["top"] > height / 2
    playground.generate(max_tokens=48, speed=0)
    playground.at("#canvas .token").first.wait_for()
    # the button, what is said of the run, and the canvas's first lines
    playground.until(f"document.querySelector('#canvas .token').getBoundingClientRect().bottom < {height / 2}")
    playground.until_done()
    assert box(playground, "#generate")["top"] >= 0
    assert box(playground, "#status")["top"] >= 0


def test_a_canvas_in_view_stays_where_it_is(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url, viewport={"width": 1280, "height": 2000})
    playground.generate(max_tokens=16, speed=0)
    playground.until_done()
    assert playground.page.evaluate("scrollY") == 0


@pytest.mark.parametrize("context", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_no_field_cuts_its_text(tales: Server, open_page: OpenPage, context: dict[str, Any]) -> None:
    playground = open_page(tales.url, **context)
    playground.choose(sampler="remasking", seed=2**53 - 1)
    for i, kind in enumerate(("remasking", "threshold", "exact")):
        playground.page.select_option(f"#contestant-{i}", kind)
    playground.page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    assert playground.page.evaluate(CUT_TEXTS) == []
    playground.page.eval_on_selector("#seed", "each => { each.style.width = '8rem'; }")
    assert [each[0] for each in playground.page.evaluate(CUT_TEXTS)] == ["seed"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_two_states_look_alike(tales: Server, open_page: OpenPage, scheme: str) -> None:
    playground = open_page(tales.url, color_scheme=scheme, reduced_motion="reduce")
    playground.page.add_style_tag(url=f"{tales.url}/page/styles/canvas.css")
    looks = {}
    for item in playground.at(".legend").first.locator("li").all():
        name = item.inner_text()
        picture = Image.open(io.BytesIO(item.screenshot())).convert("RGB")
        margin = picture.crop((2, 2, 7, picture.height - 2))  # beside the word
        border = item.evaluate("each => getComputedStyle(each).borderStyle + getComputedStyle(each).borderColor")
        looks[name] = (ImageStat.Stat(margin).mean, border)
    assert set(looks) == {"masked", "intermediate", "unmasked", "given", "behind the end"}

    def apart(one: str, other: str) -> bool:
        colours = zip(looks[one][0], looks[other][0], strict=True)
        return sum(abs(a - b) for a, b in colours) > 12

    names = sorted(looks)
    for one, other in ((a, b) for a in names for b in names if a < b):
        assert apart(one, other) or looks[one][1] != looks[other][1], f"{one} and {other}"
    assert apart("masked", "given")


def test_a_phone_shows_every_column_of_the_comparison(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url, **PHONE)
    playground.choose(max_tokens=8, seed=1)
    playground.page.click("#compare")
    playground.until("!document.getElementById('compare-scrubber').disabled")
    columns = playground.at("#compare-table thead th").all_text_contents()[1:]
    cells = playground.page.eval_on_selector_all(
        "#compare-table tbody tr:first-child td",
        """cells => cells.map(cell => {
             const { left, right } = cell.getBoundingClientRect();
             return [getComputedStyle(cell, '::before').content, left >= 0 && right <= innerWidth];
           })""",
    )
    assert cells == [[f'"{column}"', True] for column in columns]


def events_of(
    texts: list[str], *, revealed: int, text: str, given: list[list[Any]] | None = None, masked: int | None = None
) -> list[tuple[str, dict[str, Any]]]:
    """A log of one digit a token: tokens 1, 2, … with these texts; the end token where a text is "<end>"."""
    given = given or []
    start = {
        "id": "gen-1",
        "sub_tokens_per_token": 1,
        "base": 45,
        "seed": 1,
        "eta_ms": None,
        "masked": masked or len(texts),
        "network_evaluations": masked or len(texts),
        "canvas": [given],
    }
    reveals = []
    for step, word in enumerate(texts[:revealed]):
        position = len(given) + step
        token = END if word == "<end>" else step + 1
        reveal = {"index": 0, "step": step + 1, "steps": start["masked"], "sub_tokens": [[position, 0, token]]}
        reveals.append(("unmask", reveal | {"tokens": [[position, token, word]]}))
    done = {
        "choices": [{"index": 0, "text": text, "token_ids": [1], "finish_reason": "stop"}],
        "usage": {"completion_tokens": len(texts)},
        "sampling": {"seed": 1, "network_evaluations": revealed, "rounds": revealed, "idle_steps": 0, "steps": None},
        "timings": {"queue_ms": 0.1, "first_unmask_ms": 1.0, "total_ms": 2.0},
        "fingerprint": "f",
    }
    return [("start", start), *reveals, ("done", done)]


def test_a_sample_may_end_before_its_last_step(tales: Server, open_page: OpenPage) -> None:
    """A block that holds an end token makes those behind it needless."""
    playground = open_page(tales.url)
    words = [" a", " b", "<end>", " c", " d", " e", " f", " g"]
    playground.fake_stream(events_of(words, revealed=4, text=" a b"))
    playground.generate(prompt="", max_tokens=8)  # at its own pace
    playground.until_done()
    assert playground.text("step") == "step 4 of 4"
    assert playground.at("#scrubber").get_attribute("max") == value_of(playground, "scrubber") == "4"
    assert playground.page.eval_on_selector("#progress", "each => each.value") == 1
    assert playground.states() == {"unmasked": 4, "masked": 4}
    behind = playground.page.eval_on_selector_all(
        "#canvas [data-behind-end]", "tokens => tokens.map(token => Number(token.dataset.position))"
    )
    assert behind == [3, 4, 5, 6, 7]
    border = "each => getComputedStyle(each).borderTopStyle + ' ' + getComputedStyle(each).borderTopColor"
    masked = playground.at("#canvas .token[data-state=masked]").first
    assert masked.evaluate(border) == playground.at(".legend [data-behind-end]").evaluate(border)
    masked.hover()
    assert "behind the end" in playground.text("inspector")
    assert playground.text("status") == "Done: 8 tokens in 2 ms; 4 evaluations saved behind the end."
    assert "saved behind the end\n4" in playground.text("facts")
    # before the end token is there, nothing lies behind it
    playground.seek(2)
    assert playground.at("#canvas [data-behind-end]").count() == 0


def test_a_tale_in_blocks_ends_early(tales: Server, open_page: OpenPage) -> None:
    """The same with the server's own events: what is masked, what is saved, and the text."""
    playground = open_page(tales.url)
    request = whole_tale(tales)
    stream = tales.stream(**request)
    planned, done = stream.start["network_evaluations"], stream.last.data
    taken = done["sampling"]["network_evaluations"]
    assert taken < planned
    playground.generate(**{**request, "sampler": "exact"}, **request["sampler"], speed=0)
    playground.until_done()
    given = {position for position, _, _ in stream.start["canvas"][0]}
    masked = [digits for i, digits in enumerate(stream.canvases()[0]) if i not in given and None in digits]
    assert playground.states()["masked"] == len(masked) > 0
    assert playground.states()["intermediate"] == 0
    assert playground.text("step") == f"step {taken} of {taken}"
    assert f"{planned - taken} evaluations saved behind the end" in playground.text("status")
    assert playground.at("#text").text_content() == done["choices"][0]["text"]


def value_of(playground: Playground, element_id: str) -> str:
    return playground.at(f"#{element_id}").input_value()


def test_a_given_end_token_ends_nothing(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    playground.fake_stream(events_of([" a", " b"], revealed=2, text=" a b", given=[[0, END, "<end>"]], masked=2))
    playground.generate(prompt="", max_tokens=2, speed=0)
    playground.until_done()
    assert playground.states() == {"given": 1, "unmasked": 2}
    assert playground.at("#canvas [data-behind-end]").count() == 0


def test_a_character_of_several_tokens_is_shown_whole(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    given = [[0, 9, "\ufffd"], [1, 8, "\ufffd"]]
    words = [" caf", "\ufffd", "\ufffd", "!"]
    playground.fake_stream(events_of(words, revealed=4, text=" café!", given=given))
    playground.generate(prompt="ß", max_tokens=4, speed=0)
    playground.until_done()
    assert playground.words() == ["ß", "", " caf", "é", "", "!"]
    signs = "tokens => tokens.map(token => token.querySelector('.word').dataset.sign)"
    assert playground.page.eval_on_selector_all("#canvas .token", signs) == ["", "⋯", "", "", "⋯", ""]
    playground.at("#canvas .token").nth(4).hover()
    assert "part of\né" in playground.text("inspector")
    playground.seek(2)  # half of the character
    assert playground.words()[3:5] == ["", "·"]
    assert playground.page.eval_on_selector_all("#canvas .token", signs)[3] == "◌"
    playground.seek(4)
    playground.page.check("input[name=view][value=text]")
    assert playground.at("#canvas .tokens").inner_text() == "ß café!"


@pytest.mark.parametrize(
    ("texts", "whole", "shared"),
    [
        (["a", "b"], "ab", []),
        (["\ufffd", "\ufffd"], "é", [[0, 1, "é"]]),
        (["a", "\ufffd", "\ufffd", "b", "\ufffd\ufffd", "\ufffd"], "aéb🙂", [[1, 2, "é"], [4, 5, "🙂"]]),
        (["\ufffd", "\ufffdx", "y"], "éxy", [[0, 1, "éx"]]),
        (["\ufffd"], "\ufffd", [[0, 0, "\ufffd"]]),
        (["\ufffd", "b"], None, [[0, 0, None]]),
        (["a", "\ufffd", "b"], "something else", [[1, 1, None]]),
        (["\ufffd", "b", "\ufffd"], "éc", [[0, 0, None], [2, 2, None]]),
        (["\ufffd", None], "é5", [[0, 0, None]]),
    ],
)
def test_what_tokens_share_is_found_in_the_whole_text(
    tales: Server, open_page: OpenPage, texts: list[str | None], whole: str | None, shared: list[list[Any]]
) -> None:
    playground = open_page(tales.url)
    found = playground.page.evaluate(
        """async ([texts, whole]) => (await import('/page/characters.js')).sharedCharacters(texts, whole)
             .map(({ from, to, text }) => [from, to, text])""",
        [texts, whole],
    )
    assert found == shared
