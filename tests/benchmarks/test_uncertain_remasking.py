"""Remasking by uncertainty: with the choice at random it is the server's law, and each choice masks what it says."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from benchmarks import uncertain_remasking as benchmark
from benchmarks.__main__ import run_one
from tests.helpers import FALSE_ALARM_RATE, chi_square_p, random_table, table_model


@pytest.mark.parametrize("last", [False, True])
def test_many_steps_with_a_choice_at_random_are_the_table(last: bool) -> None:
    """Chi-square over all sequences, 1,500 samples; with 40 steps few sub-tokens share one."""
    model = table_model(4, 2, 2, 2, seed=21)
    at_random = benchmark.CHOICES["at random"]
    tokens, evaluations = benchmark.draw(model, 1500, 40, 0.05, at_random, last, seed=3)
    table = random_table(4, 2, 21).exp()
    expected: dict[tuple[int, ...], float] = {(a, b): float(table[a, b]) for a in range(4) for b in range(4)}
    assert chi_square_p(Counter(map(tuple, tokens.tolist())), expected) > FALSE_ALARM_RATE
    assert evaluations > 4  # some were drawn again


def test_what_is_masked_again() -> None:
    model = table_model(4, 2, 2, 2, seed=21)
    canvases = benchmark.Canvases(model, 2, seed=0)
    canvases.reveal(canvases.digits < 0, temperature=1.0)
    assert canvases.evaluations == 0
    canvases.digits[:] = 1
    canvases.sure = torch.tensor([[[0.9, 0.2], [0.5, 0.1]], [[0.1, 0.3], [0.2, 0.4]]])
    last = torch.tensor([False, True]).expand(2, 2, 2)
    canvases.mask(torch.tensor([1, 0]), last, benchmark.CHOICES["the smallest p"])
    assert (canvases.digits == canvases.mask_id).nonzero().tolist() == [[0, 1, 1]]
    assert float(canvases.sure[0, 1, 1]) == 0
    canvases.mask(torch.tensor([0, 4]), torch.ones(2, 2, 2, dtype=torch.bool), benchmark.CHOICES["by weights 1 - p"])
    assert bool((canvases.digits[1] == canvases.mask_id).all())


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "found.json"
    run_one(
        "uncertain_remasking",
        ["--model", "tales", "--samples", "1", "--steps", "2", "--rate", "1", "--json", str(file)],
    )
    found = json.loads(file.read_text())["variants"]
    assert [each["choice"] for each in found] == [*benchmark.CHOICES] * 2
    assert "the smallest p" in capsys.readouterr().out
