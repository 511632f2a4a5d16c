"""Tells tales: `tale(random, level)`, and how probable the tale was.

A tale is a walk down a tree of independent uniform choices: a plot, the steps of each beat, a sentence for each
step, and a word for each slot when it is first needed. The sum of the choices' logarithms is the tale's log
probability. A text has one derivation only (the tests parse tales back), so it is the text's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from math import log
from random import Random
from typing import NamedTuple

from training.tales import vocabulary as words
from training.tales.plots import PLOTS_OF_LEVEL, SENTENCES_OF_LEVEL, WORDS_OF_LEVEL, Plot
from training.tales.templates import STEPS

FULL = 3
"""The level of the whole language; 0, 1 and 2 are smaller languages inside it."""

SLOT_WORDS: dict[str, tuple[str, ...]] = {
    "hero": words.NAMES,
    "helper": words.NAMES,
    "kind": words.KINDS,
    "helper_kind": words.KINDS,
    "thing": words.THINGS,
    "look": words.LOOKS,
    "place": words.PLACES,
    "by": words.PREPOSITIONS,
    "spot": words.SPOTS,
    "elsewhere": words.SPOTS,
    "trait": words.TRAITS,
    "helper_trait": words.HELPER_TRAITS,
    "weather": words.WEATHERS,
    "time": words.TIMES,
    "sorrow": words.SORROWS,
    "joy": words.JOYS,
    "praise": words.PRAISES,
    "taste": words.TASTES,
    "food": words.FOODS,
    "drink": words.DRINKS,
    "thief": words.THIEVES,
    "cheeky": words.CHEEKY,
    "stuff": words.STUFFS,
    "other_stuff": words.STUFFS,
    "trap": words.TRAPS,
    "tool": words.TOOLS,
    "relative": words.RELATIVES,
    "sky": words.SKIES,
    "manner": words.MANNERS,
    "junk": words.JUNK,
    "number": words.NUMBERS,
    "light": words.LIGHTS,
}
"""The words that each slot may hold. Pronouns and articles follow from these."""

DIFFERENT = {
    "helper": "hero",
    "helper_kind": "kind",
    "kind": "helper_kind",
    "elsewhere": "spot",
    "spot": "elsewhere",
    "other_stuff": "stuff",
}
"""Slots that never hold the same word as another."""

NAMED = {"kind": "hero", "helper_kind": "helper"}
"""Whose kind it is: a child's kind goes with the name."""

PRONOUN_OF: dict[str, tuple[str, str]] = {
    **{form: ("hero", form) for form in words.PRONOUNS_HE},
    **{f"helper_{form}": ("helper", form) for form in ("he", "him", "his")},
}
"""For each pronoun slot whose it is, and which form."""

_CHILD_IN = 4  # one in four is a girl or a boy
_SLOT = re.compile(r"(\ban? )?\{(\w+)\}")
_SILENT_H = ("honest", "hour")
_SOUNDS_LIKE_YOU = ("unicorn", "useful")


def article(word: str) -> str:
    """Say "a" or "an", as the word that follows asks for."""
    if word in _SOUNDS_LIKE_YOU:
        return "a"
    return "an" if word[0] in "aeiouAEIOU" or word in _SILENT_H else "a"


class Piece(NamedTuple):
    """A stretch of a sentence: fixed text, then perhaps an article and a slot."""

    text: str
    has_article: bool
    slot: str


class Sentence(NamedTuple):
    """A template taken apart."""

    pieces: tuple[Piece, ...]
    end: str
    slots: frozenset[str]


@cache
def compile_sentence(template: str) -> Sentence:
    """Take a template apart into fixed text, articles and slots."""
    pieces = []
    position = 0
    for match in _SLOT.finditer(template):
        pieces.append(Piece(template[position : match.start()], match[1] is not None, match[2]))
        position = match.end()
    return Sentence(tuple(pieces), template[position:], frozenset(piece.slot for piece in pieces))


_ARTICLES = {word: article(word) + " " for table in (*SLOT_WORDS.values(), ("girl", "boy")) for word in table}


class _Teller:
    """One tale being told: what its slots hold, and the log probability of the choices so far."""

    def __init__(self, random: Random, level: int) -> None:
        self._draw: Callable[[], float] = random.random
        self._word_count = WORDS_OF_LEVEL[level]
        self.cast: dict[str, str] = {}
        self.log_probability = 0.0

    def index(self, count: int) -> int:
        self.log_probability -= log(count)
        return int(self._draw() * count)

    def step_sentences(self, beat: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
        """Draw one of a beat's options; one that stands there twice is twice as probable."""
        option = beat[self.index(len(beat))]
        self.log_probability += log(beat.count(option))
        return option

    def fill(self, sentence: Sentence) -> str:
        told = []
        for text, has_article, slot in sentence.pieces:
            word = self.cast.get(slot) or self._fill_slot(slot)
            told.append(text)
            if has_article:
                told.append(_ARTICLES[word])
            told.append(word)
        told.append(sentence.end)
        return "".join(told)

    def _fill_slot(self, slot: str) -> str:
        cast = self.cast
        if slot in PRONOUN_OF:
            owner, form = PRONOUN_OF[slot]
            name = cast.get(owner) or self._fill_slot(owner)
            word = words.PRONOUNS[name][form]
        elif slot in NAMED and self._is_child(slot):
            word = words.CHILDREN[cast[NAMED[slot]]]
        else:
            word = self._word(SLOT_WORDS[slot], cast.get(DIFFERENT.get(slot, "")))
        cast[slot] = word
        return word

    def _is_child(self, slot: str) -> bool:
        name = self.cast.get(NAMED[slot]) or self._fill_slot(NAMED[slot])
        if words.CHILDREN[name] == self.cast.get(DIFFERENT[slot]):
            return False
        is_child = self._draw() * _CHILD_IN < 1.0
        self.log_probability += log(1 / _CHILD_IN if is_child else 1 - 1 / _CHILD_IN)
        return is_child

    def _word(self, table: tuple[str, ...], taken: str | None) -> str:
        count = min(self._word_count, len(table))
        if taken is None or taken not in table:
            return table[self.index(count)]
        index = self.index(count - 1)
        return table[index + 1 if index >= table.index(taken) else index]


@cache
def _sentences(step: str, level: int, without: frozenset[str]) -> tuple[Sentence, ...]:
    easiest = map(compile_sentence, STEPS[step][: SENTENCES_OF_LEVEL[level]])
    return tuple(sentence for sentence in easiest if not sentence.slots & without)


def _draw_plot(teller: _Teller, level: int) -> Plot:
    plots = PLOTS_OF_LEVEL[level]
    plot = plots[teller.index(len(plots))]
    teller.log_probability += log(sum(other is plot for other in plots))
    return plot


def tale_with_log_probability(random: Random, level: int = FULL) -> tuple[str, float]:
    """Tell a tale, and say how probable it was (natural logarithm)."""
    teller = _Teller(random, level)
    plot = _draw_plot(teller, level)
    told = []
    for beat in plot.beats:
        for step in teller.step_sentences(beat):
            sentences = _sentences(step, level, plot.without)
            told.append(teller.fill(sentences[teller.index(len(sentences))]))
    return " ".join(told), teller.log_probability


def tale(random: Random, level: int = FULL) -> str:
    """Tell a tale: one paragraph of plain English, its names, things and places the same throughout."""
    return tale_with_log_probability(random, level)[0]


def entropy(random: Random, level: int = FULL, tales: int = 10_000) -> float:
    """Estimate the generator's entropy in nats a tale: the mean of -log p over some tales of its own."""
    return -sum(tale_with_log_probability(random, level)[1] for _ in range(tales)) / tales


def slot_words() -> frozenset[str]:
    """Every word that a slot may hold."""
    pronouns = frozenset((*words.PRONOUNS_HE.values(), *words.PRONOUNS_SHE.values()))
    return pronouns.union(words.CHILDREN.values(), *SLOT_WORDS.values())


def every_word() -> frozenset[str]:
    """Every word that a tale may hold, as it is spelled there."""
    told = " ".join(template for step in STEPS.values() for template in step)
    return slot_words().union(re.findall(r"[A-Za-z]+", _SLOT.sub(" a an ", told)))
