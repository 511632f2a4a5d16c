"""What metrics cost: everything that an engine counts is counted, and the figures fit together."""

import json
from pathlib import Path

import pytest
from unmask_model_store import Bundle, open_bundle
from unmask_service.metrics import Metrics

from benchmarks.__main__ import run_one
from benchmarks.models import plan_of, spread_out
from benchmarks.serving import metrics_cost


@pytest.fixture
def writer_bundle(bundles: Path) -> Bundle:
    return open_bundle(bundles / "writer")


def test_all_that_belongs_to_a_tick_is_counted(writer_bundle: Bundle) -> None:
    metrics = Metrics("writer")
    metrics_cost.count_all(metrics, spread_out(writer_bundle, plan_of(writer_bundle, 3, seed=1), 0.5))
    counted = {
        sample.name: sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name.endswith(("_total", "_count"))
    }
    for name in ("ticks_total", "evaluation_seconds_count", "batch_samples_count", "batch_noise_spread_count"):
        assert counted[f"unmask_{name}"] == 1
    for name in ("network_evaluations_total", "sub_tokens_total", "rounds_total", "lanes_total"):
        assert counted[f"unmask_{name}"] == 3
    assert counted["unmask_batch_tokens_total"] == 3 * writer_bundle.denoiser.length


def test_the_figures_fit_together(bundles: Path, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    words = ["--model", str(bundles / "writer"), "--batches", "2", "--repeats", "3", "--json", str(file)]
    assert run_one("metrics_cost", words) == 0
    (tick,) = json.loads(file.read_text())["ticks"]
    assert tick["samples"] == 2
    assert tick["share"] == pytest.approx(tick["metrics_us"] / 1000 / tick["evaluation_ms"])
