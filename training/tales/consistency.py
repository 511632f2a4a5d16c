"""Judges tales: whether a text follows a plot, and everyone and everything in it stays the same.

The sentences are read back with patterns made from the very templates that tell the tales.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from training.tales.grammar import pieces
from training.tales.language import PLOTS, STEPS, WORDS

_UNKNOWN = re.compile(r".*?(?:[.!?]\"?(?= )|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Consistency:
    """The rules that a tale breaks: none, if it is true."""

    broken: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not self.broken


class Reading(NamedTuple):
    """A sentence read back: its step ("" if the language does not know it), and its slots' words."""

    text: str
    step: str
    slots: tuple[tuple[str, str], ...]


def is_consistent(text: str) -> Consistency:
    """Say which rules of the tales a text breaks, in readable sentences."""
    readings = tuple(read(text))
    unknown = [f"no sentence of a tale: {reading.text!r}" for reading in readings if not reading.step]
    return Consistency((*unknown, *_plot([r for r in readings if r.step]), *_changed(readings)))


def read(text: str) -> Iterator[Reading]:
    """Read a text sentence by sentence; a sentence that the language does not know has no step."""
    position = 0
    while position < len(text):
        reading = _read_sentence(text, position)
        yield reading
        position += len(reading.text)
        if text.startswith(" ", position) and position + 1 < len(text):
            position += 1
        elif position < len(text):
            yield Reading(text[position:], "", ())
            return


def _read_sentence(text: str, position: int) -> Reading:
    for expression, step, slots in _patterns():
        if match := expression.match(text, position):
            return Reading(match[0], step, tuple(zip(slots, match.groups(), strict=True)))
    unknown = _UNKNOWN.match(text, position)
    return Reading(unknown[0] if unknown and unknown[0] else text[position:], "", ())


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], str, tuple[str, ...]], ...]:
    """Each sentence's expression, its step, and its slots in their order."""
    return tuple(_pattern(sentence, step) for step, sentences in STEPS.items() for sentence in sentences)


def _pattern(sentence: str, step: str) -> tuple[re.Pattern[str], str, tuple[str, ...]]:
    parts = pieces(sentence)
    slots = parts[1::2]
    expression = re.escape(parts[0])
    for slot, text in zip(slots, parts[2::2], strict=True):
        expression += f"({'|'.join(WORDS[slot])}){re.escape(text)}"
    return re.compile(expression + r"(?= |\Z)"), step, slots


def _plot(known: Sequence[Reading]) -> Iterator[str]:
    """The known sentences must be some plot's steps in their order (unknown ones have their own rule)."""
    steps = tuple(reading.step for reading in known)
    if steps in PLOTS.values():
        return
    if steps[:1] != ("opening",):
        yield f"the tale does not begin with an opening, but with {known[0].text if known else ''!r}"
        return
    followed = max(_common(steps, plot) for plot in PLOTS.values())
    here = repr(known[followed].text) if followed < len(known) else "the tale's end"
    yield f"no plot goes on like this after {known[followed - 1].text!r}: {here}"


def _common(steps: Sequence[str], plot: Sequence[str]) -> int:
    """How many steps agree before the first that does not."""
    count = 0
    while count < min(len(steps), len(plot)) and steps[count] == plot[count]:
        count += 1
    return count


def _changed(readings: Sequence[Reading]) -> Iterator[str]:
    first: dict[str, str] = {}
    for reading in readings:
        for slot, word in reading.slots:
            if first.setdefault(slot, word) != word:
                yield f"the {_SPOKEN.get(slot, slot)} {first[slot]!r} becomes {word!r} in {reading.text!r}"


_SPOKEN = {"by": "preposition"}
