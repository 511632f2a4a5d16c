"""The tales: every one holds together, every rule can be broken, every word is a token."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from math import exp
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from training.tales import (
    CLASSES,
    END_TOKEN,
    FULL,
    build_tokenizer,
    entropy,
    grammar,
    is_consistent,
    tale,
    tale_with_log_probability,
)
from training.tales.consistency import _PLOTS, _followed, _patterns, read
from training.tales.grammar import article, every_word

LEVELS = range(FULL + 1)

GOOD = (
    "There once was a brave duck named Oleg. Oleg loved his red kite very much. One day, Oleg could not find "
    'the kite. Then Oleg met an owl named Mia. "Have you seen my kite?" asked Oleg. "Look under the oak," said '
    "Mia. Oleg looked under the oak, and there was the kite! The duck was so happy that he danced around Mia. "
    "The duck and the owl were friends ever after."
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return build_tokenizer()


@pytest.mark.parametrize("level", LEVELS)
def test_every_tale_is_consistent_and_has_one_derivation(level: int) -> None:
    random = Random(level)
    for _ in range(1_000):
        text = tale(random, level)
        assert is_consistent(text).broken == (), text
        readings = tuple(read(text))
        assert sum(_followed(plot, readings) is None for plot in _PLOTS) == 1, text


@given(st.integers(), st.sampled_from(LEVELS))
def test_the_same_seed_tells_the_same_tale(seed: int, level: int) -> None:
    text = tale(Random(seed), level)
    assert tale_with_log_probability(Random(seed), level)[0] == text
    assert is_consistent(text)


def test_no_two_sentences_can_be_mistaken_for_each_other() -> None:
    expressions = Counter(pattern.expression.pattern for pattern in _patterns())
    assert [pattern for pattern, count in expressions.items() if count > 1] == []


def test_the_hand_written_tale_is_consistent() -> None:
    assert is_consistent(GOOD).broken == ()


def _replaced(old: str, new: str, count: int = 1) -> str:
    assert old in GOOD
    return GOOD.replace(old, new, count)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (_replaced("asked Oleg", "asked Otto"), "the hero 'Oleg' becomes 'Otto' in"),
        (_replaced("asked Oleg", "asked Mia"), "the hero 'Oleg' becomes 'Mia' in"),
        (_replaced("around Mia", "around Tom"), "the helper 'Mia' becomes 'Tom' in"),
        (_replaced("around Mia", "around Oleg"), "the helper 'Mia' becomes 'Oleg' in"),
        (_replaced("said Mia", "said Oleg"), "the helper 'Mia' becomes 'Oleg' in"),
        (_replaced("he danced", "she danced"), "Oleg is called 'she' in"),
        (_replaced("loved his", "loved her"), "Oleg is called 'her' in"),
        (_replaced("was the kite", "was the drum"), "the thing 'kite' becomes 'drum' in"),
        (_replaced("The duck and", "The goat and"), "the kind 'duck' becomes 'goat' in"),
        (_replaced("the owl were", "the fox were"), "the helper kind 'owl' becomes 'fox' in"),
        (_replaced("looked under", "looked behind"), "the preposition 'under' becomes 'behind' in"),
        (_replaced("oak, and", "elm, and"), "no sentence of a tale: 'Oleg looked under the elm"),
        (_replaced("the oak, and", "the rock, and"), "the spot 'oak' becomes 'rock' in"),
        (_replaced("an owl", "a owl"), "it should be 'an', not 'a', before 'owl'"),
        (_replaced("a brave", "an brave"), "it should be 'a', not 'an', before 'brave'"),
        (_replaced("duck", "girl", 9), "Oleg is called a girl"),
        (_replaced("owl", "duck", 9).replace("an duck", "a duck"), "are both 'duck'"),
        (_replaced("Mia", "Oleg", 9), "are both 'Oleg'"),
        (_replaced("There once was a brave duck named Oleg. ", ""), "the tale does not begin with an opening"),
        (_replaced(" The duck and the owl were friends ever after.", ""), "the tale does not end with an ending"),
        (_replaced(" The duck and the owl were friends ever after.", " And"), "no sentence of a tale: 'And'"),
        (_replaced('"Look under the oak," said Mia. ', ""), "no plot goes on like this after"),
        (_replaced("Oleg loved", "Oleg likes"), "no sentence of a tale: 'Oleg likes his"),
        (GOOD + " " + GOOD, "no plot goes on like this after 'The duck and the owl"),
        (_replaced("Then Oleg met", "Then  Oleg met"), "no sentence of a tale"),
        ("", "the tale does not begin with an opening, but with ''"),
        (
            "Once a shy fox named Tom lived near the mill. One morning, the fox lost his red kite near the lake. "
            "But Tom found the kite under the bed and went home.",
            "the place 'mill' becomes 'lake' in",
        ),
        (
            "This is the story of Tom. Tom had a kite. One day, Tom lost the kite. At last, Tom found the kite. "
            "The fox carried the kite home under the moon.",
            "no plot goes on like this after 'At last, Tom found the kite.'",
        ),
    ],
)
def test_each_rule_can_be_broken(text: str, rule: str) -> None:
    verdict = is_consistent(text)
    assert not verdict
    assert any(rule in broken for broken in verdict.broken), verdict.broken


def _swap(random: Random, sentences: list[str]) -> list[str]:
    first = random.randrange(len(sentences) - 1)
    sentences[first], sentences[first + 1] = sentences[first + 1], sentences[first]
    return sentences


def _drop_the_end(_: Random, sentences: list[str]) -> list[str]:
    return sentences[:-1]


def _drop_the_beginning(_: Random, sentences: list[str]) -> list[str]:
    return sentences[1:]


def _say_twice(random: Random, sentences: list[str]) -> list[str]:
    place = random.randrange(len(sentences))
    return sentences[:place] + sentences[place : place + 1] + sentences[place:]


@pytest.mark.parametrize("mutate", [_swap, _drop_the_end, _drop_the_beginning, _say_twice])
@pytest.mark.parametrize("level", LEVELS)
def test_sentences_in_a_wrong_order_are_noticed(level: int, mutate: Callable[[Random, list[str]], list[str]]) -> None:
    random = Random(level)
    for _ in range(100):
        sentences = [reading.text for reading in read(tale(random, level))]
        assert not is_consistent(" ".join(mutate(random, sentences)))


CHANGEABLE = ["hero", "kind", "thing", "helper", "helper_kind", "place", "spot", "look", "he", "his"]


@pytest.mark.parametrize("slot", CHANGEABLE)
def test_one_changed_mention_is_noticed(slot: str) -> None:
    random, changed = Random(slot), 0
    pronouns = {"he": ("he", "she"), "his": ("his", "her")}.get(slot)
    while changed < 30:
        text = tale(random)
        said = [word for reading in read(text) for name, word in reading.slots if name == slot]
        mentions = list(re.finditer(rf"\b{said[0]}\b", text)) if said else []
        if len(mentions) != len(said) or len(said) < (1 if pronouns else 2):
            continue
        other = random.choice([word for word in pronouns or grammar.SLOT_WORDS[slot] if word != said[0]])
        mention = random.choice(mentions)
        assert not is_consistent(text[: mention.start()] + other + text[mention.end() :]), (text, other)
        changed += 1


@given(st.text() | st.lists(st.sampled_from(GOOD.split(" "))).map(" ".join))
def test_garbage_is_judged_without_an_exception(text: str) -> None:
    assert not is_consistent(text) or text == GOOD


@pytest.mark.parametrize(
    ("word", "expected"),
    [("owl", "an"), ("fox", "a"), ("honest", "an"), ("unicorn", "a"), ("umbrella", "an"), ("Anna", "an")],
)
def test_article(word: str, expected: str) -> None:
    assert article(word) == expected


def test_the_language_is_rich() -> None:
    assert len({word.lower() for word in every_word()}) >= 1_000
    # a distribution of entropy H has at least exp(H) outcomes
    assert exp(entropy(Random(0), tales=2_000)) > 1e20


@pytest.mark.parametrize("level", [0, 1])
def test_the_probabilities_of_all_tales_sum_to_one(level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar, "WORDS_OF_LEVEL", (1,) * 4)
    monkeypatch.setattr(grammar, "SENTENCES_OF_LEVEL", (1,) * 4)
    grammar._sentences.cache_clear()
    random = Random(level)
    told = Counter(tale_with_log_probability(random, level) for _ in range(20_000))
    grammar._sentences.cache_clear()
    assert len({text for text, _ in told}) == len(told), "a tale with two probabilities"
    assert sum(exp(probability) for _, probability in told) == pytest.approx(1.0)
    for (text, probability), count in told.items():
        expected = 20_000 * exp(probability)
        assert abs(count - expected) < 5 * expected**0.5 + 5, text


def test_every_word_is_one_token_wherever_it_stands(tokenizer: Tokenizer) -> None:
    random, wrong, total = Random(2), Counter[str](), 0
    for _ in range(500):
        encoding = tokenizer.encode(tale(random))
        pieces = tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.decode(encoding.ids))
        total += len(pieces)
        wrong.update(piece for piece, _ in pieces if tokenizer.token_to_id(piece) is None)
    assert sum(wrong.values()) <= 0.002 * total, wrong
    fillers = sorted({word for words in grammar.SLOT_WORDS.values() for word in words})
    assert [word for word in fillers if len(tokenizer.encode(f" {word}").ids) != 1] == []


def test_tokenizer_is_a_square_and_always_the_same(tokenizer: Tokenizer) -> None:
    assert tokenizer.get_vocab_size() == CLASSES == 45**2
    assert sorted(tokenizer.get_vocab().values()) == list(range(CLASSES))
    assert tokenizer.token_to_id(END_TOKEN) == 0
    assert build_tokenizer().to_str() == tokenizer.to_str()


def test_tales_have_the_right_lengths(tokenizer: Tokenizer) -> None:
    random = Random(3)
    lengths = sorted(len(tokenizer.encode(tale(random)).ids) for _ in range(1_000))
    assert 20 <= lengths[0] <= 40
    assert lengths[-1] <= 150
    assert 55 <= lengths[500] <= 85


@given(text=st.text())
def test_any_text_survives_the_tokenizer(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text
