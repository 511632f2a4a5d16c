import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from unmask_diffusion import Painter, SubTokenizer

from tests.helpers import code_table

CLEAR, WHITE, RED, BLACK = (0, 0, 0, 0), (255, 255, 255, 255), (255, 0, 0, 255), (0, 0, 0, 255)
# two families: 0 1 | 2 3
FOUR = Painter(1, 3, 1, [CLEAR, WHITE, RED, BLACK], code_table(4, 2))
MASK = 2


def colours_of(painted: Tensor) -> list[tuple[int, ...]]:
    return [tuple(colour) for colour in painted.view(-1, 4).tolist()]


def test_tokens_have_the_colours_of_the_palette() -> None:
    painted = FOUR.paint(torch.tensor([1, 0, 2]))
    assert (painted.shape, painted.dtype) == ((1, 3, 4), torch.uint8)
    assert colours_of(painted) == [WHITE, CLEAR, RED]
    assert colours_of(FOUR.paint([1, 0, 2])) == [WHITE, CLEAR, RED]


def test_a_partly_revealed_pixel_has_the_mean_of_what_its_digits_leave() -> None:
    """By hand: families {clear, white} and {red, black}; second digit 0 is {clear, red}; nothing known is all four."""
    assert colours_of(FOUR.paint([[0, MASK], [1, MASK], [MASK, 0]])) == [
        (128, 128, 128, 128),  # 127.5, halves up
        (128, 0, 0, 255),
        (128, 0, 0, 128),
    ]
    # (0 + 255 + 255 + 0) / 4 = 127.5, (0 + 255 + 0 + 0) / 4 = 63.75 and 3 · 255 / 4 = 191.25
    assert colours_of(FOUR.paint([[MASK, MASK], [1, 1], [0, 1]])) == [(128, 64, 64, 191), BLACK, WHITE]


def test_digits_that_name_no_class_are_left_out_of_the_mean() -> None:
    """Three classes in two digits of base 2: (1, 1) names none."""
    painter = Painter(1, 2, 1, [WHITE, RED, BLACK], code_table(3, 2))
    assert colours_of(painter.paint([[1, 2], [2, 1]])) == [BLACK, RED]
    assert colours_of(painter.paint([[2, 2], [1, 1]])) == [(170, 85, 85, 255), (0, 0, 0, 0)]


@pytest.mark.parametrize(("digits", "base"), [(1, 256), (2, 16), (3, 7), (8, 2)])
def test_bytes_are_painted_channel_by_channel(digits: int, base: int) -> None:
    painter = Painter(2, 2, 3, None, code_table(256, digits, base))
    pixels = torch.tensor([[[1, 2, 3], [255, 0, 128]], [[7, 77, 177], [16, 15, 0]]])
    painted = painter.paint(pixels.flatten())
    assert torch.equal(painted[..., :3].long(), pixels)
    assert bool((painted[..., 3] == 255).all())
    assert colours_of(painter.paint(painter.sub_tokenizer.masked(12))) == [(128, 128, 128, 255)] * 4


def test_a_high_nibble_alone_is_the_middle_of_its_bytes() -> None:
    painter = Painter(1, 1, 3, None, code_table(256, 2))
    assert colours_of(painter.paint([[3, 16], [16, 16], [0, 5]])) == [(56, 128, 5, 255)]  # 48 + 7.5, halves up


def test_grey_is_one_byte_and_a_super_token_twelve_bits() -> None:
    assert colours_of(Painter(1, 2, 1, None, code_table(256, 1)).paint([7, 200])) == [
        (7, 7, 7, 255),
        (200, 200, 200, 255),
    ]
    painter = Painter(1, 2, 2, None, code_table(4096, 1))
    colour = 0x12_34_56
    tokens = [colour >> 12, colour & 0xFFF, 0, 4095]
    assert colours_of(painter.paint(tokens)) == [(0x12, 0x34, 0x56, 255), (0, 15, 255, 255)]
    # the first token masked: R any, G's high digit any; of G the low digit is known
    assert colours_of(painter.paint([[4096], [0x456], [0], [0]]))[0] == (128, 124, 0x56, 255)


@given(st.integers(0, 2**32), st.integers(2, 40), st.integers(1, 4))
def test_any_table_of_codes_is_painted_as_the_mean_over_its_classes(seed: int, classes: int, digits: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    base = code_table(classes, digits).base
    codes = torch.randperm(base**digits, generator=generator)[:classes].tolist()
    table = SubTokenizer.from_base(classes, digits, base, codes)
    palette = torch.randint(0, 256, (classes, 4), generator=generator)
    states = list(itertools.product(range(base + 1), repeat=digits))
    painted = Painter(1, len(states), 1, [tuple(c) for c in palette.tolist()], table).paint(torch.tensor(states))
    for state, colour in zip(states, painted[0].tolist(), strict=True):
        left = (torch.tensor([d == base for d in state]) | (table.codes == torch.tensor(state))).all(-1)
        mean = palette[left].double().mean(0) if bool(left.any()) else torch.zeros(4)
        assert colour == [math.floor(value + 0.5) for value in mean.tolist()]


def test_many_canvases_are_painted_at_once() -> None:
    ids = torch.tensor([[[0, 1, 2]], [[3, 3, 3]]])
    painted = FOUR.paint(ids)
    assert painted.shape == (2, 1, 1, 3, 4)
    assert torch.equal(painted[0, 0], FOUR.paint([0, 1, 2]))
    assert torch.equal(FOUR.paint(FOUR.sub_tokenizer.encode(ids)), painted)


@pytest.mark.parametrize("wrong", [[0, 1], [[0, 1], [1, 1]], [0, 1, 4], [[0, 3], [0, 0], [0, 0]], [[-1, 0]] * 3])
def test_other_shapes_and_values_are_refused(wrong: list[int]) -> None:
    with pytest.raises(ValueError, match=r"canvas of this model is|must lie in"):
        FOUR.paint(wrong)


def test_a_painted_picture_has_the_same_tokens() -> None:
    for painter in (
        FOUR,
        Painter(1, 3, 1, None, code_table(256, 2)),
        Painter(2, 2, 3, None, code_table(256, 2)),
        Painter(2, 1, 2, None, code_table(4096, 1)),
    ):
        ids = torch.randint(
            0, painter.sub_tokenizer.vocabulary_size, (painter.length,), generator=torch.Generator().manual_seed(3)
        )
        tokens, changed = painter.tokens_of(painter.paint(ids))
        assert torch.equal(tokens, ids)
        assert not bool(changed.any())


def test_other_colours_go_to_the_nearest_of_the_palette_and_are_told() -> None:
    """In OKLab: a dark red is nearer to red than to black, a light yellow nearer to white; half clear white is closer
    to white, and what is nearly clear has no colour.
    """
    pixels = torch.tensor([[[150, 10, 10, 255], [255, 255, 200, 255], [0, 255, 0, 10]]], dtype=torch.uint8)
    tokens, changed = FOUR.tokens_of(pixels)
    assert tokens.tolist() == [2, 1, 0]
    assert changed.tolist() == [[True, True, True]]
    exact = FOUR.paint([2, 1, 0])
    exact[0, 1] = torch.tensor([255, 255, 254, 255])
    assert FOUR.tokens_of(exact)[1].tolist() == [[False, True, False]]
