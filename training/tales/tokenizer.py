"""The tales' tokenizer: byte-level BPE in which each word of the tales is one token.

A word is looked up whole before any merge is tried (`ignore_merges`), so the words need no ladder of
half-words below them, and the vocabulary stays small. Whatever else is left of the vocabulary is filled with
merges learnt from the same words, so that other English is not spelled letter by letter. Every text can be
encoded, and decodes to itself.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from math import isqrt
from random import Random

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from training.tales.grammar import FULL, slot_words, tale

END_TOKEN = "<|end|>"  # noqa: S105 - a token of text
CLASSES = 2025
"""The vocabulary's size, a square: two digits in base 45."""

_SAMPLE_TALES = 5_000
_SEED = 2025


def build_tokenizer(classes: int = CLASSES) -> Tokenizer:
    """Build the tokenizer: deterministic, a few seconds."""
    if isqrt(classes) ** 2 != classes:
        raise ValueError(f"classes must be a square, got {classes}")
    counts = _piece_counts()
    whole = [piece for piece, _ in counts.most_common() if len(piece) > 1]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([END_TOKEN, *alphabet, *whole])}
    if len(vocabulary) > classes:
        raise ValueError(f"the tales' words need {len(vocabulary)} classes, more than {classes}")
    merges = []
    for left, right in _learnt_merges(counts, classes):
        if left + right not in vocabulary:
            if len(vocabulary) == classes:
                continue
            vocabulary[left + right] = len(vocabulary)
        if left in vocabulary and right in vocabulary:
            merges.append((left, right))
    if len(vocabulary) != classes:
        raise ValueError(f"only {len(vocabulary)} classes could be learnt, fewer than {classes}")
    return _assemble(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))


def _assemble(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_TOKEN])
    return tokenizer


def _piece_counts() -> Counter[str]:
    """Count the pieces (words with their space, punctuation) of many tales; no word of the lists is missing."""
    split = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str
    random = Random(_SEED)
    texts: Iterator[str] = (tale(random, FULL) for _ in range(_SAMPLE_TALES))
    counts = Counter(piece for text in texts for piece, _ in split(text))
    counts.update(split(" " + word)[0][0] for word in sorted(slot_words()))
    return Counter(dict(sorted(counts.items())))


def _learnt_merges(counts: Counter[str], classes: int) -> list[tuple[str, str]]:
    """Learn merges from the words alone, each counted once, so that rare letters' company is learnt too."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=2 * classes, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    decode = decoders.ByteLevel().decode
    learner.train_from_iterator((decode([piece]) for piece in counts), trainer)
    return [(left, right) for left, right in json.loads(learner.to_str())["model"]["merges"]]
