"""The exact denoisers against enumeration of every sequence, for every state that a sampler can reach."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from unmask_diffusion import MarkovDenoiser, SubTokenizer, TableDenoiser

from tests.helpers import agrees_with, code_table, every_state, random_chain, random_table

SHAPES = [(3, 3, 1), (3, 3, 2), (5, 2, 2), (5, 2, 3), (4, 3, 2)]  # C, L, l; 5 classes in 3 or 2 digits leave gaps


def enumerated(table: Tensor, canvas: list[tuple[int, ...]], sub_tokenizer: SubTokenizer) -> Tensor:
    """p(token_i | every revealed digit), [L, C], by adding up all sequences; a row is 0 where nothing is possible."""
    codes = sub_tokenizer.codes.tolist()
    allowed = [
        [c for c, code in enumerate(codes) if agrees_with(state, code, sub_tokenizer.mask_id)] for state in canvas
    ]
    result = torch.zeros(len(canvas), len(codes), dtype=torch.float64)
    for sequence in itertools.product(*allowed):
        for position, token in enumerate(sequence):
            result[position, token] += table[sequence].exp()
    return result / result.sum(1, keepdim=True).clamp(min=1e-300)


def chain_table(initial: Tensor, transition: Tensor, length: int) -> Tensor:
    """The chain as a joint table [C] · L."""
    table = initial
    for _ in range(length - 1):
        table = table[..., None] + transition
    return table


def canvases(sub_tokenizer: SubTokenizer, length: int) -> list[list[tuple[int, ...]]]:
    """At most 400 of the canvases that a sampler can reach, evenly chosen."""
    every = list(itertools.product(every_state(sub_tokenizer), repeat=length))
    return [list(canvas) for canvas in every[:: -(-len(every) // 400)]]


@pytest.mark.parametrize(("classes", "length", "digits"), SHAPES)
def test_table_is_its_enumeration(classes: int, length: int, digits: int) -> None:
    sub_tokenizer = code_table(classes, digits)
    table = random_table(classes, length, seed=1)
    states = canvases(sub_tokenizer, length)
    found = TableDenoiser(table, sub_tokenizer).joint_logits(torch.tensor(states)).softmax(-1)
    expected = torch.stack([enumerated(table, state, sub_tokenizer) for state in states])
    torch.testing.assert_close(found, expected.float(), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(("classes", "length", "digits"), SHAPES)
def test_markov_is_its_enumeration(classes: int, length: int, digits: int) -> None:
    sub_tokenizer = code_table(classes, digits)
    initial, transition = random_chain(classes, seed=2)
    states = canvases(sub_tokenizer, length)
    denoiser = MarkovDenoiser(initial, transition, length, sub_tokenizer)
    found = denoiser.joint_logits(torch.tensor(states)).softmax(-1)
    table = chain_table(initial, transition, length)
    expected = torch.stack([enumerated(table, state, sub_tokenizer) for state in states])
    torch.testing.assert_close(found, expected.float(), atol=2e-6, rtol=1e-5)


@settings(max_examples=30)
@given(st.integers(0, 1000), st.permutations(list(range(9))))
def test_permuted_codes_are_enumerated_too(seed: int, permutation: list[int]) -> None:
    sub_tokenizer = SubTokenizer.from_base(5, 2, 3, permutation[:5])
    table = random_table(5, 2, seed)
    states = canvases(sub_tokenizer, 2)[:40]
    found = TableDenoiser(table, sub_tokenizer).joint_logits(torch.tensor(states)).softmax(-1)
    expected = torch.stack([enumerated(table, state, sub_tokenizer) for state in states])
    torch.testing.assert_close(found, expected.float(), atol=2e-6, rtol=1e-5)


def test_table_need_not_be_normalised() -> None:
    sub_tokenizer = code_table(3, 1)
    table = random_table(3, 2, seed=4)
    masked = sub_tokenizer.masked(2)[None]
    scaled = TableDenoiser(table + 700, sub_tokenizer).joint_logits(masked).softmax(-1)
    torch.testing.assert_close(scaled, TableDenoiser(table, sub_tokenizer).joint_logits(masked).softmax(-1))


def test_markov_rows_need_not_be_normalised() -> None:
    sub_tokenizer = code_table(3, 1)
    initial, transition = random_chain(3, seed=4)
    masked = sub_tokenizer.masked(4)[None]
    shifted = MarkovDenoiser(initial + 50, transition + torch.tensor([[1.0], [-30], [9]]), 4, sub_tokenizer)
    plain = MarkovDenoiser(initial, transition, 4, sub_tokenizer)
    torch.testing.assert_close(shifted.joint_logits(masked).softmax(-1), plain.joint_logits(masked).softmax(-1))


def test_what_has_probability_zero_is_minus_infinity() -> None:
    sub_tokenizer = code_table(2, 1)
    table = torch.tensor([[0.5, 0.5], [0.0, 0.0]]).log()  # the first token is never 1
    canvas = torch.tensor([[[1], [2]], [[2], [0]], [[2], [2]]])
    logits = TableDenoiser(table, sub_tokenizer).joint_logits(canvas)
    assert (logits[0] == -torch.inf).all(), "nothing is possible where the first token is 1"
    assert (logits[1:, 0, 1] == -torch.inf).all()
    assert logits[1:, 0, 0].isfinite().all()
    assert not logits.isnan().any()


def test_markov_survives_impossible_steps_and_impossible_givens() -> None:
    sub_tokenizer = code_table(3, 1)
    cycle = torch.tensor([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]]).log()  # 0 → 1 → 2 → 0, nothing else
    denoiser = MarkovDenoiser(torch.full((3,), 1 / 3).log(), cycle, 5, sub_tokenizer)
    known = sub_tokenizer.masked(5)
    known[3] = 2
    contradiction = known.clone()
    contradiction[1] = 2
    possible, impossible = denoiser.joint_logits(torch.stack([known, contradiction]))
    assert possible.softmax(-1).argmax(-1).tolist() == [2, 0, 1, 2, 0]
    assert possible.isfinite().sum(-1).tolist() == [1] * 5
    assert (impossible == -torch.inf).all()


def test_long_chains_do_not_underflow() -> None:
    sub_tokenizer = code_table(4, 2)
    initial, transition = random_chain(4, seed=3)
    denoiser = MarkovDenoiser(initial, transition * 20, 1024, sub_tokenizer)
    canvas = sub_tokenizer.codes[torch.arange(1024) * 7 % 4]
    canvas[::5] = sub_tokenizer.mask_id
    logits = denoiser.joint_logits(canvas[None])
    assert not logits.isnan().any()
    assert (logits.amax(-1) > -torch.inf).all()


@pytest.mark.parametrize("length", [1, 3, 5])
def test_canvases_of_another_length_are_refused(length: int) -> None:
    sub_tokenizer = code_table(2, 1)
    denoiser = TableDenoiser(random_table(2, 4, seed=0), sub_tokenizer)
    with pytest.raises(ValueError, match="4 tokens"):
        denoiser.joint_logits(sub_tokenizer.masked(length)[None])


def test_a_table_of_one_token() -> None:
    sub_tokenizer = code_table(4, 2)
    table = random_table(4, 1, seed=5)
    canvas = torch.tensor([[[2, 2]], [[1, 2]], [[2, 0]]])
    found = TableDenoiser(table, sub_tokenizer).joint_logits(canvas).softmax(-1)
    states = [[tuple(digits) for digits in state] for state in canvas.tolist()]
    expected = torch.stack([enumerated(table, state, sub_tokenizer) for state in states])
    torch.testing.assert_close(found, expected.float(), atol=2e-6, rtol=1e-5)
