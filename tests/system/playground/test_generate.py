"""Generating on the page: states that come and go, controls, errors, and what can be taken home."""

import json
import math
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers_server import Server, Stream, wait_for
from tests.system.playground.browser import PATIENCE_MS
from tests.system.playground.conftest import OpenPage, ids_of, whole_tale

if TYPE_CHECKING:
    from playwright.sync_api import Route

pytestmark = pytest.mark.system


def cancelled(server: Server) -> float:
    """Requests that have been cancelled, as the server counts them."""
    lines = server.http.get("/metrics").text.splitlines()
    counted = [line for line in lines if line.startswith("unmask_requests_total{") and 'outcome="cancelled"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in counted)


def test_tokens_are_masked_then_intermediate_then_unmasked(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    playground.generate(prompt="Once upon a time", suffix="The end.", max_tokens=24, seed=5)
    playground.at("#canvas .token[data-state=masked]").first.wait_for()
    playground.at("#canvas .token[data-state=intermediate]").first.wait_for()
    playground.until_done()
    answer = tales.generate(prompt="Once upon a time", suffix="The end.", max_tokens=24, seed=5)
    states = playground.states()
    assert states["unmasked"] == 24
    assert states["masked"] == states["intermediate"] == 0
    assert states["given"] == answer["usage"]["prompt_tokens"]
    assert playground.at("#text").text_content() == answer["choices"][0]["text"]
    assert "Once upon a time" in "".join(playground.words())


def test_what_the_canvas_shows_is_what_the_log_says(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    playground.generate(prompt="Once", max_tokens=40, seed=11, speed=0)
    playground.until_done()
    stream = tales.stream(prompt="Once", max_tokens=40, seed=11)
    given = {position for position, _, _ in stream.start["canvas"][0]}
    canvas = stream.canvases()[0]
    assert playground.digits() == [[] if i in given else digits for i, digits in enumerate(canvas)]
    # a token's own text, as far as the end token, which is drawn as a sign
    texts = {position: text for unmask in stream.unmasks for position, _, text in unmask["tokens"]}
    shown = playground.words()
    assert [shown[i] for i in texts] == ["" if text == "<|end|>" else text for text in texts.values()]


def test_an_intermediate_token_tells_its_digits_and_its_candidates(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    playground.generate(prompt="Once upon a time, there was a", max_tokens=32, seed=7, candidates=3, speed=0)
    playground.until_done()
    playground.seek(20)
    token = playground.at("#canvas .token[data-state=intermediate]").first
    digits = token.locator(".digit").all_text_contents()
    assert digits.count("·") == 1
    token.hover()
    inspected = playground.text("inspector")
    assert "intermediate" in inspected
    assert " ".join(digits) in inspected
    card = tales.http.get("/v1/models").json()["data"][0]
    assert f"of {card['vocabulary_size']:,}" in inspected
    assert playground.at("#inspector .likeliest li").count() == 3
    guess = playground.at("#inspector .likeliest .quoted").first.text_content()
    assert token.locator(".word").get_attribute("data-guess") == guess


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("groups", "its turn in a random order, in its block"),
        ("confidence", "the network was surest of it, in its block"),
        ("entropy", "the network hesitated least, in its block"),
    ],
)
def test_the_order_can_be_seen(tales: Server, open_page: OpenPage, kind: str, why: str) -> None:
    playground = open_page(tales.url)
    playground.generate(prompt="", max_tokens=16, sampler=kind, steps=16, block_length=8, seed=7, speed=0)
    playground.until_done()
    sampler: dict[str, Any] = {"steps": 16, "block_length": 8}
    if kind != "groups":
        sampler["name"] = kind
    log = tales.stream(max_tokens=16, seed=7, sampler=sampler, logprobs=0).unmasks
    playground.page.click("#order")
    assert playground.at("#canvas[data-order]").count() == 1
    playground.seek(5)
    steps = [0] * 16
    for unmask in log[:5]:
        for position, _, _ in unmask["sub_tokens"]:
            steps[position] = unmask["step"]
    shown = playground.page.eval_on_selector_all("#canvas .token", "all => all.map(each => +each.dataset.step)")
    assert shown == steps
    marked = playground.page.eval_on_selector_all(
        "#canvas [data-next]", "all => all.map(each => +each.dataset.position)"
    )
    assert marked == sorted({position for position, _, _ in log[5]["sub_tokens"]})
    position, j, _ = log[4]["sub_tokens"][0]
    playground.at(f"#canvas .token[data-position='{position}']").hover()
    inspected = playground.text("inspector")
    assert why in inspected
    assert ("in step 5" in inspected) == (kind != "groups")
    if kind != "groups":
        (probability,) = [
            math.exp(told)
            for told, (p, i, _) in zip(log[4]["log_probabilities"], log[4]["sub_tokens"], strict=True)
            if (p, i) == (position, j)
        ]
        percent = float(inspected.rpartition(" % in step 5")[0].split()[-1])
        assert percent == pytest.approx(100 * probability, abs=1)
    assert "logprobs" not in (playground.at("#curl").text_content() or "")


def test_without_candidates_nothing_is_guessed(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    playground.generate(max_tokens=16, seed=7, candidates=0, speed=0)
    playground.until_done()
    playground.seek(12)
    playground.at("#canvas .token[data-state=intermediate]").first.hover()
    assert playground.at("#inspector .likeliest").count() == 0
    assert playground.at("#canvas [data-guess]:not([data-guess=''])").count() == 0


def test_the_text_view_reads_as_text(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    request = whole_tale(tales)
    playground.generate(**{**request, "sampler": "exact"}, **request["sampler"], speed=0)
    playground.until_done()
    playground.page.check("input[name=view][value=text]")
    choice = tales.generate(**request)["choices"][0]
    assert playground.at("#canvas .tokens").inner_text() == request["prompt"] + choice["text"]


def test_the_sub_tokens_of_the_step_glow(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    playground.generate(prompt="", max_tokens=16, seed=9, speed=0)
    playground.until_done()
    unmasks = tales.stream(max_tokens=16, seed=9).unmasks
    for step in (1, 10, 9):
        playground.seek(step)
        (position, j, _), *others = unmasks[step - 1]["sub_tokens"]
        assert not others
        fresh = playground.at("#canvas .digit[data-fresh]")
        assert fresh.count() == 1
        glowing = playground.at(f"#canvas .token[data-position='{position}'] .digit:nth-child({j + 1})[data-fresh]")
        assert glowing.count() == 1


def test_what_is_masked_again_goes_back_to_masked(tales: Server, open_page: OpenPage) -> None:
    sampler = {"name": "remasking", "steps": 60}
    playground = open_page(tales.url)
    playground.generate(prompt="", max_tokens=40, seed=4, speed=0, sampler="remasking", steps=60)
    playground.until_done()
    stream = tales.stream(max_tokens=40, seed=4, sampler=sampler)
    first = next(number for number, unmask in enumerate(stream.unmasks, 1) if unmask.get("masked"))
    for step in (first - 1, first, len(stream.unmasks), first, first - 1, first):
        playground.seek(step)
        events = [stream.events[0], *[each for each in stream.events if each.name == "unmask"][:step]]
        (canvas,) = Stream(events).canvases()
        assert playground.digits() == canvas[:40]
        complete = sum(None not in digits for digits in canvas)
        assert playground.states()["unmasked"] == complete


def test_the_plan_is_told_before_the_button_is_pressed(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    playground.choose(max_tokens=32, sampler="groups", steps=8)
    playground.until("document.getElementById('plan').textContent.startsWith('8 network evaluations')")
    playground.choose(sampler="ancestral", steps=64, seed=3)
    planned = tales.http.post(
        "/plan",
        json={"prompt": playground.at("#prompt").input_value(), "max_tokens": 32, "seed": 3}
        | {"sampler": {"name": "ancestral", "steps": 64}},
    ).json()
    told = f"{planned['network_evaluations']} network evaluations, {planned['idle_steps']} idle steps skipped"
    playground.until(f"document.getElementById('plan').textContent.startsWith({json.dumps(told)})")
    assert not playground.bodies("/generate")


def test_every_control_ends_up_in_the_request(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    playground.choose(temperature="0.5", n=2, top_k=50, top_p="0.9", candidates=2, deadline_ms=60000, speed=0)
    playground.generate(prompt="Once", suffix="end.", max_tokens=8, sampler="groups", steps=4, seed=1)
    playground.until_done()
    expected = {"prompt": "Once", "suffix": "end.", "max_tokens": 8, "sampler": {"steps": 4}, "seed": 1}
    expected |= {"temperature": 0.5, "n": 2, "top_k": 50, "top_p": 0.9, "candidates": 2, "deadline_ms": 60000}
    assert playground.bodies("/generate") == [expected | {"stream": True, "detach": True}]
    limits = tales.http.get("/v1/models").json()["data"][0]["limits"]
    assert playground.at("#n").get_attribute("max") == str(limits["max_samples"])


def test_a_canvas_with_holes_takes_the_place_of_the_rest(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    first, second = ids_of(tales, "Once upon")
    playground.generate(holes=f"{first} _ _ {second} _", seed=1, speed=0)
    playground.until_done()
    assert playground.bodies("/generate")[0]["canvas"] == [first, None, None, second, None]
    assert "prompt" not in playground.bodies("/generate")[0]
    assert playground.at("#prompt").is_disabled()
    assert playground.states() == {"given": 2, "unmasked": 3}


def test_a_drawn_seed_can_be_pinned(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    playground.generate(max_tokens=8, speed=0)
    playground.until_done()
    first, seed = playground.words(), playground.at("#seed").input_value()
    assert "seed" not in playground.bodies("/generate")[0]
    playground.page.check("#pin")
    playground.generate()
    playground.until_done()
    assert playground.bodies("/generate")[1]["seed"] == int(seed)
    assert playground.words() == first


def test_each_sample_has_its_canvas(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    playground.generate(max_tokens=12, n=3, seed=2, speed=0)
    playground.until_done()
    canvases = tales.stream(prompt=playground.at("#prompt").input_value(), max_tokens=12, n=3, seed=2).canvases()
    for sample, canvas in enumerate(canvases):
        playground.choose(sample=sample)
        assert [digits for digits in playground.digits() if digits] == canvas[-12:]


def test_an_error_of_the_server_is_a_sentence_at_its_field(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    playground.generate(max_tokens=4000)
    playground.until("document.getElementById('error').textContent !== ''")
    message = tales.http.post("/generate", json=playground.bodies("/generate")[0]).json()["error"]["message"]
    # in the words of the page: a visitor has not read the API
    for name, label in {"max_tokens": "Tokens in between", "prompt": "Beginning", "suffix": "End"}.items():
        assert name in message
        message = message.replace(name, f"“{label}”")
    assert playground.text("error") == f"{message}."
    assert playground.at("#error").get_attribute("role") == "alert"
    assert playground.at("#max_tokens").get_attribute("aria-invalid") == "true"
    playground.generate(max_tokens=8, speed=0)
    playground.until_done()
    assert playground.text("error") == ""
    assert playground.at("[aria-invalid]").count() == 0


@pytest.mark.parametrize(
    ("fields", "marked", "told"),
    [
        ({"top_p": 2}, "top_p", "“Top p” should be less than or equal to 1."),
        ({"n": 1000}, "n", "“Samples” should be less than or equal to 64."),
        ({"sampler": "ancestral", "steps": ""}, "steps", "“Steps”: steps is required for the ancestral sampler."),
        ({"sampler": "remasking", "rate": 2}, "rate", "“Rate” should be less than or equal to 1."),
        (
            {"sampler": "threshold", "bound": 2},
            "bound",
            "“Bound”: bound is a probability for the threshold sampler: at most 1, not 2.",
        ),
    ],
)
def test_an_error_names_the_label_of_its_control(
    tales: Server, open_page: OpenPage, fields: dict[str, str | int], marked: str, told: str
) -> None:
    playground = open_page(tales.url)
    playground.generate(**fields)
    playground.until("document.getElementById('error').textContent !== ''")
    assert playground.text("error") == told
    assert playground.at(f"#{marked}").get_attribute("aria-invalid") == "true"


def test_what_is_no_request_is_a_sentence_too(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    playground.generate(holes="5 _ x")
    playground.until("document.getElementById('error').textContent !== ''")
    assert playground.text("error") == "“Canvas with holes”: “x” is not a token id."
    assert playground.at("#holes").get_attribute("aria-invalid") == "true"
    playground.generate(holes="", seed="99999999999999999999")
    playground.until("document.getElementById('error').textContent.startsWith('“Seed” must be a whole number')")
    assert not playground.bodies("/generate")


def test_cancel_stops_the_work(long_chain: Server, open_page: OpenPage) -> None:
    long_chain.until_idle()
    before = cancelled(long_chain)
    playground = open_page(long_chain.url)
    playground.generate(max_tokens=1024, n=16, speed=0)  # so much that it cannot be done before the button is pressed
    playground.until("Number(document.getElementById('scrubber').value) > 3")
    assert playground.at("#progress").is_visible()
    playground.page.click("#cancel")
    playground.until("document.getElementById('status').textContent.startsWith('Cancelled after')")
    assert playground.at("#cancel").is_hidden()
    assert playground.text("error") == ""
    assert 0 < playground.states()["masked"] < 1024
    long_chain.until_idle()
    assert cancelled(long_chain) == before + 1


def test_a_page_that_is_closed_leaves_no_work_behind(long_chain: Server, open_page: OpenPage) -> None:
    long_chain.until_idle()
    before = cancelled(long_chain)
    playground = open_page(long_chain.url)
    playground.generate(max_tokens=1024, n=16)
    playground.at("#canvas .token[data-state=intermediate]").first.wait_for()
    playground.page.goto("about:blank")
    playground.faults.clear()  # about:blank is another host, as the watcher sees it
    wait_for(lambda: cancelled(long_chain) == before + 1, PATIENCE_MS / 1000)


def test_generating_anew_ends_what_ran(long_chain: Server, open_page: OpenPage) -> None:
    long_chain.until_idle()
    before = cancelled(long_chain)
    playground = open_page(long_chain.url)
    playground.generate(max_tokens=1024, n=16, seed=1)
    playground.at("#canvas .token[data-state=intermediate]").first.wait_for()
    playground.generate(max_tokens=8, n=1, seed=2, speed=0)
    playground.until_done()
    assert playground.states() == {"unmasked": 8}
    long_chain.until_idle()
    assert cancelled(long_chain) == before + 1


def test_ids_in_ids_out_without_a_tokenizer(long_chain: Server, open_page: OpenPage) -> None:
    playground = open_page(long_chain.url)
    assert playground.at("#as_ids").is_disabled()
    playground.generate(prompt="1 2", suffix="3", max_tokens=6, seed=4, speed=0)
    playground.until_done()
    answer = long_chain.generate(prompt=[1, 2], suffix=[3], max_tokens=6, seed=4)
    ids = answer["choices"][0]["token_ids"]
    assert playground.text("text") == " ".join(map(str, ids))
    assert playground.words() == ["1", "2", *map(str, ids), "3"]


def test_the_log_the_text_and_a_command_can_be_taken_home(tales: Server, open_page: OpenPage, tmp_path: Path) -> None:
    playground = open_page(tales.url)
    playground.generate(prompt="It's Nina's", max_tokens=12, speed=0)
    playground.until_done()
    with playground.page.expect_download() as saving:
        playground.page.click("#save-log")
    saving.value.save_as(tmp_path / "log.json")
    log = json.loads((tmp_path / "log.json").read_text())
    done = log["events"][-1]["data"]
    # in one block nothing ends early, whatever is drawn
    assert [event["event"] for event in log["events"]] == ["start", *["unmask"] * 24, "done"]
    assert log["request"]["prompt"] == "It's Nina's"
    with playground.page.expect_download() as saving:
        playground.page.click("#save-text")
    saving.value.save_as(tmp_path / "text.txt")
    assert (tmp_path / "text.txt").read_text() == done["choices"][0]["text"]
    playground.page.click("#outcome summary")
    command = playground.text("curl")
    events = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout
    again = json.loads(events.strip().splitlines()[-1].removeprefix("data: "))
    assert again["choices"] == done["choices"]
    assert again["sampling"]["seed"] == done["sampling"]["seed"]


def test_a_button_pressed_before_the_page_is_ready_is_not_forgotten(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    held: list[Route] = []
    playground.page.route("**/v1/models", lambda route: held.append(route))
    playground.page.reload()
    wait_for(lambda: bool(held), PATIENCE_MS / 1000, lambda: playground.page.wait_for_timeout(10))
    playground.generate(max_tokens=8, seed=1)
    held[0].continue_()
    playground.until_done()
    assert playground.bodies("/generate")[0]["seed"] == 1
    assert playground.states()["unmasked"] == 8
