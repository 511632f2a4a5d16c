"""Log-probabilities of an answer in the form that clients know: lists with an entry for each token."""

from collections.abc import Sequence

from tokenizers import Tokenizer
from unmask_diffusion import Sample, decode_stream
from unmask_diffusion.log import Likeliest

from unmask_service.api.schemas import Class, LogProbs
from unmask_service.api.service import Vocabulary


def logprobs_of(
    sample: Sample, tokenizer: Tokenizer | None, vocabulary: Vocabulary, continues: bool
) -> LogProbs | None:
    """The log-probabilities of a sample, before which a text may come; None if they were not asked for."""
    if sample.logprobs is None:
        return None
    if tokenizer is None or sample.text is None:
        tokens, offsets = [f"token_id:{token}" for token in sample.token_ids], [0] * len(sample.token_ids)
    else:
        tokens, offsets = pieces_of(tokenizer, sample.token_ids, sample.text, continues)
    return LogProbs(
        tokens=tokens,
        token_logprobs=[token.total for token in sample.logprobs],
        top_logprobs=[_by_text(token.likeliest, vocabulary) for token in sample.logprobs],
        text_offset=offsets,
        sub_token_logprobs=[[*token.sub_tokens] for token in sample.logprobs],
        likeliest=[classes_of(token.likeliest, vocabulary) for token in sample.logprobs],
    )


def classes_of(likeliest: Likeliest, vocabulary: Vocabulary) -> list[Class]:
    """Likeliest classes with their texts."""
    return [(token, vocabulary.text_of(token), value) for token, value in likeliest]


def _by_text(likeliest: Likeliest, vocabulary: Vocabulary) -> dict[str, float] | None:
    found: dict[str, float] = {}
    for token, text, value in classes_of(likeliest, vocabulary):
        found.setdefault(f"token_id:{token}" if text is None else text, value)
    return found or None


def pieces_of(
    tokenizer: Tokenizer, token_ids: Sequence[int], text: str, continues: bool = False
) -> tuple[list[str], list[int]]:
    """Cut a text into the pieces that its tokens add to it, one after the other, and say where each begins.

    A token that ends within a character adds nothing; the one that completes the character adds all of it.
    """
    if not token_ids:
        return [], []
    stream = decode_stream(tokenizer, token_ids[0], continues)
    offsets, end = [], 0
    for token in token_ids:
        offsets.append(end)
        end = min(len(text), end + len(stream.step(tokenizer, token) or ""))
    ends = [*offsets[1:], len(text)]  # an unfinished character belongs to the last token
    return [text[start:stop] for start, stop in zip(offsets, ends, strict=False)], offsets
