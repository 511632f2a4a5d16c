import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from unmask_diffusion import SubTokenizer, smallest_base
from unmask_kernels import agrees

from tests.helpers import agrees_with, code_table, every_state


@st.composite
def code_tables(draw: st.DrawFn) -> SubTokenizer:
    """l = 1 … 5, any C, the smallest base or a larger one, codes in order or permuted with gaps."""
    digits = draw(st.integers(1, 5))
    classes = draw(st.integers(2, 200))
    base = max(2, smallest_base(classes, digits)) + draw(st.integers(0, 2))
    permutation = None
    if draw(st.booleans()):
        codes = st.integers(0, base**digits - 1)
        permutation = draw(st.lists(codes, min_size=classes, max_size=classes, unique=True))
    return SubTokenizer.from_base(classes, digits, base, permutation)


@given(code_tables())
def test_decode_undoes_encode(sub_tokenizer: SubTokenizer) -> None:
    ids = torch.arange(sub_tokenizer.vocabulary_size)
    digits = sub_tokenizer.encode(ids)
    assert digits.shape == (sub_tokenizer.vocabulary_size, sub_tokenizer.sub_tokens_per_token)
    assert 0 <= int(digits.min()) <= int(digits.max()) < sub_tokenizer.base == sub_tokenizer.mask_id
    assert torch.equal(sub_tokenizer.decode(digits), ids)


@given(code_tables(), st.data())
def test_any_shape_is_encoded_and_decoded(sub_tokenizer: SubTokenizer, data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(0, 4), max_size=3))
    ids = torch.arange(torch.Size(shape).numel()).view(shape) % sub_tokenizer.vocabulary_size
    digits = sub_tokenizer.encode(ids)
    assert digits.shape == (*shape, sub_tokenizer.sub_tokens_per_token)
    assert torch.equal(sub_tokenizer.decode(digits), ids)


@given(code_tables(), st.data())
def test_digit_tuples_that_name_no_token_are_refused(sub_tokenizer: SubTokenizer, data: st.DataObject) -> None:
    digit = st.integers(0, sub_tokenizer.mask_id)
    digits = sub_tokenizer.sub_tokens_per_token
    state = data.draw(st.lists(digit, min_size=digits, max_size=digits))
    names = sub_tokenizer.codes.tolist()
    if state in names:
        assert int(sub_tokenizer.decode(torch.tensor(state))) == names.index(state)
    else:
        with pytest.raises(ValueError, match=r"name no token|fully revealed"):
            sub_tokenizer.decode(torch.tensor(state))


@given(st.integers(2, 5000), st.integers(1, 5), st.data())
def test_digits_are_most_significant_first(classes: int, digits: int, data: st.DataObject) -> None:
    token = data.draw(st.integers(0, classes - 1))
    base = smallest_base(classes, digits)
    expected = [(token // base ** (digits - 1 - j)) % base for j in range(digits)]
    assert code_table(classes, digits).encode(torch.tensor(token)).tolist() == expected


@given(st.integers(2, 2**31 - 1), st.integers(1, 16))
def test_smallest_base_is_the_smallest(classes: int, digits: int) -> None:
    base = smallest_base(classes, digits)
    assert (base - 1) ** digits < classes <= base**digits


@given(st.integers(2, 1000), st.integers(1, 5))
def test_smallest_base_is_exact_at_perfect_powers(root: int, digits: int) -> None:
    assert smallest_base(root**digits, digits) == root
    assert smallest_base(root**digits + 1, digits) == root + 1


@pytest.mark.parametrize(
    ("classes", "digits", "base"),
    [(3125, 5, 5), (50257, 2, 225), (50257, 3, 37), (50257, 4, 15), (50257, 6, 7), (50257, 8, 4), (512, 3, 8)],
)
def test_bases_of_known_models(classes: int, digits: int, base: int) -> None:
    assert smallest_base(classes, digits) == base


@given(code_tables(), st.data())
def test_a_class_is_consistent_when_every_revealed_digit_agrees(
    sub_tokenizer: SubTokenizer, data: st.DataObject
) -> None:
    code = data.draw(st.sampled_from(sub_tokenizer.codes.tolist()))
    hidden = data.draw(st.lists(st.booleans(), min_size=len(code), max_size=len(code)))
    state = [sub_tokenizer.mask_id if h else d for d, h in zip(code, hidden, strict=True)]
    expected = [agrees_with(state, other, sub_tokenizer.mask_id) for other in sub_tokenizer.codes.tolist()]
    assert agrees(torch.tensor([state]), sub_tokenizer.codes)[0].tolist() == expected
    assert any(expected)


def test_masked_is_consistent_with_all_and_unmasked_with_one() -> None:
    sub_tokenizer = code_table(7, 2)
    assert bool(agrees(sub_tokenizer.masked(3), sub_tokenizer.codes).all())
    assert agrees(sub_tokenizer.codes, sub_tokenizer.codes).tolist() == torch.eye(7).bool().tolist()


def test_states_on_the_way_are_what_partial_masking_says() -> None:
    assert every_state(code_table(3, 2, 2)) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1), (2, 2)]


@pytest.mark.parametrize(
    ("codes", "base", "why"),
    [
        (torch.tensor([[0], [1], [1]]), 2, "share"),
        (torch.tensor([[0, 1], [1, 0], [0, 1]]), 2, "share"),
        (torch.tensor([[0], [2]]), 2, "0 … base - 1"),
        (torch.tensor([[0], [-1]]), 2, "0 … base - 1"),
        (torch.tensor([0, 1]), 2, "shape"),
        (torch.zeros(0, 2, dtype=torch.int64), 2, "shape"),
    ],
)
def test_tables_that_are_no_code_are_refused(codes: torch.Tensor, base: int, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        SubTokenizer(codes, base)


@pytest.mark.parametrize("permutation", [[0, 1, 2], [0, 1, 2, 9], [0, 1, 2, -1], [0, 1, 2, 2]])
def test_permutations_that_do_not_fit_are_refused(permutation: list[int]) -> None:
    with pytest.raises(ValueError, match=r"permutation|share"):
        SubTokenizer.from_base(4, 2, 3, permutation)


def test_a_base_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="less than 10 classes"):
        SubTokenizer.from_base(10, 2, 3)


def test_every_permutation_of_a_small_code_round_trips() -> None:
    for permutation in itertools.permutations(range(4), 3):
        sub_tokenizer = SubTokenizer.from_base(3, 2, 2, list(permutation))
        assert sub_tokenizer.decode(sub_tokenizer.codes).tolist() == [0, 1, 2]
        assert sub_tokenizer.codes.tolist() == [[number // 2, number % 2] for number in permutation]
