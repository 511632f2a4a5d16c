"""Every benchmark on tiny sizes: that they count right and end. Nothing here looks at a clock's figures."""

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from unmask_model_store import Bundle, open_bundle

from benchmarks import __main__ as everything
from benchmarks.harness import run_benchmark
from benchmarks.serving import http_overhead
from benchmarks.serving.server import ServerError, ServerProcess

LENGTH, DIGITS = 24, 2  # of the bundle `writer`
NAMES = ("evaluation", "speculation", "sampler_cost")


@pytest.fixture
def writer_bundle(bundles: Path) -> Bundle:
    return open_bundle(bundles / "writer")


def test_http_and_the_sampler_alone_give_the_same_answers(bundles: Path, writer_bundle: Bundle) -> None:
    bodies = http_overhead.bodies_of(writer_bundle, 5)
    assert {body["max_tokens"] for body in bodies} == {6, 12, 18, 24}
    options = ("--model", str(bundles / "writer"), "--threads", "1", "--dtype", "float32", "--speculation", "off")
    with ServerProcess(*options) as server:
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


def test_everything_runs_the_benchmarks_that_are_named(bundles: Path, tmp_path: Path) -> None:
    given = ["--only", "sampler_cost", "--quick", "--out", str(tmp_path), "--model", str(bundles / "writer")]
    assert everything.main(given) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["sampler_cost.json"]


def test_everything_goes_on_after_a_failure_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []

    def fail_first(command: list[str], check: bool) -> subprocess.CompletedProcess[bytes]:
        assert not check
        commands.append(command)
        return subprocess.CompletedProcess(command, returncode=int(len(commands) == 1))

    monkeypatch.setattr(subprocess, "run", fail_first)
    assert everything.main(["--out", "figures", "--only", *NAMES]) == 1
    assert [command[command.index("-m") + 1 :][:2] for command in commands] == [["benchmarks", name] for name in NAMES]
    said = capsys.readouterr()
    assert "failed: evaluation" in said.err
    assert "figures/speculation.png" in said.out
    assert "figures/evaluation.json" not in said.out


def test_a_model_that_is_not_there_is_a_line_not_a_traceback() -> None:
    with pytest.raises(SystemExit, match="nosuchmodel"):
        everything.main(["sampler_cost", "--model", "nosuchmodel"])


def test_a_benchmark_that_is_none_is_refused() -> None:
    with pytest.raises(SystemExit, match="2"):
        everything.main(["nosuchbenchmark"])


def test_quick_sizes_fit_every_benchmark() -> None:
    for benchmark in everything.BENCHMARKS.values():
        parser = argparse.ArgumentParser()
        module = importlib.import_module(benchmark.name)
        module.add_options(parser)
        parser.parse_args(f"{benchmark.quick} {'--model tales' if benchmark.model else ''}".split())
        assert module.__doc__
        assert callable(module.measured)


def test_what_runs_when_nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def note(command: list[str], check: bool) -> subprocess.CompletedProcess[bytes]:
        assert not check
        ran.append(command[command.index("-m") + 2])
        return subprocess.CompletedProcess(command, returncode=0)

    monkeypatch.setattr(subprocess, "run", note)
    assert everything.main([]) == 0
    assert ran == everything.SERVING
    ran.clear()
    assert everything.main(["--all"]) == 0
    assert ran == everything.IN_ALL


def test_json_without_a_file_is_all_that_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    def measured(arguments: argparse.Namespace) -> dict[str, object]:
        sys.stdout.write("a table\n")
        return {"to": str(arguments.json)}

    module = ModuleType("benchmark", "A benchmark.")
    vars(module).update(add_options=lambda _: None, measured=measured)
    assert run_benchmark("one", module, ["--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found.pop("machine")
    assert found == {"to": "-"}
    assert said.err.startswith("a table\n")


def test_what_does_not_hold_is_named_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    module = ModuleType("benchmark", "A benchmark.")
    vars(module).update(add_options=lambda _: None, measured=lambda _: {"not_held": ["this", "that"]})
    assert run_benchmark("one", module, []) == 1
    assert "this; that" in capsys.readouterr().err


def test_help_names_every_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        everything.main(["--help"])
    said = capsys.readouterr().out
    assert all(name in said for name in (*everything.BENCHMARKS, *everything.OTHERS))


def test_an_interrupt_ends_without_a_traceback() -> None:
    program = """
import runpy, sys
from benchmarks import harness

def interrupt(*_):
    raise KeyboardInterrupt

harness.run_benchmark = interrupt
sys.argv[1:] = ["kernels"]
runpy.run_module("benchmarks", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "")
