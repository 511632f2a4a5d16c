"""Tells tales: `tale(random, level)`, and how probable the tale was.

A tale is a series of independent uniform choices: a plot, a sentence for each of its steps, and a word for each slot
when it is first needed. The sum of the choices' logarithms is the tale's log probability. A text has one derivation
only (the tests parse tales back), so it is the text's own.
"""

from __future__ import annotations

import re
from functools import cache
from math import log
from random import Random

from training.tales.language import PLOTS, STEPS, WORDS

FULL = 1
"""The level of the whole language; level 0 has its first eight words in each list."""

WORDS_OF_LEVEL = (8, 1000)
_SLOT = re.compile(r"\{(\w+)\}")


@cache
def pieces(sentence: str) -> tuple[str, ...]:
    """Take a sentence apart: fixed text and slot names by turns, fixed text first and last."""
    return tuple(_SLOT.split(sentence))


def tale_with_log_probability(random: Random, level: int = FULL) -> tuple[str, float]:
    """Tell a tale, and say how probable it was (natural logarithm)."""
    log_probability = 0.0

    def choose(options: tuple[str, ...]) -> str:
        nonlocal log_probability
        log_probability -= log(len(options))
        return options[int(random.random() * len(options))]

    words: dict[str, str] = {}
    sentences = []
    for step in PLOTS[choose(tuple(PLOTS))]:
        parts = list(pieces(choose(STEPS[step])))
        for i in range(1, len(parts), 2):
            slot = parts[i]
            if slot not in words:
                words[slot] = choose(WORDS[slot][: WORDS_OF_LEVEL[level]])
            parts[i] = words[slot]
        sentences.append("".join(parts))
    return " ".join(sentences), log_probability


def tale(random: Random, level: int = FULL) -> str:
    """Tell a tale: one paragraph of plain English, its names, things and places the same throughout."""
    return tale_with_log_probability(random, level)[0]


def entropy(random: Random, level: int = FULL, tales: int = 10_000) -> float:
    """Estimate the generator's entropy in nats a tale: the mean of -log p over some tales of its own."""
    return -sum(tale_with_log_probability(random, level)[1] for _ in range(tales)) / tales
