"""The sentences of the tales, step by step, and the plots that string the steps together.

A sentence's `{slots}` are filled with one value for the whole tale. A list's first sentences are its
simplest: an easy level of the grammar uses these only. Where "a" stands before a slot, it becomes "an" as
the word needs it.
"""

from __future__ import annotations

from typing import NamedTuple

STEPS: dict[str, tuple[str, ...]] = {
    # how a tale begins
    "introduction": (
        "This is the story of {hero}.",
        "This is the story of {hero} and a {thing}.",
        "Here is a little tale about {hero}.",
        "Let me tell you about {hero} and the {look} {thing}.",
    ),
    "opening": (
        "Once there was a {kind} named {hero}.",
        "Once upon a time, there was a {trait} {kind} named {hero}.",
        "Once a {trait} {kind} named {hero} lived near the {place}.",
        "There once was a {trait} {kind} named {hero}.",
        "In a small house by the {place} lived a {kind} named {hero}.",
        "Long ago, a {trait} {kind} named {hero} lived by the {place}.",
        "Not far from the {place} lived a {trait} {kind} named {hero}.",
        "Many years ago, there lived a {trait} {kind} named {hero}.",
    ),
    # something is dear to the hero
    "treasure": (
        "{hero} had a {thing}.",
        "{hero} had a {look} {thing}.",
        "{hero} loved {his} {thing}.",
        "{hero} loved {his} {look} {thing} very much.",
        "{hero} took {his} {look} {thing} everywhere.",
        "Of all {his} things, {hero} loved the {look} {thing} best.",
        "Every night, {hero} put the {look} {thing} by {his} bed.",
        "{His} {relative} had given {him} a {look} {thing}.",
    ),
    "affection": (
        "{hero} loved the {thing}.",
        "{hero} played with the {thing} all day.",
        "{hero} was proud of the {thing}.",
        "{hero} sang to the {thing} at night.",
        "{hero} showed the {thing} to everyone.",
        "{hero} told the {thing} all {his} secrets.",
    ),
    # it goes astray
    "loss": (
        "One day, {hero} lost the {thing}.",
        "But one day, the {thing} was gone.",
        "One day, {hero} could not find the {thing}.",
        "But one {weather} {time}, {hero} lost the {thing}.",
        "One {time}, a {cheeky} {thief} ran off with the {thing}.",
        "But one {weather} {time}, the {look} {thing} was gone.",
        "One day, {hero} left the {thing} somewhere near the {place}.",
    ),
    "outing": (
        "One {weather} {time}, {hero} took the {thing} to the {place}.",
        "It was a {weather} {time}, and {hero} took the {thing} along to the {place}.",
        "One {weather} {time}, the {kind} carried the {thing} to the {place}.",
        "On {his} way to the {place}, {hero} played with the {thing}.",
    ),
    "mishap": (
        "Then {hero} lost the {thing}.",
        "But on the way home, {hero} dropped the {thing}.",
        "There a {cheeky} {thief} ran off with the {thing}.",
        "But when {hero} came home, the {thing} was gone.",
        "The wind blew hard, and {hero} lost the {thing}.",
        "There {hero} fell asleep, and the {thing} was gone.",
    ),
    "small loss": (
        "One day, {hero} lost {his} {thing}.",
        "One day, {hero} lost {his} {look} {thing}.",
        "One {weather} {time}, {hero} lost {his} {look} {thing}.",
        "One day, {hero} could not find {his} {look} {thing}.",
        "One {time}, the {kind} lost {his} {look} {thing} near the {place}.",
    ),
    "worry": (
        "{hero} was very sad.",
        "{hero} was so sad that {he} cried.",
        '"Where is my {thing}?" cried {hero}.',
        "The {kind} was {sorrow} without the {thing}.",
        '"Oh, my {look} {thing}!" cried {hero}.',
        "{hero} sat down and cried for the {thing}.",
        "Without the {thing}, {hero} could not sleep.",
    ),
    "search": (
        "{hero} looked and looked for the {thing}.",
        "{hero} looked for the {thing} all day.",
        "{hero} looked here and there for the {thing}.",
        "{hero} looked behind the {elsewhere}, but the {thing} was not there.",
        "The {kind} looked under the {elsewhere} and found only an old {junk}.",
        "{hero} asked everyone near the {place} about the {thing}.",
        "The {kind} looked high and low for the {thing}.",
        "{hero} called and called, but no {thing} came.",
    ),
    # alone, the hero finds it again
    "found alone": (
        "At last, {hero} found the {thing}.",
        "{hero} found the {thing} {by} the {spot}.",
        "Then {hero} saw the {thing} {by} the {spot}.",
        "At last, there was the {thing}, {by} the {spot}!",
        "Then {hero} saw something {look} {by} the {spot}.",
        "The next {time}, {hero} found the {thing} {by} the {spot}.",
        "At last, the {kind} looked {by} the {spot} and saw the {thing}.",
    ),
    "gladness": (
        "{hero} was very happy.",
        '"My {thing}!" cried {hero}.',
        "{hero} laughed and hugged the {thing}.",
        '"There you are, little {thing}!" said {hero}.',
        "{hero} was so {joy} that {he} danced.",
        '"It is my {thing}!" cried the {joy} {kind}.',
    ),
    # somebody comes along
    "meeting": (
        "Then {hero} met a {helper_kind} named {helper}.",
        "Then {hero} met {helper}, a {helper_trait} {helper_kind}.",
        "Along came {helper}, a {helper_trait} {helper_kind}.",
        "Near the {place}, {hero} met a {helper_kind} named {helper}.",
        "Just then, a {helper_trait} {helper_kind} named {helper} came by.",
        "By the {place} sat {helper}, a {helper_trait} {helper_kind}.",
        "Soon the {kind} met a {helper_kind} named {helper}.",
        "And who came by but {helper}, a {helper_trait} {helper_kind}!",
    ),
    "question": (
        '"Have you seen my {thing}?" asked {hero}.',
        '"I have lost my {thing}," said {hero}.',
        '"Have you seen a {look} {thing}?" asked {hero}.',
        '"Please help me find my {thing}," said {hero} to {helper}.',
        '"My {look} {thing} is gone," said the {kind} to the {helper_kind}.',
        "{hero} told {helper} all about the {look} {thing}.",
        '"What is wrong?" asked {helper}, and {hero} told {helper_him} about the {thing}.',
    ),
    "clue": (
        '"Look {by} the {spot}," said {helper}.',
        '"I saw a {thing} {by} the {spot}," said {helper}.',
        '"Your {thing} is {by} the {spot}," said {helper}.',
        '"Let us look {by} the {spot}," said the {helper_kind}.',
        '"Do not cry, {hero}, but look {by} the {spot}," said {helper}.',
        '"There is something {look} {by} the {spot}," said {helper}.',
        '"Have you looked {by} the {spot}?" asked the {helper_kind}.',
        '{helper} shook {helper_his} head and said, "Look {by} the {spot}, {hero}."',
    ),
    "discovery": (
        "{hero} looked {by} the {spot}, and there was the {thing}!",
        "{hero} ran to the {spot} and found the {thing}.",
        "{hero} and {helper} looked {by} the {spot} and found the {thing}.",
        "Together they went to the {spot}, and {hero} saw the {thing}.",
        "And there, {by} the {spot}, lay the {look} {thing}!",
        "The {kind} ran to the {spot}, and there was the {thing}!",
        "And indeed, the {look} {thing} was {by} the {spot}.",
        '{hero} looked {by} the {spot} and cried, "Here is my {thing}!"',
    ),
    "thanks": (
        '"Thank you, {helper}," said {hero}.',
        "{hero} thanked {helper} and hugged the {thing}.",
        '"You are a good friend, {helper}," said {hero}.',
        '"Thank you, dear {helper_kind}," said {hero}.',
        '"How {praise} you are, {helper}!" said {hero}.',
        '"I am so {joy}!" cried {hero}, and {he} hugged {helper}.',
        "The {kind} was so {joy} that {he} danced around {helper}.",
    ),
    "meal": (
        "They ate {taste} {food} together.",
        "{hero} and {helper} ate {taste} {food}.",
        "Then {hero} gave {helper} some {taste} {food}.",
        "The {kind} and the {helper_kind} ate {taste} {food} and drank {drink}.",
        "{helper} brought {food}, and {hero} brought {drink}.",
        "For supper, {hero} and {helper} had {taste} {food} and {drink}.",
        '"Come and have some {taste} {food}," said {hero} to {helper}.',
        "They sat by the {place} and ate {taste} {food}.",
    ),
    # somebody else's thing
    "find": (
        "One day, {hero} found a {thing}.",
        "One day, {hero} found a {look} {thing}.",
        "One {weather} {time}, {hero} found a {look} {thing}.",
        "One day, the {kind} found a {look} {thing} {by} the {spot}.",
        "One {weather} {time}, {hero} saw a {look} {thing} {by} the {spot}.",
        "Near the {place}, {hero} found a {look} {thing} one {time}.",
    ),
    "wonder": (
        '"Whose {thing} is this?" asked {hero}.',
        '"Who has lost a {thing}?" asked {hero}.',
        "{hero} did not know whose {thing} it was.",
        '"Somebody must miss this {thing}," said {hero}.',
        '"I wonder whose {thing} this is," said the {kind}.',
    ),
    "claim": (
        '"That is my {thing}," said {helper}.',
        '"You have found my {thing}!" cried {helper}.',
        '"I have lost a {look} {thing}," said {helper}.',
        '"Oh, that is my {look} {thing}!" cried the {helper_kind}.',
        "{helper} was {sorrow}, for {helper_he} had lost the {thing}.",
        '"My {thing} was gone all day," said the {helper_kind}.',
    ),
    "return": (
        "{hero} gave the {thing} to {helper}.",
        "So {hero} gave {helper} the {look} {thing}.",
        '"Here is your {thing}, {helper}," said {hero}.',
        "The {kind} gave the {thing} to the {helper_kind}.",
        "At once, {hero} gave the {thing} back to {helper}.",
        '"Then you must have the {thing}, {helper}," said the {kind}.',
    ),
    "gratitude": (
        '"Thank you so much, {hero}," said {helper}.',
        "{helper} hugged {hero} and the {thing}.",
        '"You are a true friend, {hero}," said {helper}.',
        '"That was {praise} of you, {hero}," said {helper}.',
        "The {helper_kind} was so {joy} that {helper_he} sang a song for {hero}.",
        '"I will always thank you, dear {kind}," said {helper}.',
    ),
    # a wish
    "wish": (
        "{hero} wished for a {thing}.",
        "{hero} wanted a {look} {thing}.",
        "More than anything, {hero} wanted a {look} {thing}.",
        "{hero} had no {thing}, but {he} wished for one.",
        "Every night, {hero} dreamed of a {look} {thing}.",
        '"I wish I had a {look} {thing}," said {hero}.',
        "Whenever a star fell, {hero} wished for a {look} {thing}.",
    ),
    "made": (
        "So {hero} made a {thing}.",
        "So {hero} made a {thing} of {stuff}.",
        "So {hero} took some {stuff} and made a {thing}.",
        "So {his} {relative} made {him} a {thing} of {stuff}.",
        "One {weather} {time}, {hero} made a {thing} of {stuff}.",
        "So the {kind} made a {thing} of {stuff} and {other_stuff}.",
    ),
    "telling": (
        '"What do you wish for, {hero}?" asked {helper}.',
        "{hero} told {helper} about the {thing}.",
        '"I wish for a {thing}," said {hero} to {helper}.',
        '"Please, I want a {look} {thing}," said {hero} to the {helper_kind}.',
        '"Why are you so {sorrow}, dear {kind}?" asked {helper}.',
    ),
    "promise": (
        '"You shall have a {thing}," said {helper}.',
        '"I will give you a {thing}," said {helper}.',
        '"I will help you, {hero}," said {helper}.',
        '"Close your eyes and think of a {thing}," said {helper}.',
        '"Count to {number} and you shall have a {thing}," said the {helper_kind}.',
        '"A {thing} is easy to make," said the {helper_kind}.',
    ),
    "granted": (
        "{helper} gave {hero} a {thing}.",
        "Then {helper} gave {hero} a {look} {thing}.",
        "{helper} made {hero} a {thing} of {stuff}.",
        "Together they made a {thing} of {stuff}.",
        "{helper} took a {look} {thing} from {helper_his} bag.",
        "There was a flash of {light}, and {hero} held a {look} {thing}!",
        "The next {time}, {hero} found a {look} {thing} {by} the {spot}.",
    ),
    # somebody in trouble
    "walk": (
        "One day, {hero} went to the {place}.",
        "One {weather} {time}, {hero} went to the {place}.",
        "It was a {weather} {time}, and {hero} walked to the {place}.",
        "One {weather} {time}, the {kind} set off for the {place}.",
        "One {time}, {hero} was on {his} way to the {place}.",
    ),
    "trouble": (
        "There a {helper_kind} named {helper} had fallen into the {trap}.",
        "There sat {helper}, a {helper_trait} {helper_kind}, stuck in the {trap}.",
        "There {hero} saw {helper}, a {helper_trait} {helper_kind}, stuck in the {trap}.",
        "Poor {helper}, a {helper_trait} {helper_kind}, had fallen into the {trap}.",
        "Down in the {trap} sat a {helper_trait} {helper_kind} named {helper}.",
    ),
    "plea": (
        '"Please help me!" cried {helper}.',
        '"I will help you, {helper}!" cried {hero}.',
        '"Please pull me out of the {trap}!" cried the {helper_kind}.',
        '"Do not be afraid, {helper}," said {hero}.',
    ),
    "rescue": (
        "{hero} pulled {helper} out of the {trap}.",
        "{hero} took a {tool} and pulled {helper} out of the {trap}.",
        "With a long {tool}, the {kind} pulled {helper} out of the {trap}.",
        "{hero} pulled and pulled until {helper} was out of the {trap}.",
        "{hero} ran for a {tool} and helped the {helper_kind} out of the {trap}.",
    ),
    "gift": (
        "So {helper} gave {hero} a {look} {thing}.",
        "To say thank you, {helper} gave {hero} a {look} {thing}.",
        '"This {look} {thing} is for you, {hero}," said {helper}.',
        '"Please take my {look} {thing}, {hero}," said the {helper_kind}.',
        "The thankful {helper_kind} gave {hero} {helper_his} own {look} {thing}.",
    ),
    # how a tale ends
    "kept": (
        "{hero} never lost the {thing} again.",
        "{hero} hugged the {thing} and went home.",
        "{hero} took the {thing} home.",
        "That night, {hero} slept with the {thing} beside {him}.",
        "And {hero} danced all the way home with the {thing}.",
        "The {kind} carried the {thing} home under the {sky}.",
        "And that is how {hero} got the {look} {thing} back.",
        "Then {hero} went home {manner} with the {thing}.",
    ),
    "found and kept": (
        "But {hero} found the {thing} {by} the {spot} and went home.",
        "At last, {hero} found the {thing} {by} the {spot} and was {joy}.",
        "But the {kind} found the {thing} {by} the {spot} and danced for joy.",
    ),
    "own": (
        "And {hero} loved the {thing} for ever.",
        "Now {hero} had a {thing} of {his} own.",
        "And {hero} hugged the {look} {thing} and was {joy}.",
        "That night, {hero} took the {look} {thing} to bed.",
        "And {hero} played with the {thing} under the {sky}.",
        "The {joy} {kind} showed the {thing} to everyone by the {place}.",
        "And {hero} still has the {look} {thing} today.",
    ),
    "friends": (
        "From that day on, {hero} and {helper} were friends.",
        "And {hero} and {helper} were friends for ever.",
        "{hero} and {helper} went home together.",
        "The {kind} and the {helper_kind} were friends ever after.",
        "And {hero} and {helper} danced home under the {sky}.",
        "Since then, {hero} and {helper} meet by the {place} every {time}.",
        "And {hero} and the {helper_kind} walked home {manner}.",
        "If you go to the {place}, you may still see {hero} and {helper} there.",
    ),
}

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
