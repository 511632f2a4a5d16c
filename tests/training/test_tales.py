"""The tales: every one holds together, every rule can be broken, every word is a token, all plots share a layout."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from itertools import product
from math import exp, prod
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from training.tales import (
    CLASSES,
    END_TOKEN,
    FULL,
    WORDS,
    build_tokenizer,
    entropy,
    grammar,
    is_consistent,
    tale,
    tale_with_log_probability,
    word_groups,
)
from training.tales.consistency import read
from training.tales.language import LAYOUT, PLOTS, STEPS

LEVELS = range(FULL + 1)

GOOD = (
    "In a house by the mill lived a clumsy sheep named Felix. Felix had a golden trumpet and loved it. But one windy "
    "morning, the trumpet was gone. By the river, Felix met a grumpy otter. "
    '"Look under the bench," said the otter. Felix looked under the bench and found the trumpet. '
    "The sheep and the otter became friends."
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return build_tokenizer()


@pytest.mark.parametrize("level", LEVELS)
def test_every_tale_is_consistent_and_reads_back_as_its_plot(level: int) -> None:
    random = Random(level)
    for _ in range(1_000):
        text = tale(random, level)
        assert is_consistent(text).broken == (), text
        assert tuple(reading.step for reading in read(text)) in PLOTS.values()


@given(st.integers(), st.sampled_from(LEVELS))
def test_the_same_seed_tells_the_same_tale(seed: int, level: int) -> None:
    text = tale(Random(seed), level)
    assert tale_with_log_probability(Random(seed), level)[0] == text
    assert is_consistent(text)


def test_no_word_belongs_to_two_lists() -> None:
    counts = Counter(word for words in WORDS.values() for word in words)
    assert [word for word, count in counts.items() if count > 1] == []


def test_no_two_sentences_can_be_mistaken_for_each_other() -> None:
    """Two sentences that differ in fixed words only differ for every choice of slots; slots' words are disjoint."""
    shapes = Counter(re.sub(r"\{\w+\}", "{}", sentence) for step in STEPS.values() for sentence in step)
    assert [shape for shape, count in shapes.items() if count > 1] == []
    assert len(set(PLOTS.values())) == len(PLOTS)


def test_all_sentences_of_a_place_have_equally_many_tokens(tokenizer: Tokenizer) -> None:
    random = Random(0)
    for steps in PLOTS.values():
        for place, step in enumerate(steps):
            for sentence, _ in product(STEPS[step], range(3)):
                told = re.sub(r"\{(\w+)\}", lambda slot: random.choice(WORDS[slot[1]]), sentence)
                encoding = tokenizer.encode(told if place == 0 else " " + told)
                assert len(encoding.ids) == LAYOUT[place], told


def test_there_are_many_plots_with_dialogue_in_most() -> None:
    assert len(PLOTS) >= 4
    spoken = {step for step, sentences in STEPS.items() if all(sentence[0] == '"' for sentence in sentences)}
    assert sum(any(step in spoken for step in steps) for steps in PLOTS.values()) >= 4


def test_an_a_never_stands_before_a_vowel() -> None:
    slots = {slot for step in STEPS.values() for sentence in step for slot in re.findall(r"\ba \{(\w+)\}", sentence)}
    assert slots
    assert [word for slot in slots for word in WORDS[slot] if word[0].lower() in "aeiou"] == []


def _replaced(old: str, new: str, count: int = 1) -> str:
    assert old in GOOD
    return GOOD.replace(old, new, count)


def test_the_hand_written_tale_is_consistent() -> None:
    assert is_consistent(GOOD).broken == ()


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (_replaced("Felix met", "Otto met"), "the hero 'Felix' becomes 'Otto' in 'By the river, Otto met"),
        (_replaced("said the otter", "said the owl"), "the helper 'otter' becomes 'owl' in"),
        (_replaced("trumpet was", "drum was"), "the thing 'trumpet' becomes 'drum' in"),
        (_replaced("The sheep", "The goat"), "the kind 'sheep' becomes 'goat' in"),
        (_replaced("looked under", "looked behind"), "the preposition 'under' becomes 'behind' in"),
        (_replaced("bench and", "rock and"), "the spot 'bench' becomes 'rock' in"),
        (_replaced("bench and", "elm and"), "no sentence of a tale: 'Felix looked under the elm and found"),
        (_replaced("Felix had", "Felix has"), "no sentence of a tale: 'Felix has a golden trumpet and loved it.'"),
        (_replaced(GOOD.split(". ")[0] + ". ", ""), "the tale does not begin with an opening, but with 'Felix had"),
        (_replaced(" The sheep and the otter became friends.", ""), "no plot goes on like this after 'Felix looked"),
        (_replaced(" The sheep and the otter became friends.", " And"), "no sentence of a tale: 'And'"),
        (_replaced('"Look under the bench," said the otter. ', ""), "no plot goes on like this after 'By the river"),
        (GOOD + " " + GOOD, "no plot goes on like this after 'The sheep and"),
        (_replaced("By the river", " By the river"), "no sentence of a tale"),
        ("", "the tale does not begin with an opening, but with ''"),
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


@pytest.mark.parametrize("slot", ["hero", "kind", "thing", "helper", "food", "look", "by", "spot"])
def test_one_changed_mention_is_noticed(slot: str) -> None:
    random, changed = Random(slot), 0
    while changed < 30:
        text = tale(random)
        said = [word for reading in read(text) for name, word in reading.slots if name == slot]
        if len(said) < 2:
            continue
        mention = random.choice(list(re.finditer(rf"\b{said[0]}\b", text)))
        other = random.choice([word for word in WORDS[slot] if word != said[0]])
        assert not is_consistent(text[: mention.start()] + other + text[mention.end() :]), (text, other)
        changed += 1


@given(st.text() | st.lists(st.sampled_from(GOOD.split(" "))).map(" ".join))
def test_garbage_is_judged_without_an_exception(text: str) -> None:
    assert not is_consistent(text) or text == GOOD


def test_there_are_more_than_a_thousand_million_tales_of_every_long_plot() -> None:
    for steps in PLOTS.values():
        slots = {s for step in steps for s in re.findall(r"\{(\w+)\}", STEPS[step][0])}
        assert prod(len(WORDS[slot]) for slot in slots) > 1e9
    # a distribution of entropy H has at least exp(H) outcomes
    assert exp(entropy(Random(0), tales=2_000)) > 1e18


def test_the_probabilities_of_all_tales_sum_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar, "WORDS_OF_LEVEL", (1, 1))
    monkeypatch.setattr(grammar, "STEPS", {step: sentences[:2] for step, sentences in STEPS.items()})
    random = Random(1)
    told = Counter(tale_with_log_probability(random) for _ in range(20_000))
    assert len({text for text, _ in told}) == len(told), "a tale with two probabilities"
    assert sum(exp(probability) for _, probability in told) == pytest.approx(1.0)
    for (text, probability), count in told.items():
        expected = 20_000 * exp(probability)
        assert abs(count - expected) < 5 * expected**0.5 + 5, text


def test_every_word_is_one_token(tokenizer: Tokenizer) -> None:
    words = {piece for group in word_groups() for piece in group}
    random = Random(2)
    for _ in range(1_000):
        assert words.issuperset(tokenizer.encode(tale(random)).tokens)
    listed = {word for slot, words in WORDS.items() if slot != "Look" for word in words}  # said after a quotation mark
    assert [word for word in listed if len(tokenizer.encode(f" {word}").ids) > 1] == []


def test_each_long_list_of_words_is_a_group_of_its_own() -> None:
    groups = word_groups()
    assert sorted(Counter(piece for group in groups for piece in group).values())[-1] == 1
    assert tuple(f"Ġ{name}" for name in sorted(WORDS["hero"])) in [tuple(sorted(group)) for group in groups]


def test_tokenizer_is_a_square_and_always_the_same(tokenizer: Tokenizer) -> None:
    assert tokenizer.get_vocab_size() == CLASSES == 32**2
    assert sorted(tokenizer.get_vocab().values()) == list(range(CLASSES))
    assert tokenizer.token_to_id(END_TOKEN) == 0
    assert build_tokenizer().to_str() == tokenizer.to_str()


def test_tales_have_the_right_lengths(tokenizer: Tokenizer) -> None:
    random = Random(3)
    lengths = {len(tokenizer.encode(tale(random)).ids) for _ in range(300)}
    assert lengths == {sum(LAYOUT[: len(steps)]) for steps in PLOTS.values()}
    assert min(lengths) >= 25
    assert max(lengths) <= 70


@given(text=st.text())
def test_any_text_survives_the_tokenizer(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text
