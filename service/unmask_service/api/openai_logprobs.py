"""Log-probabilities in the two forms of OpenAI's API: lists for completions, an object for each token in a chat."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from unmask_diffusion.log import Likeliest

from unmask_service.api.logprobs import pieces_of
from unmask_service.api.schemas import LogProbs
from unmask_service.api.score_schemas import ScoreAnswer
from unmask_service.api.service import ServedModel


@dataclass(frozen=True)
class TokenLogProb:
    """One token of a text, with its log-probability in nats."""

    token: str  # what it adds to the text
    offset: int  # characters of the text before it
    log_probability: float | None  # None: it was given, or nothing comes before it
    likeliest: tuple[tuple[str, float], ...]  # classes in its place, the likeliest first


def of_generated(found: LogProbs | None, offset: int = 0) -> list[TokenLogProb]:
    """The tokens of an answer; `offset` characters come before it."""
    if found is None:
        return []
    each = zip(found.tokens, found.text_offset, found.token_logprobs, found.likeliest, strict=True)
    return [
        TokenLogProb(token, offset + place, value, tuple((named(text, id_), p) for id_, text, p in likeliest))
        for token, place, value, likeliest in each
    ]


def of_prompt(served: ServedModel, score: ScoreAnswer, text: str) -> list[TokenLogProb]:
    """The tokens of a prompt, from left to right. The first has no number: nothing comes before it."""
    contributions, likeliest = score.token_nats or [], dict(score.token_likeliest or [])
    ids, tokenizer = [token for _, token, _, _ in contributions], served.model.tokenizer
    if tokenizer is None:
        pieces, offsets = [named(None, token) for token in ids], [0] * len(ids)
    else:
        pieces, offsets = pieces_of(tokenizer, ids, text)
    tokens = [
        TokenLogProb(piece, offset, -nats, tuple((named(t, i), p) for i, t, p in likeliest.get(position, [])))
        for piece, offset, (position, _, _, nats) in zip(pieces, offsets, contributions, strict=True)
    ]
    return [replace(each, log_probability=None, likeliest=()) for each in tokens[:1]] + tokens[1:]


def with_texts(served: ServedModel, likeliest: Likeliest) -> tuple[tuple[str, float], ...]:
    """Likeliest classes by their texts."""
    return tuple((named(served.vocabulary.text_of(token), token), value) for token, value in likeliest)


def named(text: str | None, token: int) -> str:
    """A token's text, or its id where there is no tokenizer."""
    return f"token_id:{token}" if text is None else text


def for_completion(tokens: Sequence[TokenLogProb]) -> dict[str, Any]:
    """Lists with an entry for each token."""
    return {
        "tokens": [each.token for each in tokens],
        "token_logprobs": [each.log_probability for each in tokens],
        "top_logprobs": [
            dict(reversed(each.likeliest)) or None for each in tokens
        ],  # of equal texts the likeliest stays
        "text_offset": [each.offset for each in tokens],
    }


def for_chat(tokens: Iterable[TokenLogProb]) -> dict[str, Any]:
    """An object for each token."""
    content = [
        _in_chat(each.token, each.log_probability) | {"top_logprobs": [_in_chat(*pair) for pair in each.likeliest]}
        for each in tokens
    ]
    return {"content": content, "refusal": None}


def _in_chat(token: str, value: float | None) -> dict[str, Any]:
    return {"token": token, "logprob": value, "bytes": [*token.encode()]}
