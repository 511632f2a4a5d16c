"""What `unmask generate` shows in a terminal: the playground's states, in colour."""

import io

import pytest
import torch
from rich.console import Console
from rich.text import Text
from tokenizers import Tokenizer
from torch import Tensor
from unmask_diffusion import Plan, run
from unmask_service.cli.generate import GLOW, STYLES, LiveCanvas, canvas_text

from tests.helpers import END_TOKEN, ToyModel, byte_tokenizer, end_tokens, plan_for, prime_model


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return byte_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> ToyModel:
    toy = prime_model(classes=tokenizer.get_vocab_size(), digits=2, base=17)
    return ToyModel(toy.denoiser, toy.sub_tokenizer, tokenizer, end_tokens(tokenizer), full_canvas=False)


@pytest.fixture(scope="module")
def plan(model: ToyModel) -> Plan:
    return plan_for(model, prompt="a", max_tokens=4, seed=1)


def canvas(model: ToyModel, *tokens: str | tuple[int, ...]) -> Tensor:
    """Digits of a canvas: of texts that are one token each, or as they stand, -1 where masked."""
    assert model.tokenizer is not None
    rows = []
    for token in tokens:
        if isinstance(token, str):
            rows.append(model.sub_tokenizer.encode(torch.tensor(model.tokenizer.encode(token).ids[0])))
        else:
            rows.append(torch.tensor([model.sub_tokenizer.mask_id if digit < 0 else digit for digit in token]))
    return torch.stack(rows)


def spans(text: Text) -> list[tuple[str, str]]:
    return [(text.plain[span.start : span.end], str(span.style)) for span in text.spans]


def test_each_state_has_its_style_and_intermediate_tokens_their_digits(model: ToyModel, plan: Plan) -> None:
    digits = canvas(model, "a", "b", (3, -1), (-1, -1), (-1, 12))
    assert spans(canvas_text(model, plan, digits, digits)) == [
        ("a", STYLES["given"]),
        (" 3 · ", STYLES["intermediate"]),
        (" · · ", STYLES["masked"]),
        (" · 12 ", STYLES["intermediate"]),
    ]


def test_tokens_that_have_just_been_completed_glow(model: ToyModel, plan: Plan) -> None:
    before = canvas(model, "a", "b", (-1, -1), (-1, -1), (-1, -1))
    now = canvas(model, "a", "b", "c", (-1, -1), (-1, -1))
    assert ("c", GLOW) in spans(canvas_text(model, plan, now, before))
    assert GLOW not in dict(spans(canvas_text(model, plan, now, now))).values()


def test_nothing_is_shown_behind_the_end(model: ToyModel, plan: Plan) -> None:
    digits = canvas(model, "a", "b", END_TOKEN, "c", "d")
    assert canvas_text(model, plan, digits, digits).plain == "ab⏎"
    # as long as something before it is open, it is not the end yet
    digits = canvas(model, "a", (-1, -1), END_TOKEN, "c", "d")
    assert canvas_text(model, plan, digits, digits).plain == "a · · ⏎cd"


def test_without_a_tokenizer_ids_are_shown(model: ToyModel) -> None:
    bare = ToyModel(model.denoiser, model.sub_tokenizer, full_canvas=False)
    plan = plan_for(bare, canvas=[5, None, 7], seed=1)
    digits = torch.stack([*model.sub_tokenizer.encode(torch.tensor([5, 6, 7]))])
    assert canvas_text(bare, plan, digits, digits).plain == "5 6 7 "


def test_a_generation_ends_with_its_text_and_no_glow(model: ToyModel, plan: Plan) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, color_system="truecolor")
    with LiveCanvas(console, model, plan) as live:
        (sample,) = run(model, plan, live.show)
    last_frame = screen.getvalue().rpartition("network evaluations")[0].split("\x1b[2K")[-1]
    assert "8 of 8" in last_frame
    assert "\x1b[1;96m" not in last_frame  # GLOW, as the terminal is told
    assert sample.text is not None
    assert sample.text.split("\n")[0].strip() in screen.getvalue()
