"""What the benchmark of speculation counts, on models of which the counts are known. Nothing here looks at seconds."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import pytest
import torch
from torch import Tensor
from unmask_diffusion import Denoiser, SampleError

from benchmarks.__main__ import BENCHMARKS, run_one
from benchmarks.speculation import speculation
from benchmarks.speculation.identity import compare
from benchmarks.speculation.measures import (
    Latency,
    Rounds,
    Stopwatch,
    count_right,
    count_rounds,
    exact_plan,
    markov_models,
    measure_latency,
    run_samples,
    samples_of,
)
from tests.helpers import DenoiserAround, ToyModel, markov_model, plan_for, prime_model, run_to_end, table_model

LENGTH = 12


class Deaf(DenoiserAround):
    """Gives every canvas the features of the masked one: every draft is right."""

    def __init__(self, inner: Denoiser, mask_id: int) -> None:
        super().__init__(inner)
        self.mask_id = mask_id

    def trunk(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        return super().trunk([torch.full_like(canvas, self.mask_id) for canvas in canvases], rows)


class Sociable(DenoiserAround):
    """Looks at how many canvases there are."""

    def trunk(self, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        return super().trunk(canvases, rows) * (1 if len(canvases) == 1 else -1)


def deaf() -> ToyModel:
    model = prime_model(length=LENGTH)
    return replace(model, denoiser=Deaf(model.denoiser, model.sub_tokenizer.mask_id))


def test_samples_that_join_and_leave_come_to_the_ends_that_they_have_alone() -> None:
    model = prime_model(length=LENGTH)
    plans = [plan_for(model, max_tokens=length, seed=length) for length in (3, 12, 7)]
    logs = [run_to_end(model, samples_of(model, plan))[0] for plan in plans]
    samples = [each for plan in plans for each in samples_of(model, plan)]
    runs = run_samples(model, samples, repeat(3), places=2)
    assert [run.log for run in runs] == logs
    assert all(len(run.lanes) < len(log) <= sum(run.lanes) for run, log in zip(runs, logs, strict=True))


def test_a_sample_that_cannot_go_on_is_at_its_end() -> None:
    model = table_model(4, 2, 2)
    model.denoiser.probabilities = torch.zeros(4, 4, dtype=torch.float64)  # type: ignore[attr-defined]
    (run,) = run_samples(model, samples_of(model, plan_for(model, seed=1)), repeat(2))
    assert [type(each) for each in run.log] == [SampleError]


def test_rounds_and_evaluations_where_every_draft_is_right() -> None:
    model = deaf()
    plan = exact_plan(model, LENGTH, samples=2, seed=1)
    counted = count_rounds("deaf", model, plan, [1, 4])
    # of 24 groups the first is revealed alone, then four a round, then the last three
    assert counted == [Rounds("deaf", 1, 24, 24, 24), Rounds("deaf", 4, 24, 7, 24)]


def test_drafts_are_counted_by_their_distance() -> None:
    for model, low, high in ((deaf(), 1.0, 1.0), (prime_model(length=LENGTH), 0.5, 0.99)):
        counted = count_right("model", model, exact_plan(model, LENGTH, samples=3, seed=1), [1, 4, 23, 24])
        assert [(each.distance, each.drafts) for each in counted] == [(1, 3 * 23), (4, 3 * 20), (23, 3)]
        assert low <= counted[0].share <= high


def test_the_markov_chains_differ_in_their_digits_alone() -> None:
    (_, one), (_, two) = markov_models(6)
    assert [each.sub_tokenizer.sub_tokens_per_token for each in (one, two)] == [1, 2]
    masked = [each.denoiser.joint_logits(each.sub_tokenizer.masked(6)[None]) for each in (one, two)]
    assert torch.equal(*masked)


def test_what_a_lane_allows_is_counted_from_rounds_and_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lanes that cost nothing more: what is allowed is the rounds' ratio."""
    monkeypatch.setattr(Stopwatch, "_time_one", lambda *_: 0.5)
    off, on = measure_latency(deaf(), LENGTH, [4], turns=2)
    assert (off.lanes, off.rounds, off.saved, off.allowed) == (1, 24, 1, 1)
    assert (on.lanes, on.rounds, on.evaluation_ms, on.allowed) == (4, 7, 500, 24 / 7)
    # lanes that cost their number: nothing is allowed where every lane is needed
    monkeypatch.setattr(Stopwatch, "_time_one", lambda _, __, lanes: float(lanes))
    assert measure_latency(deaf(), LENGTH, [4], turns=1)[1].allowed == 1


def test_an_evaluation_is_timed_with_all_its_lanes_wherever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def watch(denoiser: Deaf, canvases: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        seen.append(len(canvases))
        return trunk(denoiser, canvases, rows)

    trunk, model = Deaf.trunk, deaf()
    stopwatch = Stopwatch(model, LENGTH)
    monkeypatch.setattr(Deaf, "trunk", watch)
    for turn in range(3):
        stopwatch.time_evaluation(5, turn)
    assert set(seen) == {5}


@pytest.mark.parametrize("model", [prime_model(length=LENGTH), markov_model(6, LENGTH, 2)])
def test_no_log_differs(model: ToyModel) -> None:
    identity = compare(model, 30, seed=1)
    assert identity.requests == 30
    assert 30 <= identity.logs <= 60
    assert identity.reveals > 100
    assert (identity.alone, identity.company) == (0, 0)


def test_logs_that_differ_are_counted() -> None:
    model = prime_model(length=LENGTH)
    identity = compare(replace(model, denoiser=Sociable(model.denoiser)), 10, seed=1)
    assert identity.alone > 0
    assert identity.company > 0


def test_figures_are_those_of_the_best_lanes() -> None:
    latencies = [
        Latency(tokens, lanes, rounds=9, evaluation_ms=1, seconds=1, saved=saved, allowed=allowed)
        for tokens, lanes, saved, allowed in ((100, 1, 1, 1), (100, 4, 1.6, 2.5), (100, 8, 1.8, 2.0), (7, 4, 3, 3))
    ]
    identity = compare(markov_model(4, 2, 2), 2, seed=1)
    figures = speculation.figures_of([Rounds("tales", 8, 200, 30, 230)], latencies, identity)
    assert [(each.value, each.met) for each in figures] == [
        (1.8, True),
        (1.8 / 2.5, False),
        (1.0, True),
        (1.15, True),
        (0, True),
    ]


def test_everything_is_written(bundles: Path, tmp_path: Path) -> None:
    files = {"--json": tmp_path / "new" / "speculation.json", "--png": tmp_path / "new" / "speculation.png"}
    given = ["--model", str(bundles / "writer"), *BENCHMARKS["speculation"].quick.split()]
    run_one("speculation", [*given, *(str(word) for option in files.items() for word in option)])
    written = json.loads(files["--json"].read_text())
    assert {each["model"] for each in written["rounds"]} == {
        "writer, l = 2",
        "Markov chain, l = 1",
        "Markov chain, l = 2",
    }
    assert {each["tokens"] for each in written["latency"]} == {12, 4}
    assert written["identity"]["alone"] == written["identity"]["company"] == 0
    assert written["figures"][-1]["met"]
    assert files["--png"].read_bytes().startswith(b"\x89PNG")
