"""`unmask frontier`: every sampler at a few budgets of network evaluations, against the truth."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from unmask_service.cli.generate import open_model
from unmask_service.cli.options import Device, Dtype, ModelDir, Threads
from unmask_service.settings import MOST_SAMPLES, Settings, read_settings

if TYPE_CHECKING:
    from unmask_diffusion import Model

    from unmask_service.frontier import Frontier, Judge

# columns of the tables, also where the terminal has fewer
LEAST_WIDTH = 130


@dataclass(frozen=True)
class Subject:
    """A model whose samplers are compared."""

    name: str
    model: "Model"
    recommended: Mapping[str, Any] | None = None  # fields of a request, by the model's author
    judge: "Judge | None" = None  # of its samples, from outside


def open_subject(settings: Settings) -> Subject:
    """Open the bundle that the settings name."""
    bundle = open_model(settings, MOST_SAMPLES)
    recommended = bundle.config.generation
    return Subject(bundle.name, bundle, recommended.as_given() if recommended else None)


def frontier_of(opened: Callable[[Settings], Subject]) -> Callable[..., None]:
    """The command, for who opens models in another way or has judges of them."""

    def frontier(
        model: Annotated[
            str | None, typer.Argument(metavar="[MODEL]", help="a bundle's folder, or the name of a known model")
        ] = None,
        evaluations: Annotated[str, typer.Option(metavar="N,…", help="network evaluations a sample")] = "16,32,64,128",
        samples: Annotated[int, typer.Option(min=2, help="of each sampler")] = 64,
        sampler: Annotated[
            list[str] | None, typer.Option(metavar="NAME", help="only this one, as the table calls it; can be repeated")
        ] = None,
        max_tokens: Annotated[int | None, typer.Option(min=2, help="tokens of a sample [the model's length]")] = None,
        scored: Annotated[
            int, typer.Option(min=2, help="network evaluations that bound the probability of a sample")
        ] = 16,
        seed: Annotated[int, typer.Option(min=0, help="the same seed gives the same samples")] = 0,
        out: Annotated[
            Path | None,
            typer.Option(metavar="FILE.json", help="the numbers, and the picture beside it [runs/frontier/MODEL.json]"),
        ] = None,
        model_dir: ModelDir = None,
        device: Device = None,
        dtype: Dtype = None,
        threads: Threads = None,
    ) -> None:
        """Compare all samplers at equal numbers of network evaluations, and name the best.

        A known distribution (architecture table or markov) is compared with itself. Other models are measured by the
        bound of the samples' probability under the model itself, and by what its exact sampler draws.

        A sampler can look better by drawing what is likely more often than it is: by a lower temperature. The entropy
        of its samples stands beside the truth's, and samplers that are clearly below it are called colder and are
        never the best.

        The file is written after each sampler. The same command goes on where it was interrupted.

        For example:

            unmask frontier tales
            unmask frontier ./my-chain --evaluations 8,16 --samples 256 --out chain.json
        """
        settings = read_settings(model=model, model_dir=model_dir, device=device, dtype=dtype, threads=threads)
        budgets = budgets_of(evaluations)
        from unmask_diffusion import RequestError

        from unmask_service import frontier as room

        subject = opened(settings)
        most = subject.model.denoiser.length
        length = max_tokens or most
        if length > most:
            raise RequestError("max-tokens", f"max-tokens is {length}; the model's length is {most} tokens")
        grid = room.Settings(subject.name, samples, seed, length, scored)
        truth = room.truth_of(subject.model, length, subject.judge, scored)
        draws = room.draws_of(subject.model, budgets, sampler or (), subject.recommended)
        file = out or Path("runs") / "frontier" / f"{subject.name}.json"
        console = Console(stderr=True)
        columns = (TextColumn("network evaluations"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        shown = TextColumn("{task.description}")
        with Progress(*columns, shown, console=console, disable=not console.is_terminal, transient=True) as progress:
            task, last = progress.add_task("", total=None), ""

            def report(name: str, done: int, planned: int) -> None:
                nonlocal last
                progress.update(task, completed=done, total=planned, description=name)
                if name != last and name and not console.is_terminal:
                    typer.echo(f"{done:,} of {planned:,} network evaluations; now {name}", err=True)
                last = name

            found = room.measure(subject.model, truth, draws, grid, file, report)
        show(found, budgets, file)

    return frontier


frontier = frontier_of(open_subject)


def budgets_of(evaluations: str) -> list[int]:
    """Read numbers of evaluations with commas between them, ascending."""
    from unmask_diffusion import RequestError

    try:
        found = sorted({int(each) for each in evaluations.split(",")})
    except ValueError as error:
        raise RequestError("evaluations", f"evaluations is {evaluations!r}; it looks like 16,32,64") from error
    if found[0] < 1:
        raise RequestError("evaluations", f"evaluations has {found[0]}; each is at least 1")
    return found


def show(found: "Frontier", budgets: Sequence[int], file: Path) -> None:
    """Print the tables and the best of each budget, and draw the picture where matplotlib is installed."""
    from unmask_service.frontier import tables_of, verdicts

    console = Console(highlight=False, markup=False)
    console.width = max(console.width, LEAST_WIDTH)
    for table in tables_of(found, budgets):
        console.print(table, "")
    for criterion in found.criteria:
        console.print(f"{criterion.name}: {criterion.about}", style="dim")
    console.print(
        "colder: the entropy of the samples is below the truth's by more than three standard errors\n", style="dim"
    )
    for sentence in verdicts(found, budgets):
        console.print(sentence)
    typer.echo(f"\nwrote {file}")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        typer.echo("no picture: it needs matplotlib, pip install 'unmask[lab]'", err=True)
        return
    from unmask_service.frontier import draw_figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    draw_figure(found, figure)
    figure.savefig(file.with_suffix(".png"), dpi=130)
    typer.echo(f"wrote {file.with_suffix('.png')}")
