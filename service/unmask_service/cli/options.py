"""Options that are settings, described once: by the settings."""

from pathlib import Path
from typing import Annotated, Any

import typer

from unmask_service.settings import Settings, option_of, variable_of


def setting(name: str, **more: Any) -> Any:  # noqa: ANN401 — typer's OptionInfo is untyped
    """The command-line option of a setting. Its default is None: then the environment and the default speak."""
    field = Settings.model_fields[name]
    default = "" if field.default is None else f", default {field.default}"
    return typer.Option(
        option_of(name), help=f"{field.description} [{variable_of(name)}{default}]", show_default=False, **more
    )


Model = Annotated[str | None, setting("model", metavar="NAME_OR_PATH")]
ModelDir = Annotated[Path | None, setting("model_dir", metavar="DIR")]
Device = Annotated[str | None, setting("device", metavar="auto|cpu|cuda")]
Dtype = Annotated[str | None, setting("dtype", metavar="auto|float32|bfloat16")]
Threads = Annotated[int | None, setting("threads", metavar="N")]
