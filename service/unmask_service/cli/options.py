"""Command-line options that are settings. Their descriptions are the settings' own."""

from collections.abc import Callable, Sequence
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any

import typer

from unmask_service.settings import Settings, option_of, read_settings, variable_of

# placeholders of values in `--help`, by name or by the end of the name
METAVARS = {
    "model": "NAME_OR_PATH",
    "host": "HOST",
    "device": "auto|cpu|cuda",
    "dtype": "auto|float32|bfloat16",
    "speculation": "auto|off|N",
    "log_level": "debug|info|warning|error",
    "log_format": "text|json",
    "log_prompts": "true|false",
    "api_keys": "NAME:SHA256,…",
    "cors_origins": "ORIGIN,…",
    "root_path": "PATH",
    "trusted_proxies": "ADDRESS,…",
    "redis_prefix": "PREFIX",
    "memory_budget": "BYTES",
}
ENDINGS = {"_seconds": "SECONDS", "_bytes": "BYTES", "_dir": "DIR", "_file": "FILE", "_url": "URL", "port": "PORT"}


def setting(name: str, **more: Any) -> Any:  # noqa: ANN401 — typer's OptionInfo is untyped
    """The command-line option of a setting. Its default is None, which leaves the setting to the environment."""
    field = Settings.model_fields[name]
    default = "" if field.default in (None, "") else f", default {field.default}"
    return typer.Option(
        option_of(name), help=f"{field.description} [{variable_of(name)}{default}]", show_default=False, **more
    )


Model = Annotated[str | None, setting("model", metavar="NAME_OR_PATH")]
ModelDir = Annotated[Path | None, setting("model_dir", metavar="DIR")]
Device = Annotated[str | None, setting("device", metavar="auto|cpu|cuda")]
Dtype = Annotated[str | None, setting("dtype", metavar="auto|float32|bfloat16")]
Threads = Annotated[int | None, setting("threads", metavar="N")]


def settings_command(name: str, settings: Sequence[str], help_text: str) -> Callable[..., None]:
    """Make a command of `app` with settings as its options. All of them are text here: the settings check them."""

    def command(**given: str | list[str] | None) -> None:
        checked = read_settings(**dict.fromkeys(Settings.model_fields) | given)
        from unmask_service.app import start  # imports torch: `--help` does not wait for it

        start(name, checked)

    command.__name__ = name
    command.__doc__ = help_text
    options = [
        Parameter(each, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, _option(each)])
        for each in settings
        for kind in [list[str] | None if each == "model" and name != "worker" else str | None]
    ]
    command.__signature__ = Signature(options, return_annotation=None)  # type: ignore[attr-defined]  # for typer
    return command


def _option(name: str) -> Any:  # noqa: ANN401 — typer's OptionInfo is untyped
    endings = (metavar for ending, metavar in ENDINGS.items() if name.endswith(ending))
    return setting(name, metavar=METAVARS.get(name) or next(endings, "N"))
