"""Train a model from nothing, offline, with one command: `python -m training tales` or `python -m training books`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import torch
import typer

from training import run_books, run_tales
from training.objective import Objective
from training.recipe import Budget
from training.session import RunOptions

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode="markdown", help=__doc__)

Out = Annotated[Path, typer.Option(help="Folder of the run: checkpoint, log, curve and bundle are written here.")]
Minutes = Annotated[float, typer.Option(min=0.01, help="Time budget. Learning rate and curriculum are laid out on it; "
                                        "a resumed run counts the time it has already had.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Budget in steps instead: reproducible bit for bit.")]
Resume = Annotated[bool, typer.Option(help="Go on from the checkpoint in --out.")]
Device = Annotated[str, typer.Option(help="cpu, or cuda: the same recipe in minutes.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads (default: all cores).")]
Seed = Annotated[int, typer.Option(help="Of parameters, data and masks.")]
Hidden = Annotated[int | None, typer.Option(help="Width of the network (default: the recipe's).")]
Blocks = Annotated[int | None, typer.Option(help="Transformer blocks (default: the recipe's).")]
Heads = Annotated[int | None, typer.Option(help="Attention heads (default: the recipe's).")]
BatchTokens = Annotated[int | None, typer.Option(help="Tokens a batch (default: the recipe's).")]
ObjectiveOption = Annotated[str | None, typer.Option("--objective", help="joint or marginals (default: the recipe's).")]
Samples = Annotated[int, typer.Option(min=0, help="Free samples that are drawn and judged at the end.")]
Every = Annotated[float, typer.Option("--evaluate-every", min=0.01, help="Minutes between evaluations; each writes "
                                      "the checkpoint and the bundle anew.")]


@app.command()
def tales(
    out: Out = Path("runs/tales"),
    minutes: Minutes = 90.0,
    steps: Steps = None,
    resume: Resume = False,
    device: Device = "cpu",
    threads: Threads = None,
    seed: Seed = 0,
    hidden_size: Hidden = None,
    blocks: Blocks = None,
    heads: Heads = None,
    batch_tokens: BatchTokens = None,
    objective: ObjectiveOption = None,
    samples: Samples = 128,
    evaluate_every: Every = 5.0,
) -> None:
    """Train the model that ships, on tales that are told on the spot.

    Needs no data and no network. On two CPU cores the sentences are whole after a few minutes; names and things stay
    themselves through a tale after an hour or so. The bundle is in OUT/bundle from the first evaluation on.
    """
    recipe = _changed(run_tales.RECIPE, seed, hidden_size, blocks, heads, batch_tokens, objective)
    run_tales.run(recipe, _options(out, minutes, steps, resume, device, threads, samples, evaluate_every))


@app.command()
def books(
    folder: Annotated[Path, typer.Option("--books", help="Folder of *.txt and/or Standard Ebooks repositories.")],
    out: Out = Path("runs/books"),
    minutes: Minutes = 120.0,
    steps: Steps = None,
    resume: Resume = False,
    device: Device = "cpu",
    threads: Threads = None,
    seed: Seed = 0,
    hidden_size: Hidden = None,
    blocks: Blocks = None,
    heads: Heads = None,
    batch_tokens: BatchTokens = None,
    objective: ObjectiveOption = None,
    samples: Samples = 4,
    evaluate_every: Every = 10.0,
) -> None:
    """Train on real prose: Standard Ebooks' XHTML or plain text, with a vocabulary of its own.

    Three million words want a GPU: after an hour on two CPU cores the text has a storybook's phrases, not its sense.
    """
    recipe = _changed(run_books.RECIPE, seed, hidden_size, blocks, heads, batch_tokens, objective)
    options = _options(out, minutes, steps, resume, device, threads, samples, evaluate_every)
    try:
        run_books.run(recipe, options, folder)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--books") from error


def _changed(recipe, seed, hidden_size, blocks, heads, batch_tokens, objective):  # type: ignore[no-untyped-def]
    ...


if __name__ == "__main__":
    app()
