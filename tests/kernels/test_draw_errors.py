"""A row that cannot be drawn is named; the others are drawn."""

import dataclasses
import math

import pytest
import torch
from unmask_kernels import DrawError, InvalidLogitsError, NoCandidateError, draw

from tests.kernels.cases import Case, make_case

SHAPE = (101, 11, 2)


def spoiled(case: Case, row: int, value: float) -> Case:
    """The case with one consistent logit of a row replaced, or (for -inf) all of them."""
    logits = case.logits.clone()
    if value == -math.inf:
        logits[row] = value
    else:
        agreeing = (case.codes == case.revealed[row]) | (case.revealed[row] > case.codes.max())
        logits[row, int(agreeing.all(1).nonzero()[-1])] = value
    return dataclasses.replace(case, logits=logits)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("value", "kind"),
    [(math.nan, InvalidLogitsError), (math.inf, InvalidLogitsError), (-math.inf, NoCandidateError)],
)
def test_a_bad_row_is_named_and_the_others_drawn(value: float, kind: type[DrawError], seed: int) -> None:
    case = make_case(9, SHAPE, seed)
    good = case.draw()
    with pytest.raises(kind, match="rows 4") as caught:
        spoiled(case, 4, value).draw()
    error = caught.value
    assert error.rows == [4]
    assert (error.no_candidate == [4]) == (kind is NoCandidateError)
    assert (error.invalid == [4]) == (kind is InvalidLogitsError)
    good[4] = -1
    assert torch.equal(error.classes, good)


@pytest.mark.parametrize("revealed", [[10, 10], [5, 10], [-1, 0]])
def test_digits_that_name_no_class(revealed: list[int]) -> None:
    """101 classes in base 11: codes end at (9, 1)."""
    case = make_case(3, SHAPE)
    shown = case.revealed.clone()
    codes = case.codes[(case.codes != torch.tensor([5, 10])).any(1)]
    shown[2] = torch.tensor(revealed)
    case = dataclasses.replace(case, codes=codes, logits=case.logits[:, : len(codes)].clamp(-9, 9), revealed=shown)
    with pytest.raises(NoCandidateError) as caught:
        case.draw_unfiltered()
    assert caught.value.rows[-1] == 2
    assert caught.value.classes[2] == -1


def test_both_kinds_at_once() -> None:
    case = spoiled(spoiled(make_case(20, SHAPE), 3, math.nan), 11, -math.inf)
    with pytest.raises(InvalidLogitsError) as caught:
        case.draw()
    assert (caught.value.invalid, caught.value.no_candidate, caught.value.rows) == ([3], [11], [3, 11])


def test_contradicting_classes_may_be_anything() -> None:
    case = make_case(9, SHAPE, seed=2)
    contradicting = ~((case.codes == case.revealed[:, None]) | (case.revealed[:, None] > case.codes.max())).all(2)
    poisoned = case.logits.masked_fill(contradicting, math.nan)
    assert torch.equal(dataclasses.replace(case, logits=poisoned).draw(), case.draw())


def test_many_rows_are_listed_in_short() -> None:
    case = make_case(30, SHAPE)
    empty = dataclasses.replace(case, logits=torch.full_like(case.logits, -math.inf))
    with pytest.raises(NoCandidateError, match=r"9, … \(30 rows\)"):
        empty.draw()


@pytest.mark.parametrize("temperature", [-0.1, math.nan, math.inf])
def test_temperatures_that_mean_nothing(temperature: float) -> None:
    case = make_case(2, SHAPE)
    with pytest.raises(ValueError, match="finite and not negative"):
        draw(case.logits, case.revealed, case.codes, case.seeds, case.events, temperature)


@pytest.mark.parametrize(
    ("field", "match"),
    [("logits", "don't fit"), ("revealed", "revealed must"), ("seeds", "seeds must"), ("top_p", "top_p must")],
)
def test_shapes_that_do_not_fit(field: str, match: str) -> None:
    case = make_case(4, SHAPE)
    short = {"logits": case.logits[:, 1:]}.get(field, getattr(case, field)[1:])
    with pytest.raises(ValueError, match=match):
        dataclasses.replace(case, **{field: short}).draw()


def test_seeds_of_another_dtype() -> None:
    case = make_case(4, SHAPE)
    with pytest.raises(ValueError, match="must be int64"):
        dataclasses.replace(case, seeds=case.seeds.double()).draw()
