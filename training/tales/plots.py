"""The plots that string the tales' steps together, and what each level of the grammar uses of them."""

from __future__ import annotations

from typing import NamedTuple

ENDINGS = frozenset({"kept", "found and kept", "own", "friends"})
BEGINNINGS = frozenset({"introduction", "opening"})


class Plot(NamedTuple):
    """Beats in their order; at each beat one of the options (steps joined by `+`, or nothing) is drawn."""

    name: str
    beats: tuple[tuple[tuple[str, ...], ...], ...]
    without: frozenset[str] = frozenset()  # slots that this plot's sentences do not name


def _plot(name: str, *beats: str, without: tuple[str, ...] = ()) -> Plot:
    def steps(option: str) -> tuple[str, ...]:
        return tuple(option.split("+")) if option else ()

    return Plot(name, tuple(tuple(map(steps, beat.split("|"))) for beat in beats), frozenset(without))


DEAR = _plot(
    "dear",
    "introduction",
    "treasure",
    "affection|",
    "loss",
    "search|",
    "found alone",
    "gladness|",
    "kept",
    without=("kind",),
)
ALONE = _plot(
    "alone",
    "opening",
    "treasure",
    "loss|loss|outing+mishap",
    "worry|search|",
    "found alone",
    "gladness|",
    "kept",
)
SMALL = _plot("small", "opening", "small loss", "search||", "found and kept|found alone+kept")
MAKING = _plot("making", "opening", "wish", "made", "own")
LOST = _plot(
    "lost",
    "opening",
    "treasure",
    "loss|loss|outing+mishap",
    "worry|search||",
    "meeting",
    "question|",
    "clue",
    "discovery",
    "thanks|meal||",
    "friends|kept",
)
FOUND = _plot("found", "opening", "find", "wonder|", "meeting", "claim", "return", "gratitude|meal|", "friends")
WISH = _plot("wish", "opening", "wish", "meeting", "telling|", "promise", "granted", "thanks|meal|", "friends|own")
RESCUE = _plot("rescue", "opening", "walk", "trouble", "plea|", "rescue", "gift", "meal|", "friends|own")

# what each level tells; a plot named twice is told twice as often
PLOTS_OF_LEVEL: tuple[tuple[Plot, ...], ...] = (
    (DEAR,),
    (DEAR, ALONE, ALONE, SMALL, MAKING),
    (ALONE, SMALL, MAKING, LOST, LOST, LOST, FOUND, FOUND),
    (DEAR, ALONE, SMALL, SMALL, MAKING, MAKING, LOST, LOST, LOST, LOST, FOUND, FOUND, WISH, WISH, RESCUE, RESCUE),
)
SENTENCES_OF_LEVEL = (3, 4, 6, 99)
WORDS_OF_LEVEL = (16, 40, 80, 999)
