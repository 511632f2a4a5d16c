"""24 bits lose rare classes: computed as the specification's table has it, and drawn as the draw itself does it."""

from math import log
from pathlib import Path

import pytest
import torch
from scipy.stats import binom
from torch import Tensor
from unmask_diffusion import evaluate
from unmask_kernels import draw
from unmask_kernels.philox import gumbel_from_words
from unmask_model_store import open_bundle

from benchmarks.models import plan_of, spread_out
from benchmarks.papers.drawing import unigram_entropy
from benchmarks.papers.few_bits import (
    SEED,
    RareMass,
    computed_in_the_tail,
    computed_on_a_grid,
    count_wins,
    greatest_noise,
    gumbel_on_24_bits,
    rare_wins,
)
from benchmarks.papers.precision import MaskAmongClasses, mass_table, noise_of_24_bits
from tests.helpers import FALSE_ALARM_RATE, chi_square_p, table_model


@pytest.mark.parametrize(("eps", "mass"), [(1e-6, 0.0486), (1e-7, 0.00366), (1e-8, 7.78e-6)])
def test_24_bits_lose_what_was_computed_before(eps: float, mass: float) -> None:
    assert computed_on_a_grid(eps) == pytest.approx(mass, rel=2e-3)


@pytest.mark.parametrize("eps", [1e-9, 1e-7, 1e-5])
def test_64_bits_lose_nothing(eps: float) -> None:
    assert computed_in_the_tail(eps) == pytest.approx(50_000 * eps, rel=1e-5)


def test_a_small_grid_is_summed_right() -> None:
    """Two rare classes on a grid of 4 bits: every triple of uniforms counted."""
    eps, size = 0.1, 16
    ratio = eps / (1 - 2 * eps)
    wins = sum(
        max(first, second) / size > (common / size) ** ratio
        for common in range(size)
        for first in range(size)
        for second in range(size)
    )
    assert computed_on_a_grid(eps, rare=2, bits=4) == pytest.approx(wins / size**3)


def test_noise_of_24_bits_is_that_of_float32_uniforms() -> None:
    words = torch.tensor([0, 255, 256, 2**32 - 1])
    noise = gumbel_on_24_bits(words, torch.zeros(4, dtype=torch.int64))
    uniforms = torch.tensor([1 - 2.0**-24, 1 - 2.0**-24, 1 - 2.0**-23, 0.0])
    assert torch.equal(noise, uniforms.log().neg().log().neg().double())
    assert float(noise[0]) == pytest.approx(24 * log(2), rel=1e-6)


@pytest.mark.parametrize("eps", [1e-4, 1e-3])
def test_rare_classes_win_where_the_draw_draws_one(eps: float) -> None:
    """A class of 300 rare ones by `draw` itself, in the rows where the short cut says so."""
    rare, rows = 300, 200
    wins = rare_wins(gumbel_from_words(*greatest_noise(range(rows), rare)), eps, torch.float64, rare)
    logits = torch.full((rows, rare + 1), log(eps))
    logits[:, 0] = log(1 - rare * eps)
    codes, masked = torch.arange(rare + 1)[:, None], torch.full((rows, 1), rare + 1)
    drawn = draw(logits, masked, codes, torch.full((rows,), SEED), torch.arange(rows), 1.0)
    assert 0 < int(wins.sum()) < rows
    assert torch.equal(wins, drawn > 0)


def test_wins_are_as_many_as_the_mass() -> None:
    """A mass of 1/2, where 24 bits lose a thousandth: both counts are binomial."""
    rows, eps = 300, 1e-5
    counts = count_wins(range(rows), [eps])
    for count in counts[:, 0].tolist():
        assert FALSE_ALARM_RATE / 2 < binom.cdf(count, rows, 0.5) < 1 - FALSE_ALARM_RATE / 2


def test_each_mass_stands_under_a_name_of_its_own() -> None:
    mass = RareMass(1e-6, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, rows=10)
    table = mass_table([mass])
    assert dict(zip(table.columns, table.rows[0], strict=True)) == {
        "eps": "1e-06",
        "true": "0.1",
        "cut off at 16.64": "0.4",
        "24 bits, computed": "0.2",
        "24 bits, drawn": "0.5",
        "64 bits, computed": "0.3",
        "64 bits, drawn": "0.6",
    }


def test_entropy_is_of_the_tokens_frequencies() -> None:
    assert unigram_entropy(torch.tensor([5, 5, 5])) == 0
    assert unigram_entropy(torch.tensor([1, 1, 2, 3])) == pytest.approx(0.5 * log(2) + 0.5 * log(4))


def test_the_noise_of_the_sampler_is_exchanged_and_put_back(bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_bundle(bundles / "writer")
    samples = spread_out(model, plan_of(model, 8, seed=1), 0.5)
    before = evaluate(model, samples)
    made: list[int] = []

    def noted(high: Tensor, low: Tensor) -> Tensor:
        made.append(len(high))
        return -gumbel_on_24_bits(high, low)  # so that other classes win

    monkeypatch.setattr("benchmarks.papers.precision.gumbel_on_24_bits", noted)
    with noise_of_24_bits():
        assert evaluate(model, samples) != before
    assert sum(made) > 0
    assert evaluate(model, samples) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_mask_among_classes_draws_from_its_law(dtype: torch.dtype) -> None:
    """Chi-square over one token of 5 classes in two steps; nothing is rare enough for 24 bits."""
    model = table_model(5, 1, 1, 5, seed=3)
    drawn = MaskAmongClasses(model, dtype, steps=2).sample(4000)
    law = model.denoiser.joint_logits(torch.full((1, 1, 1), 5))[0, 0].double().softmax(0)
    counts: dict[tuple[int, ...], int] = {(c,): int((drawn == c).sum()) for c in range(5)}
    assert chi_square_p(counts, {(c,): float(law[c]) for c in range(5)}) > FALSE_ALARM_RATE


def test_the_mask_keeps_its_share() -> None:
    rows, share = 4000, 0.3
    classes = torch.full((rows, 5), 0.2)
    drawn = MaskAmongClasses(table_model(5, 1, 1, 5), torch.float32, steps=1).draw(classes, share)
    shown = int((drawn >= 0).sum())
    assert FALSE_ALARM_RATE / 2 < binom.cdf(shown, rows, share) < 1 - FALSE_ALARM_RATE / 2


def test_float32_noise_cannot_lift_a_rare_class_over_the_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class of 1e-8 with the luckiest noise that a dtype has, beside a mask with median noise."""

    def luckiest(rows: int, columns: int, *, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
        del generator
        uniform = torch.full((rows, columns), 1 - (2.0**-24 if dtype == torch.float32 else 2.0**-53), dtype=dtype)
        uniform[:, -1] = 0.5
        return uniform

    model = table_model(5, 1, 1, 5)
    monkeypatch.setattr(torch, "rand", luckiest)
    drawn = {
        d: MaskAmongClasses(model, d, 1).draw(torch.ones(1, 1), 1e-8).item() for d in (torch.float32, torch.float64)
    }
    assert drawn == {torch.float32: -1, torch.float64: 0}
