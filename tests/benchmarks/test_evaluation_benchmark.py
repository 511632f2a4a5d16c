"""What an evaluation costs: the baseline computes what ours does, products are counted right, ratios are of one run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from unmask_diffusion import NetworkShape, UNetShape, evaluate
from unmask_model_store import Bundle, open_bundle
from unmask_service.metrics import Metrics

from benchmarks.__main__ import run_one
from benchmarks.evaluation import rows as evaluation_rows
from benchmarks.evaluation import sampler_cost, sizes
from benchmarks.evaluation.clock import Parts, clocks_around, in_turns, timed_evaluation
from benchmarks.evaluation.papers_sampler import PapersNetwork
from benchmarks.evaluation.pictures import BareConvolutions, measured_pictures, random_unet
from benchmarks.evaluation.products import BareProducts, Product, products_of
from benchmarks.machine_limits import copy_bandwidth, product_rate
from benchmarks.models import half_revealed, on_its_way, plan_of, random_model, spread_out
from tests.helpers import random_network

LENGTH, DIGITS = 24, 2  # of the bundle `writer`
SHAPE = NetworkShape(length=40, vocabulary_size=500, sub_tokens_per_token=4, base=5, hidden_size=16, blocks=3, heads=2)
KEYS = ("seconds", "ratio_to_reference", "ratio_to_matmul", "peak_bytes", "split")


@pytest.fixture
def writer_bundle(bundles: Path) -> Bundle:
    return open_bundle(bundles / "writer")


def test_samples_on_their_way_are_where_they_should_be(writer_bundle: Bundle) -> None:
    plan = plan_of(writer_bundle, 2, seed=1)
    each = on_its_way(writer_bundle, plan, 1, step=10)
    known = (each.digits.flatten() != writer_bundle.sub_tokenizer.mask_id).nonzero()[:, 0]
    assert known.tolist() == sorted(place for step in plan.schedules[1].steps[:10] for place in step.reveal)
    assert each.steps[each.step] == plan.schedules[1].steps[10]
    assert [each.step for each in spread_out(writer_bundle, plan, 0.5)] == [12, 36]


def test_half_revealed_samples_show_every_number_of_digits() -> None:
    model = random_model(SHAPE, torch.float32)
    for shown, each in enumerate(half_revealed(model)):
        assert int((each.digits != SHAPE.base).sum()) == SHAPE.length * SHAPE.sub_tokens_per_token // 2
        token = each.digits[each.steps[each.step].reveal[0] // SHAPE.sub_tokens_per_token]
        assert int((token != SHAPE.base).sum()) == shown


def test_random_models_are_the_same_in_every_dtype() -> None:
    ours, half = (
        dict(random_model(SHAPE, dtype).denoiser.named_parameters()) for dtype in (torch.float32, torch.bfloat16)
    )
    assert any(parameter.dtype == torch.bfloat16 for parameter in half.values())
    for name, parameter in ours.items():
        assert torch.equal(parameter.to(half[name].dtype), half[name]), name


@pytest.mark.parametrize("absolute_positions", [False, True])
def test_the_papers_network_gives_the_logits_of_ours(absolute_positions: bool) -> None:
    """float32 sums in another order: of logits with a deviation of some 10."""
    network = random_network(NetworkShape(12, 50, 2, 8, 32, 3, 4, absolute_positions), seed=3)
    sub_tokens = torch.randint(9, (3, 10, 2), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        PapersNetwork(network).joint_logits(sub_tokens), network.joint_logits(sub_tokens), rtol=0, atol=1e-3
    )


def test_clocks_change_nothing(writer_bundle: Bundle) -> None:
    batch = spread_out(writer_bundle, plan_of(writer_bundle, 3, seed=1), 0.5)
    with clocks_around(writer_bundle) as clock:
        outcomes = evaluate(writer_bundle, batch)
    before = dict(clock.seconds)
    assert set(before) == {"trunk", "products", "attention", "head and draw"}
    assert outcomes == evaluate(writer_bundle, batch)
    assert clock.seconds == before


def test_the_parts_of_an_evaluation_make_the_whole(writer_bundle: Bundle) -> None:
    parts = timed_evaluation(writer_bundle, spread_out(writer_bundle, plan_of(writer_bundle, 2, seed=1), 0.5))
    assert min(parts.values()) > 0
    assert parts["total"] == pytest.approx(parts["trunk"] + parts["head and draw"] + parts["rest"])
    assert parts["trunk"] == pytest.approx(parts["products"] + parts["attention"] + parts["elementwise"])


def test_turns_alternate_and_medians_leave_the_first_out() -> None:
    calls: list[str] = []

    def way(name: str) -> Callable[[int], Parts]:
        def run(turn: int) -> Parts:
            calls.append(name)
            return {"total": 1000.0 if len(calls) <= 2 else float(turn)}

        return run

    medians = in_turns({"often": way("often"), "seldom": way("seldom")}, {"often": 4, "seldom": 2}, "")
    assert "".join(name[0] for name in calls) == "os" + "os" + "o" + "os" + "o"
    assert medians == {"often": {"total": 1.5}, "seldom": {"total": 1.0}}


def test_products_are_those_of_the_evaluation() -> None:
    """Blocks before the last compute every row, the last one a tile of rows (64; of queries at most 32)."""
    model = random_model(SHAPE, torch.float32)
    plan = plan_of(model, 2, seed=1)
    products = products_of(model, [on_its_way(model, plan, i, 0) for i in range(2)])
    rows, hidden, heads = 128, 16, 2  # 2 canvases of 40 tokens, in whole tiles of 64
    earlier = 2 * 2 * rows * 12 * hidden**2
    last = 2 * rows * 2 * hidden**2 + 2 * 64 * 10 * hidden**2
    assert sum(each.flops for each in products if each.kind == "linear") == earlier + last
    attended = sum(each.flops for each in products if each.kind == "attention")
    assert attended == 2 * heads * 4 * 8 * 40 * (2 * 40 + 32)
    (head,) = [each for each in products if each.kind == "head"]
    assert (head.rows, head.inner, head.columns) == (2, hidden, 500)


def test_bytes_are_of_operands_and_results() -> None:
    assert Product("linear", 2, 3, 5).bytes_moved(torch.bfloat16) == 2 * (6 + 15 + 10)
    assert Product("attention", 2, 3, 5, count=7).bytes_moved(torch.float32) == 4 * 7 * (6 + 15 + 15 + 6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bare_products_take_time_of_every_kind(dtype: torch.dtype) -> None:
    model = random_model(SHAPE, dtype)
    plan = plan_of(model, 1, seed=1)
    bare = BareProducts(products_of(model, [on_its_way(model, plan, 0, 0)]), dtype, torch.device("cpu"))
    seconds = bare.seconds()
    assert set(seconds) == {"linear", "attention", "head"}
    assert min(seconds.values()) > 0


def test_limits_are_what_the_clock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.machine_limits.seconds_of", lambda *_: 0.5)
    assert product_rate(torch.float32, torch.device("cpu"), size=8) == 2 * 8**3 / 0.5
    assert copy_bandwidth(torch.device("cpu"), megabytes=1) == 2 * (1 << 20) / 0.5


def test_the_limit_that_binds_a_product_counts() -> None:
    limits = evaluation_rows.Limits({"float32": 50.0}, copy_bandwidth=10.0)
    products = [Product("linear", 50, 50, 50), Product("head", 1, 1, 50)]
    by_rate, by_bandwidth = 2 * 50**3 / 50, 4 * (1 + 50 + 50) / 10
    assert limits.least_seconds(products, torch.float32) == by_rate + by_bandwidth


def few_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = evaluation_rows.Limits({"float32": 1e10, "bfloat16": 1e10}, 1e10)
    monkeypatch.setattr(evaluation_rows, "limits_here", lambda _: limits)


def test_the_small_size_writes_its_figures_and_nothing_else_to_stdout(
    bundles: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few_limits(monkeypatch)
    sizes_given = ["--size", "small", "--model", str(bundles / "writer"), "--rounds", "2", "--reference-rounds", "1"]
    run_one("evaluation", [*sizes_given, "--threads", "1", "--json"])
    figures = json.loads(capsys.readouterr().out)
    assert figures["samples"] == 8
    rows = {row["dtype"]: row for row in figures["rows"]}
    assert "float32" in rows
    for row in rows.values():
        assert row["ratio_to_reference"] == figures["reference"]["total"] / row["seconds"]
        assert row["ratio_to_matmul"] == row["seconds"] / sum(row["bare_products"].values())
        assert 50 << 20 < row["peak_bytes"] < 1 << 30
    assert {key: figures[key] for key in KEYS} == {key: rows[figures["dtype"]][key] for key in KEYS}
    assert len(figures["figures"]) == 2


def test_the_official_size_has_all_its_figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    few_limits(monkeypatch)
    monkeypatch.setattr(sizes, "OFFICIAL", SHAPE)
    monkeypatch.setattr(evaluation_rows, "measured_alone", lambda *_: 1 << 29)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    file = tmp_path / "evaluation.json"
    run_one("evaluation", ["--rounds", "2", "--reference-rounds", "1", "--json", str(file)])
    figures = json.loads(file.read_text())
    assert figures["samples"] == 1
    assert len(figures["half_revealed"]["share_by_digits_shown"]) == SHAPE.sub_tokens_per_token
    assert 0 < figures["half_revealed"]["head_and_draw_share"] < 1
    assert figures["gpu"].startswith("not measured")
    measures = {each["measure"]: each["value"] for each in figures["figures"]}
    assert measures["official size: GiB resident"] == 0.5
    assert (
        measures["official size, float32: times faster than the papers' step"]
        == figures["rows"][-1]["ratio_to_reference"]
    )


def test_a_model_without_a_network_is_refused(bundles: Path) -> None:
    with pytest.raises(SystemExit, match="no network"):
        run_one("evaluation", ["--size", "small", "--model", str(bundles / "table")])


def test_peak_memory_is_the_processes_own() -> None:
    """What a process has freed again still counts."""
    before = sizes.peak_bytes()
    filled = torch.ones(before + (64 << 20), dtype=torch.uint8)  # more than there has ever been
    del filled
    assert sizes.peak_bytes() >= before + (64 << 20)


def test_sampler_cost_writes_all_its_figures(bundles: Path, tmp_path: Path) -> None:
    file = tmp_path / "sampler_cost.json"
    given = ["--model", str(bundles / "writer"), "--json", str(file), "--batches", "1", "3", "--rounds", "2"]
    assert run_one("sampler_cost", given) == 0
    figures = json.loads(file.read_text())
    assert [each["samples"] for each in figures["milliseconds_an_evaluation"]] == [1, 3]
    assert set(figures["milliseconds_an_evaluation"][0]["parts"]) == set(sampler_cost.PARTS)
    assert all(each["metrics"] > 0 for each in figures["milliseconds_an_evaluation"])


def test_all_metrics_of_a_tick_are_counted(writer_bundle: Bundle) -> None:
    metrics = Metrics("writer")
    sampler_cost.count_all(metrics, spread_out(writer_bundle, plan_of(writer_bundle, 3, seed=1), 0.5))
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


def test_convolutions_of_pictures_are_counted() -> None:
    """The operations of a small network, counted by hand."""
    shape = UNetShape(4, 4, 3, 256, 2, 16, (96,), 1, (False,), 32)
    residual, skip = 2 * 9 * 96 * 96, 192 * 96  # the way up sees 192 maps
    down, middle = residual, 2 * residual + 4 * 96 * 96
    up = 2 * (9 * 192 * 96 + 9 * 96 * 96 + skip)
    attention = 2 * 16 * 96  # of a pixel: scores and values
    counted = BareConvolutions(random_unet(shape, torch.float32)).flops
    assert counted == shape.flops == 2 * 16 * (down + middle + up + 9 * 96 * 768 + attention)
    levels = UNetShape(8, 8, 3, 256, 2, 16, (96, 192), 2, (True, False), 32)
    assert BareConvolutions(random_unet(levels, torch.float32)).flops == levels.flops


def test_pictures_are_measured() -> None:
    numbers = measured_pictures(1, UNetShape(4, 4, 3, 256, 2, 16, (96,), 1, (False,), 32))
    assert [row["samples"] for row in numbers["rows"][:2]] == [1, 4]
    for row in numbers["rows"]:
        assert row["ratio_to_convolutions"] == row["seconds"] / row["bare_convolutions"]
