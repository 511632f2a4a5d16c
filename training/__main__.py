"""Train a model from nothing, offline, with one command: `python -m training tales`."""

import dataclasses
import os
from pathlib import Path
from typing import Annotated, Any

import typer

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported: docs/settings.md, Threads

from training import run_books, run_faces, run_tales
from training.recipe import Budget, Recipe
from training.session import Options

_BOOLEANS = {"true": True, "false": False}
app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)

Out = Annotated[Path, typer.Option(help="Folder of the run: the checkpoint, and the model in OUT/bundle.")]
Minutes = Annotated[
    float,
    typer.Option(
        min=0.001,
        help="Time budget, evaluations and samples included; the learning rate falls to zero at its end. "
        "A resumed run counts the minutes that it has already had.",
    ),
]
Steps = Annotated[int | None, typer.Option(min=1, help="Budget in steps instead: reproducible bit for bit.")]
Name = Annotated[str | None, typer.Option(help="Name of the model (default: my-tales or my-books).")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in OUT.")]
Device = Annotated[str, typer.Option(help="cpu for hours, or cuda for minutes: the same recipe.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads (default: all cores).")]
Samples = Annotated[int, typer.Option(min=0, help="Free samples drawn at the end for the model card.")]
Every = Annotated[
    float, typer.Option(min=0.001, help="Minutes between evaluations; each writes checkpoint and bundle.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a number of the recipe, "
        "for example --set hidden_size=256 --set objective=marginals. "
        "May be repeated; an unknown key lists the known ones.",
    ),
]


@app.command()
def tales(
    out: Out = Path("runs/tales"),
    minutes: Minutes = 90.0,
    steps: Steps = None,
    name: Name = None,
    resume: Resume = False,
    device: Device = "cpu",
    threads: Threads = None,
    samples: Samples = 128,
    evaluate_every: Every = 5.0,
    changes: Changes = None,
) -> None:
    """Train the model that ships, on tales that are told on the spot.

    Needs no data and no network. Sentences are whole after a few minutes; names and things stay themselves through a
    tale after an hour or more on two CPU cores. OUT/bundle can be served from the first evaluation on.
    """
    recipe = change(run_tales.RECIPE, changes or [])
    run_tales.run(recipe, Options(out, Budget(minutes, steps), name, resume, device, threads, samples, evaluate_every))


@app.command()
def faces(
    out: Out = Path("runs/faces"),
    minutes: Minutes = 90.0,
    steps: Steps = None,
    name: Name = None,
    resume: Resume = False,
    device: Device = "cpu",
    threads: Threads = None,
    samples: Samples = 128,
    evaluate_every: Every = 5.0,
    changes: Changes = None,
) -> None:
    """Train the image model that ships, on avatars that are composed on the spot.

    Needs no data and no network. OUT/sheet.png shows free samples after each evaluation.
    """
    recipe = change(run_faces.RECIPE, changes or [])
    run_faces.run(recipe, Options(out, Budget(minutes, steps), name, resume, device, threads, samples, evaluate_every))


@app.command()
def books(
    folder: Annotated[Path, typer.Option("--books", help="Folder of *.txt files and Standard Ebooks repositories.")],
    out: Out = Path("runs/books"),
    minutes: Minutes = 120.0,
    steps: Steps = None,
    name: Name = None,
    resume: Resume = False,
    device: Device = "cpu",
    threads: Threads = None,
    samples: Samples = 4,
    evaluate_every: Every = 10.0,
    changes: Changes = None,
) -> None:
    """Train on real prose: Standard Ebooks' XHTML or plain text, with a vocabulary of its own.

    A plain text has a paragraph a line; a line <|eot|> ends a chapter. Three million words want a GPU: after an hour on
    two CPU cores the text has a storybook's phrases, not its sense.
    """
    recipe = change(run_books.RECIPE, changes or [])
    options = Options(out, Budget(minutes, steps), name, resume, device, threads, samples, evaluate_every)
    try:
        run_books.run(recipe, options, folder)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--books") from error


def change(recipe: Recipe, changes: list[str]) -> Recipe:
    """Apply KEY=VALUE changes to a recipe.

    Raises:
        typer.BadParameter: a key is unknown, or a value not of its kind.
    """
    kinds = {field.name: type(getattr(recipe, field.name)) for field in dataclasses.fields(recipe)}
    values: dict[str, Any] = {}
    for entry in changes:
        key, _, value = entry.partition("=")
        if key not in kinds:
            raise typer.BadParameter(f"{key!r} is none of {', '.join(kinds)}", param_hint="--set")
        try:
            values[key] = _BOOLEANS[value] if kinds[key] is bool else kinds[key](value)
        except (KeyError, ValueError) as error:
            raise typer.BadParameter(f"{entry}: {error}", param_hint="--set") from error
    return dataclasses.replace(recipe, **values)


if __name__ == "__main__":
    app()
