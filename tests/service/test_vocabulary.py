"""A stream's tokens, put together, are the text."""

import dataclasses

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from unmask_service.api.service import Vocabulary

from tests.helpers import markov_model


def llama_tokenizer() -> Tokenizer:
    """A tokenizer of Llama's kind: blanks are a part of words, and the first one is dropped in decoding."""
    tokenizer = Tokenizer(models.BPE({"▁": 0, "▁fox": 1, "es": 2, "▁ran": 3, ".": 4, "▁a": 5}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    replaced = decoders.Replace("▁", " ")
    tokenizer.decoder = decoders.Sequence([replaced, decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return tokenizer


def test_tokens_of_llamas_kind_keep_their_blanks() -> None:
    tokenizer = llama_tokenizer()
    vocabulary = Vocabulary(dataclasses.replace(markov_model(6, 4, 1), tokenizer=tokenizer))
    ids = [5, 1, 2, 3, 4]
    assert [vocabulary.text_of(token) for token in ids] == [" a", " fox", "es", " ran", "."]
    assert "".join(vocabulary.text_of(token) or "" for token in ids) == " " + tokenizer.decode(ids)
