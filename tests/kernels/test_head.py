"""The head and the draw in one: the same classes as the draw from logits, a row at a time, logits never all there."""

import math
from collections.abc import Iterable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from unmask_kernels import InvalidLogitsError, NoCandidateError, draw_from_hidden, head
from unmask_kernels.categorical import draw_rows
from unmask_kernels.consistency import Classes, ConsistentClasses
from unmask_kernels.head import draw_from_hidden_reference

from tests.kernels import plain
from tests.kernels.cases import SHAPES, Case, make_case

WIDTHS = (1, 24, 64)


def head_of(case: Case, width: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden rows, weight and bias: no logits are -inf, as those of a network never are."""
    generator = torch.Generator().manual_seed(width)
    classes = len(case.codes)
    hidden = torch.randn(len(case.seeds), width, generator=generator)
    weight = 3 * torch.randn(classes, width, generator=generator) / width**0.5
    return hidden, weight.to(dtype), torch.randn(classes, generator=generator).to(dtype)


def drawn(case: Case, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return draw_from_hidden(hidden, weight, bias, case.codes, case.draws)


def margin(case: Case, logits: Tensor, row: int, other: int) -> float:
    """By how much the reference's class beats another, after temperature and noise, relative to their size."""

    def score(c: int) -> float:
        temperature = float(case.temperature[row])
        noise = plain.gumbel(int(case.seeds[row]), int(case.events[row]), c) if temperature else 0.0
        return float(logits[row, c]) / (temperature or 1.0) + noise

    best = int(reference(case, logits)[row])
    return (score(best) - score(other)) / max(1.0, abs(score(best)))


def reference(case: Case, logits: Tensor) -> Tensor:
    return replace(case, logits=logits).draw_reference()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_equals_the_draw_from_logits(shape: tuple[int, int, int], width: int, dtype: torch.dtype) -> None:
    """Up to ties: sums of products may differ in their last bits, and 1e-6 of a score decides nothing else."""
    case = replace(make_case(17, shape, seed=width), top_p=torch.ones(17, dtype=torch.float64))
    hidden, weight, bias = head_of(case, width, dtype)
    logits = hidden.to(dtype).float() @ weight.float().T + bias.float()
    found = drawn(case, hidden, weight, bias)
    for row in (found != reference(case, logits)).nonzero()[:, 0].tolist():
        assert margin(case, logits, row, int(found[row])) < 1e-5, row


def test_its_reference_is_the_draw_from_logits() -> None:
    case = make_case(9, (101, 11, 2), seed=5)
    hidden, weight, bias = head_of(case, 8)
    found = draw_from_hidden_reference(hidden, weight, bias, case.codes, case.draws)
    assert torch.equal(found, reference(case, hidden @ weight.T + bias))


def test_without_a_bias() -> None:
    case = make_case(9, (101, 11, 2), seed=5)
    hidden, weight, bias = head_of(case, 8)
    assert torch.equal(drawn(case, hidden, weight, None), drawn(case, hidden, weight, torch.zeros_like(bias)))


@given(seed=st.integers(0, 2**20), rows=st.integers(1, 80), width=st.sampled_from(WIDTHS))
def test_a_row_does_not_know_the_batch(seed: int, rows: int, width: int) -> None:
    """Alone, among others and in another order: the same bits of the logits, so of the highest too."""
    case = make_case(rows, (500, 23, 2), seed)
    hidden, weight, bias = head_of(case, width)

    def outcome(index: Tensor) -> tuple[Tensor, Tensor]:
        some = case.take(index)
        rows = head._logits_of_rows(hidden[index], weight, bias, case.codes, some.draws)
        return draw_rows(rows, some.draws)

    together = outcome(torch.arange(rows))
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    for index in (order, order[:1], order[-1:], torch.arange(rows // 2, rows)):
        for alone, among in zip(outcome(index), together, strict=True):
            assert torch.equal(alone, among[index])


def test_few_consistent_classes_are_all_that_is_read() -> None:
    """Weights of classes that contradict a revealed digit may be anything."""
    case = make_case(40, (500, 23, 2), seed=2)
    hidden, weight, bias = head_of(case, 8)
    row = int(((case.revealed <= case.codes.max()).sum(1) == 1).nonzero()[0])
    one = case.take(torch.tensor([row]))
    place = int((one.revealed[0] <= case.codes.max()).nonzero()[0])
    contradicted = case.codes[:, place] != one.revealed[0, place]
    poisoned = weight.masked_fill(contradicted[:, None], math.nan)
    assert torch.equal(drawn(one, hidden[row, None], poisoned, bias), drawn(one, hidden[row, None], weight, bias))


def test_rows_do_not_wait_with_their_classes_for_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row's consistent classes may be most of the vocabulary; those of a pass are the most that are in memory."""
    case = make_case(200, (500, 23, 2), seed=3)
    hidden, weight, bias = head_of(case, 8)
    found: list[Classes] = []
    original = ConsistentClasses.of

    def counted(self: ConsistentClasses, revealed: Iterable[int]) -> Classes:
        found.append(original(self, revealed))
        return found[-1]

    monkeypatch.setattr(ConsistentClasses, "of", counted)
    masked = replace(case.draws, revealed=torch.full_like(case.revealed, 99))
    next(head._logits_of_rows(hidden, weight, bias, case.codes, masked))
    assert len(found) == head.DENSE_ROWS


@pytest.mark.parametrize("revealed", [False, True])
def test_rows_with_nan_are_named_and_the_others_drawn(*, revealed: bool) -> None:
    case = make_case(7, (500, 23, 2), seed=8)
    shown = case.codes[123].expand(7, 2).clone()
    shown[:, 1] = 99
    case = replace(case, revealed=shown if revealed else torch.full_like(shown, 99))
    hidden, weight, bias = head_of(case, 8)
    expected = drawn(case, hidden, weight, bias)
    hidden[4] = math.nan
    with pytest.raises(InvalidLogitsError) as caught:
        drawn(case, hidden, weight, bias)
    assert (caught.value.invalid, caught.value.no_candidate) == ([4], [])
    assert caught.value.classes.tolist() == [*expected[:4], -1, *expected[5:]]


def test_a_row_whose_digits_name_no_class_is_an_error() -> None:
    case = make_case(3, (101, 11, 2), seed=1)
    shown = case.revealed.clone()
    codes = {tuple(code) for code in case.codes.tolist()}
    shown[1] = torch.tensor(next((a, b) for a in range(10) for b in range(11) if (a, b) not in codes))
    hidden, weight, bias = head_of(case, 8)
    with pytest.raises(NoCandidateError) as caught:
        drawn(replace(case, revealed=shown), hidden, weight, bias)
    assert caught.value.no_candidate == [1]


@pytest.mark.parametrize("hidden", [(3, 9), (3,), (2, 8)], ids=str)
def test_shapes_that_do_not_fit_are_refused(hidden: tuple[int, ...]) -> None:
    case = make_case(3, (101, 11, 2), seed=1)
    _, weight, bias = head_of(case, 8)
    with pytest.raises(ValueError, match=r"must be|don't fit"):
        drawn(case, torch.zeros(hidden), weight, bias)


def test_no_rows_are_no_classes() -> None:
    case = make_case(1, (101, 11, 2)).take(torch.zeros(0, dtype=torch.int64))
    hidden, weight, bias = head_of(case, 8)
    assert drawn(case, hidden, weight, bias).shape == (0,)
