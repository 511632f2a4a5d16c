"""The command line: `unmask serve`, `api`, `worker`, `generate`, `score`, `info`, `import`, `pull` and others.

What a user got wrong becomes one line on stderr and exit code 2. torch is imported by the commands that need it, so
that `--help` answers at once.
"""

import sys

import typer
from unmask_bench import LoadError
from unmask_bench.command import bench

from unmask_service.cli.checkpoints import import_checkpoint, models, pull
from unmask_service.cli.generate import generate
from unmask_service.cli.info import info
from unmask_service.cli.keys import key
from unmask_service.cli.score import score
from unmask_service.cli.serve import api, serve, worker
from unmask_service.settings import SettingsError

EXIT_CODE = 2

app = typer.Typer(
    name="unmask",
    help="Unmask: an inference server for masked diffusion language models.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve)
app.command()(api)
app.command()(worker)
app.command()(generate)
app.command()(score)
app.command()(info)
app.command("import")(import_checkpoint)
app.command()(pull)
app.command()(models)
app.command()(bench)
app.command()(key)


def main() -> None:
    """Run a command."""
    try:
        app()
    except Exception as error:
        line = explanation(error)
        if line is None:
            raise
        typer.echo(f"unmask: {line}", err=True)
        sys.exit(EXIT_CODE)


def explanation(error: Exception) -> str | None:
    """One line for what the user got wrong; None for a bug of ours."""
    if isinstance(error, SettingsError | LoadError):
        return str(error)
    from pydantic import ValidationError
    from unmask_diffusion import RequestError, SamplingError
    from unmask_model_store import BundleError

    from unmask_service.process import ListenError
    from unmask_service.startup import MemoryBudgetError

    if isinstance(error, ValidationError):
        # of a field that may be of one of several types, what came farthest is told
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
