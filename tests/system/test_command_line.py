"""The command line: results on stdout, one line and exit code 2 for what cannot be."""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.helpers_server import Server, unmask


def missing_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def unreadable_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()


def another_version(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"format_version": 99}))


def no_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing_weights": (missing_weights, "model.safetensors"),
    "unreadable_weights": (unreadable_weights, "model.safetensors"),
    "another_version": (another_version, "format_version"),
    "no_json": (no_json, "config.json"),
    "broken_tokenizer": (broken_tokenizer, "tokenizer.json"),
}


@pytest.fixture(scope="module")
def runs(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, CompletedProcess[str]]:
    """Every command of this file, two at a time: most of a run is the start of Python and torch."""
    folder = tmp_path_factory.mktemp("broken")
    commands: dict[str, list[str | Path]] = {
        "unknown model": ["serve", "--model", "nonesuch"],
        "generate without": ["generate", "text", "--model", "nonesuch", "--json"],
        "info of nothing": ["info", folder / "nonesuch"],
        "text without a tokenizer": ["generate", "text", "--model", bundles / "table", "--json"],
        "too long": ["generate", "a", "--model", bundles / "writer", "--max-tokens", "99", "--json"],
        "info": ["info", bundles / "writer"],
        "info of a table": ["info", bundles / "table"],
        "help": ["--help"],
        "bad port": ["serve", "--model", bundles / "table", "--port", "99999"],
        "json": [
            "generate",
            " the",
            "--suffix",
            "end",
            "--max-tokens",
            "6",
            "--seed",
            "7",
            "--model",
            bundles / "writer",
        ],
        "terminal": ["generate", " the", "--max-tokens", "6", "--seed", "7", "--model", bundles / "writer"],
    }
    commands["json"] = [*commands["terminal"], "--suffix", "end", "--n", "2", "--json"]
    for name, (damage, _) in BROKEN.items():
        shutil.copytree(bundles / "writer", folder / name)
        damage(folder / name)
        commands[name] = ["serve", "--model", folder / name]
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(commands, pool.map(lambda arguments: unmask(*arguments), commands.values()), strict=True))


def refused_in_one_line(run: CompletedProcess[str], *needles: str) -> None:
    assert run.returncode == 2, run.stderr
    assert "Traceback" not in run.stderr
    # a server that finds out while it loads has logged before what it does
    lines = [line for line in run.stderr.strip().splitlines() if " INFO " not in line]
    assert len(lines) == 1, run.stderr
    assert run.stdout == ""
    missing = [needle for needle in needles if needle not in lines[0]]
    assert not missing, f"{missing} not in {lines[0]!r}"


@pytest.mark.parametrize("name", list(BROKEN))
def test_a_broken_model_folder(runs: dict[str, CompletedProcess[str]], name: str) -> None:
    refused_in_one_line(runs[name], BROKEN[name][1], name)


@pytest.mark.parametrize(
    ("name", "needle"),
    [
        ("unknown model", "nonesuch"),
        ("generate without", "nonesuch"),
        ("info of nothing", "nonesuch"),
        ("text without a tokenizer", "tokenizer"),
        ("too long", "24"),
    ],
)
def test_what_cannot_be(runs: dict[str, CompletedProcess[str]], name: str, needle: str) -> None:
    refused_in_one_line(runs[name], needle)


def test_a_port_that_does_not_exist(runs: dict[str, CompletedProcess[str]]) -> None:
    assert runs["bad port"].returncode == 2
    assert "port" in runs["bad port"].stderr
    assert "Traceback" not in runs["bad port"].stderr


def test_generate_as_json_is_the_servers_answer(runs: dict[str, CompletedProcess[str]], writer: Server) -> None:
    run = runs["json"]
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    served = writer.generate(prompt=" the", suffix="end", max_tokens=6, seed=7, n=2)
    assert [{name: line[name] for name in choice} for line, choice in zip(lines, served["choices"], strict=True)] == (
        served["choices"]
    )
    assert [line["seed"] for line in lines] == [7, 7]


def test_generate_in_a_terminal_prints_the_text(runs: dict[str, CompletedProcess[str]]) -> None:
    assert runs["terminal"].returncode == 0, runs["terminal"].stderr
    assert runs["terminal"].stdout.strip()
    assert "Traceback" not in runs["terminal"].stderr


def test_info_says_what_a_model_is(runs: dict[str, CompletedProcess[str]]) -> None:
    assert runs["info"].returncode == 0, runs["info"].stderr
    for fact in ("prime", "24", "260", "17", "writer"):
        assert fact in runs["info"].stdout
    assert runs["info of a table"].returncode == 0
    assert "table" in runs["info of a table"].stdout


def test_help_names_the_commands(runs: dict[str, CompletedProcess[str]]) -> None:
    assert runs["help"].returncode == 0
    assert all(command in runs["help"].stdout for command in ("serve", "generate", "info"))
