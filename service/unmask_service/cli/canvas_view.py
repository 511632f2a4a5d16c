"""A canvas in the terminal: given, unmasked, intermediate and masked tokens, each in a style of its own."""

from collections.abc import Iterator
from itertools import groupby
from typing import Literal

from rich.text import Text
from torch import Tensor
from unmask_diffusion import Model, Plan

State = Literal["given", "unmasked", "intermediate", "masked", "after_end"]

STYLES: dict[State, str] = {
    "given": "bold",
    "unmasked": "",
    "intermediate": "black on yellow",
    "masked": "grey37",
    "after_end": "grey37",
}
MASKED, INTERMEDIATE, END = "░░ ", "▒▒ ", "⏎"


def canvas_text(model: Model, plan: Plan, digits: Tensor) -> Text:
    """A sample's canvas [length, l] as it stands."""
    text = Text()
    for state, run in groupby(_tokens(model, plan, digits), key=lambda token: token[0]):
        text.append(_shown(model, state, [token for _, token in run]), STYLES[state])
    return text


def _tokens(model: Model, plan: Plan, digits: Tensor) -> Iterator[tuple[State, int | None]]:
    """The state and, where all its digits are known, the id of every token of the request's canvas."""
    known = digits[: len(plan.canvas)] != model.sub_tokenizer.mask_id
    ended = False
    for position, given in enumerate(plan.canvas):
        if given is not None:
            yield "given", given
        elif ended:
            yield "after_end", None
        elif bool(known[position].all()):
            token = int(model.sub_tokenizer.decode(digits[position]))
            # what lies behind the end token is no part of the answer, but it lies there only once all before is known
            ended = token == model.end_token_id and bool(known[:position].all())
            yield "unmasked", token
        else:
            yield ("intermediate" if bool(known[position].any()) else "masked"), None


def _shown(model: Model, state: State, tokens: list[int | None]) -> str:
    ids = [token for token in tokens if token is not None]
    if state == "masked":
        return MASKED * len(tokens)
    if state == "intermediate":
        return INTERMEDIATE * len(tokens)
    if model.tokenizer is None:
        return "".join(f"{token} " for token in ids)
    end = model.end_token_id
    parts = (list(part) for _, part in groupby(ids, key=lambda token: token == end))
    return "".join(END if part[0] == end else model.tokenizer.decode(part, skip_special_tokens=False) for part in parts)
