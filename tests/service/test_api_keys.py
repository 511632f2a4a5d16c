"""API keys: made at random, kept as hashes, read strictly, compared in constant time."""

import hashlib
import hmac
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner
from unmask_service.api_keys import Quota, line_of, new_key, quota_of, read_api_keys
from unmask_service.cli.serve import key as key_command
from unmask_service.settings import SettingsError

from tests.helpers_command_line import Run

# as keys are, and the same each time: they are in the names of tests
ALICE, BOB = f"unmask-key-{'Alice-7' * 6}x", f"unmask-key-{'Bob_42-' * 6}x"
KEYS = read_api_keys(None, f"{line_of('alice', ALICE)},{line_of('bob', BOB)}")


def test_keys_are_long_and_never_the_same() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(re.fullmatch(r"unmask-key-[\w-]{43}", key) for key in keys), "256 bits in base 64"


def test_a_line_holds_a_hash_and_no_key() -> None:
    line = line_of("alice", ALICE)
    assert line == f"alice:{hashlib.sha256(ALICE.encode()).hexdigest()}"
    assert ALICE not in line


def test_a_file_has_comments_and_names_that_repeat(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    old, new = new_key(), new_key()
    file.write_text(f"# who may come\n\n  {line_of('alice', old)}  # until May\n{line_of('alice', new).upper()[:0]}")
    file.write_text(file.read_text() + f"{line_of('alice', new)}\r\n{line_of('bob', BOB)}")
    keys = read_api_keys(file, None)
    assert [key.name for key in keys] == ["alice", "alice", "bob"], (
        "two keys of one name: so one takes over from another"
    )
    assert [quota_of(key.encode(), keys) for key in (old, new)] == [Quota(client="alice")] * 2
    assert [quota_of(key.encode(), keys) for key in (BOB, ALICE)] == [Quota(client="bob"), None]


def test_lines_and_a_file_add_up(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(line_of("alice", ALICE))
    lines = f"\n {line_of('bob', BOB)} ,, {line_of('carol', new_key())}\n"
    assert [key.name for key in read_api_keys(file, lines)] == ["alice", "bob", "carol"]
    assert read_api_keys(None, None) == ()


@pytest.mark.parametrize(
    "line",
    [
        ALICE,
        f"alice:{ALICE}",
        f"alice {'0' * 64}",
        f":{'0' * 64}",
        f"al ice:{'0' * 64}",
        f"alice:{'0' * 63}",
        f"alice:{'0' * 65}",
        f"alice:{'g' * 64}",
        f"{'a' * 65}:{'0' * 64}",
        f"älice:{'0' * 64}",
        "alice:",
        ":",
        "\x00",
    ],
)
def test_a_broken_line_is_refused_without_repeating_it(line: str, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# keys\n{line_of('bob', BOB)}\n{line}\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"--api-keys-file, line 3: .*unmask key NAME") as refused:
        read_api_keys(file, None)
    assert ALICE not in str(refused.value), "somebody may have written the key itself"
    with pytest.raises(SettingsError, match=r"UNMASK_API_KEYS, line"):
        read_api_keys(None, line)


def test_a_line_may_have_limits() -> None:
    limits: dict[str, float] = {"requests": 8, "evaluations_per_minute": 6000, "weight": 2.5}
    line = line_of("alice", ALICE, **limits)
    assert line == f"{line_of('alice', ALICE)}:requests=8:evaluations_per_minute=6000:weight=2.5"
    (key,) = read_api_keys(None, line)
    assert key.quota == Quota(client="alice", requests=8, evaluations_per_minute=6000, weight=2.5)
    assert key.quota.seconds_per_evaluation == 0.01
    assert read_api_keys(None, line_of("alice", ALICE, weight=None))[0].quota == Quota(client="alice")


def test_all_keys_of_a_name_share_its_limits() -> None:
    new = line_of("alice", new_key())
    for lines in ([line_of("alice", ALICE, requests=3), new], [new, line_of("alice", ALICE, requests=3)]):
        keys = read_api_keys(None, ",".join([*lines, line_of("bob", BOB)]))
        assert [key.quota.requests for key in keys] == [3, 3, None]
    with pytest.raises(SettingsError, match="'alice' have different limits"):
        read_api_keys(None, f"{line_of('alice', ALICE, requests=3)},{line_of('alice', new_key(), weight=3)}")


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [
        ("requests=0", "requests: .*greater than or equal to 1"),
        ("requests=many", "requests: .*integer"),
        ("requests=2.5", "requests: .*integer"),
        ("requests=", "requests: .*integer"),
        ("evaluations_per_minute=-1", "evaluations_per_minute: .*greater"),
        ("weight=0", "weight: .*greater"),
        ("weight=101", "weight: .*less"),
        ("weight=nan", "weight: "),
        ("requests=1:requests=1", "after the hash come .*each once"),
        ("client=bob", "after the hash come requests=, evaluations_per_minute= and weight="),
        ("request=1", "after the hash come"),
        ("", "after the hash come"),
        (ALICE, "after the hash come"),
    ],
)
def test_a_broken_limit_is_named_without_repeating_it(limits: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=f"UNMASK_API_KEYS, line 2: {complaint}") as refused:
        read_api_keys(None, f"{line_of('bob', BOB)},{line_of('alice', ALICE)}:{limits}")
    assert ALICE not in str(refused.value)


@pytest.mark.parametrize("content", ["", "\n\n", "# nobody\n"])
def test_no_key_is_no_way_to_serve_nobody(content: str, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(content)
    with pytest.raises(SettingsError, match=r"--api-keys-file holds no key"):
        read_api_keys(file, None)
    with pytest.raises(SettingsError, match=r"UNMASK_API_KEYS holds no key"):
        read_api_keys(None, "")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--api-keys-file: .*missing: No such file"):
        read_api_keys(tmp_path / "missing", None)
    with pytest.raises(SettingsError, match=r"--api-keys-file: .*directory"):
        read_api_keys(tmp_path, None)
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="line 1"):
        read_api_keys(binary, None)


@pytest.mark.parametrize("right", [True, False])
def test_every_key_is_compared_in_constant_time(right: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(a: bytes, b: bytes) -> bool:
        assert len(a) == len(b) == 32, "hashes, not keys"
        compared.append(b)
        return a == b

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert quota_of(ALICE.encode() if right else b"x", KEYS) == (Quota(client="alice") if right else None)
    assert compared == [key.digest for key in KEYS], "none is left out, whichever is right"


def test_the_command_makes_a_key_and_its_line() -> None:
    app = typer.Typer()
    app.command()(key_command)
    made = CliRunner().invoke(app, ["alice"])
    assert made.exit_code == 0
    key, line = made.stderr.strip(), made.stdout.strip()
    assert quota_of(key.encode(), read_api_keys(None, line)) == Quota(client="alice")
    assert CliRunner().invoke(app, ["alice"]).stderr.strip() != key
    made = CliRunner().invoke(app, ["alice", "--requests", "3", "--evaluations-per-minute", "60", "--weight", "0.5"])
    (limited,) = read_api_keys(None, made.stdout)
    assert limited.quota == Quota(client="alice", requests=3, evaluations_per_minute=60, weight=0.5)


@pytest.mark.parametrize("name", ["", "a b", "alice:", "#alice", "a" * 65, "../alice", "älice"])
def test_the_command_refuses_names_that_are_none(name: str, run: Run) -> None:
    ended = run("key", name)
    assert ended.code == 2
    assert ended.stdout == ""
    assert "name" in ended.stderr
    assert "unmask-key-" not in ended.stderr
