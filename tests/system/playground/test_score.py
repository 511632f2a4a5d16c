"""Scores on the page: the text that was generated taken over, the estimate, the heat map, and what goes wrong."""

import itertools
import json
import math
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers_server import Server, wait_for
from tests.system.playground.browser import PATIENCE_MS, Playground
from tests.system.playground.conftest import OpenPage, ids_of
from tests.system.playground.proxy import Network
from tests.system.playground.test_access import PHONE, sticks_out, violations
from tests.system.playground.test_generate import cancelled

if TYPE_CHECKING:
    from playwright.sync_api import Route

pytestmark = pytest.mark.system

# few evaluations, so that the tests are fast
QUICK: dict[str, str | int] = {"estimator": "integral", "budget": 16, "seed": 7}
# tokens for the chain, and more evaluations than anybody will wait for
TOKENS = " ".join(str(i % 8) for i in range(32))
ENDLESS: dict[str, str | int] = {"input": TOKENS, "estimator": "integral", "budget": 1_000_000}


def answer(server: Server, **body: Any) -> dict[str, Any]:  # noqa: ANN401 — JSON
    """What a score comes to."""
    response = server.http.post("/score", json=body)
    assert response.status_code == 200, response.text
    told: dict[str, Any] = response.json()
    return told


def facts(playground: Playground) -> dict[str, str]:
    """The numbers that are shown."""
    pairs: list[list[str]] = playground.page.eval_on_selector_all(
        "#score-facts > div", "facts => facts.map(fact => [...fact.children].map(each => each.textContent))"
    )
    return dict(pairs)


def heated(playground: Playground) -> list[dict[str, str]]:
    """The heat map's tokens: their text, level, and nats where they are not given."""
    tokens: list[dict[str, str]] = playground.page.eval_on_selector_all(
        "#heat .heat", "tokens => tokens.map(token => ({ text: token.textContent, ...token.dataset }))"
    )
    return tokens


def sent(playground: Playground) -> dict[str, Any]:
    """The one score that was asked for."""
    (body,) = playground.bodies("/score")
    return body


def test_what_was_generated_is_taken_over_and_scored(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    assert playground.at("#take-over").is_disabled()
    playground.generate(prompt="Once upon a time", suffix=" The end.", max_tokens=8, n=2, seed=5, speed=0)
    playground.until_done()
    playground.choose(sample=1)
    playground.page.click("#take-over")
    generated = tales.generate(prompt="Once upon a time", suffix=" The end.", max_tokens=8, n=2, seed=5)["choices"][1]
    assert playground.at("#score-input").input_value() == generated["text"]
    playground.score(**QUICK)
    playground.until_scored()
    body = QUICK | {"prompt": "Once upon a time", "suffix": " The end.", "per_token": True}
    body["input"] = generated["token_ids"]  # not its text, which may be other tokens
    assert sent(playground) == body | {"stream": True, "detach": True}
    told = answer(tales, **body)
    assert [token["text"] for token in heated(playground)] == [
        "Once upon a time",
        *(text for _, _, text, _ in told["token_nats"]),
        " The end.",
    ]
    assert facts(playground)["tokens"] == "8"


def test_the_heat_map_adds_up_to_the_answer(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    prompt, text = "Once upon a time, there was", " a young bee named xylophone.\n"
    playground.score(input=text, prompt=prompt, **QUICK)
    playground.until_scored()
    told = answer(tales, input=text, prompt=prompt, per_token=True, **QUICK)
    before, *tokens = heated(playground)
    assert (before["text"], before["level"], "nats" in before) == (prompt, "given", False)
    assert "".join(token["text"] for token in tokens) == text.replace("\n", "¶\n")
    nats = [each[3] for each in told["token_nats"]]
    assert [float(token["nats"]) for token in tokens] == pytest.approx(nats, abs=0.051)
    assert sum(float(token["nats"]) for token in tokens) == pytest.approx(told["nats"], abs=0.051 * len(tokens))
    edges = (0.5, 1, 2, 4, 8, 16)
    assert [int(token["level"]) for token in tokens] == [sum(each >= edge for edge in edges) for each in nats]
    assert len({token["level"] for token in tokens}) > 2


def test_the_numbers_are_the_answers(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    playground.page.check("#score-published_integrand")
    playground.score(input="The cat sat on the mat.", **QUICK)
    playground.until_scored()
    told = answer(tales, input="The cat sat on the mat.", published_integrand=True, **QUICK)
    shown = facts(playground)
    for name, value, error in (
        ("nats, upper bound", told["nats"], told["standard_error"]),
        ("nats a token", told["nats_per_token"], told["standard_error_per_token"]),
        (
            "published integrand, nats a token: no bound",
            told["published_integrand"]["nats_per_token"],
            told["published_integrand"]["standard_error_per_token"],
        ),
    ):
        told_value, told_error = map(float, shown[name].split(" ± "))
        assert told_error == pytest.approx(error, rel=0.1)
        assert told_value == pytest.approx(value, abs=error / 10)
    for name, field in (
        ("perplexity a token", "perplexity_per_token"),
        ("perplexity a word", "perplexity_per_word"),
        ("bits a byte", "bits_per_byte"),
    ):
        assert float(shown[name].replace(",", "")) == pytest.approx(told[field], rel=1e-2)
    assert shown["evaluations"] == str(told["estimator"]["network_evaluations"])
    assert (shown["seed"], shown["fingerprint"]) == ("7", told["fingerprint"])


def test_a_text_that_was_changed_goes_as_text(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    playground.generate(prompt="Once", max_tokens=4, seed=5, speed=0)
    playground.until_done()
    playground.page.click("#take-over")
    assert playground.text("score-taken") == "4 tokens, as they were generated."
    playground.score(input="quite another", **QUICK)
    assert playground.text("score-taken") == ""
    playground.until_scored()
    assert sent(playground)["input"] == "quite another"
    assert "suffix" not in sent(playground)


def test_the_given_tokens_of_a_canvas_stay_given(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    first, second = ids_of(tales, "Once upon")
    playground.generate(holes=f"{first} _ _ {second} _", seed=7, speed=0)
    playground.until_done()
    playground.page.click("#take-over")
    playground.score(**QUICK)
    playground.until_scored()
    assert sent(playground)["given"] == [0, 3]
    assert [token["level"] == "given" for token in heated(playground)] == [True, False, False, True, False]


def test_every_control_ends_up_in_the_request(long_chain: Server, open_page: OpenPage) -> None:
    playground = open_page(long_chain.url)
    assert playground.at("#score-as_ids").is_disabled()
    playground.page.check("#score-published_integrand")
    playground.score(
        prompt="1", input="2 3", suffix="4", budget=320, standard_error_per_token=0.5, seed=3, estimator="integral"
    )
    playground.until_scored()
    expected = {"prompt": [1], "input": [2, 3], "suffix": [4], "budget": 320, "standard_error_per_token": 0.5}
    expected |= {"seed": 3, "estimator": "integral", "published_integrand": True, "per_token": True}
    assert sent(playground) == expected | {"stream": True, "detach": True}
    card = long_chain.http.get("/v1/models").json()["data"][0]
    assert playground.at("#score-budget").get_attribute("max") == str(card["limits"]["max_budget"])
    assert [token["text"] for token in heated(playground)] == ["1 ", "2", "3", "4 "]


def test_the_estimate_settles_while_it_runs_and_cancel_ends_it(long_chain: Server, open_page: OpenPage) -> None:
    long_chain.until_idle()
    before = cancelled(long_chain)
    playground = open_page(long_chain.url)
    playground.score(**ENDLESS)
    course = r"/^[0-9.]+ ± [0-9.]+ nats a token · about .+ left$/"
    playground.until(f"{course}.test(document.getElementById('score-eta').textContent)")
    assert 0 < playground.page.eval_on_selector("#score-progress", "bar => bar.value") < 1
    playground.page.click("#score-cancel")
    playground.until("document.getElementById('score-status').textContent.startsWith('Cancelled after')")
    assert playground.at("#score-cancel").is_hidden()
    assert playground.at("#score-outcome").is_hidden()
    assert playground.text("score-error") == ""
    wait_for(lambda: cancelled(long_chain) == before + 1, PATIENCE_MS / 1000)


def test_a_page_that_is_closed_leaves_no_score_behind(long_chain: Server, open_page: OpenPage) -> None:
    long_chain.until_idle()
    before = cancelled(long_chain)
    playground = open_page(long_chain.url)
    playground.score(**ENDLESS)
    playground.until("document.getElementById('score-progress').value > 0")
    playground.page.goto("about:blank")
    playground.faults.clear()  # about:blank is another host, as the watcher sees it
    wait_for(lambda: cancelled(long_chain) == before + 1, PATIENCE_MS / 1000)


def test_a_dropped_connection_is_resumed(long_chain: Server, open_page: OpenPage) -> None:
    with Network(long_chain.port) as network:
        playground = open_page(network.url)
        network.allowance = 1000  # of an answer of several events: not all of them
        playground.score(input=TOKENS, estimator="integral", budget=160, seed=1)
        playground.until("document.getElementById('score-status').textContent.startsWith('The connection is lost')")
        network.mend()
        playground.until_scored()
        sent(playground)  # one score, taken up again
    told = answer(long_chain, input=[int(i) for i in TOKENS.split()], estimator="integral", budget=160, seed=1)
    assert float(facts(playground)["nats a token"].split(" ± ")[0]) == pytest.approx(told["nats_per_token"], abs=0.01)


def test_an_error_of_the_server_is_a_sentence_at_its_field(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    for fields, name, label in (
        ({"input": ""}, "input", "Text to score"),
        ({"input": "Once", "budget": 1}, "budget", "Evaluations at most"),
    ):
        playground.score(**fields)
        playground.until(f"document.getElementById('score-{name}').getAttribute('aria-invalid') === 'true'")
        body = playground.bodies("/score")[-1]
        message = tales.http.post("/score", json=body).json()["error"]["message"]
        # in the words of the page: the control's label in place of the API's name
        assert message.startswith(name)
        assert playground.text("score-error").rstrip(".") == message.replace(name, f"“{label}”", 1).rstrip(".")
        assert playground.text("score-error").endswith(".")
        assert playground.at("#score-form [aria-invalid]").count() == 1
    playground.score(input="Once upon", **QUICK)
    playground.until_scored()
    assert playground.at("#score-form [aria-invalid]").count() == 0


def test_what_is_no_request_is_a_sentence_too(long_chain: Server, open_page: OpenPage) -> None:
    playground = open_page(long_chain.url)
    playground.score(input="1 x")
    assert playground.text("score-error") == "“Text to score”: “x” is not a token id."
    assert playground.at("#score-input").get_attribute("aria-invalid") == "true"
    playground.score(input="1 2", seed="-1")
    assert "whole number" in playground.text("score-error")
    assert not playground.bodies("/score")


def test_a_token_tells_its_nats_to_pointer_keyboard_and_ear(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    text = "Once upon a time\nthere was a cat."
    playground.score(input=text, **QUICK)
    playground.until_scored()
    told = answer(tales, input=text, per_token=True, **QUICK)
    _, token_id, word, nats = told["token_nats"][1]
    token = playground.at("#heat .heat").nth(1)
    assert token.get_attribute("aria-label") == f"{word}: {nats:.2f} nats"
    token.hover()
    inspected = playground.text("heat-inspector")
    assert inspected.startswith("Token 1")
    for expected in (f"{nats:.3f}", f"{nats / math.log(2):.3f}", word.strip(), str(token_id)):
        assert expected in inspected
    playground.at("#heat [role=listbox]").focus()
    playground.page.keyboard.press("End")
    playground.page.keyboard.press("ArrowLeft")
    active = playground.page.evaluate("document.activeElement.getAttribute('aria-activedescendant')")
    assert active == f"heat-{len(told['token_nats']) - 2}"
    assert playground.at("#heat [aria-selected=true]").count() == 1
    playground.page.keyboard.press("Home")
    playground.page.keyboard.press("ArrowDown")
    first = [each[2] for each in told["token_nats"]].index("\n") + 1
    assert playground.text("heat-inspector").startswith(f"Token {first}\n")
    playground.page.keyboard.press("ArrowUp")
    assert playground.text("heat-inspector").startswith("Token 0\n")


def test_the_numbers_can_stand_under_the_tokens(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    playground.score(input="Once upon a time", **QUICK)
    playground.until_scored()
    printed = "getComputedStyle(document.querySelector('#heat .heat'), '::after').content"
    assert playground.page.evaluate(printed) == "none"
    playground.page.check("#heat-numbers")
    assert playground.page.evaluate(printed) == json.dumps(heated(playground)[0]["nats"])


def test_a_long_text_is_touched_at_one_token_only(long_chain: Server, open_page: OpenPage) -> None:
    playground = open_page(long_chain.url)
    playground.score(input=" ".join(str(i % 8) for i in range(1000)), **QUICK | {"budget": 4})
    playground.until_scored()
    assert len(heated(playground)) == 1000
    playground.page.evaluate(
        """() => {
          window.touched = new Set();
          new MutationObserver((changes) => changes.forEach((change) => window.touched.add(change.target)))
            .observe(document.querySelector('.heated'), { subtree: true, childList: true, attributes: true });
        }"""
    )
    playground.at("#heat [role=listbox]").focus()
    playground.page.keyboard.press("ArrowRight")
    playground.page.keyboard.press("ArrowDown")
    # the list, which names the active token, and the three that were active
    assert playground.page.evaluate("window.touched.size") == 4


def test_the_scale_is_ordered_and_legible(tales: Server, open_page: OpenPage) -> None:
    for scheme, direction in (("light", -1), ("dark", 1)):
        playground = open_page(tales.url, color_scheme=scheme)
        colours = playground.page.evaluate(
            """() => {
              const heat = document.getElementById('heat');
              document.getElementById('score-outcome').hidden = false;
              const tokens = [0, 1, 2, 3, 4, 5, 6].map((level) => {
                const token = heat.appendChild(document.createElement('span'));
                token.className = 'heat';
                token.dataset.level = level;
                return token;
              });
              return tokens.map((token) => [getComputedStyle(token).backgroundColor, getComputedStyle(token).color]);
            }"""
        )
        fills, inks = ([lightness(colour) for colour in column] for column in zip(*colours, strict=True))
        steps = [direction * (b ** (1 / 3) - a ** (1 / 3)) for a, b in itertools.pairwise(fills)]
        assert min(steps) > 0.02
        assert max(steps) < 2.5 * min(steps)
        contrasts = [(max(a, b) + 0.05) / (min(a, b) + 0.05) for a, b in zip(fills, inks, strict=True)]
        assert min(contrasts) >= 4.5


def lightness(colour: str) -> float:
    """Relative luminance (WCAG 2) of a colour such as rgb(1, 2, 3)."""
    channels = [int(word) / 255 for word in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(tales: Server, open_page: OpenPage, scheme: str) -> None:
    playground = open_page(tales.url, color_scheme=scheme, reduced_motion="reduce")
    playground.page.check("#score-published_integrand")
    text = " a young bee named xylophone. Oleg kept a glowing puppet on the shelf. But one cold day, the cave"
    playground.score(prompt="Once upon a time, there was", input=text, suffix="The end.", **QUICK)
    playground.until_scored()
    assert len({token["level"] for token in heated(playground)}) > 5
    playground.page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    playground.at("#heat .heat").nth(3).hover()
    assert not violations(playground)
    playground.page.check("#heat-numbers")
    playground.score(budget=1)
    playground.until("document.getElementById('score-error').textContent !== ''")
    assert not violations(playground)


def test_a_phone_needs_no_sideways_scrolling(long_chain: Server, open_page: OpenPage) -> None:
    playground = open_page(long_chain.url, **PHONE)
    playground.page.check("#score-published_integrand")
    playground.score(prompt="1 2 3", input=TOKENS, **QUICK | {"budget": 4})
    playground.until_scored()
    playground.page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    playground.at("#heat .heat").nth(3).tap()
    assert playground.at("#heat-inspector").is_visible()
    for numbers in (False, True):
        playground.page.set_checked("#heat-numbers", numbers)
        assert sticks_out(playground) == []


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
    playground.score(input="Once upon a time", **QUICK)
    playground.until_scored()
    said = playground.page.evaluate("window.said")
    assert len(said) == 2, said
    assert said[0] == "16 network evaluations planned."
    assert said[1].startswith("Done: 4 tokens at ")


def test_the_log_and_a_command_can_be_taken_home(tales: Server, open_page: OpenPage, tmp_path: Path) -> None:
    playground = open_page(tales.url)
    playground.score(input="It's Nina's", estimator="integral", budget=16)
    playground.until_scored()
    with playground.page.expect_download() as saving:
        playground.page.click("#save-score")
    saving.value.save_as(tmp_path / "log.json")
    log = json.loads((tmp_path / "log.json").read_text())
    assert log["request"]["input"] == "It's Nina's"
    assert {event["event"] for event in log["events"]} == {"start", "progress", "done"}
    done = log["events"][-1]["data"]
    playground.page.click("#score-outcome summary")
    command = playground.text("score-curl")
    events = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout
    again = json.loads(events.strip().splitlines()[-1].removeprefix("data: "))
    same = ("nats", "standard_error", "token_nats", "seed", "fingerprint")
    assert [again[field] for field in same] == [done[field] for field in same]


@pytest.mark.parametrize("taken_over", [False, True])
def test_a_character_of_several_tokens_is_one_in_the_heat_map(
    tales: Server, open_page: OpenPage, taken_over: bool
) -> None:
    """As if the first two tokens of the text were parts of one character."""

    def parts(route: "Route") -> None:
        response = route.fetch()
        lines = response.text().split("\n")
        i = lines.index("event: done") + 1
        done = json.loads(lines[i].removeprefix("data: "))
        for token in done["token_nats"][:2]:
            token[2] = "\ufffd"
        lines[i] = f"data: {json.dumps(done)}"
        route.fulfill(response=response, body="\n".join(lines))

    playground = open_page(tales.url)
    playground.page.route("**/score", parts)
    text = "Once upon a time"
    if taken_over:
        playground.generate(max_tokens=4, seed=1, speed=0)
        playground.until_done()
        text = playground.at("#text").text_content() or ""
        playground.page.click("#take-over")
        playground.score(budget=64)
    else:
        playground.score(input=text, budget=64)
    playground.until_scored()
    shown = playground.at("#heat .heat[data-nats]").all_text_contents()
    assert shown[1] == "⋯"
    assert "".join([shown[0], *shown[2:]]) == text
    assert "rest of the character before: " in (
        playground.at("#heat .heat[data-nats]").nth(1).get_attribute("aria-label") or ""
    )
