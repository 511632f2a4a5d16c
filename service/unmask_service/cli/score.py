"""`unmask score`: the likelihood of a text, computed in this process as the server computes it.

In a terminal it is a table, and with --per-token the text in colours: a heat map of what each token costs.
"""

import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from unmask_service.cli.generate import open_model, takes_unicode
from unmask_service.cli.options import Device, Dtype, Model, ModelDir, Threads
from unmask_service.settings import read_settings

if TYPE_CHECKING:
    from unmask_diffusion import Estimate, Outline, Score, ScorePlan, Tally
    from unmask_model_store import Bundle

STANDARD_INPUT = "-"
# without a terminal, a line of progress is printed this often
SECONDS_BETWEEN_LINES = 20.0

# tokens that cost less than so many nats have the style; it is the same in every text, so that texts can be compared
LEVELS = (
    (0.1, "default"),
    (0.5, "black on #ffeda0"),
    (1.0, "black on #feb24c"),
    (2.0, "black on #fc4e2a"),
    (4.0, "white on #bd0026"),
    (float("inf"), "white on #600020"),
)
GIVEN = "grey50"
# what a part of a character is decoded to
REPLACEMENT = "\ufffd"


def score(
    file: Annotated[str, typer.Argument(metavar="FILE", help="the text, in UTF-8; - reads it from standard input")],
    ids: Annotated[bool, typer.Option("--ids", help="FILE, --prompt and --suffix are JSON lists of token ids")] = False,
    prompt: Annotated[str, typer.Option(help="text before FILE's: given, not scored")] = "",
    suffix: Annotated[str, typer.Option(help="text after FILE's: given, not scored")] = "",
    given: Annotated[
        str | None, typer.Option(metavar="0,5,…", help="positions of the text's tokens that are given, not scored")
    ] = None,
    estimator: Annotated[
        str | None,
        typer.Option(
            metavar="orders|integral|left_to_right",
            help="random orders, all masked at low-discrepancy rates, or one order",
        ),
    ] = None,
    budget: Annotated[
        int | None, typer.Option(metavar="N", help="network evaluations at most [4 pairs of orders, or 128 a window]")
    ] = None,
    standard_error_per_token: Annotated[
        float | None, typer.Option(metavar="NATS", help="stop as soon as the standard error a token is no larger")
    ] = None,
    overlap: Annotated[
        int | None, typer.Option(metavar="TOKENS", help="tokens that windows of a long text share [half a window]")
    ] = None,
    block_length: Annotated[
        int | None,
        typer.Option(metavar="TOKENS", help="the bound for blocks of so many tokens from left to right [one block]"),
    ] = None,
    unit: Annotated[
        str | None, typer.Option(metavar="sub_token|token", help="what an evaluation reveals at least [sub_token]")
    ] = None,
    logprobs: Annotated[
        int | None, typer.Option(metavar="K", help="left_to_right: also the K likeliest classes of each token")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="the same seed gives the same numbers; drawn when left out")] = None,
    published_integrand: Annotated[
        bool,
        typer.Option(
            "--published-integrand", help="also the number that MDM-Prime's paper reports, which is not a bound"
        ),
    ] = False,
    per_token: Annotated[
        bool, typer.Option("--per-token", help="also the text, coloured by the cost of each token")
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
    fields: dict[str, Any] = {"estimator": estimator, "budget": budget, "overlap": overlap, "seed": seed}
    fields |= {"block_length": block_length, "unit": unit, "logprobs": logprobs}
    fields |= {"given": None if given is None else positions_of(given), "per_token": per_token}
    fields |= {"standard_error_per_token": standard_error_per_token, "published_integrand": published_integrand}
    request: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    texts = {"input": text_of(file), "prompt": prompt, "suffix": suffix}
    request |= {name: ids_of(name, text) if ids else text for name, text in texts.items()}
    from unmask_diffusion import ScoreRequest, make_score_plan

    checked = ScoreRequest.model_validate(request)
    bundle = open_model(settings, canvases=8)
    plan = make_score_plan(bundle, checked)
    found = watch(bundle, plan)
    if as_json:
        from unmask_service.api import ScoreNumbers, Vocabulary

        numbers = ScoreNumbers.of(bundle.name, plan, found, Vocabulary(bundle).text_of, bundle.image is not None)
        typer.echo(numbers.model_dump_json(ensure_ascii=not takes_unicode(sys.stdout)))
    else:
        show(bundle, plan, found)


def text_of(file: str) -> str:
    """Read a file, without one line break at its end."""
    from unmask_diffusion import RequestError

    read = sys.stdin.buffer.read() if file == STANDARD_INPUT else Path(file).read_bytes()
    try:
        text = read.decode()
    except UnicodeDecodeError as error:
        raise RequestError("input", f"input is not valid UTF-8: {file}, byte {error.start}") from error
    return text.removesuffix("\n").removesuffix("\r")


def ids_of(param: str, text: str) -> list[int]:
    """Read a JSON list of token ids; an empty text is an empty list."""
    from unmask_diffusion import RequestError

    try:
        ids = json.loads(text) if text else []
    except ValueError as error:
        raise RequestError(param, f"{param} is not a JSON list of token ids: {error}") from error
    if not isinstance(ids, list) or any(type(each) is not int for each in ids):
        raise RequestError(param, f"{param} is not a JSON list of token ids")
    return ids


def positions_of(given: str) -> list[int]:
    """Read positions with commas between them."""
    from unmask_diffusion import RequestError

    try:
        return [int(position) for position in given.split(",")]
    except ValueError as error:
        raise RequestError("given", f"given is {given!r}; positions look like 0,5,7") from error


def watch(bundle: "Bundle", plan: "ScorePlan") -> "Score":
    """Score with a progress bar on stderr, or without a terminal, with a line now and then."""
    from unmask_diffusion import run_score

    console = Console(stderr=True)
    columns = (TextColumn("network evaluations"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = TextColumn("{task.description}")
    begun = printed = time.monotonic()
    with Progress(*columns, shown, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=plan.network_evaluations)

        def advance(tally: "Tally") -> None:
            nonlocal printed
            progress.update(task, completed=tally.evaluations, description=so_far(tally))
            now = time.monotonic()
            if not console.is_terminal and tally.evaluations and now - printed >= SECONDS_BETWEEN_LINES:
                printed, planned = now, plan.network_evaluations
                left = (now - begun) * (planned / tally.evaluations - 1)
                done = f"{tally.evaluations:,} of {planned:,} network evaluations"
                words = (done, f"at most {left:.0f} s left", so_far(tally))
                typer.echo(", ".join(filter(None, words)), err=True)

        return run_score(bundle, plan, advance)


def so_far(tally: "Tally") -> str:
    """The current estimate per token, once there is one."""
    estimate = tally.estimate()
    return "" if estimate is None else f"{estimate_text(estimate, tally.plan.scored_tokens)} nats per token"


def estimate_text(estimate: "Estimate", share: int = 1) -> str:
    """A mean and its standard error, to two digits of the latter."""
    nats, error = estimate.nats / share, estimate.standard_error / share
    decimals = min(6, max(1, 1 - math.floor(math.log10(error)))) if error > 0 else 4
    return f"{nats:.{decimals}f} ± {error:.{decimals}f}"


def show(bundle: "Bundle", plan: "ScorePlan", score: "Score") -> None:
    """Print a table for people, and the heat map where the request has per_token."""
    console = Console(highlight=False, markup=False)
    table = Table(title=bundle.name, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows_of(plan, score, bundle.image is not None):
        table.add_row(name, value)
    console.print(table)
    if plan.request.per_token and console.color_system is None:
        console.print("\nno colours here: --json tells the nats of each token")
    elif plan.request.per_token:
        console.print("", legend(), "", heat_map(bundle, plan, score), sep="\n")


def rows_of(plan: "ScorePlan", score: "Score", picture: bool = False) -> list[tuple[str, str]]:
    """The rows of the table; ± is one standard error."""
    of_estimator = {
        "orders": "pairs of random orders",
        "integral": "passes over the mask rates",
        "left_to_right": "pass",
    }
    replicates = f"{score.replicates:,} {of_estimator[plan.request.estimator]}"
    if plan.request.block_length is not None:
        replicates += f" in blocks of {_count(plan.request.block_length, 'token')}"
    perplexity = score.perplexity_per_token
    perplexities = f"{'beyond a double' if perplexity is None else f'{perplexity:.4g}'} per token"
    if score.perplexity_per_word is not None and score.words is not None:
        perplexities += f", {score.perplexity_per_word:.4g} per word, {_count(score.words, 'word')}"
    rows = [
        ("bound on -log p", f"{estimate_text(score.bound)} nats"),
        ("per token", f"{estimate_text(score.bound, score.tokens)} nats, {_count(score.tokens, 'token')}"),
        ("perplexity", perplexities),
    ]
    if score.bits_per_byte is not None and score.bytes is not None:
        rows.append(("bits per byte", f"{score.bits_per_byte:.4g}, {_count(score.bytes, 'byte')}"))
    if score.published is not None:
        published = f"{estimate_text(score.published)} nats, {estimate_text(score.published, score.tokens)} per token"
        rows.append(("published integrand", f"{published}: no bound"))
    if picture:
        rows.append(("bits per dimension", f"{score.nats_per_token / math.log(2):.4g}"))
    wished = plan.request.standard_error_per_token
    if wished is not None and score.standard_error_per_token > wished:
        most = "--budget" if plan.request.budget is not None else "what is planned without --budget"
        rows.append(("not reached", f"a standard error of {wished:g} per token: {most} is spent"))
    shared = "" if len(plan.windows) == 1 else f", each sharing {plan.overlap:,} with the one before"
    return [
        *rows,
        ("windows", f"{len(plan.windows):,} of {_count(plan.window_tokens, 'token')}{shared}"),
        ("averaged over", f"{replicates}, {score.network_evaluations:,} network evaluations"),
        ("seed", str(plan.seed)),
    ]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


# --- the heat map ----------------------------------------------------------------------------------------------------


def style_of(nats: float) -> str:
    """The style of a token by its cost in nats."""
    return next(style for limit, style in LEVELS if nats < limit)


def legend() -> Text:
    """The key of the colours."""
    text, before = Text("nats  "), ""
    for limit, style in LEVELS:
        label = f"{before} and more" if limit == float("inf") else f"below {limit:g}"
        text.append(f" {label} ", style).append(" ")
        before = f"{limit:g}"
    return text


def heat_map(model: "Outline", plan: "ScorePlan", score: "Score") -> Text:
    """The input's text, each token in the style of its nats; given tokens are grey."""
    text = Text()
    for style, pieces in groupby(_pieces(model, plan, score), key=lambda piece: piece[0]):
        text.append(_words(model, [token for _, tokens in pieces for token in tokens]), style)
    return text


def _pieces(model: "Outline", plan: "ScorePlan", score: "Score") -> Iterator[tuple[str, list[int]]]:
    """Tokens with their styles. Tokens that share a character come together, with the sum of their nats."""
    nats = {each.position: each.nats for each in score.token_nats}
    first, waiting, cost = len(plan.request.prompt), list[int](), 0.0
    for position in range(len(plan.request.input)):
        waiting.append(plan.tokens[first + position])
        cost += nats.get(position, 0.0)
        following = position + 1
        if (following in nats) != (position in nats) or not _words(model, waiting).endswith(REPLACEMENT):
            yield style_of(cost) if position in nats else GIVEN, waiting
            waiting, cost = [], 0.0
    if waiting:
        yield style_of(cost), waiting


def _words(model: "Outline", tokens: Sequence[int]) -> str:
    if model.tokenizer is None:
        return "".join(f"{token} " for token in tokens)
    return model.tokenizer.decode(list(tokens), skip_special_tokens=False)
