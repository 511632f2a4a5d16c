"""Every benchmark on tiny sizes: that they count right and end. Nothing here looks at a clock's figures."""

import json
import subprocess
from pathlib import Path

import pytest
from unmask_diffusion import MarkovDenoiser, SubTokenizer, evaluate
from unmask_model_store import Bundle, open_bundle

from benchmarks import __main__ as everything
from benchmarks import evaluation, http_overhead, sampler_error, tales_quality
from benchmarks.clock import clocks_around
from benchmarks.server import ServerError, ServerProcess

LENGTH, DIGITS = 24, 2  # of the bundle `writer`
NAMES = ("evaluation", "http_overhead", "tales_quality", "sampler_error")


@pytest.fixture
def writer_bundle(bundles: Path) -> Bundle:
    return open_bundle(bundles / "writer")


def test_samples_on_their_way_are_where_they_should_be(writer_bundle: Bundle) -> None:
    plan = evaluation.plan_of(writer_bundle, 2, seed=1)
    each = evaluation.on_its_way(writer_bundle, plan, 1, step=10)
    known = (each.digits.flatten() != writer_bundle.sub_tokenizer.mask_id).nonzero()[:, 0]
    assert known.tolist() == sorted(place for group in plan.schedules[1].groups[:10] for place in group)
    assert each.next_group == plan.schedules[1].groups[10]


def test_clocks_change_nothing(writer_bundle: Bundle) -> None:
    plan = evaluation.plan_of(writer_bundle, 3, seed=1)
    batch = [evaluation.on_its_way(writer_bundle, plan, i, step=i) for i in range(3)]
    with clocks_around(writer_bundle) as (timed, clock):
        outcomes = evaluate(timed, batch)
    before = dict(clock.seconds)
    assert set(before) == {"trunk", "head", "draw"}
    assert outcomes == evaluate(writer_bundle, batch)
    assert clock.seconds == before


def test_evaluation_writes_all_its_figures(bundles: Path, tmp_path: Path) -> None:
    file = tmp_path / "evaluation.json"
    sizes = "--batches 1 3 --rounds 2 --sampler-batches 2 --steps 16 --reference-steps 2 --repeats 1"
    evaluation.main(["--model", str(bundles / "writer"), "--json", str(file), *sizes.split()])
    figures = json.loads(file.read_text())
    assert [each["samples"] for each in figures["milliseconds_an_evaluation"]] == [1, 3]
    costs = {each["sampler"]: each for each in figures["samplers"]}
    assert list(costs) == ["exact", "ancestral", "papers, cache", "papers"]
    assert costs["exact"]["network_evaluations"] == LENGTH * DIGITS
    assert costs["exact"]["times_exact"] == 1
    assert costs["papers"]["network_evaluations"] == 16
    assert costs["ancestral"]["network_evaluations"] <= 16


def test_http_and_the_sampler_alone_give_the_same_answers(bundles: Path, writer_bundle: Bundle) -> None:
    bodies = http_overhead.bodies_of(writer_bundle, 5)
    assert {body["max_tokens"] for body in bodies} == {6, 12, 18, 24}
    with ServerProcess("--model", str(bundles / "writer"), "--threads", "1", "--dtype", "float32") as server:
        passes = http_overhead.compare(writer_bundle, server, bodies, places=2, repeats=1)
    evaluations = sum(DIGITS * body["max_tokens"] for body in bodies)
    assert len(passes) == 3
    assert all(evaluations / 2 <= each.ticks <= evaluations for each in passes)
    rows = http_overhead.summarise(passes, evaluations)
    assert [row["way"] for row in rows] == list(http_overhead.WAYS)
    assert [row["answers_that_differ"] for row in rows] == [0, 0, 0]


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="nowhere"), ServerProcess("--model", str(tmp_path / "nowhere")):
        pass


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"), [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (200, 200, 0.9812, 1.0)]
)
def test_wilson_intervals_are_the_published_ones(successes: int, trials: int, low: float, high: float) -> None:
    assert tales_quality.wilson(successes, trials) == pytest.approx((low, high), abs=1e-4)


def test_tales_quality_writes_table_and_plot(bundles: Path, tmp_path: Path) -> None:
    files = {"--json": tmp_path / "new" / "quality.json", "--png": tmp_path / "new" / "quality.png"}
    given = ["--model", str(bundles / "writer"), "--samples", "3", "--steps", "4", "--batch", "2"]
    tales_quality.main([*given, *(str(word) for option in files.items() for word in option)])
    samplers = json.loads(files["--json"].read_text())["samplers"]
    assert [(each["sampler"], each["steps"]) for each in samplers] == [
        ("first_hitting", None),
        ("first_hitting", 4),
        ("ancestral", 4),
    ]
    assert [each["network_evaluations"] for each in samplers[:2]] == [LENGTH * DIGITS, 4]
    assert all(each["samples"] == 3 and each["consistent"] == 0 for each in samplers)
    assert files["--png"].read_bytes().startswith(b"\x89PNG")


def test_sampler_error_measures_a_divergence(tmp_path: Path) -> None:
    chain = sampler_error.random_chain(seed=1)
    truth = sampler_error.divergence(sampler_error.from_the_chain(*chain, 256, seed=2), *chain)
    sub_tokenizer = SubTokenizer.from_base(sampler_error.CLASSES, 1, sampler_error.CLASSES)
    denoiser = MarkovDenoiser(chain[0].log(), chain[1].log(), sampler_error.LENGTH, sub_tokenizer)
    model = sampler_error.MarkovModel(denoiser, sub_tokenizer)
    point = sampler_error.measure(model, "first_hitting", 2, sampler_error.BATCH, chain)
    assert point.network_evaluations == 2
    assert point.divergence > truth > 0
    points = [
        sampler_error.Point(digits, name, steps, 9, 1, 0.5)
        for digits in (1, 2, 3)
        for name, steps in sampler_error.samplers([8])
    ]
    sampler_error.plot([*points, point], truth, tmp_path / "error.png")
    assert (tmp_path / "error.png").exists()


def test_everything_runs_the_benchmarks_that_are_named(bundles: Path, tmp_path: Path) -> None:
    given = ["evaluation", "--quick", "--out", str(tmp_path), "--model", str(bundles / "writer")]
    assert everything.main(given) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["evaluation.json"]


def test_everything_goes_on_after_a_failure_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []

    def fail_first(command: list[str], check: bool) -> subprocess.CompletedProcess[bytes]:
        assert not check
        commands.append(command)
        return subprocess.CompletedProcess(command, returncode=int(len(commands) == 1))

    monkeypatch.setattr(subprocess, "run", fail_first)
    assert everything.main(["--out", "figures"]) == 1
    assert [command[command.index("-m") + 1] for command in commands] == [f"benchmarks.{name}" for name in NAMES]
    said = capsys.readouterr()
    assert "failed: evaluation" in said.err
    assert "figures/tales_quality.png" in said.out
    assert "figures/evaluation.json" not in said.out


def test_a_model_that_is_not_there_is_a_line_not_a_traceback() -> None:
    with pytest.raises(SystemExit, match="nosuchmodel"):
        tales_quality.main(["--model", "nosuchmodel"])


def test_a_benchmark_that_is_none_is_refused() -> None:
    with pytest.raises(SystemExit, match="2"):
        everything.main(["nosuchbenchmark"])


def test_quick_sizes_fit_every_benchmark() -> None:
    for module in (evaluation, http_overhead, tales_quality, sampler_error):
        module.options().parse_args(everything.QUICK[module.__name__.split(".")[-1]].split())
