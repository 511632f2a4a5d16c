"""`unmask score`: the likelihood of a text in this process, without a server, read as the server reads it."""

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unmask_service.cli.generate import open_model
from unmask_service.cli.options import Device, Dtype, Model, ModelDir, Threads
from unmask_service.settings import read_settings

if TYPE_CHECKING:
    from unmask_diffusion import Estimate, Score, ScorePlan, Tally
    from unmask_model_store import Bundle

STANDARD_INPUT = "-"


def score(
    file: Annotated[str, typer.Argument(metavar="FILE", help="the text, in UTF-8; - reads it from standard input")],
    ids: Annotated[bool, typer.Option("--ids", help="FILE, --prompt and --suffix are JSON lists of token ids")] = False,
    prompt: Annotated[str, typer.Option(help="what comes before the text: given, not scored")] = "",
    suffix: Annotated[str, typer.Option(help="what comes after the text: given, not scored")] = "",
    given: Annotated[
        str | None, typer.Option(metavar="0,5,…", help="positions of the text's tokens that are given, not scored")
    ] = None,
    estimator: Annotated[
        str | None,
        typer.Option(metavar="orders|integral", help="random orders, or all masked at low-discrepancy rates"),
    ] = None,
    budget: Annotated[
        int | None, typer.Option(metavar="N", help="network evaluations at most [4 pairs of orders, or 128 a window]")
    ] = None,
    standard_error_per_token: Annotated[
        float | None, typer.Option(metavar="NATS", help="stop as soon as the standard error a token is no larger")
    ] = None,
    overlap: Annotated[
        int | None, typer.Option(metavar="TOKENS", help="that windows of a long text share [half a window]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="the same seed gives the same numbers; drawn when left out")] = None,
    published_integrand: Annotated[
        bool, typer.Option("--published-integrand", help="also what MDM-Prime's paper reports, which is no bound")
    ] = False,
    per_token: Annotated[
        bool, typer.Option("--per-token", help="also the text, coloured by what each token costs")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object, for scripts")] = False,
    model: Model = None,
    model_dir: ModelDir = None,
    device: Device = None,
    dtype: Dtype = None,
    threads: Threads = None,
) -> None:
    """Say how likely a text is: an upper bound on its -log p, with its standard error; no server is needed.

    A text that is longer than the model is cut into windows, each of which sees the end of the one before. One line
    break at the end of FILE is the file's and is not scored.

    For example:

        unmask score tale.txt
        echo " Nina hugged the cloak and went home." | unmask score - --prompt "Once there was Nina." --per-token
        unmask score book.txt --estimator integral --standard-error-per-token 0.01 --seed 7
        unmask score ids.json --ids --json
    """
    settings = read_settings(model=model, model_dir=model_dir, device=device, dtype=dtype, threads=threads)
    fields = {
        "given": None if given is None else positions_of(given),
        "estimator": estimator,
        "budget": budget,
        "standard_error_per_token": standard_error_per_token,
        "overlap": overlap,
        "seed": seed,
        "published_integrand": published_integrand,
        "per_token": per_token,
    }
    request: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    texts = {"input": text_of(file), "prompt": prompt, "suffix": suffix}
    request |= {name: ids_of(name, text) if ids else text for name, text in texts.items()}
    from unmask_diffusion import ScoreRequest, make_score_plan

    checked = ScoreRequest.model_validate(request)
    bundle = open_model(settings)
    plan = make_score_plan(bundle, checked)
    found = watch(bundle, plan)
    if as_json:
        from unmask_service.api import ScoreNumbers, Vocabulary

        typer.echo(ScoreNumbers.of(bundle.name, plan, found, Vocabulary(bundle).text_of).model_dump_json())
    else:
        from unmask_service.cli.score_view import show

        show(bundle, plan, found)


def text_of(file: str) -> str:
    """What a file holds, but for one line break at its end."""
    from unmask_diffusion import RequestError

    read = sys.stdin.buffer.read() if file == STANDARD_INPUT else Path(file).read_bytes()
    try:
        text = read.decode()
    except UnicodeDecodeError as error:
        raise RequestError("input", f"input is not valid UTF-8: {file}, byte {error.start}") from error
    return text.removesuffix("\n").removesuffix("\r")


def ids_of(param: str, text: str) -> list[int]:
    """A JSON list of token ids; nothing stands for none."""
    from unmask_diffusion import RequestError

    try:
        ids = json.loads(text) if text else []
    except ValueError as error:
        raise RequestError(param, f"{param} is no JSON list of token ids: {error}") from error
    if not isinstance(ids, list) or any(type(each) is not int for each in ids):
        raise RequestError(param, f"{param} is no JSON list of token ids")
    return ids


def positions_of(given: str) -> list[int]:
    """Positions with commas between them."""
    from unmask_diffusion import RequestError

    try:
        return [int(position) for position in given.split(",")]
    except ValueError as error:
        raise RequestError("given", f"given is {given!r}; positions look like 0,5,7") from error


def watch(bundle: "Bundle", plan: "ScorePlan") -> "Score":
    """Score, with a progress bar where there is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from unmask_diffusion import run_score

    console = Console(stderr=True)
    columns = (TextColumn("network evaluations"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = TextColumn("{task.description}")
    with Progress(*columns, shown, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=plan.network_evaluations)

        def advance(tally: "Tally") -> None:
            progress.update(task, completed=tally.evaluations, description=so_far(tally))

        return run_score(bundle, plan, advance)


def so_far(tally: "Tally") -> str:
    """The estimate as it stands, per token."""
    estimate, tokens = tally.estimate(), tally.plan.scored_tokens
    if estimate is None:
        return ""
    return f"{estimate_text(estimate, tokens)} nats per token"


def estimate_text(estimate: "Estimate", share: int = 1) -> str:
    """A mean and its standard error, to two digits of the latter."""
    nats, error = estimate.nats / share, estimate.standard_error / share
    decimals = min(6, max(1, 1 - math.floor(math.log10(error)))) if error > 0 else 4
    return f"{nats:.{decimals}f} ± {error:.{decimals}f}"
