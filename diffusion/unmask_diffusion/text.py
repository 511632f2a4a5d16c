"""Tokens as text: what they add to the text before them."""

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from unmask_diffusion.model import Outline

REPLACEMENT = "\ufffd"  # stands for bytes that are no character


def text_of(model: Outline, token_ids: Sequence[int], continues: bool = False) -> str | None:
    """Tokens as text, special tokens included; None without a tokenizer.

    Args:
        model: the model whose tokens they are.
        token_ids: the tokens.
        continues: a text comes before them: the text is what they add to it. Decoders of Llama's kind drop the blank
            before the first token that they decode, which is a part of a text that continues.
    """
    if model.tokenizer is None:
        return None
    before = _before(model.tokenizer, token_ids[:1]) if continues else []
    text = model.tokenizer.decode([*before, *token_ids], skip_special_tokens=False)
    return text[len(model.tokenizer.decode(before, skip_special_tokens=False)) :] if before else text


def decode_stream(tokenizer: Tokenizer, first: int, continues: bool) -> DecodeStream:
    """A stream that gives the text of `text_of` token by token; `first` is the token that it begins with."""
    return DecodeStream(ids=_before(tokenizer, [first]) if continues else [], skip_special_tokens=False)


def find_stop(text: str, stop: Sequence[str]) -> int | None:
    """Where the first stop string in a text begins; None if there is none."""
    return min((place for each in stop if (place := text.find(each)) >= 0), default=None)


def _before(tokenizer: Tokenizer, first: Sequence[int]) -> list[int]:
    """A token whose text can be cut off again: the first one itself, unless it is only a part of a character."""
    text = tokenizer.decode(first, skip_special_tokens=False)
    return [] if REPLACEMENT in text else [*first]
