"""Samplers side by side, the slider, and the plot of idle steps."""

import math
from collections import Counter
from datetime import UTC, datetime

import pytest

from tests.helpers_server import Server, token_ids
from tests.system.playground.browser import PATIENCE_MS
from tests.system.playground.conftest import OpenPage

pytestmark = pytest.mark.system


def entropy(ids: list[int]) -> float:
    """Of the frequencies of token ids among themselves, in nats."""
    return sum(-times / len(ids) * math.log(times / len(ids)) for times in Counter(ids).values())


@pytest.mark.parametrize(("sampler", "groups"), [("groups", 64), ("groups", 16), ("confidence", 16)])
def test_scrubbing_shows_any_step(tales: Server, open_page: OpenPage, sampler: str, groups: int) -> None:
    playground = open_page(tales.url)
    playground.generate(prompt="", max_tokens=32, sampler=sampler, steps=groups, seed=13, speed=0)
    playground.until_done()
    name = {} if sampler == "groups" else {"name": sampler}
    stream = tales.stream(max_tokens=32, seed=13, sampler={**name, "steps": groups})
    assert playground.text("step") == f"step {groups} of {groups}"
    for step in (0, groups // 2, groups // 2 - 1, 5, groups, 1):
        playground.seek(step)
        assert playground.text("step") == f"step {step} of {groups}"
        expected: list[list[int | None]] = [[None, None] for _ in range(32)]
        for unmask in stream.unmasks[:step]:
            for position, j, digit in unmask["sub_tokens"]:
                expected[position][j] = digit
        assert playground.digits() == expected
        known = [sum(digit is not None for digit in digits) for digits in expected]
        states = {0: "masked", 1: "intermediate", 2: "unmasked"}
        assert playground.states() == Counter(states[count] for count in known)


def test_the_slider_can_be_used_while_the_log_grows(long_chain: Server, open_page: OpenPage) -> None:
    playground = open_page(long_chain.url)
    playground.generate(max_tokens=1024, n=16, speed=0)  # so much that it grows all the while
    playground.until("Number(document.getElementById('scrubber').value) > 20")
    playground.seek(7)
    assert playground.text("step").startswith("step 7 of")
    playground.seek(2048)
    # what has not come yet cannot be shown
    assert 7 < int(playground.at("#scrubber").input_value()) < 2048
    playground.seek(7)
    playground.page.click("#play")
    playground.until("Number(document.getElementById('scrubber').value) > 20")
    playground.page.click("#cancel")
    playground.until("document.getElementById('status').textContent.startsWith('Cancelled')")


def test_a_pace_slows_the_playback_down(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    playground.page.clock.install(time=datetime(2000, 1, 1, tzinfo=UTC))
    playground.open()  # the recommended blocks could end a tale early
    playground.page.clock.pause_at(datetime(2000, 1, 2, tzinfo=UTC))  # goes on when told from here on
    playground.generate(max_tokens=64, speed=15)
    for _ in range(500):  # the log comes in real time, however long it takes; the playback has 10 s of the clock
        playground.page.clock.run_for(20)
        if playground.text("status").startswith("Done"):
            break
        playground.page.wait_for_timeout(PATIENCE_MS / 500)
    assert playground.text("status").startswith("Done")
    # at half of the time half of the steps; a frame that comes late may hold it up, but nothing lets it hurry
    playground.seek(0)
    playground.page.click("#play")
    playground.page.clock.run_for(7500)
    assert 48 <= int(playground.at("#scrubber").input_value()) <= 65
    playground.page.click("#play")
    paused = playground.text("step")
    playground.page.clock.run_for(3000)
    assert playground.text("step") == paused
    playground.page.click("#play")
    playground.page.clock.run_for(15_000)
    assert playground.text("step") == "step 128 of 128"
    assert playground.text("play") == "Play"
    playground.page.click("#play")  # once more, from the beginning
    playground.page.clock.run_for(3000)
    assert 16 <= int(playground.at("#scrubber").input_value()) <= 27


def test_three_samplers_side_by_side(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    playground.choose(prompt="Once upon a time", max_tokens=24, n=2, seed=17)
    playground.page.click("#compare")
    playground.until("document.querySelectorAll('#compare-table tbody tr').length === 3")
    playground.until("!document.getElementById('compare-scrubber').disabled")
    samplers = [{"steps": 32}, {"steps": 32, "block_length": 8}, {"name": "confidence", "steps": 32}]
    body = {"prompt": "Once upon a time", "max_tokens": 24, "n": 2, "seed": 17}
    rows = [row.split("\t") for row in playground.at("#compare-table tbody").inner_text().split("\n")]
    for sampler, (_, evaluations, _, idle, plain, _, shown_entropy) in zip(samplers, rows, strict=True):
        answer = tales.generate(**body, sampler=sampler)
        sampling = answer["sampling"]
        assert int(evaluations) == sampling["network_evaluations"]
        assert int(idle) == sampling["idle_steps"]
        assert int(plain) == sampling["network_evaluations"] + sampling["idle_steps"]
        entropies = [entropy(ids) for ids in token_ids(answer)]
        assert float(shown_entropy) == pytest.approx(sum(entropies) / 2, abs=0.006)
    # after a third of the evaluations the first of three blocks is there, and nothing of the others
    playground.seek(10, "compare-scrubber")
    masked, touched = (
        [
            playground.page.eval_on_selector_all(
                f".contestant:nth-of-type({i}) .token{state}", "tokens => tokens.map(each => +each.dataset.position)"
            )
            for i in (1, 2)
        ]
        for state in ("[data-state=masked]", ':not([data-step=""])')
    )
    first = min(masked[1]) - 8
    assert masked[1] == [*range(first + 8, first + 24)]
    assert touched[1] == [*range(first, first + 8)]
    assert max(touched[0]) > first + 8
    assert playground.at(".contestant .canvas[data-order]").count() == 3
    playground.page.click("#compare-order")
    assert playground.at(".contestant .canvas[data-order]").count() == 0


def test_a_comparison_is_sampled_as_the_form_says(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    kinds = {"contestant-0": "ancestral", "contestant-1": "groups", "contestant-2": "none"}
    for name, kind in kinds.items():
        playground.page.select_option(f"#{name}", kind)
    numbers = {
        "contestant-0-steps": 9,
        "contestant-0-clock": 2,
        "contestant-1-steps": 4,
        "contestant-1-block_length": "",
    }
    playground.choose(max_tokens=8, temperature="0.9", temperature_schedule="1 -0.5", **numbers)  # type: ignore[arg-type]
    playground.page.click("#compare")
    playground.until("!document.getElementById('compare-scrubber').disabled")
    schedule = {"temperature_schedule": {"start": 1, "change": -0.5, "power": 1}}
    assert [body["sampler"] for body in playground.bodies("/generate")] == [
        {"name": "ancestral", "steps": 9, "clock": 2} | schedule,
        {"steps": 4} | schedule,
    ]


def test_each_sampler_of_a_comparison_takes_its_own_numbers(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    for i, kind in enumerate(("remasking", "threshold", "entropy_bounded")):
        playground.page.select_option(f"#contestant-{i}", kind)
    shown = playground.page.eval_on_selector_all(
        "#contestants input", "all => all.filter(each => each.checkVisibility()).map(each => each.id.slice(11))"
    )
    assert shown == [
        *("0-steps", "0-rate", "0-block_length", "0-clock"),
        *("1-bound", "1-block_length", "1-clock"),
        *("2-bound", "2-block_length", "2-clock"),
    ]
    numbers: dict[str, str | float] = {
        "contestant-0-steps": 9,
        "contestant-0-rate": 0.2,
        "contestant-1-block_length": "",
        "contestant-2-bound": 1,
    }
    playground.choose(max_tokens=8, seed=1, **numbers)
    playground.page.click("#compare")
    playground.until("!document.getElementById('compare-scrubber').disabled")
    assert [body["sampler"] for body in playground.bodies("/generate")] == [
        {"name": "remasking", "steps": 9, "rate": 0.2},
        {"name": "threshold", "bound": 0.9},
        {"name": "entropy_bounded", "bound": 1},
    ]
    names = playground.at("#compare-table tbody th").all_text_contents()
    assert names == ["remasking, 9 steps, rate 0.2", "threshold, bound 0.9", "entropy_bounded, bound 1"]


def test_a_comparison_can_be_cancelled(long_chain: Server, open_page: OpenPage) -> None:
    playground = open_page(long_chain.url)
    playground.page.select_option("#contestant-0", "exact")  # 2048 evaluations: not done before the button is pressed
    playground.choose(max_tokens=1024)
    playground.page.click("#compare")
    playground.at("#compare-canvases .token[data-state=intermediate]").first.wait_for()
    playground.page.click("#compare-cancel")
    playground.until("document.getElementById('compare-error').textContent === 'Cancelled.'")
    assert playground.at("#compare-table tbody tr").count() == 0
    long_chain.until_idle()


def test_a_comparison_that_cannot_be_says_why(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    playground.choose(max_tokens=4000)
    playground.page.click("#compare")
    playground.until(
        "document.getElementById('compare-error').textContent.includes('“Tokens in between” can be at most')"
    )


def test_idle_steps_are_measured_from_the_servers_plans(tales: Server, open_page: OpenPage) -> None:
    playground = open_page(tales.url)
    # the curves are there before anything is measured
    assert playground.at("#idle-plot .curve").count() == 2
    playground.set_value("idle-tokens", "32")
    playground.page.click("#measure")
    playground.until("document.querySelectorAll('#idle-plot circle').length === 16")
    assert not playground.bodies("/generate")
    rows = playground.page.eval_on_selector_all(
        "#idle-table tbody tr", "rows => rows.map(row => [...row.cells].map(cell => Number(cell.textContent)))"
    )
    for T, measured, expected, single in rows:
        plan = tales.http.post(
            "/plan", json={"max_tokens": 32, "n": 16, "seed": T, "sampler": {"name": "ancestral", "steps": T}}
        ).json()
        assert measured == pytest.approx(plan["idle_steps"] / 16, abs=0.051)
        assert expected == pytest.approx(T * (1 - 1 / T) ** 64, abs=0.051)
        assert single == pytest.approx(T * (1 - 1 / T) ** 32, abs=0.051)
        # the seeds are fixed: far from the mean's standard error, and never flaky
        assert abs(measured - expected) < 4


def test_a_large_canvas_changes_only_where_something_was_revealed(four_digits: Server, open_page: OpenPage) -> None:
    playground = open_page(four_digits.url)
    playground.generate(max_tokens=1024, sampler="groups", steps=64, seed=1, speed=0)
    playground.until_done()
    assert playground.states() == {"unmasked": 1024}
    assert playground.digits() == four_digits.stream(max_tokens=1024, seed=1, sampler={"steps": 64}).canvases()[0]
    playground.seek(40)
    playground.page.evaluate(
        """() => {
          window.touched = new Set();
          new MutationObserver(records => records.forEach(({ target }) => {
            const token = (target.closest ? target : target.parentElement).closest('.token');
            if (token) window.touched.add(token.dataset.position);
          })).observe(document.getElementById('canvas'), {
            subtree: true, childList: true, attributes: true, characterData: true,
          });
        }"""
    )
    playground.seek(41)
    touched = playground.page.evaluate("() => window.touched.size")
    # 64 sub-tokens a step: those that glowed before, and those that glow now
    assert 64 <= touched <= 128
