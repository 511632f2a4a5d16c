"""`unmask generate`: generate in this process, without a server, with the server's own sampler.

In a terminal the canvas is drawn while it unmasks, as on the playground: given, unmasked, intermediate and masked
tokens have a style each; an intermediate token shows its known digits, and what is new since the last frame glows.
"""

import codecs
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from unmask_service.cli.options import Device, Dtype, Model, ModelDir, Threads
from unmask_service.cli.pictures import draw, half_blocks, picture_fields
from unmask_service.settings import MOST_SAMPLES, Settings, read_settings

if TYPE_CHECKING:
    from torch import Tensor
    from unmask_diffusion import ActiveSample, Outline, Plan
    from unmask_diffusion import Model as Network
    from unmask_model_store import Bundle

SEED_LIMIT = 2**63
FRAMES_PER_SECOND = 20

State = Literal["given", "unmasked", "intermediate", "masked", "after_end"]
STYLES: dict[State, str] = {
    "given": "bold",
    "unmasked": "",
    "intermediate": "black on cyan",
    "masked": "grey50",
    "after_end": "grey37",
}
GLOW = "bold bright_cyan"
MASKED_DIGIT, END = "·", "⏎"


def generate(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="the prompt; may be left out")] = "",
    suffix: Annotated[str, typer.Option(help="text after the gap that is filled")] = "",
    max_tokens: Annotated[int | None, typer.Option(help="tokens to generate (64, or what still fits)")] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="samples; more than 64 become requests of 64")] = 1,
    seed: Annotated[int | None, typer.Option(help="the same seed gives the same tokens; drawn when left out")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 takes the most probable")] = None,
    top_k: Annotated[int | None, typer.Option(help="0 is off")] = None,
    top_p: Annotated[float | None, typer.Option(help="1 is off")] = None,
    min_p: Annotated[float | None, typer.Option(help="0 is off")] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            help="first_hitting, ancestral, remasking, confidence, margin, entropy, entropy_bounded or threshold"
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="first_hitting: groups (exact when left out); ancestral, remasking: T")
    ] = None,
    unit: Annotated[
        str | None, typer.Option(help="what a step reveals: sub_token; token: all of a position's together")
    ] = None,
    high_order: Annotated[str | None, typer.Option(help="high-order steps: extrapolation")] = None,
    block_length: Annotated[
        int | None, typer.Option(help="fill blocks of so many tokens from left to right [one block]; 1: left to right")
    ] = None,
    clock: Annotated[
        int | None, typer.Option(help="time bins and groups end at (i/T)^CLOCK [the model's own]; 1: equal ones")
    ] = None,
    cut: Annotated[
        str | None, typer.Option(help="sizes of the steps in confidence order: even, llada, dream or dllm")
    ] = None,
    schedule: Annotated[str | None, typer.Option(help="when remasking masks again: cap, rescale or loop")] = None,
    rate: Annotated[float | None, typer.Option(help="how much remasking masks again, 0 to 1")] = None,
    bound: Annotated[
        float | None, typer.Option(help="entropy_bounded: nats an evaluation; threshold: least probability")
    ] = None,
    guidance: Annotated[float | None, typer.Option(help="two canvases an evaluation, with and without TEXT")] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="without the settings that the model recommends: the API's defaults")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="a line of JSON a sample, for scripts")] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="write the lines of JSON to this file; with the name *.png a contact sheet"),
    ] = None,
    film: Annotated[
        Path | None, typer.Option(metavar="PNG", help="image models: also write a film of the unmasking, with --out")
    ] = None,
    image: Annotated[Path | None, typer.Option(metavar="PNG", help="image models: a picture to complete")] = None,
    mask: Annotated[
        Path | None, typer.Option(metavar="PNG", help="where it is transparent, pixels of --image are generated")
    ] = None,
    keep_digits: Annotated[
        str | None, typer.Option(metavar="0,…", help="keep these digits of the pixels that are generated")
    ] = None,
    model: Model = None,
    model_dir: ModelDir = None,
    device: Device = None,
    dtype: Dtype = None,
    threads: Threads = None,
) -> None:
    """Generate in the terminal, unmasking before your eyes; no server is needed.

    More than 64 samples become requests of 64 with the seeds SEED, SEED + 1, …; each line of JSON has the seed and the
    index of its sample.

    The settings that the model recommends (`unmask info`) are used where you give none, and printed on stderr.
    --sampler replaces the recommended sampler as a whole. With --exact what you leave out has the default of the API.

    For example:

        unmask generate "Once upon a time"
        unmask generate "The fox" --suffix "The end." --max-tokens 40 --seed 7
        unmask generate "Once upon a time" --exact
        unmask generate "Once" --sampler ancestral --steps 32 --json
        unmask generate "Once" --sampler remasking --steps 64 --rate 0.05
        unmask generate "Once" --sampler entropy_bounded --bound 0.5
        unmask generate "Once" --steps 16 --high-order extrapolation
        unmask generate "Once" --block-length 8 --temperature 0.7
        unmask generate "Once" --sampler confidence --block-length 8 --steps 40 --temperature 0
        unmask generate --n 1000 --out samples.jsonl
        unmask generate --model faces --n 32 --out sheet.png --film film.png
        unmask generate --model faces --image in.png --mask mask.png
    """
    settings = read_settings(model=model, model_dir=model_dir, device=device, dtype=dtype, threads=threads)
    fields = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    fields |= {"max_tokens": max_tokens, "seed": seed}
    chosen: dict[str, Any] = {"name": sampler, "steps": steps, "high_order": high_order, "block_length": block_length}
    chosen |= {"clock": clock, "cut": cut, "guidance": guidance, "schedule": schedule, "rate": rate, "bound": bound}
    chosen |= {"unit": unit}
    request: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    request |= {name: value for name, value in (("prompt", text), ("suffix", suffix)) if value}
    request |= {"sampler": {name: value for name, value in chosen.items() if value is not None}}
    from unmask_diffusion import RequestError

    bundle = open_model(settings, min(n, 8))
    if not exact and bundle.config.generation is not None:
        request = with_recommended(bundle.config.generation.as_given(), request)
        typer.echo(
            f"{settings_in_words(request)} (recommended by {bundle.name}; the API's defaults: --exact)", err=True
        )
    request |= picture_fields(bundle, image, mask, keep_digits, film)
    painter = bundle.image
    as_sheet = painter is not None and out is not None and out.suffix.lower() == ".png"
    if film is not None and not as_sheet:
        raise RequestError("film", "film is written beside a contact sheet: give --out with a name that ends in .png")
    plans = plans_of(bundle, request, n)
    first = next(plans)  # a wrong request is refused before a file is touched
    print_warnings(bundle, first)
    plans = chain([first], plans)
    if painter is not None and out is not None and as_sheet:
        draw(bundle, painter, plans, out, film)
    elif out is not None:
        with out.open("w", encoding="utf-8") as file:
            write_lines(bundle, plans, file, n)
    elif as_json:
        write_lines(bundle, plans, sys.stdout, n)
    else:
        watch(bundle, plans)


def open_model(settings: Settings, canvases: int) -> "Bundle":
    """Open the model that the settings name, for evaluations of so many canvases."""
    from unmask_model_store import default_model_dir, find_bundle, open_bundle

    from unmask_service.machine import keep_freed_memory, set_threads

    keep_freed_memory()
    folder = find_bundle(settings.first_model, settings.model_dir or default_model_dir())
    bundle = open_bundle(folder, settings.dtype, settings.device)
    set_threads(settings.threads, bundle, [canvases])
    return bundle


def with_recommended(recommended: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    """A request with recommended settings where it has none; a sampler's name replaces the recommended sampler."""
    sampler = request["sampler"]
    if "name" not in sampler:
        sampler = recommended.get("sampler", {}) | sampler
    return recommended | request | {"sampler": sampler}


def settings_in_words(request: dict[str, Any]) -> str:
    """The settings of a request that are not left out."""
    sampler = request["sampler"]
    named: dict[str, Any] = {
        name: request[name] for name in ("temperature", "top_p", "top_k", "min_p") if name in request
    }
    named |= {("sampler" if name == "name" else name): value for name, value in sampler.items()}
    return "settings: " + (", ".join(f"{name} {value}" for name, value in named.items()) or "the API's defaults")


def print_warnings(bundle: "Bundle", plan: "Plan") -> None:
    """Print on stderr what is wrong with a request that can be served all the same."""
    from unmask_diffusion import untrained_warnings

    for warning in untrained_warnings(plan, bundle.config.trained):
        typer.echo(f"warning: {warning}", err=True)


def plans_of(bundle: "Bundle", request: dict[str, Any], n: int) -> "Iterator[Plan]":
    """Plans of at most 64 samples each; the first seed is the request's or drawn, the next ones count up from it."""
    from unmask_diffusion import GenerationRequest, make_plan

    for start in range(0, n, MOST_SAMPLES):
        chunk = request | {"n": min(MOST_SAMPLES, n - start)}
        plan = make_plan(bundle, GenerationRequest.model_validate(chunk))
        yield plan
        request = request | {"seed": (plan.seed + 1) % SEED_LIMIT}


def write_lines(bundle: "Bundle", plans: "Iterator[Plan]", file: TextIO, n: int) -> None:
    """Write each sample as a line of JSON, with a progress bar where stderr is a terminal and the lines go elsewhere.

    A request with the line's seed and n > index gives the same tokens anywhere.
    """
    from unmask_diffusion import run

    console = Console(stderr=True)
    columns = (TextColumn("samples"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = console.is_terminal and not (file is sys.stdout and file.isatty())
    with Progress(*columns, console=console, disable=not shown) as progress:
        task, before = progress.add_task("samples", total=n), 0
        for plan in plans:

            def advance(samples: "list[ActiveSample]", plan: "Plan" = plan, before: int = before) -> None:
                left = sum(sample.evaluations_left for sample in samples) / max(1, plan.network_evaluations)
                progress.update(task, completed=before + int((1 - left) * len(samples)))

            for sample in run(bundle, plan, advance):
                line = {"seed": plan.seed} | asdict(sample)
                chosen = {name: line[name] for name in ("seed", "index", "text", "token_ids", "finish_reason")}
                file.write(json.dumps(chosen, ensure_ascii=not takes_unicode(file)) + "\n")
            file.flush()
            before += len(plan.schedules)


def takes_unicode(file: TextIO) -> bool:
    """Whether a file takes all characters; else JSON has to escape those that are not ASCII."""
    return codecs.lookup(file.encoding or "utf-8").name == "utf-8"


def watch(bundle: "Bundle", plans: "Iterator[Plan]") -> None:
    """Draw samples while they unmask; without a terminal, print only their texts."""
    from unmask_diffusion import run

    console = Console(highlight=False)
    for plan in plans:
        if console.is_terminal:
            with LiveCanvas(console, bundle, plan) as canvas:
                run(bundle, plan, canvas.show)
        else:
            for sample in run(bundle, plan):
                typer.echo(" ".join(map(str, sample.token_ids)) if sample.text is None else sample.text)


# --- the canvas in the terminal ------------------------------------------------------------------------------------


class LiveCanvas(Live):
    """The canvases of a plan's samples, drawn again as they change."""

    def __init__(self, console: Console, model: "Network", plan: "Plan") -> None:
        super().__init__(console=console, auto_refresh=False, vertical_overflow="ellipsis")
        self.model, self.plan = model, plan
        self._begun = time.perf_counter()
        self._drawn = 0.0
        self._before: list[Tensor] = []

    def show(self, samples: "list[ActiveSample]") -> None:
        """Draw a frame, unless the last one is recent and more will follow."""
        now = time.perf_counter()
        finished = all(sample.finished for sample in samples)
        if finished or now - self._drawn >= 1 / FRAMES_PER_SECOND:
            self._drawn = now
            self.update(self._frame(samples, finished), refresh=True)

    def _frame(self, samples: "list[ActiveSample]", finished: bool) -> Group:
        now = [each.digits.clone() for each in samples]
        before = now if finished or not self._before else self._before  # in the last frame nothing glows
        self._before = now
        if self.model.image is None:
            texts = [canvas_text(self.model, self.plan, *each) for each in zip(now, before, strict=True)]
        else:
            texts = [half_blocks([self.model.image.paint(digits) for digits in now], self.console.width)]
        done = sum(each.evaluations for each in samples)
        planned = done + sum(each.evaluations_left for each in samples)
        rate = f" · {done / (time.perf_counter() - self._begun):.0f} a second" if done else ""
        progress = Text(f"{done} of {planned} network evaluations{rate} · seed {self.plan.seed}", style="dim")
        return Group(*(Padding(text, (0, 0, 1, 0)) for text in texts), progress)


@dataclass(frozen=True)
class ShownToken:
    """A token of the canvas as it is drawn."""

    state: State
    glows: bool = False  # whether it was unmasked since the last frame
    token: int | None = None  # its id, where all its digits are known
    digits: str = ""  # the known digits, and a dot for each masked one


def canvas_text(model: "Outline", plan: "Plan", digits: "Tensor", before: "Tensor") -> Text:
    """Draw a sample's canvas: `digits` int64 [length, l], and `before`, the same at the last frame."""
    text = Text()
    tokens = _shown_tokens(model, plan, digits, before)
    for (state, glows), run in groupby(tokens, key=lambda shown: (shown.state, shown.glows)):
        text.append(_words(model, list(run)), GLOW if glows else STYLES[state])
    return text


def _shown_tokens(model: "Outline", plan: "Plan", digits: "Tensor", before: "Tensor") -> Iterator[ShownToken]:
    mask = model.sub_tokenizer.mask_id
    known = digits[: len(plan.canvas)] != mask
    fresh = (digits != before).any(-1)
    ended = False
    for position, given in enumerate(plan.canvas):
        if given is not None:
            yield ShownToken("given", token=given)
        elif ended:
            yield ShownToken("after_end")
        elif bool(known[position].all()):
            token = int(model.sub_tokenizer.decode(digits[position]))
            # the answer ends at this token only once everything before it is known
            ended = token in model.end_token_ids and bool(known[:position].all())
            yield ShownToken("unmasked", bool(fresh[position]), token)
        else:
            shown = " ".join(MASKED_DIGIT if digit == mask else str(digit) for digit in digits[position].tolist())
            yield ShownToken("intermediate" if bool(known[position].any()) else "masked", digits=shown)


def _words(model: "Outline", run: list[ShownToken]) -> str:
    """The text of neighbours in one state where their tokens are known, else their digits."""
    ids = [shown.token for shown in run if shown.token is not None]
    if not ids:
        return "".join(f" {shown.digits} " for shown in run if shown.digits)
    if model.tokenizer is None:
        return "".join(f"{token} " for token in ids)
    ends = model.end_token_ids
    parts = (list(part) for _, part in groupby(ids, key=ends.__contains__))
    decode = partial(model.tokenizer.decode, skip_special_tokens=False)
    return "".join(END if part[0] in ends else decode(part) for part in parts)
