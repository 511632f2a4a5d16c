import dataclasses
import math

import pytest
import torch
from hypothesis import given
from unmask_kernels import agrees, categorical, draw

from tests.kernels import plain
from tests.kernels.cases import SHAPES, Case, cases, make_case


@given(cases)
def test_never_contradicts_a_revealed_digit(case: Case) -> None:
    mask_from = int(case.codes.max()) + 1
    for drawn, row_logits, revealed in zip(case.draw().tolist(), case.logits, case.revealed.tolist(), strict=True):
        assert plain.is_consistent(revealed, case.codes[drawn].tolist(), mask_from)
        assert row_logits[drawn] > -math.inf


@given(cases)
def test_equals_the_reference(case: Case) -> None:
    assert torch.equal(case.draw(), case.draw_reference())


@given(cases)
def test_leaves_its_arguments_alone(case: Case) -> None:
    before = {name: value.clone() for name, value in vars(case).items()}
    case.draw()
    assert all(torch.equal(value, before[name]) for name, value in vars(case).items())


@given(cases)
def test_agrees_is_what_it_says(case: Case) -> None:
    mask_from = int(case.codes.max()) + 1
    expected = [
        [plain.is_consistent(revealed, code, mask_from) for code in case.codes.tolist()]
        for revealed in case.revealed.tolist()
    ]
    assert agrees(case.revealed, case.codes).tolist() == expected


@pytest.mark.parametrize("seed", range(3))
def test_equals_plain_python(seed: int) -> None:
    """Against another implementation of everything, from Philox to the argmax."""
    case = make_case(6, (101, 11, 2), seed, torch.float64)
    mask_from = int(case.codes.max()) + 1
    drawn = case.draw_unfiltered().tolist()
    for row, found in enumerate(drawn):
        temperature, shown = float(case.temperature[row]), case.revealed[row].tolist()
        scores = {
            c: float(case.logits[row, c]) / temperature + plain.gumbel(int(case.seeds[row]), int(case.events[row]), c)
            if temperature
            else float(case.logits[row, c])
            for c, code in enumerate(case.codes.tolist())
            if plain.is_consistent(shown, code, mask_from)
        }
        assert found == max(scores, key=lambda c: scores[c])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rows", [1, 3, 17, 64])
def test_a_row_does_not_know_the_batch(rows: int, shape: tuple[int, int, int]) -> None:
    """Alone, among others and in another order: the same classes."""
    case = make_case(rows, shape, seed=rows)
    together = case.draw()
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(1))
    assert torch.equal(case.take(order).draw(), together[order])
    for row in range(min(rows, 9)):
        assert torch.equal(case.take(torch.tensor([row])).draw(), together[row : row + 1])
    assert torch.equal(case.take(torch.arange(rows // 2, rows)).draw(), together[rows // 2 :])


def test_official_vocabulary() -> None:
    case = make_case(5, (50257, 15, 4), seed=3)
    together = case.draw()
    assert torch.equal(case.draw_reference(), together)
    for row in range(5):
        assert torch.equal(case.take(torch.tensor([row])).draw(), together[row : row + 1])


@pytest.mark.parametrize("size", [1, 7, 500, 10**6])
def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    case = make_case(7, (500, 23, 2), seed=4)
    whole = case.draw()
    monkeypatch.setattr(categorical, "NOISE_BLOCK", size)
    assert torch.equal(case.draw(), whole)


def test_filters_that_are_off_change_nothing() -> None:
    case = make_case(17, (500, 23, 2), seed=5)
    off = dataclasses.replace(case, top_k=case.top_k * 0, top_p=case.top_p * 0 + 1)
    assert torch.equal(off.draw(), case.draw_unfiltered())
    plainly = (case.top_k == 0) & (case.top_p == 1)
    assert 0 < int(plainly.sum()) < 17
    assert torch.equal(case.draw()[plainly], off.draw()[plainly])


def test_one_temperature_for_all() -> None:
    case = make_case(5, (101, 101, 1), seed=6)
    case = dataclasses.replace(case, temperature=torch.full((5,), 0.7, dtype=torch.float64))
    arguments = (case.logits, case.revealed, case.codes, case.seeds, case.events)
    assert torch.equal(draw(*arguments, 0.7), case.draw_unfiltered())


def test_no_rows() -> None:
    assert make_case(1, (101, 11, 2)).take(torch.arange(0)).draw().shape == (0,)


def test_temperature_zero_takes_the_first_of_equals() -> None:
    case = make_case(1, (101, 11, 2))
    logits = torch.zeros(1, 101)
    logits[0, [40, 17, 90]] = 5
    nothing = torch.full_like(case.revealed, 11)
    case = dataclasses.replace(case, logits=logits, revealed=nothing, temperature=torch.zeros(1))
    assert case.draw().tolist() == [17]


@pytest.mark.parametrize("scale", [1e4, -1e4, 1e30])
def test_great_logits_keep_their_noise(scale: float) -> None:
    """A constant added to all logits changes nothing, though it is far greater than the noise."""
    case = make_case(9, (500, 23, 2), seed=7, dtype=torch.float64)
    logits = torch.full_like(case.logits, 0)
    with_constant = dataclasses.replace(case, logits=logits + scale).draw_unfiltered()
    assert torch.equal(with_constant, dataclasses.replace(case, logits=logits).draw_unfiltered())


@pytest.mark.parametrize("temperature", [1e-300, 5e-324])
def test_tiny_temperature_is_the_most_probable_class(temperature: float) -> None:
    """And no warning where other scores overflow."""
    case = make_case(17, (500, 23, 2), seed=8)
    cold = dataclasses.replace(case, temperature=torch.full((17,), temperature, dtype=torch.float64))
    greedy = dataclasses.replace(case, temperature=torch.zeros(17))
    assert torch.equal(cold.draw_unfiltered(), greedy.draw_unfiltered())
