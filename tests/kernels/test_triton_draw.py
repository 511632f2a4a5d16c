"""The draw's kernels against the reference: the same class, but for ties within float32."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from unmask_kernels import InvalidLogitsError, NoCandidateError, draw
from unmask_kernels.categorical import draw_reference
from unmask_kernels.consistency import agrees, code_facts
from unmask_kernels.philox import gumbel_from_words, halves, philox_4x32

from tests.kernels import plain
from tests.kernels.cases import Case, make_case
from tests.kernels.test_noise import DEEP
from tests.kernels.test_offsets import offset_draws

# in the interpreter NumPy warns of what a GPU does without a word
pytestmark = [pytest.mark.triton, pytest.mark.filterwarnings("ignore::RuntimeWarning")]
FALSE_ALARM = 1e-6
SHAPES = [(101, 101, 1), (101, 11, 2), (500, 8, 3), (500, 5, 4), (101, 3, 5)]


def natural(case: Case) -> Case:
    """The case with its classes in the order of their codes: these are the digits of the class then."""
    base = int(case.codes.max()) + 1
    powers = base ** torch.arange(case.codes.shape[1] - 1, -1, -1)
    order = (case.codes * powers).sum(1).argsort()
    return dataclasses.replace(case, codes=case.codes[order], logits=case.logits[:, order])


def plainly(case: Case) -> Case:
    """The case without top_k and top_p."""
    return dataclasses.replace(case, top_k=case.top_k * 0, top_p=case.top_p * 0 + 1)


def with_revealed(case: Case, pattern: str) -> Case:
    """All rows with none or all of their digits revealed, or as they are."""
    if pattern == "none":
        return dataclasses.replace(case, revealed=torch.full_like(case.revealed, int(case.codes.max()) + 1))
    if pattern == "all":
        return dataclasses.replace(case, revealed=case.codes[case.logits.float().argmax(1)])
    return case


def on(device: torch.device, case: Case) -> Case:
    return Case(**{name: value.to(device) for name, value in vars(case).items()})


def draw_on(device: torch.device, logits: Tensor, revealed: Tensor, codes: Tensor, events: Tensor) -> Tensor:
    """Draws of seed 7 at temperature 1."""
    seeds = torch.full_like(events, 7).to(device)
    return draw(logits.to(device), revealed.to(device), codes.to(device), seeds, events.to(device), 1.0).cpu()


def scores(case: Case) -> Tensor:
    """What the reference compares, float64 [N, C]; noise is none at temperature 0."""
    logits = case.logits.double().masked_fill(~agrees(case.revealed, case.codes), -math.inf)
    temperature = case.temperature[:, None]
    classes = torch.arange(len(case.codes))[None]
    counter = (classes, *halves(case.events[:, None]), torch.tensor(0))
    noise = gumbel_from_words(*philox_4x32(counter, halves(case.seeds[:, None]))[:2])
    scaled = logits - logits.amax(1, keepdim=True)
    return torch.where(temperature == 0, scaled, scaled / temperature.where(temperature > 0, 1) + noise)


def assert_drawn(case: Case, drawn: Tensor) -> None:
    """The reference's classes, or ones whose score is within a millionth of theirs."""
    expected = plainly(case).draw_reference()
    for row in (drawn != expected).nonzero()[:, 0].tolist():
        pair = scores(case.take(torch.tensor([row])))[0, [int(drawn[row]), int(expected[row])]]
        assert float((pair[0] - pair[1]).abs()) <= 1e-6 * max(1.0, float(pair.abs().max())), (row, pair)


@pytest.mark.parametrize("order", ["natural", "permuted"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rows", [1, 3, 17])
def test_equals_the_reference(device: torch.device, rows: int, shape: tuple[int, int, int], order: str) -> None:
    case = make_case(rows, shape, seed=rows)
    case = natural(case) if order == "natural" else case
    assert (code_facts(case.codes).base > 0) == (order == "natural")
    assert_drawn(case, on(device, case).draw_unfiltered().cpu())


@pytest.mark.parametrize("order", ["natural", "permuted"])
@pytest.mark.parametrize("pattern", ["none", "all"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_patterns_and_types(device: torch.device, dtype: torch.dtype, pattern: str, order: str) -> None:
    case = make_case(3, (500, 8, 3), seed=2, dtype=dtype)
    case = with_revealed(natural(case) if order == "natural" else case, pattern)
    assert_drawn(case, on(device, case).draw_unfiltered().cpu())


@pytest.mark.parametrize(("shape", "order"), [((50257, 15, 4), "natural"), ((50257, 225, 2), "permuted")], ids=str)
def test_official_vocabulary(device: torch.device, shape: tuple[int, int, int], order: str) -> None:
    case = make_case(3, shape, seed=4)
    case = natural(case) if order == "natural" else case
    case.revealed[0] = shape[1]  # all masked; the others as they come
    case.temperature[:] = torch.tensor([1.0, 0.7, 0.0])
    assert_drawn(case, on(device, case).draw_unfiltered().cpu())


def test_a_row_does_not_know_the_batch(device: torch.device) -> None:
    """Alone, among others, in another order and at another address: the same classes."""
    case = on(device, plainly(natural(make_case(17, (2500, 14, 3), seed=6))))
    together = case.draw()
    order = torch.randperm(17, generator=torch.Generator().manual_seed(1)).to(device)
    assert torch.equal(case.take(order).draw(), together[order])
    assert torch.equal(case.take(torch.arange(5, 8, device=device)).draw(), together[5:8])
    tail = Case(case.codes, *(value[9:11] for name, value in vars(case).items() if name != "codes"))
    assert torch.equal(tail.draw(), together[9:11])


def test_strides_do_not_matter(device: torch.device) -> None:
    case = on(device, plainly(make_case(3, (500, 23, 2), seed=7)))
    drawn = case.draw()
    across = dataclasses.replace(case, logits=case.logits.T.contiguous().T)
    wide = dataclasses.replace(case, logits=torch.cat([case.logits, case.logits], 1)[:, :500])
    assert torch.equal(across.draw(), drawn)
    assert torch.equal(wide.draw(), drawn)


def test_filtered_rows_take_their_own_path(device: torch.device) -> None:
    case = with_revealed(plainly(make_case(9, (101, 11, 2), seed=8)), "none")
    case = dataclasses.replace(case, temperature=torch.full_like(case.temperature, 1e5))
    unfiltered = on(device, case).draw().cpu()
    case.top_k[::3] = 1
    case.top_p[1::3] = 1e-9
    drawn = on(device, case).draw().cpu()
    assert torch.equal(drawn[0::3], case.logits.argmax(1)[0::3])
    assert torch.equal(drawn[1::3], case.logits.argmax(1)[1::3])
    assert torch.equal(drawn[2::3], unfiltered[2::3])
    assert (drawn != unfiltered).any()


@pytest.mark.parametrize("order", ["natural", "permuted"])
def test_offsets_are_added_first(device: torch.device, order: str) -> None:
    """Some rows filtered, some digits revealed; of sets nothing but members comes out."""
    case = make_case(17, (500, 23, 2), seed=9)
    case = natural(case) if order == "natural" else case
    draws = offset_draws(case, seed=1)
    expected = draw_reference(case.logits, case.codes, draws)
    moved = on(device, case)
    drawn = draw(moved.logits, codes=moved.codes, **vars(draws.to(device))).cpu()
    assert torch.equal(drawn, expected)
    for one, offsets in zip(drawn.tolist(), draws.offsets, strict=True):
        assert offsets is None or not offsets.only or one in offsets.classes.tolist()


def test_float64_keeps_its_digits(device: torch.device) -> None:
    case = make_case(9, (101, 11, 2), seed=9, dtype=torch.float64)
    assert torch.equal(on(device, case).draw().cpu(), case.draw_reference())


def test_one_class(device: torch.device) -> None:
    assert on(device, make_case(3, (1, 2, 1))).draw().tolist() == [0] * 3


def test_no_rows(device: torch.device) -> None:
    assert on(device, make_case(1, (101, 11, 2)).take(torch.arange(0))).draw().shape == (0,)


@pytest.mark.parametrize("rising", [False, True])
def test_temperature_zero_takes_the_first_of_equals(device: torch.device, rising: bool) -> None:
    """Equals in one tile and in several."""
    logits = torch.zeros(1, 2500, device=device)
    logits[0, [2400, 1030, 1700, 1031]] = 5
    logits[0, 0] = 6 if rising else -6
    one, zero = torch.zeros(1, dtype=torch.int64, device=device), torch.zeros(1, device=device)
    codes = torch.arange(2500, device=device)[:, None]
    assert draw(logits, one[:, None] + 2500, codes, one, one, zero).tolist() == [0 if rising else 1030]


@pytest.mark.parametrize("scale", [1e4, -1e4, 1e30])
def test_great_logits_keep_their_noise(device: torch.device, scale: float) -> None:
    """A constant added to all logits changes nothing, though it is far greater than the noise."""
    case = with_revealed(plainly(natural(make_case(3, (2500, 50, 2), seed=10))), "none")
    case = on(device, dataclasses.replace(case, temperature=torch.ones_like(case.temperature)))
    flat = dataclasses.replace(case, logits=torch.zeros_like(case.logits))
    great = dataclasses.replace(case, logits=torch.full_like(case.logits, scale))
    assert torch.equal(great.draw(), flat.draw())


@pytest.mark.parametrize(("temperature", "like"), [(1e-300, 0.0), (1e300, 1e30)])
def test_temperatures_beyond_float32(device: torch.device, temperature: float, like: float) -> None:
    case = on(device, plainly(make_case(5, (500, 23, 2), seed=11)))
    drawn = [
        dataclasses.replace(case, temperature=torch.full_like(case.temperature, one)).draw()
        for one in (temperature, like)
    ]
    assert torch.equal(drawn[0], drawn[1])


def test_the_deep_tail_wins_when_it_should(device: torch.device) -> None:
    """The rare class wins exactly as long as the common one leads by less than their noise differs."""
    events = torch.tensor([event for event, _, _ in DEEP[:3] for _ in range(2)])
    logits = torch.full((6, 50_257), -math.inf)
    logits[:, 0] = 0
    winners = []
    for row, (event, rare, _) in enumerate(DEEP[:3]):
        lead = plain.gumbel(7, event, rare) - plain.gumbel(7, event, 0)
        logits[2 * row, rare], logits[2 * row + 1, rare] = -lead + 1e-5, -lead - 1e-5
        winners += [rare, 0]
    nothing, codes = torch.full((6, 1), 50_257), torch.arange(50_257)[:, None]
    assert draw_on(device, logits, nothing, codes, events).tolist() == winners


def test_draws_have_their_distribution(device: torch.device) -> None:
    """Chi-square through all of it, 150 draws in the interpreter; fails for correct code under 1e-6 of other seeds."""
    rows = 20_000 if device.type == "cuda" else 150
    logits = torch.tensor([0.0, 1.0, -1.0, 0.5, 2.0, -math.inf, 0.0])
    revealed, codes = torch.tensor([[3, 3]]), plain.digits(7, 3, 2)
    drawn = draw_on(device, logits.expand(rows, -1), revealed.expand(rows, -1), codes, torch.arange(rows))
    counts = np.bincount(drawn.numpy(), minlength=7)
    expected = np.array(plain.distribution(logits, revealed[0], codes)) * rows
    possible = expected > 0
    assert counts[~possible].sum() == 0
    assert stats.chisquare(counts[possible], expected[possible]).pvalue > FALSE_ALARM


def spoiled(case: Case, row: int, value: float) -> Case:
    """The case with the last consistent logit of a row replaced, or (for -inf) all of them."""
    logits = case.logits.clone()
    agreeing = agrees(case.revealed, case.codes)[row].nonzero()[:, 0]
    logits[row, agreeing if value == -math.inf else agreeing[-1]] = value
    return dataclasses.replace(case, logits=logits)


@pytest.mark.parametrize("order", ["natural", "permuted"])
def test_bad_rows_are_named_and_the_others_drawn(device: torch.device, order: str) -> None:
    case = plainly(make_case(9, (101, 11, 2), seed=12))
    case = natural(case) if order == "natural" else case
    good = on(device, case).draw()
    bad = spoiled(spoiled(spoiled(case, 2, math.nan), 5, -math.inf), 7, math.inf)
    with pytest.raises(InvalidLogitsError, match="rows 2, 7; no class is possible in rows 5") as caught:
        on(device, bad).draw()
    assert (caught.value.invalid, caught.value.no_candidate) == ([2, 7], [5])
    good[[2, 5, 7]] = -1
    assert torch.equal(caught.value.classes, good)


@pytest.mark.parametrize("order", ["natural", "permuted"])
@pytest.mark.parametrize("digits", [[10, 10], [9, 10], [-1, 0], [0, -1]])
def test_digits_that_name_no_class(device: torch.device, digits: list[int], order: str) -> None:
    """101 classes in base 11: codes end at (9, 1), so (9, 10) would be class 109."""
    case = plainly(make_case(2, (101, 11, 2), seed=13))
    case = natural(case) if order == "natural" else case
    case.revealed[1] = torch.tensor(digits)
    with pytest.raises(NoCandidateError) as caught:
        on(device, case).draw()
    assert caught.value.rows == [1]


@pytest.mark.parametrize("order", ["natural", "permuted"])
def test_contradicting_classes_may_be_anything(device: torch.device, order: str) -> None:
    case = plainly(make_case(9, (101, 11, 2), seed=14))
    case = natural(case) if order == "natural" else case
    poisoned = case.logits.masked_fill(~agrees(case.revealed, case.codes), math.nan)
    assert torch.equal(on(device, dataclasses.replace(case, logits=poisoned)).draw(), on(device, case).draw())
