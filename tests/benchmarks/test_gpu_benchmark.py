"""`make gpu` without a GPU: small sizes, all parts, and what it does where packages are missing."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.__main__ import PARTS, results_of
from benchmarks.harness import interpreter

ROOT = Path(__file__).parents[2]
RUN = ROOT / "benchmarks" / "gpu" / "run.sh"
# what a bare machine with a GPU lacks
LACKING = ("pydantic", "fastapi", "starlette", "sse_starlette", "uvicorn", "redis", "huggingface_hub")


def run(out: Path, *options: str, path: Path | None = None) -> tuple[int, str, dict[str, Any]]:
    """The exit code, what was printed, and the results by part."""
    environment = os.environ | {"PYTHON": interpreter()[0], "OMP_NUM_THREADS": "1", "PYTHONPATH": str(path or "")}
    command = [str(RUN), "--device", "cpu", "--out", str(out), *options]
    done = subprocess.run(command, env=environment, stdout=-1, stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode, done.stdout, json.loads((out / "results.json").read_text())["parts"]


def test_all_parts_run_and_hold(tmp_path: Path) -> None:
    code, printed, parts = run(tmp_path)
    assert code == 0, printed
    assert {name: part["ended"] for name, part in parts.items()} == {part.name: "done" for part in PARTS}, printed
    checks = [each for name in ("correctness", "sampler") for each in parts[name]["results"]]
    assert sum(each["held"] is True for each in checks) > 60
    assert all(each["name"] in printed for part in parts.values() for each in part["results"])


def test_a_part_whose_packages_are_missing_is_skipped_with_a_line(tmp_path: Path) -> None:
    lines = f"import sys\nsys.modules.update(dict.fromkeys({LACKING}))\n"
    (tmp_path / "sitecustomize.py").write_text(lines)
    code, printed, parts = run(tmp_path / "out", "--only", "sampler", "limits", path=tmp_path)
    assert code == 0, printed
    assert parts["limits"]["ended"] == "done", printed
    expected = "skipped: this Python lacks pydantic, huggingface_hub (make gpu-wheels)"
    assert parts["sampler"]["ended"] == expected
    assert f"sampler: {expected}" in printed


def test_all_of_it_takes_six_minutes_at_most() -> None:
    assert sum(part.seconds for part in PARTS) <= 360


def test_a_line_that_was_cut_is_no_result(tmp_path: Path) -> None:
    file = tmp_path / "part.jsonl"
    assert results_of(file) == []
    file.write_text('{"name": "first"}\n{"name": "sec')
    assert results_of(file) == [{"name": "first"}]


@pytest.mark.parametrize("line", (ROOT / "benchmarks" / "gpu" / "wheels.txt").read_text().splitlines())
def test_wheels_have_exact_versions(line: str) -> None:
    pinned = {each.split("==")[0].lower() for each in (ROOT / "constraints.txt").read_text().splitlines()}
    assert line.startswith("#") or line in pinned
