"""Every experiment as a command, at sizes of seconds: it ends, and writes a table, a picture and its numbers."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness import Table
from benchmarks.papers import __main__ as papers
from training import run_faces

Numbers = dict[str, Any]


def run(name: str, folder: Path, *options: str) -> Numbers:
    """Run an experiment with --quick: its numbers."""
    papers.main([name, "--quick", "--out", str(folder), *options])
    text, picture, numbers = (folder / f"papers_{name.replace('-', '_')}.{kind}" for kind in ("md", "png", "json"))
    assert "| --- |" in text.read_text()
    assert f"python -m benchmarks.papers {name} --quick" in text.read_text()
    assert picture.read_bytes().startswith(b"\x89PNG")
    found: Numbers = json.loads(numbers.read_text())
    assert found["machine"]
    return found


def test_a_table_is_markdown() -> None:
    table = Table("What", ["a", "b"], [["1", "2"], ["3", "4"]])
    assert table.markdown() == "What\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n| 3 | 4 |"


def test_help_names_every_experiment_and_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        papers.main(["--help"])
    said = capsys.readouterr().out
    for name, module in papers.EXPERIMENTS.items():
        assert name in said
        assert str(module.__doc__).split(":")[0] in " ".join(said.split())


def test_idle_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run("idle-steps", tmp_path / "new")
    assert [(each["sub_tokens_per_token"], each["steps"]) for each in found["counts"]] == [
        (1, 16),
        (1, 64),
        (2, 16),
        (2, 64),
    ]
    assert "T (1 - 1/T)^n" in capsys.readouterr().out


def test_precision(bundles: Path, tmp_path: Path) -> None:
    found = run("precision", tmp_path, "--model", str(bundles / "writer"))
    (mass,) = found["rare_mass"]
    assert mass["truncated"] < mass["computed_24_bits"] < mass["computed_64_bits"] == pytest.approx(mass["true"])
    assert [each["sampler"] for each in found["unigram_entropy_nats"]] == ["exact", "mask among classes"]
    assert all(each["samples"] == 2 for each in found["unigram_entropy_nats"])
    assert len(found["temperatures"]) == 6


def test_wall_clock(bundles: Path, tmp_path: Path) -> None:
    found = run("wall-clock", tmp_path, "--model", str(bundles / "writer"))
    assert [(each["way"], each["steps"]) for each in found["ways"]] == [
        ("exact", None),
        ("groups, k", 2),
        ("ancestral, T", 4),
        ("papers, plain", 4),
        ("papers, cached", 4),
    ]
    (equal,) = found["equal_quality"]
    assert equal["first_hitting"] == "exact"  # two groups are worse than four steps
    assert set(equal["times"]) == {"ancestral, T", "papers, plain", "papers, cached"}


def test_published_integrand(tmp_path: Path) -> None:
    found = run("published-integrand", tmp_path)
    assert found["oracle"]["published"] < found["oracle"]["bound"]
    assert [each["texts"] for each in found["nats_per_token"]] == [16, 2, 2]


def test_models_without_tales_are_refused(bundles: Path, tmp_path: Path) -> None:
    for name, why in (("writer", "24 tokens: too few"), ("chain", "no tokenizer")):
        with pytest.raises(SystemExit, match=why):
            papers.main(["published-integrand", "--quick", "--out", str(tmp_path), "--model", str(bundles / name)])


def test_all_runs_every_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, str]] = []

    def note(arguments: argparse.Namespace, command: str) -> list[Path]:
        ran.append((arguments.name, command))
        return []

    monkeypatch.setattr(papers, "run", note)
    papers.main(["all", "--quick"])
    assert [name for name, _ in ran] == list(papers.EXPERIMENTS)
    assert ran[0][1] == "python -m benchmarks.papers idle-steps --quick"


def test_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(run_faces, "HELD_OUT", 4)
    monkeypatch.setattr(run_faces, "SHEET", 1)
    found = run("images", tmp_path)
    assert [(each["sub_tokens_per_token"], each["clock"]) for each in found["idle_steps"]] == [
        (1, 1),
        (1, 3),
        (3, 1),
        (3, 3),
    ]
    for each in found["idle_steps"]:
        # 16 plans: a mean has a standard error below 0.7
        assert each["counted"] == pytest.approx(each["expected"], abs=3)
    assert [each["network_evaluations"] for each in found["pictures"]] == [4, 4]
    papers.main(["images", "--quick", "--out", str(tmp_path)])
    assert "going on from step 2" in capsys.readouterr().out, "what is trained is not trained again"
