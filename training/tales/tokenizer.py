"""The tales' tokenizer: byte-level BPE in which each word of the tales is one token.

A word is looked up whole before any merge is tried (`ignore_merges`), so the words need no ladder of half-words below
them, and the vocabulary stays small. The rest of the vocabulary is filled with merges learnt from the same words, so
that other English is not spelled letter by letter. Every text can be encoded, and decodes to itself.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from math import isqrt

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from training.tales.grammar import pieces
from training.tales.language import LAYOUT, PLOTS, STEPS, WORDS

END_TOKEN = "<|end|>"  # noqa: S105 - a token of text
CLASSES = 1024
"""The vocabulary's size, a square: two digits in base 32."""

_LONG_LIST = 12
_split = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str


def build_tokenizer(classes: int = CLASSES) -> Tokenizer:
    """Build the tokenizer: deterministic, less than a second."""
    if isqrt(classes) ** 2 != classes:
        raise ValueError(f"classes must be a square, got {classes}")
    whole = [piece for piece in dict.fromkeys(piece for group in word_groups() for piece in group) if len(piece) > 1]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([END_TOKEN, *alphabet, *whole])}
    if len(vocabulary) > classes:
        raise ValueError(f"the tales' words need {len(vocabulary)} classes, more than {classes}")
    merges = []
    for left, right in _learnt_merges(whole, classes):
        if left + right not in vocabulary:
            if len(vocabulary) == classes:
                continue
            vocabulary[left + right] = len(vocabulary)
        if left in vocabulary and right in vocabulary:
            merges.append((left, right))
    if len(vocabulary) != classes:
        raise ValueError(f"only {len(vocabulary)} classes could be learnt, fewer than {classes}")
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_TOKEN])
    return tokenizer


@cache
def word_groups() -> tuple[tuple[str, ...], ...]:
    """All tokens of the tales, grouped: each long list of words, then everything else by where it stands on average."""
    positions: dict[str, list[int]] = defaultdict(list)
    lists: dict[str, dict[str, None]] = defaultdict(dict)
    starts = [sum(LAYOUT[:k]) for k in range(len(LAYOUT))]
    for steps in PLOTS.values():
        for start, step in zip(starts, steps, strict=False):
            for sentence in STEPS[step]:
                for slot, piece, offset in _sentence_tokens(sentence, "" if start == 0 else " "):
                    positions[piece].append(start + offset)
                    if slot and len(WORDS[slot]) >= _LONG_LIST:
                        lists[slot][piece] = None
    listed = {piece for group in lists.values() for piece in group}
    others = sorted(positions.keys() - listed, key=lambda piece: (sum(positions[piece]) / len(positions[piece]), piece))
    return (*(tuple(group) for group in lists.values()), tuple(others))


def _sentence_tokens(sentence: str, before: str) -> Iterable[tuple[str, str, int]]:
    """The tokens that a sentence may have: (slot or "", token, its offset in the sentence)."""
    parts = pieces(sentence)
    for slot in ("", *parts[1::2]):
        for i in range(len(WORDS[slot]) if slot else 1):
            told = [part if j % 2 == 0 else WORDS[part][i if part == slot else 0] for j, part in enumerate(parts)]
            tokens = [token for token, _ in _split(before + "".join(told))]
            for offset, token in enumerate(tokens):
                word = token.removeprefix("Ġ")
                owner = next((name for name in parts[1::2] if word in WORDS[name]), "")
                if owner == slot:
                    yield slot, token, offset


def _learnt_merges(words: list[str], classes: int) -> list[tuple[str, str]]:
    """Learn merges from the words alone, each counted once, so that rare letters' company is learnt too."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=2 * classes, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    decode = decoders.ByteLevel().decode
    learner.train_from_iterator((decode([word]) for word in words), trainer)
    return [(left, right) for left, right in json.loads(learner.to_str())["model"]["merges"]]
