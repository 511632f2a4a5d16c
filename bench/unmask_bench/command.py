"""The command `unmask bench`: its options, and what they make of a load test."""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unmask_bench import LoadError

if TYPE_CHECKING:
    from unmask_bench.load import Load, LoadRun, Mix, Range
    from unmask_bench.report import Objective

# exit codes
NOTHING_COMPLETED, INTERRUPTED = 1, 130
# defaults
CONCURRENCY, REQUESTS = 8, 64
# tokens of a request without --max-tokens: from a quarter of this to this, or of the model's length
USUAL_TOKENS = 64


def bench(
    url: Annotated[str, typer.Option(help="the server")] = "http://127.0.0.1:8000",
    api_key: Annotated[
        str | None,
        typer.Option(envvar="UNMASK_API_KEY", show_envvar=False, help="the server's API key [UNMASK_API_KEY]"),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="closed loop: number of clients, each waits for its answer [default: 8]")
    ] = None,
    request_rate: Annotated[
        float | None, typer.Option(min=1e-6, help="open loop: Poisson arrivals a second; no request waits for another")
    ] = None,
    sweep: Annotated[
        str | None, typer.Option(metavar="1,2,4,…", help="one run each: concurrencies, or rates as rate:0.5,1,2")
    ] = None,
    requests: Annotated[
        int | None, typer.Option(min=1, help="requests of one run [default: 64, without --duration]")
    ] = None,
    duration: Annotated[
        float | None, typer.Option(min=0.1, help="seconds in which requests are sent; then the last ends are awaited")
    ] = None,
    max_tokens: Annotated[
        str | None, typer.Option(metavar="N|N:M", help="tokens to generate, drawn from the range [default: 16:64]")
    ] = None,
    n: Annotated[str, typer.Option("--n", metavar="N|N:M", help="samples of a request")] = "1",
    prompt: Annotated[
        list[str] | None, typer.Option(help="may be repeated: each request draws one of the prompts")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="a prompt a line; .jsonl: an object of request fields a line")
    ] = None,
    sampler: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[:STEPS]", help="first_hitting, first_hitting:16, ancestral:64; may be repeated"),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="steps of samplers without STEPS")] = None,
    temperature: Annotated[float | None, typer.Option(help="default: the server's")] = None,
    top_k: Annotated[int | None, typer.Option(help="0 is off")] = None,
    top_p: Annotated[float | None, typer.Option(help="1 is off")] = None,
    stream_share: Annotated[float, typer.Option(min=0, max=1, help="share of the requests that stream")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="seed of arrivals, mix and the requests' seeds")] = 0,
    warm_up: Annotated[int, typer.Option(min=0, help="requests before the clock starts")] = 1,
    goodput: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME:MS …", help="objectives: first_unmask:500 between_unmasks:100 e2e:3000"),
    ] = None,
    more_objectives: Annotated[list[str] | None, typer.Argument(hidden=True, metavar="NAME:MS")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="seconds that a request may take")] = 600.0,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON and nothing else to stdout")] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="write the JSON to this file too")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="latency against load (needs matplotlib)")
    ] = None,
) -> None:
    """Put a load on a running server and report what its clients see.

    A closed loop (--concurrency) shows what the server can do: throughput. An open loop (--request-rate) shows what
    users feel at a given traffic: latency; beyond the server's capacity its queue fills and requests are refused.
    The same seed sends the same requests in the same order. Ctrl-C ends the test and shows what was measured so far.
    The exit code is 1 where no request was completed.

    For example:

        unmask bench --concurrency 16 --duration 30
        unmask bench --request-rate 2 --requests 200 --goodput first_unmask:500 e2e:3000
        unmask bench --max-tokens 16:128 --sampler first_hitting --sampler ancestral:64 --n 1:4 --stream-share 0.5
        unmask bench --sweep 1,2,4,8,16 --duration 10 --plot latency.png --out latency.json
    """
    from rich.console import Console

    from unmask_bench.client import served_model, without_credentials
    from unmask_bench.load import Mix, Range
    from unmask_bench.report import check_plotting, report, summarise, sweep_report
    from unmask_bench.report import plot as draw

    objectives = parse_objectives([*(goodput or []), *(more_objectives or [])])
    loads = parse_loads(concurrency, request_rate, sweep, requests, duration)
    if plot is not None:
        check_plotting()
    given = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    variants = parse_variants(prompt or [], prompts)
    tokens = Range.parse(max_tokens, "--max-tokens") if max_tokens else None
    samples = Range.parse(n, "--n")
    samplers = tuple(parse_sampler(text, steps) for text in sampler or ["first_hitting"])
    url = url.rstrip("/")
    model = served_model(url, api_key)
    mix = Mix(
        seed=seed,
        common={name: value for name, value in given.items() if value is not None},
        variants=variants or ({},),
        samplers=samplers,
        # only the server knows how many tokens fit beside a prompt
        max_tokens=tokens if tokens or variants else usual_tokens(model["length"]),
        n=samples,
        stream_share=stream_share,
    )
    runs, interrupted = measure(url, api_key, mix, loads, warm_up, timeout)
    about: dict[str, Any] = {
        "date": time.strftime("%Y%m%d-%H%M%S"),
        "backend": "unmask",
        "url": without_credentials(url),
    }
    about |= {"model_id": model["id"], "seed": seed, "interrupted": interrupted}
    points = [about | summarise(run, objectives) for run in runs]
    text = json.dumps({"sweep": points} if sweep else points[0], indent=1) + "\n" if points else "{}\n"
    if out is not None:
        out.write_text(text, encoding="utf-8")
    if as_json:
        sys.stdout.write(text)
    elif points:
        Console(highlight=False).print(sweep_report(points) if sweep else report(points[0]))
    if plot is not None and points:
        draw(points, plot)
    if interrupted or not any(point["completed"] for point in points):
        raise typer.Exit(INTERRUPTED if interrupted else NOTHING_COMPLETED)


def measure(
    url: str, api_key: str | None, mix: "Mix", loads: "Sequence[Load]", warm_up: int, timeout: float
) -> "tuple[list[LoadRun], bool]":
    """Run the loads one after the other; return the runs, and whether Ctrl-C interrupted them."""
    from unmask_bench.client import connect
    from unmask_bench.load import Load, LoadRun
    from unmask_bench.report import run_with_progress

    runs: list[LoadRun] = []

    async def measure_all() -> None:
        async with connect(url, timeout, api_key) as client:
            if warm_up:
                await LoadRun(client, mix, Load(concurrency=warm_up, requests=warm_up)).run()
            for load in loads:
                run = LoadRun(client, mix, load)
                runs.append(run)
                await run_with_progress(run, f"{load.label} ({len(runs)} of {len(loads)})" if loads[1:] else load.label)

    try:
        asyncio.run(measure_all())
    except KeyboardInterrupt:
        return runs, True
    return runs, False


# --- what options say ----------------------------------------------------------------------------------------------


def parse_loads(
    concurrency: int | None, rate: float | None, sweep: str | None, requests: int | None, seconds: float | None
) -> "list[Load]":
    """The runs: one, or one for each value of the sweep ("1,2,4" concurrencies, "rate:0.5,1" arrivals a second).

    Raises:
        LoadError: more than one of the three is given, or the sweep is neither.
    """
    from unmask_bench.load import Load

    if sum(option is not None for option in (concurrency, rate, sweep)) > 1:
        raise LoadError("--concurrency, --request-rate and --sweep: choose one of them")
    requests = requests if requests or seconds else REQUESTS
    if sweep is not None:
        return [Load(*each, requests, seconds) for each in _parse_sweep(sweep)]
    return [Load((concurrency or CONCURRENCY) if rate is None else None, rate, requests, seconds)]


def _parse_sweep(text: str) -> list[tuple[int | None, float | None]]:
    kind, _, values = text.rpartition(":")
    complaint = LoadError(f"--sweep: {text!r} is neither concurrencies such as 1,2,4 nor rates such as rate:0.5,1")
    if kind not in ("", "concurrency", "rate"):
        raise complaint
    try:
        numbers = [float(value) if kind == "rate" else int(value) for value in values.split(",")]
    except ValueError:
        raise complaint from None
    if not all(0 < number < float("inf") for number in numbers):
        raise complaint
    return [(None, number) if kind == "rate" else (int(number), None) for number in numbers]


def parse_objectives(texts: Sequence[str]) -> "list[Objective]":
    """Read bounds such as "first_unmask:500"; one text may hold several. Raises LoadError for anything else."""
    from unmask_bench.report import Objective

    return [Objective.parse(word) for text in texts for word in text.replace(",", " ").split()]


def parse_sampler(text: str, steps: int | None) -> dict[str, Any]:
    """The request's field `sampler` for "ancestral:64", or for a name without steps.

    Raises:
        LoadError: no number follows the colon.
    """
    name, _, own = text.partition(":")
    if own and not own.isdecimal():
        raise LoadError(f"--sampler: {text!r} is not NAME or NAME:STEPS")
    number = int(own) if own else steps
    return {"name": name} | ({} if number is None else {"steps": number})


def usual_tokens(length: int) -> "Range":
    """Range of max_tokens for a model of this length."""
    from unmask_bench.load import Range

    most = min(USUAL_TOKENS, length)
    return Range(max(1, most // 4), most)


def parse_variants(prompts: Sequence[str], file: Path | None) -> tuple[dict[str, Any], ...]:
    """Sets of fields, one of which goes into each request: prompts, a prompt a line, or in .jsonl an object a line.

    Raises:
        LoadError: the file is not UTF-8, or a line of a .jsonl file is not a set of fields.
        OSError: the file cannot be read.
    """
    found: list[dict[str, Any]] = [{"prompt": prompt} for prompt in prompts]
    if file is not None:
        try:
            lines = [line for line in file.read_text("utf-8").splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise LoadError(f"{file}: it is not UTF-8") from error
        found += [_parse_fields(line, file) if file.suffix == ".jsonl" else {"prompt": line} for line in lines]
    return tuple(found)


def _parse_fields(line: str, file: Path) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except ValueError:
        fields = None
    if not isinstance(fields, dict) or "stream" in fields:
        raise LoadError(f"{file}: {line[:60]!r} is not a JSON object of request fields (stream: use --stream-share)")
    return fields
