"""The command line: `unmask serve`, `api`, `worker`, `generate`, `score`, `info`, `import`, `pull` and others.

A user's mistake becomes one line on stderr and exit code 2. torch is imported by the commands that need it, so that
`--help` answers at once.
"""

import sys
from importlib.metadata import version
from io import TextIOWrapper
from typing import Annotated

import typer
from unmask_bench import LoadError
from unmask_bench.command import bench

from unmask_service.cli.checkpoints import import_checkpoint, models, pull
from unmask_service.cli.frontier import frontier
from unmask_service.cli.generate import generate
from unmask_service.cli.info import info
from unmask_service.cli.score import score
from unmask_service.cli.serve import api, key, serve, worker
from unmask_service.machine import wait_passively
from unmask_service.settings import SettingsError

MISTAKE, INTERRUPTED = 2, 130

app = typer.Typer(
    name="unmask",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (serve, api, worker, generate, score, frontier, info):
    app.command()(command)
app.command("import")(import_checkpoint)
for command in (pull, models, bench, key):
    app.command()(command)


def main() -> None:
    """Run a command."""
    wait_passively()
    for stream in (sys.stdout, sys.stderr):
        _write_any_character(stream)
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        line = explanation(error)
        if line is None:
            raise
        typer.echo(f"unmask: {line}", err=True)
        sys.exit(MISTAKE)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"unmask {version('unmask')}")
        raise typer.Exit


@app.callback()
def unmask(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Unmask: an inference server for masked diffusion language models."""


def _write_any_character(stream: object) -> None:
    """Never fail at a character that the locale's encoding lacks: ASCII becomes UTF-8, others write a question mark."""
    if isinstance(stream, TextIOWrapper):
        ascii_only = stream.encoding.lower() in ("ascii", "us-ascii", "ansi_x3.4-1968", "646")
        stream.reconfigure(encoding="utf-8" if ascii_only else None, errors="replace")


def explanation(error: Exception) -> str | None:
    """One line for a user's mistake; None for a bug of ours."""
    if isinstance(error, SettingsError | LoadError):
        return str(error)
    from pydantic import ValidationError
    from unmask_diffusion import RequestError, SamplingError
    from unmask_model_store import BundleError

    from unmask_service.process import ListenError
    from unmask_service.startup import MemoryBudgetError

    if isinstance(error, ValidationError):
        # of a field that may have one of several types, report the type that came farthest
        first = max(error.errors(include_url=False, include_context=False), key=lambda each: len(each["loc"]))
        field = ".".join(str(part) for part in first["loc"] if "[" not in str(part)).replace("_", "-")
        field = field.removesuffix(".name").removeprefix("sampler.")  # as the options are called
        return f"{field}: {first['msg']}".removeprefix(": ").replace("Value error, ", "")
    if isinstance(error, RequestError):
        return str(error) if error.param in str(error) else f"{error.param}: {error}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    known = (BundleError, ListenError, MemoryBudgetError, SamplingError)
    return " ".join(str(error).split()) if isinstance(error, known) else None
