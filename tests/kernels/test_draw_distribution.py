"""Are draws distributed as they must be? Chi-square tests with fixed seeds.

Each test fails for correct code under one in a million of other seeds; with these seeds the outcome never changes.
"""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from unmask_kernels import categorical, draw
from unmask_kernels.categorical import keep_likely

from tests.kernels import plain

FALSE_ALARM = 1e-6
ROWS = 20_000
CODES = plain.digits(50, 8, 2)[torch.randperm(50, generator=torch.Generator().manual_seed(9))]
LOGITS = 2 * torch.randn(50, generator=torch.Generator().manual_seed(11))
NOTHING = [8, 8]


def draws(
    revealed: list[int], temperature: float, seed: int = 1, top_k: int = 0, top_p: float = 1.0, rows: int = ROWS
) -> torch.Tensor:
    """Many events of one request."""
    return draw(
        LOGITS.expand(rows, -1),
        torch.tensor(revealed).expand(rows, -1),
        CODES,
        torch.full((rows,), seed),
        torch.arange(rows),
        temperature,
        top_k=torch.full((rows,), top_k),
        top_p=torch.full((rows,), top_p),
    )


def assert_distributed(classes: torch.Tensor, probabilities: list[float]) -> None:
    """Cells with fewer than 10 expected draws are taken together."""
    counts = np.bincount(classes.numpy(), minlength=len(probabilities)).astype(float)
    expected = np.array(probabilities) * len(classes)
    assert counts[expected == 0].sum() == 0
    small = expected < 10
    counts, expected = (np.append(x[~small], x[small].sum()) for x in (counts, expected))
    possible = expected > 0
    if possible.sum() > 1:
        assert stats.chisquare(counts[possible], expected[possible]).pvalue > FALSE_ALARM


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0, 1.5, 10.0])
@pytest.mark.parametrize("revealed", [NOTHING, [3, 8], [8, 0], [2, 5]], ids=str)
def test_softmax_over_the_consistent(revealed: list[int], temperature: float) -> None:
    expected = plain.distribution(LOGITS, torch.tensor(revealed), CODES, temperature)
    assert_distributed(draws(revealed, temperature), expected)


@pytest.fixture
def filtered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Filter equal rows once: the filter is a function of its arguments, and most of the time of a small row."""
    known: dict[tuple[bytes, int, float], Tensor] = {}

    def remembered(scores: Tensor, top_k: Tensor, top_p: Tensor, _min_p: Tensor | None = None) -> Tensor:
        arguments = scores.numpy().tobytes(), int(top_k), float(top_p)
        if arguments not in known:
            known[arguments] = keep_likely(scores, top_k, top_p)
        return known[arguments]

    monkeypatch.setattr(categorical, "keep_likely", remembered)


@pytest.mark.usefixtures("filtered_once")
@pytest.mark.parametrize(("revealed", "temperature"), [(NOTHING, 0.7), ([8, 1], 1.3)], ids=str)
@pytest.mark.parametrize(
    ("top_k", "top_p"),
    [(1, 1.0), (7, 1.0), (60, 1.0), (0, 0.0), (0, 0.5), (0, 0.9), (0, 0.9999), (5, 0.8), (20, 0.3)],
)
def test_filters(revealed: list[int], top_k: int, top_p: float, temperature: float) -> None:
    expected = plain.distribution(LOGITS, torch.tensor(revealed), CODES, temperature, top_k, top_p)
    assert_distributed(draws(revealed, temperature, top_k=top_k, top_p=top_p, rows=10_000), expected)


@pytest.mark.parametrize("step", [1, 2**32], ids=["next event", "next sample"])
def test_neighbouring_events_are_independent(step: int) -> None:
    """Class against class in a table of 8 x 8 cells."""
    logits = torch.zeros(ROWS, 8)
    nothing, codes = torch.full((ROWS, 1), 8), torch.arange(8)[:, None]
    events = torch.arange(ROWS) * 2
    one, two = (draw(logits, nothing, codes, torch.full((ROWS,), 3), events + move, 1.0) for move in (0, step))
    table = np.bincount((one * 8 + two).numpy(), minlength=64).reshape(8, 8)
    assert stats.chi2_contingency(table).pvalue > FALSE_ALARM


def test_neighbouring_seeds_are_independent() -> None:
    one, two = draws(NOTHING, 5.0, seed=2**62), draws(NOTHING, 5.0, seed=2**62 + 1)
    table = np.bincount((one % 7 * 7 + two % 7).numpy(), minlength=49).reshape(7, 7)
    assert stats.chi2_contingency(table).pvalue > FALSE_ALARM
