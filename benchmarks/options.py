"""What the benchmarks' command lines have in common."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from unmask_model_store import SHIPPED_MODEL, Bundle, BundleError, find_bundle, open_bundle
from unmask_model_store.store import default_model_dir
from unmask_service.machine import keep_freed_memory

STDOUT = Path("-")


def parser_of(module_text: str | None) -> argparse.ArgumentParser:
    """A parser that explains itself with its module's text."""
    parser = argparse.ArgumentParser(description=module_text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--json", type=Path, nargs="?", const=STDOUT, metavar="FILE", help="write the figures here, or to stdout"
    )
    return parser


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """`--model`, `--dtype` and `--threads`."""
    parser.add_argument("--model", default=SHIPPED_MODEL, help="a bundle's name or folder (default: %(default)s)")
    parser.add_argument(
        "--dtype", default="auto", help="of the blocks' projections: auto (as the server has it), float32, bfloat16"
    )
    parser.add_argument("--threads", type=int, help="threads of the arithmetic (default: torch's choice)")


def open_model(arguments: argparse.Namespace) -> Bundle:
    """Open the bundle that the options name, on the CPU, and set memory and torch's threads as the server does.

    Raises:
        SystemExit: there is no such bundle, or it is broken; a line says what is wrong.
    """
    keep_freed_memory()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    try:
        return open_bundle(find_bundle(arguments.model, default_model_dir()), arguments.dtype)
    except BundleError as error:
        raise SystemExit(str(error)) from error


def described(bundle: Bundle) -> str:
    """A model in a line."""
    config = bundle.config
    digits = f"l {config.sub_tokens_per_token}, b {config.base}"
    return f"{bundle.name} (L {config.length}, C {config.vocabulary_size}, {digits}), {str(bundle.dtype)[6:]}"


def for_people(file: Path | None) -> AbstractContextManager[Any]:
    """Tables and progress go to stderr in this context if the figures themselves go to stdout."""
    return redirect_stdout(sys.stderr) if file == STDOUT else nullcontext()


def write_json(file: Path | None, figures: Mapping[str, object]) -> None:
    """Write figures where a file was asked for, or to stdout."""
    if file == STDOUT:
        print(json.dumps(figures, indent=1))
    elif file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(figures, indent=1) + "\n")


def run_benchmark(
    parser: argparse.ArgumentParser,
    measured: Callable[[argparse.Namespace], Mapping[str, object]],
    given: Sequence[str] | None,
) -> None:
    """Measure what the command line asks for, with tables and progress for people, and write the figures."""
    arguments = parser.parse_args(given)
    with for_people(arguments.json):
        figures = measured(arguments)
    write_json(arguments.json, figures)


def interpreter() -> list[str]:
    """The command of this Python, with its -X options: child processes run as their parent does."""
    options = [f"-X{name}" if value is True else f"-X{name}={value}" for name, value in sys._xoptions.items()]
    return [sys.executable, *options]
