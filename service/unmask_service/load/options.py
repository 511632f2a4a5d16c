"""What was written on the command line as what the load is made of."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unmask_service.load.errors import LoadError
from unmask_service.load.run import Load
from unmask_service.load.summary import Objective
from unmask_service.load.workload import Range

CONCURRENCY, REQUESTS = 8, 64
# what is asked for where nothing was said: from a quarter of this to this, or of what the model can
USUAL_TOKENS = 64


def loads(
    concurrency: int | None, rate: float | None, sweep: str | None, requests: int | None, seconds: float | None
) -> list[Load]:
    """The runs: one, or one a value of the sweep ("1,2,4" concurrencies, "rate:0.5,1" arrivals a second).

    Raises:
        LoadError: more than one of the three is given, or the sweep is neither.
    """
    if sum(option is not None for option in (concurrency, rate, sweep)) > 1:
        raise LoadError("--concurrency, --request-rate and --sweep: choose one of them")
    requests = requests if requests or seconds else REQUESTS
    if sweep is not None:
        return [Load(*each, requests, seconds) for each in _sweep(sweep)]
    return [Load((concurrency or CONCURRENCY) if rate is None else None, rate, requests, seconds)]


def _sweep(text: str) -> list[tuple[int | None, float | None]]:
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


def objectives(texts: Sequence[str]) -> list[Objective]:
    """Bounds such as "first_unmask:500"; they may come one by one, or several in one text.

    Raises:
        LoadError: one is something else.
    """
    return [Objective.parse(word) for text in texts for word in text.replace(",", " ").split()]


def sampler(text: str, steps: int | None) -> dict[str, Any]:
    """The request's field: "ancestral:64", or a name and the steps of those that name none.

    Raises:
        LoadError: what follows the colon is no number.
    """
    name, _, own = text.partition(":")
    if own and not own.isdecimal():
        raise LoadError(f"--sampler: {text!r} is not NAME or NAME:STEPS")
    number = int(own) if own else steps
    return {"name": name} | ({} if number is None else {"steps": number})


def usual_tokens(length: int) -> Range:
    """Tokens to ask for of a model of this length."""
    most = min(USUAL_TOKENS, length)
    return Range(max(1, most // 4), most)


def variants(prompts: Sequence[str], file: Path | None) -> tuple[dict[str, Any], ...]:
    """The sets of fields of which one goes into each request: prompts, a prompt a line, or in .jsonl an object a line.

    Raises:
        LoadError: a line of a .jsonl file is no set of fields.
        OSError: the file cannot be read.
    """
    found: list[dict[str, Any]] = [{"prompt": prompt} for prompt in prompts]
    if file is not None:
        try:
            lines = [line for line in file.read_text("utf-8").splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise LoadError(f"{file}: it is not UTF-8") from error
        found += [_fields(line, file) if file.suffix == ".jsonl" else {"prompt": line} for line in lines]
    return tuple(found)


def _fields(line: str, file: Path) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except ValueError:
        fields = None
    if not isinstance(fields, dict) or "stream" in fields:
        raise LoadError(f"{file}: {line[:60]!r} is not a JSON object of request fields (stream is --stream-share's)")
    return fields
