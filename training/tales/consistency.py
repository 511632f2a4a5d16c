"""Judges tales: whether a text follows the grammar, and everyone and everything in it stays the same.

The sentences are read back with patterns made from the very templates that tell the tales.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from training.tales import vocabulary as words
from training.tales.grammar import DIFFERENT, NAMED, PRONOUN_OF, SLOT_WORDS, article, compile_sentence
from training.tales.plots import BEGINNINGS, ENDINGS, PLOTS_OF_LEVEL, Plot
from training.tales.templates import STEPS

_KEPT_APART = frozenset(frozenset(pair) for pair in DIFFERENT.items())
_PLOTS = tuple(dict.fromkeys(plot for plots in PLOTS_OF_LEVEL for plot in plots))


@dataclass(frozen=True)
class Consistency:
    """What a tale breaks: nothing, if it is true."""

    broken: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not self.broken


class Reading(NamedTuple):
    """A sentence read back: the steps that it may be (none if the grammar does not know it), and its slots' words."""

    text: str
    steps: frozenset[str]
    slots: tuple[tuple[str, str], ...]
    articles: tuple[tuple[str, str], ...]


class _Pattern(NamedTuple):
    expression: re.Pattern[str]
    steps: frozenset[str]
    slots: tuple[str, ...]


def is_consistent(text: str) -> Consistency:
    """Say which rules of the tales a text breaks, in readable sentences."""
    readings = tuple(read(text))
    broken = (
        *_unknown(readings),
        *_beginning_and_end(readings),
        *_order(readings),
        *_changed(readings),
        *_pronouns(readings),
        *_kinds(readings),
        *_same_twice(readings),
        *_articles(readings),
    )
    return Consistency(broken)


def read(text: str) -> Iterator[Reading]:
    """Read a text sentence by sentence; what the grammar does not know is a reading without steps."""
    position = 0
    while position < len(text):
        reading = _longest_match(text, position)
        yield reading
        position += len(reading.text)
        if text.startswith(" ", position) and position + 1 < len(text):
            position += 1
        elif position < len(text):
            yield Reading(text[position:], frozenset(), (), ())
            return


_UNKNOWN = re.compile(r".*?(?:[.!?]\"?(?= )|\Z)", re.DOTALL)


def _longest_match(text: str, position: int) -> Reading:
    best: Reading | None = None
    for pattern in _patterns():
        match = pattern.expression.match(text, position)
        if match and (best is None or len(match[0]) > len(best.text)):
            best = _reading(pattern, match)
    if best is not None:
        return best
    unknown = _UNKNOWN.match(text, position)
    return Reading(unknown[0] if unknown and unknown[0] else text[position:], frozenset(), (), ())


def _reading(pattern: _Pattern, match: re.Match[str]) -> Reading:
    held = tuple(zip(pattern.slots, match.groups(), strict=True))
    slots = tuple((slot, word) for slot, word in held if slot)
    articles = tuple((held[i][1].strip(), held[i + 1][1]) for i, (slot, _) in enumerate(held) if not slot)
    return Reading(match[0], pattern.steps, slots, articles)


@cache
def _patterns() -> tuple[_Pattern, ...]:
    steps_of: dict[str, set[str]] = {}
    for step, templates in STEPS.items():
        for template in templates:
            steps_of.setdefault(template, set()).add(step)
    return tuple(_pattern(template, frozenset(steps)) for template, steps in steps_of.items())


def _pattern(template: str, steps: frozenset[str]) -> _Pattern:
    sentence = compile_sentence(template)
    expression, slots = "", []
    for piece in sentence.pieces:
        expression += re.escape(piece.text)
        if piece.has_article:
            expression += "(an? )"
            slots.append("")
        expression += f"({_alternatives(piece.slot)})"
        slots.append(piece.slot)
    return _Pattern(re.compile(expression + re.escape(sentence.end) + r"(?= |\Z)"), steps, tuple(slots))


@cache
def _alternatives(slot: str) -> str:
    if slot in PRONOUN_OF:
        form = PRONOUN_OF[slot][1]
        return "|".join((words.PRONOUNS_HE[form], words.PRONOUNS_SHE[form]))
    children = ("girl", "boy") if slot in NAMED else ()
    return "|".join(map(re.escape, (*children, *SLOT_WORDS[slot])))


def _unknown(readings: tuple[Reading, ...]) -> Iterator[str]:
    for reading in readings:
        if not reading.steps:
            yield f"no sentence of a tale: {reading.text!r}"


def _beginning_and_end(readings: tuple[Reading, ...]) -> Iterator[str]:
    if not readings or not readings[0].steps & BEGINNINGS:
        yield f"the tale does not begin with an opening, but with {readings[0].text if readings else ''!r}"
    if not readings or not readings[-1].steps & ENDINGS:
        yield f"the tale does not end with an ending, but with {readings[-1].text if readings else ''!r}"


def _order(readings: tuple[Reading, ...]) -> Iterator[str]:
    """The known sentences must be some plot's steps in their order (unknown ones have their own rule)."""
    known = tuple(reading for reading in readings if reading.steps)
    followed = [_followed(plot, known) for plot in _PLOTS]
    if None in followed or not known:
        return
    furthest = max(count for count in followed if count is not None)
    here = repr(known[furthest].text) if furthest < len(known) else "the tale's end"
    after = f"after {known[furthest - 1].text!r}" if furthest else "at the beginning"
    yield f"no plot goes on like this {after}: {here}"


def _followed(plot: Plot, known: tuple[Reading, ...]) -> int | None:
    """How many sentences follow the plot; None if all do and the plot is over."""
    reached, furthest = {0}, 0
    for beat in plot.beats:
        after = set()
        for start in reached:
            for option in set(beat):
                count = _steps_followed(option, known[start:], plot)
                furthest = max(furthest, start + count)
                if count == len(option):
                    after.add(start + count)
        reached = after
    return None if len(known) in reached else furthest


def _steps_followed(steps: tuple[str, ...], known: tuple[Reading, ...], plot: Plot) -> int:
    for count, (step, reading) in enumerate(zip(steps, known, strict=False)):
        if step not in reading.steps or any(slot in plot.without for slot, _ in reading.slots):
            return count
    return min(len(steps), len(known))


def _changed(readings: tuple[Reading, ...]) -> Iterator[str]:
    first: dict[str, str] = {}
    for reading in readings:
        for slot, word in reading.slots:
            if slot not in PRONOUN_OF and first.setdefault(slot, word) != word:
                yield f"the {_spoken(slot)} {first[slot]!r} becomes {word!r} in {reading.text!r}"


def _pronouns(readings: tuple[Reading, ...]) -> Iterator[str]:
    cast = _cast(readings)
    for reading in readings:
        for slot, word in reading.slots:
            owner, form = PRONOUN_OF.get(slot, ("", ""))
            name = cast.get(owner)
            if name is not None and words.PRONOUNS[name][form] != word:
                yield f"{name} is called {word!r} in {reading.text!r}"


def _kinds(readings: tuple[Reading, ...]) -> Iterator[str]:
    cast = _cast(readings)
    for slot, owner in NAMED.items():
        kind, name = cast.get(slot), cast.get(owner)
        if kind in ("girl", "boy") and name is not None and words.CHILDREN[name] != kind:
            yield f"{name} is called a {kind}"


def _same_twice(readings: tuple[Reading, ...]) -> Iterator[str]:
    cast = _cast(readings)
    for one, other in sorted(map(sorted, _KEPT_APART)):
        both = cast.get(one)
        if both is not None and both == cast.get(other):
            yield f"the {_spoken(one)} and the {_spoken(other)} are both {both!r}"


def _articles(readings: tuple[Reading, ...]) -> Iterator[str]:
    for reading in readings:
        for said, word in reading.articles:
            if said != article(word):
                yield f"it should be {article(word)!r}, not {said!r}, before {word!r} in {reading.text!r}"


def _cast(readings: tuple[Reading, ...]) -> Mapping[str, str]:
    cast: dict[str, str] = {}
    for reading in readings:
        for slot, word in reading.slots:
            cast.setdefault(slot, word)
    return cast


def _spoken(slot: str) -> str:
    return "preposition" if slot == "by" else slot.replace("_", " ")
