"""The command line in this process: what starts a process of its own takes seconds."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from unmask_service.cli import main


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


Run = Callable[..., Ended]


def command_line(monkeypatch: pytest.MonkeyPatch, captured: pytest.CaptureFixture[str]) -> Run:
    """A function that runs `unmask` with its arguments."""

    def run(*arguments: str | Path) -> Ended:
        monkeypatch.setattr(sys, "argv", ["unmask", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        code = end.value.code
        assert code is None or isinstance(code, int)
        out, err = captured.readouterr()
        return Ended(code or 0, out, err)

    return run
