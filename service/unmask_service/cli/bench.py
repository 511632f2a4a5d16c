"""`unmask bench`: a load test of a running server, measured by the client's clock."""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from unmask_service.load.run import Load
    from unmask_service.load.summary import Figures, Objective
    from unmask_service.load.workload import Mix

# exit codes
NOTHING_COMPLETED, INTERRUPTED = 1, 130


def bench(
    url: Annotated[str, typer.Option(help="the server")] = "http://127.0.0.1:8000",
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="closed loop: so many clients, each waits for its answer [default: 8]")
    ] = None,
    request_rate: Annotated[
        float | None, typer.Option(min=1e-6, help="open loop: arrivals a second, Poisson; nobody waits for anybody")
    ] = None,
    sweep: Annotated[
        str | None, typer.Option(metavar="1,2,4,…", help="one run each: concurrencies, or rates as rate:0.5,1,2")
    ] = None,
    requests: Annotated[
        int | None, typer.Option(min=1, help="how many of one run [default: 64, without --duration]")
    ] = None,
    duration: Annotated[
        float | None, typer.Option(min=0.1, help="seconds in which requests are sent; then the last ends are awaited")
    ] = None,
    max_tokens: Annotated[
        str | None, typer.Option(metavar="N|N:M", help="tokens to generate, drawn from the range [default: 16:64]")
    ] = None,
    n: Annotated[str, typer.Option("--n", metavar="N|N:M", help="samples of a request")] = "1",
    prompt: Annotated[list[str] | None, typer.Option(help="may be given again: one is drawn for each request")] = None,
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="a prompt a line; .jsonl: an object of request fields a line")
    ] = None,
    sampler: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[:STEPS]", help="first_hitting, first_hitting:16, ancestral:64; may be given again"),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="of the samplers that name none")] = None,
    temperature: Annotated[float | None, typer.Option(help="left to the server when left out")] = None,
    top_k: Annotated[int | None, typer.Option(help="0 is off")] = None,
    top_p: Annotated[float | None, typer.Option(help="1 is off")] = None,
    stream_share: Annotated[float, typer.Option(min=0, max=1, help="the part of the requests that stream")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="of arrivals, mix and the requests' seeds")] = 0,
    warm_up: Annotated[int, typer.Option(min=0, help="requests before the clock starts")] = 1,
    goodput: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME:MS …", help="objectives: first_unmask:500 between_unmasks:100 e2e:3000"),
    ] = None,
    more_objectives: Annotated[list[str] | None, typer.Argument(hidden=True, metavar="NAME:MS")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="seconds that a request may take")] = 600.0,
    as_json: Annotated[bool, typer.Option("--json", help="JSON and nothing else to stdout")] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="write the JSON here too")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="latency against load (needs matplotlib)")
    ] = None,
) -> None:
    """Put a load on a running server and say what its clients saw.

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
    from unmask_service.load import options
    from unmask_service.load.client import served_model
    from unmask_service.load.plot import check_plotting
    from unmask_service.load.workload import Mix, Range

    objectives = options.objectives([*(goodput or []), *(more_objectives or [])])
    loads = options.loads(concurrency, request_rate, sweep, requests, duration)
    if plot is not None:
        check_plotting()
    given = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    variants = options.variants(prompt or [], prompts)
    tokens = Range.parse(max_tokens, "--max-tokens") if max_tokens else None
    samples = Range.parse(n, "--n")
    samplers = tuple(options.sampler(text, steps) for text in sampler or ["first_hitting"])
    url = url.rstrip("/")
    model = served_model(url)
    mix = Mix(
        seed=seed,
        common={name: value for name, value in given.items() if value is not None},
        variants=variants or ({},),
        samplers=samplers,
        # how much prompts leave is the server's to know
        max_tokens=tokens if tokens or variants else options.usual_tokens(model["length"]),
        n=samples,
        stream_share=stream_share,
    )
    points, interrupted = measure(url, mix, loads, objectives, warm_up, timeout)
    about = {"date": time.strftime("%Y%m%d-%H%M%S"), "backend": "unmask", "url": url, "model_id": model["id"]}
    points = [about | {"seed": seed, "interrupted": interrupted} | point for point in points]
    _tell(points, swept=sweep is not None, as_json=as_json, out=out)
    if plot is not None and points:
        from unmask_service.load.plot import plot as draw

        draw(points, plot)
    if interrupted or not any(point["completed"] for point in points):
        raise typer.Exit(INTERRUPTED if interrupted else NOTHING_COMPLETED)


def measure(
    url: str, mix: "Mix", loads: "Sequence[Load]", objectives: "Sequence[Objective]", warm_up: int, timeout: float
) -> "tuple[list[Figures], bool]":
    """Run the loads one after the other; also says whether Ctrl-C ended it before they were through."""
    from unmask_service.load.client import connect
    from unmask_service.load.progress import run_with_progress
    from unmask_service.load.run import Load, LoadRun
    from unmask_service.load.summary import summarise

    runs: list[LoadRun] = []

    async def measure_all() -> None:
        async with connect(url, timeout) as client:
            if warm_up:
                await LoadRun(client, mix, Load(concurrency=warm_up, requests=warm_up)).run()
            for load in loads:
                run = LoadRun(client, mix, load)
                runs.append(run)
                label = f"{load.label} ({len(runs)} of {len(loads)})" if loads[1:] else load.label
                await run_with_progress(run, label)

    interrupted = False
    try:
        asyncio.run(measure_all())
    except KeyboardInterrupt:
        interrupted = True
    return [summarise(run, objectives) for run in runs], interrupted


def _tell(points: "Sequence[Figures]", swept: bool, as_json: bool, out: Path | None) -> None:
    """Print the figures, as JSON or as a table, and write the JSON where a file was asked for."""
    from rich.console import Console

    from unmask_service.load.report import report, sweep_report

    text = json.dumps({"sweep": points} if swept else points[0], indent=1) + "\n" if points else "{}\n"
    if out is not None:
        out.write_text(text)
    if as_json:
        sys.stdout.write(text)
    elif points:
        Console(highlight=False).print(sweep_report(points) if swept else report(points[0]))
