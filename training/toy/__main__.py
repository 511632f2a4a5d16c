"""Joint and independent parameterization on a distribution that can be looked at: `python -m training.toy`."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported: docs/settings.md, Threads

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from training.recipe import Budget
from training.toy.bundles import write_bundles
from training.toy.experiment import Options, Report, learn_both, measure
from training.toy.figure import draw_side_by_side
from training.toy.learning import HIDDEN_SIZE
from training.toy.pictures import PICTURES
from training.toy.report import figures, panels, table

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command()
def toy(
    picture: Annotated[str, typer.Option(help=f"What is learnt: {', '.join(PICTURES)}.")] = "rings",
    sub_tokens: Annotated[
        int,
        typer.Option(
            min=1, max=9, help="Digits a token, l, in the smallest base that is enough: 9 bits, or 3 digits in base 8."
        ),
    ] = 9,
    seconds: Annotated[float, typer.Option(min=0.001, help="Training time of each of the two networks.")] = 120.0,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps instead: reproducible bit for bit.")] = None,
    orders: Annotated[
        int, typer.Option(min=1, max=64, help="Random orders that a sampler's distribution is computed along.")
    ] = 2,
    samples: Annotated[int, typer.Option(min=0, help="Points to draw too, with the server's sampler.")] = 8192,
    seed: Annotated[int, typer.Option(min=0, help="Of parameters, points, masks, orders and samples.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads (default: all cores).")] = None,
    out: Annotated[Path, typer.Option(help="Folder for toy.png and toy.json.")] = Path("runs/toy"),
    bundles: Annotated[
        bool,
        typer.Option("--bundles", help="Write OUT/joint and OUT/independent: unmask serve --model OUT/independent."),
    ] = False,
) -> None:
    """Learn a picture with a joint head and with an independent one, and look at what samplers make of both.

    A picture of 512 x 512 is a density over two tokens, x and y, of 512 classes each, and each token is written in l
    digits. The same small network is trained twice, with one logit a class (joint) and with one logit a digit
    (independent), on the valid bound with partial masking. Then the distribution over all points that a sampler
    draws from is computed, digit by digit, and points are drawn with the server's own sampler.

    A sampler that reveals one digit at a time needs of a network only what one digit is, given all that is known: the
    independent head can say that as well as the joint one. Digits of one token that are revealed together are drawn
    from the head's joint distribution of them, and an independent head has only a product.

        python -m training.toy
        python -m training.toy --picture word --sub-tokens 3 --out runs/word --bundles
    """
    if picture not in PICTURES:
        raise typer.BadParameter(f"{picture!r} is none of {', '.join(PICTURES)}", param_hint="--picture")
    if HIDDEN_SIZE % sub_tokens:
        raise typer.BadParameter(f"{sub_tokens} does not divide the network's {HIDDEN_SIZE}", param_hint="--sub-tokens")
    if threads is not None:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    options = Options(picture, sub_tokens, Budget(seconds / 60, steps), orders, samples, seed)
    console = Console()
    with _progress(console) as report:
        learnt = learn_both(options, report)
        measured = {head: measure(each, options, report) for head, each in learnt.items()}
    out.mkdir(parents=True, exist_ok=True)
    draw_side_by_side(panels(options, measured), out / "toy.png")
    (out / "toy.json").write_text(json.dumps(figures(options, measured), indent=2) + "\n")
    if bundles:
        write_bundles(learnt, options, out)
    console.print(table(options, measured))


@contextmanager
def _progress(console: Console) -> Iterator[Report]:
    """A bar of what is being done."""
    columns = (
        TextColumn("{task.percentage:5.1f} %"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda words, share: bar.update(task, description=words, completed=share)


if __name__ == "__main__":
    app()
