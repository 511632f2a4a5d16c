import dataclasses
import math

import pytest
import torch
from unmask_kernels import consistent_log_softmax
from unmask_kernels.consistency import agrees, code_facts
from unmask_kernels.log_softmax import consistent_log_softmax_reference

from tests.kernels import plain
from tests.kernels.cases import Case, make_case
from tests.kernels.test_triton_draw import natural, on, with_revealed

# in the interpreter NumPy warns of what a GPU does without a word
pytestmark = [pytest.mark.triton, pytest.mark.filterwarnings("ignore::RuntimeWarning")]
SHAPES = [(101, 101, 1), (101, 11, 2), (500, 8, 3), (500, 5, 4), (101, 3, 5)]


def log_softmax(case: Case) -> torch.Tensor:
    return consistent_log_softmax(case.logits, case.revealed, case.codes)


def assert_equals_the_reference(device: torch.device, case: Case) -> None:
    found = log_softmax(on(device, case)).cpu()
    expected = consistent_log_softmax_reference(case.logits.double(), case.revealed, case.codes)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=5e-6, equal_nan=True)


@pytest.mark.parametrize("order", ["natural", "permuted"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rows", [1, 3, 17])
def test_equals_the_reference(device: torch.device, rows: int, shape: tuple[int, int, int], order: str) -> None:
    case = make_case(rows, shape, seed=rows)
    assert_equals_the_reference(device, natural(case) if order == "natural" else case)


@pytest.mark.parametrize("order", ["natural", "permuted"])
@pytest.mark.parametrize("pattern", ["none", "all"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_patterns_and_types(device: torch.device, dtype: torch.dtype, pattern: str, order: str) -> None:
    case = make_case(3, (500, 8, 3), seed=2, dtype=dtype)
    assert_equals_the_reference(device, with_revealed(natural(case) if order == "natural" else case, pattern))


@pytest.mark.parametrize(("shape", "order"), [((50257, 15, 4), "natural"), ((50257, 225, 2), "permuted")], ids=str)
def test_official_vocabulary(device: torch.device, shape: tuple[int, int, int], order: str) -> None:
    case = make_case(2, shape, seed=4)
    case.revealed[0] = shape[1]
    assert_equals_the_reference(device, natural(case) if order == "natural" else case)


def test_a_row_does_not_know_the_batch(device: torch.device) -> None:
    """Alone, in another order, at another address and with another stride: the same bits."""
    case = on(device, natural(make_case(12, (1500, 12, 3), seed=6)))
    together = log_softmax(case)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1)).to(device)
    assert torch.equal(log_softmax(case.take(order)), together[order])
    here = dataclasses.replace(case, logits=case.logits[9:11], revealed=case.revealed[9:11])
    assert torch.equal(log_softmax(here), together[9:11])
    odd = torch.cat([case.logits, case.logits[:, :1]], 1)[:, :-1]
    assert torch.equal(log_softmax(dataclasses.replace(case, logits=odd)), together)


def test_float64_keeps_its_digits(device: torch.device) -> None:
    case = on(device, make_case(3, (101, 11, 2), seed=9, dtype=torch.float64))
    found = log_softmax(case)
    assert torch.equal(found, consistent_log_softmax_reference(case.logits, case.revealed, case.codes))


@pytest.mark.parametrize("classes", [4, 2500])
def test_great_logits(device: torch.device, classes: int) -> None:
    logits = torch.full((1, classes), -1e4)
    logits[0, [0, classes - 1]] = 1e4
    codes = torch.arange(classes)[:, None]
    masked = torch.tensor([[classes]], device=device)
    found = consistent_log_softmax(logits.to(device), masked, codes.to(device))
    assert found[0, [0, -1]].tolist() == pytest.approx([-math.log(2)] * 2)
    assert float(found[0, 1]) == pytest.approx(-2e4 - math.log(2))


@pytest.mark.parametrize("order", ["natural", "permuted"])
def test_rows_without_a_candidate_and_rows_with_nan(device: torch.device, order: str) -> None:
    case = make_case(6, (101, 11, 2), seed=15)
    case.revealed[:, 0] = torch.tensor([3, 4, 5, 6, 7, -1])
    case.revealed[:, 1] = 11
    case.logits[0] = -math.inf
    case = natural(case) if order == "natural" else case
    consistent = agrees(case.revealed, case.codes)
    first = consistent.int().argmax(1)
    case.logits[1, first[1]] = math.nan
    case.logits[2, first[2]] = math.inf
    case.logits[3, ~consistent[3]] = math.nan
    case.logits[4, first[4]] = -math.inf
    found = log_softmax(on(device, case)).cpu()
    assert found[0].tolist() == [-math.inf] * 101
    assert torch.equal(found[1:3].isnan(), consistent[1:3])
    assert not found[3:].isnan().any()
    assert torch.equal(found[5] == -math.inf, torch.ones(101, dtype=torch.bool))
    assert_equals_the_reference(device, case)


def test_shapes_that_do_not_fit(device: torch.device) -> None:
    case = on(device, make_case(3, (101, 11, 2)))
    with pytest.raises(ValueError, match="don't fit"):
        consistent_log_softmax(case.logits[:, 1:], case.revealed, case.codes)
    with pytest.raises(ValueError, match="don't fit"):
        consistent_log_softmax(case.logits, case.revealed[:, 1:], case.codes)


@pytest.mark.parametrize(
    ("shape", "base"),
    [((1, 2, 1), 1), ((5, 9, 1), 5), ((101, 11, 2), 11), ((50257, 15, 4), 15), ((9, 10, 2), 0), ((1, 2, 2), 0)],
)
def test_base_of_a_table(shape: tuple[int, int, int], base: int) -> None:
    """A table whose first digits are always 0 may be read like any other: its classes are few."""
    codes = plain.digits(*shape)
    assert code_facts(codes) == (int(codes.max()), base)


def test_other_tables_have_no_base() -> None:
    codes = plain.digits(101, 11, 2)
    assert code_facts(codes.flip(1)).base == 0
    assert code_facts(codes.flip(0)).base == 0


def test_a_table_that_changes_is_looked_at_again() -> None:
    codes = plain.digits(101, 11, 2)
    assert code_facts(codes) == (10, 11)
    codes[[0, 1]] = codes[[1, 0]]
    assert code_facts(codes) == (10, 0)
    codes[0, 0] = 50
    assert code_facts(codes) == (50, 0)
