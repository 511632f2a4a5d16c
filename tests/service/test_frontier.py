"""Samplers measured against the truth: the measures by hand, the best of each budget, and the command, interrupted too.

Statistical tests have fixed seeds; `FALSE_ALARM_RATE` is that of one test.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import norm
from unmask_diffusion import MarkovDenoiser, SamplingError, TableDenoiser
from unmask_service import frontier
from unmask_service.frontier import (
    Cell,
    Criterion,
    Draw,
    Frontier,
    MarkovTruth,
    Settings,
    TableTruth,
    Value,
    best_within,
    draws_of,
    mean_and_error,
    measure,
    share_and_error,
    tables_of,
    truth_of,
    verdicts,
)
from unmask_service.frontier.measures import before_the_end, entropy, jackknife, repetition

from tests.helpers import FALSE_ALARM_RATE, code_table, markov_model, prime_model
from tests.helpers_command_line import Run

CLEARLY = float(norm.isf(FALSE_ALARM_RATE))


# --- measures ------------------------------------------------------------------------------------------------------


def chain_truth(length: int) -> MarkovTruth:
    """Begins with 0; 0 is followed by 0 or 1, equally likely, and 1 by 0 in three cases of four."""
    initial, transition = torch.tensor([1.0, 0.0]), torch.tensor([[0.5, 0.5], [0.75, 0.25]])
    return MarkovTruth(MarkovDenoiser(initial.log(), transition.log(), length, code_table(2, 1)), length)


def test_the_measures_of_a_chain_by_hand() -> None:
    truth = chain_truth(3)
    tokens = torch.tensor([[0, 0, 1], [0, 1, 1]])
    found = truth.values(tokens)
    # bigrams drawn: 00 once, 01 twice, 11 once; of the chain, as a mean over both places: 0 comes first, then either
    bigrams = torch.tensor([[0.5 + 0.25, 0.5 + 0.25], [0.375, 0.125]]) / 2
    assert torch.allclose(truth.bigrams.float(), bigrams)
    divergence = 0.25 * math.log(0.25 / 0.375) + 0.5 * math.log(0.5 / 0.375) + 0.25 * math.log(0.25 / 0.0625)
    assert found["bigrams"][0] == pytest.approx(divergence)
    # after 0: 1/3, 2/3 instead of 1/2, 1/2, in three of four cases; after 1: 0, 1 instead of 3/4, 1/4
    assert found["transitions"][0] == pytest.approx(0.75 / 6 + 0.25 * 0.75)
    nats = [-math.log(0.5 * 0.5), -math.log(0.5 * 0.25)]
    of_the_chain = math.log(2) + 0.5 * math.log(2) + 0.5 * entropy(torch.tensor([3, 1]))
    assert found["-log p"][0] == pytest.approx((sum(nats) / 2 - of_the_chain) / 3)
    assert found["-log p"][1] == pytest.approx(abs(nats[0] - nats[1]) / 2 / 3)
    assert found["entropy"][0] == pytest.approx(0.75 * entropy(torch.tensor([1, 2])))


def test_the_measures_of_a_table_by_hand() -> None:
    table = TableDenoiser(torch.tensor([[0.5, 0.25], [0.25, 0.0]]).log(), code_table(2, 1))
    truth = TableTruth(table, 2)
    found = truth.values(torch.tensor([[0, 0], [0, 1], [0, 1], [0, 0]]))
    assert found["distribution"][0] == pytest.approx((0 + 0.25 + 0.25) / 2)
    assert found["-log p"][0] == pytest.approx((1.5 - 1.5) * math.log(2), abs=1e-6)
    assert found["entropy"][0] == pytest.approx(math.log(2))
    with pytest.raises(SamplingError, match="1 of 2 samples have probability zero"):
        truth.values(torch.tensor([[0, 0], [1, 1]]))
    assert torch.allclose(TableTruth(table, 1).probabilities, torch.tensor([0.75, 0.25]).double())


def test_a_truth_draws_from_itself() -> None:
    truth = truth_of(markov_model(4, 16, 1), 16)
    drawn = truth.draw(400, seed=5)
    assert drawn is not None
    value, error = truth.values(drawn)["-log p"]
    assert abs(value) < CLEARLY * error
    table = TableTruth(TableDenoiser(torch.tensor([0.1, 0.2, 0.7]).log(), code_table(3, 1)), 1)
    value, error = table.values(table.draw(400, seed=5))["-log p"]
    assert abs(value) < CLEARLY * error


def test_errors_of_means_shares_and_statistics() -> None:
    values = torch.randn(16, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mean, error = mean_and_error(values[:, 0])
    # leaving out one of as many groups as there are values, the jackknife of a mean is its standard error
    assert jackknife(lambda some: float(some.mean()), values) == pytest.approx((mean, error))
    assert mean_and_error([2.0]) == (2.0, 0.0)
    assert share_and_error([True] * 4) == pytest.approx((1.0, math.sqrt(0.75 * 0.25 / 8)))


def test_the_measures_of_texts_by_hand() -> None:
    assert before_the_end(torch.tensor([1, 2, 9, 3, 9]), (9,)).tolist() == [1, 2]
    assert before_the_end(torch.tensor([9, 2]), (9,)).tolist() == [9]
    assert repetition(torch.tensor([1, 2, 3, 4, 1, 2, 3, 4])) == pytest.approx(1 / 5)
    assert repetition(torch.tensor([1, 2, 3])) == 0
    assert entropy(torch.tensor([2, 0, 2])) == pytest.approx(math.log(2))


def test_texts_are_scored_by_their_own_model() -> None:
    model = prime_model(classes=9, length=8, digits=2)
    truth = truth_of(model, 8, scored=4)
    assert [each.name for each in truth.criteria] == ["-log p", "entropy", "repetition"]
    drawn = truth.draw(2, 0)
    assert drawn is None
    found = truth.values(torch.zeros(3, 8, dtype=torch.int64))
    assert found["entropy"] == pytest.approx((0, 0))
    assert found["repetition"] == pytest.approx((4 / 5, 0))
    assert found["-log p"][0] > 0


# --- the best of a budget ------------------------------------------------------------------------------------------

CRITERIA = Criterion("good", "how good it is", "high"), Criterion("entropy", "of the samples", None)


def cell(name: str, evaluations: float, good: Value, entropy: Value = (2.0, 0.1)) -> Cell:
    return Cell(
        name, "random order", f"steps {evaluations:g}", {}, evaluations, 1.0, {"good": good, "entropy": entropy}
    )


def test_the_best_is_no_colder_than_the_truth_and_within_its_budget() -> None:
    cells = [
        cell("one at a time", 64, (0.9, 0.01)),
        cell("few", 8, (0.58, 0.01)),
        cell("plain", 16, (0.60, 0.01)),
        cell("like it", 16, (0.59, 0.01)),
        cell("worse", 16, (0.5, 0.01)),
        cell("colder", 16, (0.8, 0.01), (1.5, 0.1)),
        cell("cold by chance", 16, (0.59, 0.01), (1.7, 0.1)),
        cell("wide", 32, (0.7, 0.01)),
        Cell("none", "random order", "steps 16", {}, impossible="it cannot be"),
    ]
    frontier = Frontier(Settings("m", 2, 0, 4, 4), CRITERIA, {"good": (1, 0), "entropy": (2.0, 0.1)}, cells)
    best = best_within(frontier, 16)
    assert best.cell is not None
    assert best.cell.sampler == "plain"
    assert [each.sampler for each in best.as_good] == ["like it", "cold by chance", "few"]
    assert [each.sampler for each in best.colder] == ["colder"]
    said = verdicts(frontier, [4, 16, 32])
    assert said[0] == "4 evaluations: no sampler"
    assert said[1] == (
        "16 evaluations: plain (good 0.600 ± 0.010); not told from it by the noise: like it, cold by chance, few at 8; "
        "ahead, but colder: colder"
    )
    assert said[2].startswith("32 evaluations: wide")
    (table,) = tables_of(frontier, [16])
    assert table.caption == "none: it cannot be"
    names = [*table.columns[0].cells]
    assert names[:4] == ["the truth itself", "one at a time", "colder", "plain"]
    assert [*table.columns[-1].cells][2] == "colder"


def test_where_less_is_better_the_least_is_best() -> None:
    criteria = (replace(CRITERIA[0], better="low"), CRITERIA[1])
    cells = [cell("much", 16, (0.6, 0.01)), cell("little", 16, (0.2, 0.01))]
    frontier = Frontier(Settings("m", 2, 0, 4, 4), criteria, {"good": (0, 0), "entropy": (2.0, 0.1)}, cells)
    best = best_within(frontier, 16)
    assert best.cell == cells[1]
    assert not best.as_good


# --- the measurement -----------------------------------------------------------------------------------------------

CHAIN = markov_model(4, 24, 2)
SETTINGS = Settings("chain", 32, 0, 24, 4)


def measured(file: Path, *draws: Draw) -> Frontier:
    return measure(CHAIN, truth_of(CHAIN, 24), draws, SETTINGS, file)


def draw_of(name: str, temperature: float = 1.0, **sampler: object) -> Draw:
    return Draw(name, "random order", "exact", {"sampler": sampler, "temperature": temperature})


def test_a_lower_temperature_is_unmasked_and_few_steps_are_worse(tmp_path: Path) -> None:
    exact, cold, wide = draw_of("one at a time"), draw_of("cold", 0.5), draw_of("wide", steps=2)
    found = measured(tmp_path / "chain.json", exact, cold, wide)
    by_name = {each.sampler: each for each in found.cells}
    assert [found.is_colder(by_name[name]) for name in ("one at a time", "cold", "wide")] == [False, True, False]
    assert by_name["one at a time"].evaluations == 48
    assert by_name["wide"].evaluations == 2
    assert by_name["wide"].values["bigrams"][0] > 2 * by_name["one at a time"].values["bigrams"][0]
    assert by_name["cold"].values["-log p"][0] < 0 < by_name["wide"].values["-log p"][0]


def test_every_contender_can_be_drawn() -> None:
    draws = draws_of(CHAIN, [4])
    assert len({(each.contender, each.setting) for each in draws}) == len(draws)
    assert ("threshold", "bound 0.9") in [(each.contender, each.setting) for each in draws]
    for each in draws:
        (plan,) = frontier.plans_of(CHAIN, each.request, 2)
        assert plan.network_evaluations <= 2 * 4 or each.setting == "exact" or each.setting.startswith("bound")


def test_what_is_measured_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, draws = tmp_path / "new" / "chain.json", draws_of(CHAIN, [2, 4], ["groups", "confidence"])
    assert [(each.contender, each.setting) for each in draws] == [
        ("one at a time", "exact"),
        *[(name, f"steps {k}") for k in (2, 4) for name in ("groups", "confidence")],
    ]
    whole = measured(tmp_path / "whole.json", *draws)
    real, drawn = frontier.draw, list[Any]()

    def stop_at_the_third(*given: Any) -> Any:  # noqa: ANN401 — draw's own
        drawn.append(given)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr("unmask_service.frontier.grid.draw", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        measured(file, *draws)
    assert len(Frontier.load(file).cells) == 2
    reports: list[tuple[str, int, int]] = []
    found = measure(CHAIN, truth_of(CHAIN, 24), draws, SETTINGS, file, lambda *each: reports.append(each))
    assert len(drawn) == 6, "two cells, the interrupted one, and the three that were left"

    def timeless(frontier: Frontier) -> list[Cell]:
        return [replace(each, seconds=0) for each in frontier.cells]

    assert timeless(found) == timeless(whole) == timeless(Frontier.load(file))
    assert reports[0] == ("confidence, steps 2", 0, 32 * (2 + 4 + 4))
    assert reports[-1] == ("", 320, 320)


# --- the command ---------------------------------------------------------------------------------------------------


def read(file: Path) -> Mapping[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_the_command_measures_any_model(run: Run, bundles: Path, tmp_path: Path) -> None:
    wanted = [
        "--samples",
        "2",
        "--evaluations",
        "3,6",
        "--scored",
        "4",
        "--sampler",
        "groups",
        "--sampler",
        "ancestral",
    ]
    for name, first in (("writer", "-log p"), ("table", "distribution"), ("pixels", "bigrams")):
        file = tmp_path / f"{name}.json"
        ended = run("frontier", bundles / name, *wanted, "--out", file, "--threads", "1")
        assert ended.code == 0, ended.stderr
        found = read(file)
        assert found["criteria"][0]["name"] == first
        assert [each["sampler"] for each in found["cells"]] == ["one at a time", *["groups", "ancestral"] * 2]
        assert file.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
        for words in ("3 evaluations: ", "6 evaluations: ", f"wrote {file}", first):
            assert words in ended.stdout, name
        assert "now groups, steps 3" in ended.stderr
    again = run("frontier", bundles / "table", *wanted, "--out", tmp_path / "table.json")
    assert again.code == 0
    assert "now" not in again.stderr, "nothing is measured again"


@pytest.mark.parametrize(
    ("options", "needle"),
    [
        (["--evaluations", "4,x"], "evaluations is '4,x'"),
        (["--evaluations", "0"], "each is at least 1"),
        (["--max-tokens", "3"], "max-tokens is 3; the model's length is 2 tokens"),
        (["--sampler", "best"], "sampler 'best' is none of these: groups"),
        (["--samples", "3"], "has other settings"),
        (["--out", "{broken}"], "is no frontier's JSON"),
    ],
)
def test_what_cannot_be_measured(run: Run, bundles: Path, tmp_path: Path, options: list[str], needle: str) -> None:
    file, broken = tmp_path / "kept.json", tmp_path / "broken.json"
    Frontier(Settings("table", 2, 0, 2, 16), CRITERIA, None).save(file)
    broken.write_text('{"cells": []}')
    given = ["--samples", "2", "--out", str(file), *(each.format(broken=broken) for each in options)]
    ended = run("frontier", bundles / "table", *given)
    assert ended.code == 2
    assert needle in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
