import math
import weakref

import pytest
import torch
from hypothesis import given
from unmask_kernels import consistent_log_normaliser, consistent_log_softmax
from unmask_kernels.log_softmax import consistent_log_normaliser_reference, consistent_log_softmax_reference

from tests.kernels import plain
from tests.kernels.cases import SHAPES, Case, cases, make_case


@given(cases)
def test_equals_direct_computation(case: Case) -> None:
    found = consistent_log_softmax(case.logits, case.revealed, case.codes)
    double = case.logits.dtype == torch.float64
    assert found.dtype == (torch.float64 if double else torch.float32)
    for row, (logits, revealed) in enumerate(zip(case.logits, case.revealed, strict=True)):
        expected = plain.distribution(logits, revealed, case.codes)
        tolerance = 1e-12 if double else 1e-5
        assert torch.allclose(found[row].exp().double(), torch.tensor(expected).double(), atol=tolerance)


@given(cases)
def test_equals_the_reference(case: Case) -> None:
    arguments = case.logits, case.revealed, case.codes
    found, expected = consistent_log_softmax(*arguments), consistent_log_softmax_reference(*arguments)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("shape", [*SHAPES, (50257, 15, 4)], ids=str)
def test_a_row_does_not_know_the_batch(shape: tuple[int, int, int]) -> None:
    case = make_case(17, shape, seed=1)
    together = consistent_log_softmax(case.logits, case.revealed, case.codes)
    for few in (torch.tensor([0]), torch.tensor([16]), torch.arange(5, 8), torch.arange(16, -1, -1)):
        part = case.take(few)
        assert torch.equal(consistent_log_softmax(part.logits, part.revealed, part.codes), together[few])


def test_great_logits() -> None:
    codes = torch.arange(3)[:, None]
    found = consistent_log_softmax(torch.tensor([[1e4, -1e4, 1e4]]), torch.tensor([[3]]), codes)
    assert found[0].tolist() == pytest.approx([-math.log(2), -2e4 - math.log(2), -math.log(2)])


def test_rows_without_a_candidate_and_rows_with_nan() -> None:
    codes = plain.digits(4, 2, 2)
    logits = torch.zeros(4, 4)
    logits[0] = -math.inf  # no candidate
    logits[1, 1] = math.nan  # consistent
    logits[2, 3] = math.nan  # contradicts
    logits[3, 0] = -math.inf
    found = consistent_log_softmax(logits, torch.tensor([[2, 2], [0, 2], [0, 2], [0, 2]]), codes)
    assert found[0].tolist() == [-math.inf] * 4
    assert found[1, :2].isnan().all()
    assert found[1, 2:].tolist() == [-math.inf] * 2
    assert found[2].tolist() == pytest.approx([-math.log(2), -math.log(2), -math.inf, -math.inf])
    assert found[3].tolist() == pytest.approx([-math.inf, 0, -math.inf, -math.inf])
    assert not (found == math.inf).any()


def test_what_is_known_of_a_table_of_codes_goes_with_it() -> None:
    codes = plain.digits(9, 3, 2)
    consistent_log_softmax(torch.zeros(1, 9), torch.tensor([[3, 1]]), codes)
    gone = weakref.ref(codes)
    del codes
    assert gone() is None


@given(cases)
def test_the_normaliser_equals_the_reference(case: Case) -> None:
    arguments = case.logits, case.revealed, case.codes
    found, expected = consistent_log_normaliser(*arguments), consistent_log_normaliser_reference(*arguments)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("shape", [*SHAPES, (50257, 15, 4)], ids=str)
def test_a_row_s_normaliser_does_not_know_the_batch(shape: tuple[int, int, int]) -> None:
    case = make_case(17, shape, seed=1)
    together = consistent_log_normaliser(case.logits, case.revealed, case.codes)
    for few in (torch.tensor([0]), torch.tensor([16]), torch.arange(5, 8), torch.arange(16, -1, -1)):
        part = case.take(few)
        assert torch.equal(consistent_log_normaliser(part.logits, part.revealed, part.codes), together[few])


def test_normalisers_of_rows_without_a_candidate_and_with_nan() -> None:
    codes = plain.digits(3, 2, 2)  # nothing has the digits 1 1
    logits = torch.zeros(4, 3)
    logits[0] = -math.inf
    logits[1, 1] = math.nan
    revealed = torch.tensor([[2, 2], [0, 2], [1, 1], [0, 2]])
    found = consistent_log_normaliser(logits, revealed, codes).tolist()
    assert found[0] == found[2] == -math.inf
    assert math.isnan(found[1])
    assert found[3] == pytest.approx(math.log(2))
