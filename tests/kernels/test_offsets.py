"""Offsets of logits: sets of classes that alone can be drawn, and what is added to logits."""

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from unmask_kernels import Draws, InvalidLogitsError, NoCandidateError, Offsets, agrees, draw, draw_from_hidden
from unmask_kernels.categorical import draw_reference
from unmask_kernels.head import draw_from_hidden_reference

from tests.helpers import FALSE_ALARM_RATE, chi_square_p
from tests.kernels.cases import Case, cases, make_case


def offset_draws(case: Case, seed: int) -> Draws:
    """The case with a set, additions, both, or nothing in each row; every set holds a class that can be drawn."""
    chance = random.Random(seed)
    possible = agrees(case.revealed, case.codes) & (case.logits > -torch.inf)
    offsets: list[Offsets | None] = []
    for row in possible:
        sure = chance.choice(row.nonzero()[:, 0].tolist())
        some = {sure, *(chance.randrange(len(row)) for _ in range(chance.choice([0, 1, 5, 40])))}
        values = {c: chance.choice([0.0, chance.uniform(-3, 3), 100.0, -100.0]) for c in some}
        offsets.append(chance.choice([None, Offsets(values, only=True), Offsets(values, only=False)]))
    return replace(case.draws, offsets=tuple(offsets))


def drawn(case: Case, draws: Draws) -> Tensor:
    return draw(case.logits, codes=case.codes, **vars(draws))


@given(cases, st.integers(0, 2**20))
def test_the_cpu_form_is_the_reference(case: Case, seed: int) -> None:
    draws = offset_draws(case, seed)
    found = drawn(case, draws)
    assert torch.equal(found, draw_reference(case.logits, case.codes, draws))
    for row, (offsets, one) in enumerate(zip(draws.offsets, found.tolist(), strict=True)):
        assert bool(agrees(case.revealed[row : row + 1], case.codes)[0, one])
        assert offsets is None or not offsets.only or one in offsets.classes.tolist()


@given(cases, st.integers(0, 2**20))
def test_a_row_does_not_depend_on_its_company(case: Case, seed: int) -> None:
    draws = offset_draws(case, seed)
    together = drawn(case, draws)
    for row in range(len(case.logits)):
        index = torch.tensor([row])
        assert torch.equal(drawn(case.take(index), draws.take(index)), together[index])


@given(st.integers(0, 2**20), st.sampled_from([(101, 11, 2), (500, 23, 2), (101, 3, 5)]), st.booleans())
def test_the_head_draws_what_its_logits_would(seed: int, shape: tuple[int, int, int], with_bias: bool) -> None:
    case = make_case(9, shape, seed)
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(9, 24, generator=generator)
    weight = torch.randn(shape[0], 24, generator=generator)
    bias = torch.randn(shape[0], generator=generator) if with_bias else None
    draws = offset_draws(replace(case, logits=torch.zeros_like(case.logits)), seed)
    found = draw_from_hidden(hidden, weight, bias, case.codes, draws)
    assert torch.equal(found, draw_from_hidden_reference(hidden, weight, bias, case.codes, draws))
    for row in range(9):
        index = torch.tensor([row])
        alone = draw_from_hidden(hidden[index], weight, bias, case.codes, draws.take(index))
        assert torch.equal(alone, found[index])


@pytest.mark.parametrize("values", [{1: 0.0, 2: 0.0, 5: 0.0}, {1: 2.0, 2: 0.0, 5: -1.0}])
@pytest.mark.parametrize("only", [True, False])
def test_classes_come_as_often_as_their_offset_logits_say(values: dict[int, float], only: bool) -> None:
    """One false alarm in 100,000 seeds; at temperature 2, which comes after the offsets."""
    logits = torch.tensor([0.3, -0.2, 1.0, 0.1, 0.8, -1.0], dtype=torch.float64)
    codes = torch.arange(6)[:, None]
    count = 4000
    classes = draw(
        logits.expand(count, 6),
        torch.full((count, 1), 6),
        codes,
        torch.full((count,), 3),
        torch.arange(count),
        2.0,
        offsets=[Offsets(values, only)] * count,
    )
    scores = [float(each) + values.get(c, 0.0) for c, each in enumerate(logits)]
    weights = {
        c: 0.0 if only and c not in values else torch.tensor(each / 2).exp().item() for c, each in enumerate(scores)
    }
    truth: dict[tuple[int, ...], float] = {(c,): weight / sum(weights.values()) for c, weight in weights.items()}
    counts: dict[tuple[int, ...], int] = {(c,): int(n) for c, n in enumerate(classes.bincount(minlength=6)) if n}
    assert chi_square_p(counts, truth) > FALSE_ALARM_RATE


def test_the_most_probable_class_is_that_of_the_offset_logits() -> None:
    logits = torch.tensor([[5.0, 1.0, 2.0, 3.0]])
    arguments = (torch.tensor([[4]]), torch.arange(4)[:, None], torch.tensor([1]), torch.tensor([1]), 0.0)
    assert draw(logits, *arguments, offsets=[Offsets({1: 0, 2: 0}, only=True)]).tolist() == [2]
    assert draw(logits, *arguments, offsets=[Offsets({1: 1.5, 2: 0}, only=True)]).tolist() == [1]
    assert draw(logits, *arguments, offsets=[Offsets({3: 2.5}, only=False)]).tolist() == [3]
    assert draw(logits, *arguments, offsets=[None]).tolist() == [0]


def test_a_set_without_a_possible_class_has_no_candidate() -> None:
    """Where digits contradict it, or where its classes have no probability; other rows are drawn."""
    codes = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    logits = torch.tensor([[1.0, 2.0, 3.0, 4.0], [1.0, -torch.inf, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]])
    revealed = torch.tensor([[1, 2], [2, 2], [2, 2]])
    sets = [Offsets({0: 0, 1: 0}, only=True), Offsets({1: 0}, only=True), Offsets({2: 0}, only=True)]
    zeros = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(NoCandidateError) as error:
        draw(logits, revealed, codes, zeros, zeros, 1.0, offsets=sets)
    assert error.value.no_candidate == [0, 1]
    assert error.value.classes.tolist() == [-1, -1, 2]


def test_what_is_out_may_be_anything() -> None:
    logits = torch.tensor([[torch.nan, 1.0, torch.inf]])
    arguments = (torch.tensor([[3]]), torch.arange(3)[:, None], torch.tensor([1]), torch.tensor([1]), 1.0)
    assert draw(logits, *arguments, offsets=[Offsets({1: 0}, only=True)]).tolist() == [1]
    with pytest.raises(InvalidLogitsError):
        draw(logits, *arguments, offsets=[Offsets({1: 0}, only=False)])


def test_there_is_one_for_each_row() -> None:
    with pytest.raises(ValueError, match="one a row"):
        draw(
            torch.zeros(2, 2),
            torch.full((2, 1), 2),
            torch.arange(2)[:, None],
            torch.zeros(2, dtype=torch.int64),
            torch.zeros(2, dtype=torch.int64),
            1.0,
            offsets=[None],
        )
