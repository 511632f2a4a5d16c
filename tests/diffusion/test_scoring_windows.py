"""A long text's windows: every token that is to be scored is so once, with as much before it as was promised."""

import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unmask_diffusion import Readout, Tally, score
from unmask_diffusion.scoring.plan import Window, windows_of

from tests.helpers import prime_model
from tests.helpers_scoring import score_plan


@st.composite
def texts(draw: st.DrawFn) -> tuple[list[bool], int, int]:
    """(which tokens to score, a window's length, the overlap)."""
    length = draw(st.integers(1, 9))
    scored = draw(st.lists(st.booleans(), min_size=1, max_size=60).filter(any))
    return scored, length, draw(st.integers(0, length - 1))


@given(texts())
def test_each_token_is_scored_once(text: tuple[list[bool], int, int]) -> None:
    scored, length, overlap = text
    windows = windows_of(scored, length, overlap)
    places = [window.start + position for window in windows for position in window.scored]
    assert places == [place for place, wanted in enumerate(scored) if wanted]
    assert all(window.scored for window in windows)


@given(texts())
def test_windows_lie_within_the_text(text: tuple[list[bool], int, int]) -> None:
    scored, length, overlap = text
    for window in windows_of(scored, length, overlap):
        assert 0 <= window.start <= max(0, len(scored) - length)
        assert all(0 <= position < min(length, len(scored)) for position in window.scored)
        assert list(window.scored) == sorted(window.scored)


@given(texts())
def test_what_is_new_has_the_overlap_before_it(text: tuple[list[bool], int, int]) -> None:
    """At least so many tokens, all of them scored by windows before or given."""
    scored, length, overlap = text
    for window in windows_of(scored, length, overlap):
        assert window.start == 0 or window.scored[0] >= overlap


@given(st.integers(1, 9), st.integers(0, 8), st.integers(1, 60))
def test_windows_share_the_overlap(length: int, overlap: int, tokens: int) -> None:
    """Each shares exactly so many tokens with the one before, but the last, which reaches the text's end."""
    overlap %= length
    windows = windows_of([True] * tokens, length, overlap)
    for before, after in itertools.pairwise(windows[:-1]):
        assert after.start == before.start + length - overlap
    if len(windows) > 1:
        assert windows[-1].start == tokens - length
        assert windows[-2].start < windows[-1].start <= windows[-2].start + length - overlap
    assert len(windows) == max(1, -(-(tokens - overlap) // (length - overlap)))


def test_an_example() -> None:
    """Ten tokens in windows of four that share two; the last one would share one more, the text being over."""
    assert windows_of([True] * 9, 4, 2) == (
        Window(0, (0, 1, 2, 3)),
        Window(2, (2, 3)),
        Window(4, (2, 3)),
        Window(5, (3,)),
    )


@pytest.mark.parametrize(("overlap", "windows"), [(None, 4), (0, 2), (23, 18)])
def test_half_a_window_is_shared_unless_told_otherwise(overlap: int | None, windows: int) -> None:
    plan = score_plan(prime_model(length=24), input=[1] * 41, overlap=overlap)
    assert plan.overlap == (12 if overlap is None else overlap)
    assert len(plan.windows) == windows - (overlap is None)
    assert (plan.length, plan.window_tokens, plan.scored_tokens) == (24, 24, 41)


def test_a_prompt_is_context_for_every_window_that_reaches_it() -> None:
    model = prime_model(length=24)
    plan = score_plan(model, prompt=[2] * 100, input=[1] * 3, suffix=[4] * 100)
    (window,) = plan.windows
    assert plan.tokens[window.start : window.start + 24].count(2) >= 10
    found = score(model, prompt=[2] * 100, input=[1] * 3, suffix=[4] * 100, seed=1, per_token=True)
    assert [each.position for each in found.token_nats] == [0, 1, 2]
    assert found.tokens == 3


def test_a_long_text_takes_memory_in_proportion_to_its_windows() -> None:
    """A tally holds the replicates that are begun, not all that the budget pays for."""
    model = prime_model(length=24)
    for tokens, request in ((100_000, {}), (1, {"budget": 2**20})):
        plan = score_plan(model, input=[1] * tokens, estimator="integral", seed=1, **request)
        tracemalloc.start()
        tally = Tally(plan)
        tally.note(Readout(0, 1, 5))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 10_000 + 60 * len(plan.windows)
