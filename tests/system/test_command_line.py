"""The command line: results on stdout, one line and exit code 2 for what cannot be.

Most commands run in this process, which saves them the start of Python and torch; some run as users run them.
"""

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.helpers_command_line import Ended, Run
from tests.helpers_server import UNMASK, Server, environment, unmask


def refused_in_one_line(ended: Ended, *needles: str) -> None:
    assert ended.code == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    # a server that finds out while it loads has logged before what it does
    lines = [line for line in ended.stderr.strip().splitlines() if " INFO " not in line]
    assert len(lines) == 1, ended.stderr
    assert ended.stdout == ""
    missing = [needle for needle in needles if needle not in lines[0]]
    assert not missing, f"{missing} not in {lines[0]!r}"


def as_a_process(*arguments: str | Path) -> Ended:
    done = unmask(*arguments)
    return Ended(done.returncode, done.stdout, done.stderr)


# --- what cannot be ------------------------------------------------------------------------------------------------


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


@pytest.fixture
def damaged(bundles: Path, tmp_path: Path) -> Path:
    """A copy of the writer, to be damaged."""
    return Path(shutil.copytree(bundles / "writer", tmp_path / "damaged"))


@pytest.mark.parametrize("command", ["serve", "info", "generate"])
@pytest.mark.parametrize(
    ("damage", "needle"),
    [
        (missing_weights, "model.safetensors"),
        (unreadable_weights, "model.safetensors"),
        (another_version, "format_version"),
        (no_json, "config.json"),
    ],
)
def test_a_broken_model_folder(
    run: Run, damaged: Path, command: str, damage: Callable[[Path], None], needle: str
) -> None:
    damage(damaged)
    ended = run("info", damaged) if command == "info" else run(command, "--model", damaged)
    refused_in_one_line(ended, needle, str(damaged))


def test_what_only_loading_finds_ends_the_server(damaged: Path) -> None:
    broken_tokenizer(damaged)
    refused_in_one_line(as_a_process("serve", "--model", damaged, "--port", "0"), "tokenizer.json", str(damaged))


def test_a_port_in_use(bundles: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused_in_one_line(as_a_process("serve", "--model", bundles / "table", "--port", port), port)


def test_a_model_that_is_nowhere(run: Run) -> None:
    for arguments in (["serve", "--model", "nonesuch"], ["info", "nonesuch"], ["generate", "a", "--model", "nonesuch"]):
        refused_in_one_line(run(*arguments), "nonesuch")


@pytest.mark.parametrize(
    ("options", "needle"),
    [
        (["--max-tokens", "99"], "24"),
        (["--max-tokens", "0"], "max-tokens"),
        (["--temperature", "-1"], "temperature"),
        (["--temperature", "nan"], "temperature"),
        (["--seed", "-1"], "seed"),
        (["--seed", str(2**63)], "seed"),
        (["--top-p", "0"], "top-p"),
        (["--sampler", "euler"], "sampler"),
        (["--sampler", "ancestral"], "steps"),
        (["--steps", "0"], "unmask: steps: "),
        (["--high-order", "extrapolation"], "unmask: high-order: "),
        (["--suffix", "word " * 50], "suffix"),
        (["--dtype", "float8"], "dtype"),
        (["--out", "/nowhere/at/all.jsonl"], "/nowhere/at/all.jsonl"),
    ],
)
def test_what_cannot_be_generated(run: Run, bundles: Path, options: list[str], needle: str) -> None:
    refused_in_one_line(run("generate", "a", "--model", bundles / "writer", *options), needle)


def test_arguments_that_are_not_unicode(run: Run, bundles: Path) -> None:
    refused_in_one_line(run("generate", "a\udcff", "--model", bundles / "writer"), "prompt")
    refused_in_one_line(run("generate", "a", "--suffix", "\udcff", "--model", bundles / "writer"), "suffix")


def test_text_for_a_model_without_a_tokenizer(run: Run, bundles: Path) -> None:
    refused_in_one_line(run("generate", "text", "--model", bundles / "table"), "tokenizer")


@pytest.mark.parametrize(("option", "value"), [("port", "99999"), ("port", "-1"), ("max-requests", "0")])
def test_settings_out_of_range(run: Run, bundles: Path, option: str, value: str) -> None:
    refused_in_one_line(run("serve", "--model", bundles / "table", f"--{option}", value), option, value)


def test_settings_of_the_environment(run: Run, bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_MODEL", str(bundles / "nonesuch"))
    refused_in_one_line(run("serve"), "nonesuch")
    monkeypatch.setenv("UNMASK_PROT", "8000")
    refused_in_one_line(run("serve", "--model", bundles / "table"), "UNMASK_PROT")


@pytest.mark.parametrize("arguments", [["fly"], ["serve", "--speed", "9"], ["serve", "--port", "many"]])
def test_commands_and_options_that_do_not_exist(run: Run, arguments: list[str]) -> None:
    ended = run(*arguments)
    assert ended.code == 2
    assert "Traceback" not in ended.stderr
    assert ended.stderr


# --- what can ------------------------------------------------------------------------------------------------------


def test_generate_as_json_is_the_servers_answer(bundles: Path, writer: Server) -> None:
    given = ["--suffix", "end", "--max-tokens", "6", "--seed", "7", "--n", "2"]
    ended = as_a_process("generate", " the", *given, "--model", bundles / "writer", "--json")
    assert ended.code == 0, ended.stderr
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    choices = writer.generate(prompt=" the", suffix="end", max_tokens=6, seed=7, n=2)["choices"]
    assert [{name: line[name] for name in choices[0]} for line in lines] == choices
    assert [line["seed"] for line in lines] == [7, 7]


def test_many_samples_are_requests_of_64(run: Run, bundles: Path, table: Server, tmp_path: Path) -> None:
    out = tmp_path / "samples.jsonl"
    ended = run("generate", "--n", "70", "--seed", "3", "--model", bundles / "table", "--out", out)
    assert ended.code == 0, ended.stderr
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    served = [choice for seed, n in ((3, 64), (4, 6)) for choice in table.generate(n=n, seed=seed)["choices"]]
    assert [line["token_ids"] for line in lines] == [choice["token_ids"] for choice in served]
    assert [(line["seed"], line["index"]) for line in lines] == [(3, i) for i in range(64)] + [(4, i) for i in range(6)]


def test_a_request_that_is_refused_touches_no_file(run: Run, bundles: Path, tmp_path: Path) -> None:
    out = tmp_path / "samples.jsonl"
    out.write_text("earlier samples\n")
    refused_in_one_line(run("generate", "--top-p", "2", "--model", bundles / "table", "--out", out), "top-p")
    assert out.read_text() == "earlier samples\n"


def test_generate_in_a_pipe_prints_the_text(run: Run, bundles: Path, writer: Server) -> None:
    ended = run("generate", " the", "--max-tokens", "6", "--seed", "7", "--model", bundles / "writer")
    assert ended.code == 0, ended.stderr
    assert ended.stdout == writer.generate(prompt=" the", max_tokens=6, seed=7)["choices"][0]["text"] + "\n"


def test_info_says_what_a_model_is(run: Run, bundles: Path) -> None:
    as_text = run("info", bundles / "writer")
    assert as_text.code == 0, as_text.stderr
    for fact in ("prime", "24", "260", "17", "writer"):
        assert fact in as_text.stdout
    facts = json.loads(run("info", bundles / "table", "--json").stdout)
    assert (facts["architecture"], facts["length"], facts["vocabulary_size"]) == ("table", 2, 4)


def test_info_without_an_argument_is_about_the_default_model(
    run: Run, bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert json.loads(run("info", "--json").stdout)["name"] == "tales"
    monkeypatch.setenv("UNMASK_MODEL", str(bundles / "table"))
    assert json.loads(run("info", "--json").stdout)["architecture"] == "table"


def test_info_says_what_a_machine_is(run: Run) -> None:
    found = json.loads(run("info", "--machine", "--json", "--threads", "3").stdout)
    assert found["threads"] == 3
    assert set(found["fingerprints"]) == {"1", "3"}
    assert len(set(found["fingerprints"].values())) == 2
    as_text = run("info", "--machine", "--threads", "3")
    assert (as_text.code, as_text.stderr) == (0, "")
    assert all(fingerprint in as_text.stdout for fingerprint in found["fingerprints"].values())
    refused = run("info", "tales", "--machine")
    assert refused.code == 2
    assert "MODEL" in refused.stderr


def test_help_names_the_commands(run: Run) -> None:
    ended = run("--help")
    assert ended.code == 0
    assert all(command in ended.stdout for command in ("serve", "generate", "info"))


def test_the_version(run: Run) -> None:
    ended = run("--version")
    assert (ended.code, ended.stdout) == (0, f"unmask {version('unmask')}\n")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_any_locale_can_be_written(encoding: str, bundles: Path, tmp_path: Path) -> None:
    """ASCII is the encoding of LC_ALL=C where Python does not replace it; what is written is UTF-8 then."""
    text = tmp_path / "text.txt"
    text.write_text(" the café – …")
    variables = environment() | {"LC_ALL": "C", "PYTHONIOENCODING": encoding}
    for words in (["serve", "--help"], ["score", text, "--seed", "1", "--per-token", "--model", bundles / "writer"]):
        done = subprocess.run([UNMASK, *words], env=variables, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert b"Traceback" not in done.stderr
        assert encoding != "ascii" or done.stdout.decode("utf-8")


def test_json_loses_no_character_in_any_locale(bundles: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(" –…")
    words: list[str | Path] = ["score", text, "--seed", "1", "--per-token", "--json", "--model", bundles / "writer"]
    variables = [environment() | {"PYTHONIOENCODING": encoding} for encoding in ("latin-1", "utf-8")]
    outputs = [subprocess.run([UNMASK, *words], env=each, capture_output=True, check=True).stdout for each in variables]
    assert json.loads(outputs[0]) == json.loads(outputs[1])


@pytest.mark.parametrize("command", [["models"], ["generate", "--seed", "1"], ["info"]])
def test_a_servers_variable_stops_no_other_command(
    run: Run, bundles: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setenv("UNMASK_PORT", "many")
    monkeypatch.setenv("UNMASK_API_KEY", "unmask-key-client")
    monkeypatch.setenv("UNMASK_MODEL", str(bundles / "table"))
    assert run(*command, *([bundles / "table"] if command == ["info"] else [])).code == 0
    monkeypatch.setenv("UNMASK_PROT", "8000")
    refused_in_one_line(run(*command, *([bundles / "table"] if command == ["info"] else [])), "UNMASK_PROT")


@pytest.mark.parametrize(
    "entry",
    [
        "from unmask_service.cli import main; sys.argv = ['unmask', '--version']; atexit.register(say); main()",
        "atexit.register(say); import training.__main__",
        "atexit.register(say); import training.toy.__main__",
    ],
)
def test_threads_wait_passively_in_every_entry_point(entry: str) -> None:
    """It is set before torch is imported; what the environment says stays."""
    program = f"""
import atexit, importlib.abc, os, sys
class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            assert "OMP_WAIT_POLICY" in os.environ
            raise SystemExit
sys.meta_path.insert(0, Watch())
def say(): print(os.environ["OMP_WAIT_POLICY"])
{entry}
"""
    for given, wanted in ((None, "passive"), ("active", "active")):
        variables = {name: value for name, value in environment().items() if name != "OMP_WAIT_POLICY"}
        variables |= {"OMP_WAIT_POLICY": given} if given else {}
        done = subprocess.run(
            [sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == wanted
