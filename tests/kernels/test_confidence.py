"""The confidence of masked digits, held to sums in plain Python."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from unmask_kernels import Measure, confidence

from tests.helpers import code_table

MEASURES: tuple[Measure, ...] = ("confidence", "top", "margin", "entropy")


def naive(
    logits: list[float], revealed: list[int], codes: list[list[int]], chosen: int, measure: Measure, temperature: float
) -> list[float]:
    mask = max(map(max, codes)) + 1
    weights = [
        math.exp(logit / temperature) if all(d in (mask, c) for d, c in zip(revealed, code, strict=True)) else 0.0
        for logit, code in zip(logits, codes, strict=True)
    ]
    found = []
    for j, digit in enumerate(revealed):
        if digit != mask:
            found.append(-math.inf)
            continue
        marginal = [0.0] * mask
        for weight, code in zip(weights, codes, strict=True):
            marginal[code[j]] += weight / sum(weights)
        first, second = sorted([*marginal, 0.0], reverse=True)[:2]
        values = {
            "confidence": marginal[codes[chosen][j]],
            "top": first,
            "margin": first - second,
            "entropy": sum(m * math.log(m + 1e-10) for m in marginal),
        }
        found.append(values[measure])
    return found


@pytest.mark.parametrize("measure", MEASURES)
@given(
    sizes=st.sampled_from([(7, 1, 7), (7, 2, 3), (13, 3, 3), (1, 1, 1)]),
    temperature=st.sampled_from([0.3, 1.0, 2.0]),
    seed=st.integers(0, 1000),
)
def test_it_is_that_of_the_digits_marginal(
    measure: Measure, sizes: tuple[int, int, int], temperature: float, seed: int
) -> None:
    codes = code_table(*sizes).codes
    generator = torch.Generator().manual_seed(seed)
    rows = 5
    logits = torch.randn(rows, len(codes), generator=generator)
    chosen = torch.randint(len(codes), (rows,), generator=generator)
    hidden = torch.rand(rows, codes.shape[1], generator=generator) < 0.6
    revealed = codes[chosen].where(~hidden, sizes[2])
    found = confidence(logits, revealed, codes, chosen, measure, temperature=temperature)
    for row in range(rows):
        expected = naive(
            logits[row].tolist(), revealed[row].tolist(), codes.tolist(), int(chosen[row]), measure, temperature
        )
        assert found[row].tolist() == pytest.approx(expected, abs=1e-6)
        alone = confidence(logits[[row]], revealed[[row]], codes, chosen[[row]], measure, temperature=temperature)
        assert torch.equal(alone[0], found[row])


def test_filters_leave_their_classes_alone() -> None:
    codes = torch.arange(4)[:, None]
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    hidden, first = torch.tensor([[4]]), torch.tensor([0])
    assert confidence(logits, hidden, codes, first, "confidence", top_k=2).item() == pytest.approx(4 / 7)
    assert confidence(logits, hidden, codes, first, "margin", top_p=0.7).item() == pytest.approx(1 / 7)
    halves = -math.log(2)
    assert confidence(logits * 0, hidden, codes, first, "entropy", top_k=2).item() == pytest.approx(halves)


def test_temperature_zero_counts_as_one() -> None:
    codes = torch.tensor([*itertools.product(range(3), repeat=2)])
    logits = torch.randn(3, 9, generator=torch.Generator().manual_seed(0))
    hidden, chosen = torch.full((3, 2), 3), torch.tensor([0, 4, 8])
    one, zero = (
        confidence(logits, hidden, codes, chosen, "confidence", temperature=torch.tensor([t, 0.5, t]))
        for t in (1.0, 0.0)
    )
    assert torch.equal(one, zero)
