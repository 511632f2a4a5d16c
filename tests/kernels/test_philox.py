import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from unmask_kernels.philox import Purpose, first_two_words, philox_4x32, random_uniform, random_words

from tests.kernels import plain

ALL_ONES = 0xFFFFFFFF

# The vectors published with Random123 for philox4x32, 10 rounds: counter, key, words.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ALL_ONES,) * 4, (ALL_ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def scalars(*values: int) -> tuple[torch.Tensor, ...]:
    return tuple(torch.tensor([value]) for value in values)


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_published_vectors(counter: tuple[int, ...], key: tuple[int, ...], words: tuple[int, ...]) -> None:
    a, b, c, d = scalars(*counter)
    k, m = scalars(*key)
    assert tuple(int(word) for word in philox_4x32((a, b, c, d), (k, m))) == words
    assert tuple(int(word) for word in first_two_words((a, b, c, d), (k, m))) == words[:2]
    assert plain.philox(counter, key) == words


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1), st.integers(0, ALL_ONES), st.sampled_from(list(Purpose)))
def test_counter_layout(seed: int, event: int, index: int, purpose: Purpose) -> None:
    key, counter, place = scalars(seed, event, index)
    high, low = random_words(key, counter, place, purpose)
    assert int(high) << 32 | int(low) == plain.random_bits(seed, event, index, int(purpose))


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 257), (3, 101), (17, 64)])
def test_broadcasting_forms_agree(rows: int, columns: int) -> None:
    """Indices shared by the rows, indices of their own, and the reference."""
    generator = torch.Generator().manual_seed(rows)
    seeds, events = torch.randint(2**62, (2, rows, 1), generator=generator)
    indices = torch.arange(columns)[None] * 3
    shared = random_words(seeds, events, indices)
    own = random_words(seeds, events, indices.expand(rows, columns).clone())
    key = (seeds & ALL_ONES, seeds >> 32)
    reference = philox_4x32((indices, events & ALL_ONES, events >> 32, torch.tensor(0)), key)
    for words in zip(shared, own, reference[:2], strict=True):
        assert torch.equal(words[0], words[1])
        assert torch.equal(words[0], words[2])


def test_uniforms_are_open_and_keep_purposes_apart() -> None:
    """Correlations of 50,000 pairs stay below 5 standard deviations: false alarm 6e-7 each for other seeds."""
    events = torch.arange(50_000)
    zero = torch.zeros_like(events)
    first = random_uniform(zero + 5, events, zero)
    others = {
        "the schedule's": random_uniform(zero + 5, events, zero, Purpose.SCHEDULE),
        "the next seed's": random_uniform(zero + 6, events, zero),
        "the same low half's": random_uniform(zero + 5 + 2**32, events, zero),
        "the next event's": random_uniform(zero + 5, events + 1, zero),
        "the next sample's": random_uniform(zero + 5, events + 2**32, zero),
        "the next class's": random_uniform(zero + 5, events, zero + 1),
    }
    assert float(first.min()) > 0
    assert float(first.max()) < 1
    assert abs(float(first.mean()) - 0.5) < 5 / (12 * 50_000) ** 0.5
    for name, other in others.items():
        correlation = float(torch.corrcoef(torch.stack([first, other]))[0, 1])
        assert abs(correlation) < 5 / 50_000**0.5, name
