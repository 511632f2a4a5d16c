"""What the page says of its model and its samplers, recommended settings, block length, warnings."""

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers_server import Server, wait_for
from tests.system.playground.browser import PATIENCE_MS, Playground
from tests.system.playground.conftest import OpenPage
from tests.system.playground.test_access import violations

if TYPE_CHECKING:
    from playwright.sync_api import Route

pytestmark = pytest.mark.system

EXAMPLES = ["Once upon a time", "Long ago", "Not so far", "On a hill", "In a house", "a sixth"]
RECOMMENDED = {"temperature": 0.7, "top_p": 0.9, "sampler": {"name": "ancestral", "steps": 12, "block_length": 8}}
WARNING = "18 of 20 prompt tokens are outside what this model was trained on"


def value(playground: Playground, element_id: str) -> str:
    return playground.at(f"#{element_id}").input_value()


def test_the_settings_of_the_models_author_stand_in_the_fields(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    playground.fake_card(generation=RECOMMENDED)
    fields = ("temperature", "top_p", "sampler", "steps", "block_length")
    assert [value(playground, each) for each in fields] == ["0.7", "0.9", "ancestral", "12", "8"]
    line = "Recommended by the model's author: temperature 0.7, blocks of 8, top p 0.9, ancestral with 12 steps."
    assert playground.text("settings-origin") == line
    playground.generate(max_tokens=8, seed=1, speed=0)
    playground.until_done()
    (body,) = playground.bodies("/generate")
    assert (body["temperature"], body["top_p"], body["sampler"]) == (0.7, 0.9, RECOMMENDED["sampler"])
    command = playground.at("#curl").text_content() or ""
    assert '"temperature":0.7,"top_p":0.9' in command
    assert '"sampler":{"name":"ancestral","steps":12,"block_length":8}' in command
    # … of the plan too
    assert playground.bodies("/plan")[-1]["sampler"] == RECOMMENDED["sampler"]


def test_a_recommended_temperature_schedule_is_shown_and_sent(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    sampler = {"steps": 6, "clock": 2, "temperature_schedule": {"start": 0.8, "change": -0.7, "power": 0.5}}
    playground.fake_card(generation={"sampler": sampler})
    assert [value(playground, each) for each in ("clock", "temperature_schedule")] == ["2", "0.8 -0.7 0.5"]
    line = "temperature 1 (times 0.8 at first, 0.1 at last), random order, 6 groups, clock 2."
    assert playground.text("settings-origin") == f"Recommended by the model's author: {line}"
    playground.generate(max_tokens=8, seed=1, speed=0)
    playground.until_done()
    assert playground.bodies("/generate")[0]["sampler"] == sampler
    playground.choose(temperature_schedule="cold")
    playground.page.click("#generate")
    assert playground.text("error").startswith("“Temperature schedule”: two or three numbers are needed")
    playground.choose(temperature_schedule="1 −2")
    playground.page.click("#generate")
    playground.until("document.getElementById('error').textContent.includes('start + change must lie in')")
    assert playground.text("error").startswith("“Temperature schedule”")
    playground.page.click("#use-exact")
    assert [value(playground, each) for each in ("clock", "temperature_schedule")] == ["", ""]


def test_a_rate_belongs_to_remasking(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    sampler = {"name": "remasking", "steps": 12, "rate": 0.05}
    playground.fake_card(generation={"sampler": sampler})
    assert (value(playground, "rate"), playground.at("#rate").get_attribute("placeholder")) == ("0.05", "0.02")
    line = "Recommended by the model's author: temperature 1, random order, remasking with 12 steps and rate 0.05."
    assert playground.text("settings-origin") == line
    playground.generate(max_tokens=8, seed=1, speed=0)
    playground.until_done()
    playground.generate(sampler="ancestral")
    playground.until_done()
    assert playground.at("#rate").is_hidden()
    playground.page.click("#use-exact")
    assert value(playground, "rate") == ""
    playground.generate(sampler="remasking", steps=9)
    playground.until_done()
    sent = [body["sampler"] for body in playground.bodies("/generate")]
    assert sent == [sampler, {"name": "ancestral", "steps": 12}, {"name": "remasking", "steps": 9}]


def test_a_bound_takes_the_place_of_steps(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    playground.choose(sampler="threshold")
    assert playground.at("#steps").is_hidden()
    assert playground.at("#bound").get_attribute("placeholder") == "0.9"
    playground.generate(max_tokens=8, seed=1, speed=0)
    playground.until_done()
    playground.generate(bound="0.5")
    playground.until_done()
    sent = [(body["sampler"], body["logprobs"]) for body in playground.bodies("/generate")]
    assert sent == [({"name": "threshold", "bound": bound}, 0) for bound in (0.9, 0.5)]
    playground.at("#canvas .token[data-state=unmasked]").first.hover()
    assert "how sure" in playground.text("inspector")


def test_exact_defaults_are_a_button_away_and_back(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    playground.fake_card(generation=RECOMMENDED)
    assert playground.at("#use-recommended").is_hidden()
    playground.page.click("#use-exact")
    fields = ("temperature", "top_k", "top_p", "sampler", "block_length")
    assert [value(playground, each) for each in fields] == ["1", "0", "1", "exact", ""]
    assert playground.text("settings-origin") == "The API's exact defaults: temperature 1, random order."
    playground.generate(max_tokens=8, seed=1, speed=0)
    playground.until_done()
    assert not {"temperature", "top_p", "sampler"} & set(playground.bodies("/generate")[0])
    playground.choose(temperature="0.3")
    assert playground.text("settings-origin") == "Your own settings: temperature 0.3, random order."
    playground.page.click("#use-recommended")
    assert value(playground, "temperature") == "0.7"
    assert playground.text("settings-origin").startswith("Recommended by the model's author")


def test_without_recommended_settings_the_fields_are_the_apis(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    playground.fake_card(generation=None)
    assert playground.at("#settings").is_hidden()
    assert [value(playground, each) for each in ("temperature", "sampler", "block_length")] == ["1", "exact", ""]


def test_a_model_says_what_it_is_and_how_its_texts_begin(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    playground.fake_card(description=None, examples=None)
    assert "knows only the kind of text that it was trained on" in playground.text("about")
    assert playground.at("#examples").is_hidden()
    playground.fake_card(description="It tells <b>tales</b> and knows nothing else.", examples=EXAMPLES)
    assert playground.text("about") == "It tells <b>tales</b> and knows nothing else."
    buttons = playground.at("#examples button")
    assert buttons.all_text_contents() == EXAMPLES[:5]
    assert value(playground, "prompt") == EXAMPLES[0]
    playground.choose(holes="5 _")
    assert playground.at("#prompt").is_disabled()
    buttons.nth(2).click()
    playground.until("document.getElementById('prompt').disabled === false")
    playground.generate(max_tokens=8, speed=0)
    playground.until_done()
    assert playground.bodies("/generate")[0]["prompt"] == EXAMPLES[2]


def test_the_model_card_is_a_page_to_read(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    playground.fake_card(description="It tells tales.", generation=RECOMMENDED, examples=EXAMPLES)
    playground.page.click("#card-link")
    assert playground.at("#card").is_visible()
    card = tales.http.get("/v1/models").json()["data"][0]
    shown = playground.text("card")
    classes = f"{card['vocabulary_size']:,} classes"
    digits = f"{card['sub_tokens_per_token']} digits in base {card['base']}"
    for part in ("It tells tales.", classes, digits, "temperature 0.7, blocks of 8", *EXAMPLES):
        assert part in shown
    for limit in (limit for limit in card["limits"].values() if limit is not None):
        assert f"{limit:,}" in shown if isinstance(limit, int) else True
    assert not any(name in shown for name in card["limits"])
    playground.page.keyboard.press("Escape")
    assert playground.at("#card").is_hidden()
    playground.page.click("#card-link")
    playground.page.click("#card-close")
    assert playground.at("#card").is_hidden()


README = """# tales

Tells `short` tales <img src=x onerror="window.ran = true">
and *nothing* else.

- one
- two
  goes on

## Figures
| | |
| --- | --- |
| parameters | 0.94 M |

| order | holds |
| --- | --- |
| random | 69% |

> A tale.

![loss curve](loss.png)

```
# no heading

python
```
"""


def test_the_authors_card_is_rendered_as_text(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    playground.page.route("**/card", lambda route: route.fulfill(body=README, content_type="text/markdown"))
    playground.page.click("#card-link")
    playground.until("document.getElementById('card-readme').childElementCount > 0")
    shown = playground.at("#card-readme")
    tags = [each.evaluate("each => each.localName") for each in shown.locator("> *").all()]
    assert tags == ["p", "ul", "h4", "table", "table", "blockquote", "pre"]
    assert shown.locator("p").inner_text() == (
        'Tells short tales <img src=x onerror="window.ran = true"> and *nothing* else.'
    )
    assert shown.locator("code").all_text_contents() == ["short"]
    assert shown.locator("li").all_inner_texts() == ["one", "two goes on"]
    assert shown.locator("th").all_text_contents() == ["order", "holds"]
    assert shown.locator("td").all_text_contents() == ["parameters", "0.94 M", "random", "69%"]
    assert shown.locator("pre").text_content() == "# no heading\n\npython"
    assert shown.locator("img").count() == 0
    assert playground.page.evaluate("window.ran") is None
    assert not violations(playground)


def test_the_authors_card_comes_from_the_server(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    playground.choose(key="a-key")
    playground.page.click("#card-link")
    playground.until("document.getElementById('card-readme').childElementCount > 0")
    readme = tales.http.get("/v1/models/tales/card").text
    headings = [line.removeprefix("## ") for line in readme.splitlines() if line.startswith("## ")]
    assert playground.at("#card-readme h4").all_text_contents() == headings
    (asked,) = [each for each in playground.requests if each.url.endswith("/card")]
    assert asked.headers["authorization"] == "Bearer a-key"
    assert not violations(playground)
    playground.page.click("#card-close")
    playground.page.click("#card-link")
    assert sum(each.url.endswith("/card") for each in playground.requests) == 1


def test_a_model_without_a_card_has_none_to_show(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    error = {"error": {"message": "model 'tales' has no card", "type": "invalid_request_error"}}
    error["error"]["code"] = "card_not_found"
    playground.page.route("**/card", lambda route: route.fulfill(status=404, json=error))
    with playground.page.expect_response("**/card"):
        playground.page.click("#card-link")
    assert playground.at("#card-readme-title").is_hidden()
    assert playground.text("card-error") == ""
    playground.page.click("#card-close")
    playground.page.unroute("**/card")
    playground.page.route("**/card", lambda route: route.fulfill(status=503))
    playground.page.click("#card-link")
    playground.until("document.getElementById('card-error').textContent !== ''")
    assert playground.text("card-error").startswith("the server answered 503")


def test_each_sampler_is_explained_in_a_sentence(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    told = set()
    kinds = ("exact", "groups", "ancestral")
    for i, kind in enumerate(kinds):
        playground.choose(sampler=kind)
        playground.page.select_option(f"#contestant-{i}", kind)
        sentence = playground.text("sampler-says")
        assert sentence.endswith(".")
        assert playground.text(f"contestant-{i}-says") == sentence
        told.add(sentence)
    assert len(told) == 3


@pytest.mark.parametrize(
    ("kind", "sampler"),
    [
        ("exact", {"block_length": 4}),
        ("groups", {"steps": 6, "block_length": 4}),
        ("ancestral", {"name": "ancestral", "steps": 6, "block_length": 4}),
    ],
)
def test_a_block_length_is_sent_with_every_sampler(
    tales: Server, open_page: OpenPage, kind: str, sampler: dict[str, Any]
) -> None:
    playground = open_page(tales.url)
    playground.choose(max_tokens=8, seed=1, speed=0, sampler=kind, steps=6, block_length=4)
    wait_for(
        lambda: [body.get("sampler") for body in playground.bodies("/plan")][-1:] == [sampler],
        PATIENCE_MS / 1000,
        lambda: playground.page.wait_for_timeout(10),
    )
    playground.generate()
    playground.until_done()
    assert playground.bodies("/generate")[0]["sampler"] == sampler
    assert f'"sampler":{json.dumps(sampler, separators=(",", ":"))}' in (playground.at("#curl").text_content() or "")
    assert value(playground, "block_length") == "4"


def test_samplers_with_and_without_blocks_are_compared(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    playground.page.select_option("#contestant-0", "exact")
    playground.page.select_option("#contestant-2", "ancestral")
    numbers: dict[str, str | float] = {
        "contestant-0-block_length": 1,
        "contestant-1-steps": 16,
        "contestant-2-steps": 64,
    }
    playground.choose(max_tokens=8, seed=1, **numbers)
    playground.page.click("#compare")
    playground.until("!document.getElementById('compare-scrubber').disabled")
    samplers = [body.get("sampler") for body in playground.bodies("/generate")]
    assert samplers == [
        {"block_length": 1},
        {"steps": 16, "block_length": 8},
        {"name": "ancestral", "steps": 64},
    ]
    names = playground.at("#compare-table tbody th").all_text_contents()
    assert names == [
        "first-hitting, exact, left to right",
        "first-hitting, 16 groups, blocks of 8",
        "ancestral, 64 steps",
    ]


def test_idle_steps_are_measured_in_blocks(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    seen: list[int] = []

    def two_blocks(route: "Route") -> None:
        """A plan of a server that goes through the steps once in each of two blocks."""
        sampler = json.loads(route.request.post_data or "{}").get("sampler", {})
        if sampler.get("block_length") != 8:  # of the form above, which has one block
            route.fallback()
            return
        seen.append(steps := sampler["steps"])
        plan = {"network_evaluations": 16 * steps, "idle_steps": 16 * steps, "evaluations_per_sample": [steps] * 16}
        route.fulfill(json=plan)

    playground.choose(**{"idle-tokens": 16, "idle-block_length": 8})
    playground.page.route("**/plan", two_blocks)
    playground.page.click("#measure")
    playground.until("document.querySelectorAll('#idle-plot circle').length === 16")
    assert len(seen) == 16
    titles = playground.at("#idle-plot .measured title").all_text_contents()
    assert titles == [f"T = {T}: {T:.1f} idle steps measured ({T} to {T})" for T in seen]
    assert "blocks of 8" in playground.text("idle-caption")


def with_warnings(route: "Route") -> None:
    """Let the server's own answer come with a warning."""
    response = route.fetch()
    lines = response.text().split("\n")
    for i, line in enumerate(lines):
        if line.startswith("data: ") and i and lines[i - 1] == "event: done":
            lines[i] = f"data: {json.dumps(json.loads(line.removeprefix('data: ')) | {'warnings': [WARNING]})}"
    route.fulfill(response=response, body="\n".join(lines))


def test_warnings_of_an_answer_are_shown(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    playground.page.route("**/generate", with_warnings)
    playground.page.route("**/score", with_warnings)
    playground.generate(prompt="xyz", max_tokens=8, speed=0)
    playground.until_done()
    assert playground.text("warnings") == f"{WARNING}."
    assert playground.at("#warnings").get_attribute("role") == "status"
    playground.score(input="xyz", budget=64)
    playground.until_scored()
    assert playground.text("score-warnings") == f"{WARNING}."
    playground.page.click("#compare")
    playground.until("!document.getElementById('compare-scrubber').disabled")
    assert playground.text("compare-warnings") == f"{WARNING}."
    # a warning goes with its answer
    playground.page.unroute("**/generate")
    playground.generate(prompt="Once upon a time")
    playground.until_done()
    assert playground.at("#warnings").is_hidden()
