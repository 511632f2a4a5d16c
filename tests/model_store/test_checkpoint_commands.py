"""`unmask import`, `pull`, `models` through the command line, and the whole way: import → serve → generate."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from unmask_diffusion import sample
from unmask_model_store import open_bundle

from tests.helpers import byte_tokenizer
from tests.helpers_command_line import Run
from tests.helpers_server import Server, unmask
from tests.model_store.test_import_golden import GOLDEN, TOLERANCE, error_of

A = GOLDEN / "tiny_A.ckpt"
WORDS = "512 classes, l = 3, b = 8, 16 tokens"


def test_the_whole_way(tmp_path: Path) -> None:
    """Import and serve; the server gives the tokens that the same sampler gives in this process."""
    ran = unmask("import", A, "--out", tmp_path / "prime-a")
    assert ran.returncode == 0, ran.stderr
    bundle = open_bundle(tmp_path / "prime-a")
    assert error_of(bundle, "A") < TOLERANCE
    with Server(tmp_path / "prime-a", "--dtype", "float32") as server:
        server.until_ready()
        answer = server.generate(seed=12, n=3)
    expected = sample(bundle, seed=12, n=3)
    assert [choice["token_ids"] for choice in answer["choices"]] == [list(each.token_ids) for each in expected]


def test_an_import_says_what_it_did(run: Run, tmp_path: Path) -> None:
    ran = run("import", A, "--out", tmp_path / "out", "--name", "prime-a", "--canvas", "as_requested")
    assert ran.code == 0
    assert WORDS in ran.stdout
    assert "no tokenizer" in ran.stderr
    assert "not executed" in ran.stderr
    assert "TokenizersBackend" in ran.stderr
    bundle = open_bundle(tmp_path / "out")
    assert (bundle.name, bundle.full_canvas) == ("prime-a", False)


def test_every_option_reaches_the_bundle(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for options in (("--weights", "raw"), ("--weights", "ema", "--dtype", "bfloat16", "--force")):
        assert run("import", A, "--out", out, *options).code == 0
        assert open_bundle(out).config.provenance["weights"] == options[1]
    assert error_of(open_bundle(out), "A") > TOLERANCE  # bfloat16
    for option, value in (("--weights", "best"), ("--dtype", "float16"), ("--canvas", "half"), ("--unknown", "1")):
        assert run("import", A, "--out", tmp_path / "other", option, value).code == 2
    assert not (tmp_path / "other").exists()


def test_one_line_and_exit_code_2(run: Run, tmp_path: Path) -> None:
    (tmp_path / "cut.ckpt").write_bytes(A.read_bytes()[:100_000])
    (tmp_path / "there").mkdir()
    byte_tokenizer().save(str(tmp_path / "tokenizer.json"))
    for arguments, needle in (
        ((tmp_path / "cut.ckpt", "--out", tmp_path / "out"), "cut off"),
        ((tmp_path / "nowhere.ckpt", "--out", tmp_path / "out"), "No such file"),
        ((A, "--out", tmp_path / "there"), "exists already"),
        ((A, "--out", tmp_path / "tokenizer.json", "--force"), "not a bundle"),
        ((A, "--out", tmp_path / "cut.ckpt" / "out"), "cannot be written"),
        ((A, "--out", tmp_path / "out", "--tokenizer", tmp_path / "tokenizer.json"), "260 tokens"),
    ):
        ran = run("import", *arguments)
        assert ran.code == 2
        assert needle in ran.stderr
        assert len(ran.stderr.splitlines()) == 1
        assert not (tmp_path / "out").exists()


def test_models_lists_what_can_be_named(run: Run, tmp_path: Path) -> None:
    assert run("import", A, "--out", tmp_path / "prime-a").code == 0
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    ran = run("models", "--model-dir", tmp_path)
    assert ran.code == 0
    lines = {line.split()[0]: line for line in ran.stdout.splitlines()}
    assert WORDS in lines["prime-a"]
    assert str(tmp_path / "prime-a") in lines["prime-a"]
    assert "cannot be opened" in lines["broken"]


def test_pull_from_the_cache_into_the_models_folder(run: Run, tmp_path: Path, snapshot: Callable[[str], Path]) -> None:
    file = snapshot("chen-hao-chao/mdm-prime") / "text/owt/results_prime_l3_co_owt/checkpoint.ckpt"
    file.parent.mkdir(parents=True)
    file.write_bytes(A.read_bytes())
    arguments = ("pull", "mdm-prime-owt", "--sub-tokens", "3", "--carry-over", "--model-dir", tmp_path / "models")
    assert run(*arguments).code == 0
    bundle = open_bundle(tmp_path / "models" / "mdm-prime-owt-l3-co")
    assert bundle.config.provenance["repository"] == "chen-hao-chao/mdm-prime"
    assert "exists already" in run(*arguments).stderr
    assert run(*arguments, "--force").code == 0
    assert run(*arguments, "--name", "other").code == 0
    assert open_bundle(tmp_path / "models" / "other").name == "other"


def test_pull_without_a_hub(run: Run, tmp_path: Path, snapshot: Callable[[str], Path]) -> None:
    assert snapshot("other/repository").is_dir()
    ran = run("pull", "mdlm-owt", "--out", tmp_path / "out")
    assert ran.code == 2
    assert "the Hugging Face hub cannot be reached" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_commands_without_a_home_directory(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    assert run("import", A, "--out", tmp_path / "prime-a").code == 0
    for arguments in (("models",), ("info",), ("info", tmp_path / "prime-a"), ("models", "--model-dir", tmp_path)):
        ran = run(*arguments)
        assert ran.code == 0, ran.stderr
    assert "tales" in run("models").stdout
    ran = run("pull", "mdlm-owt")
    assert (ran.code, len(ran.stderr.splitlines())) == (2, 1)
    assert "--model-dir" in ran.stderr


def test_progress_is_shown_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console
    from unmask_model_store.importers import Request
    from unmask_service.cli import checkpoints

    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=100)
    monkeypatch.setattr("rich.console.Console", lambda **_: terminal)
    checkpoints._run(Request(A, tmp_path / "bundle"))
    assert "checksum" in screen.getvalue()
    assert "weights" in screen.getvalue()
