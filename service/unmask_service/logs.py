"""Logs: one line a message on stderr, as text or JSON, with the fields of its request; and the line of each request.

They never hold prompts, at any level, unless `log_prompts` is set, and never keys or passwords.
"""

import json
import logging
import re
import textwrap
from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Literal

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter
from unmask_diffusion import ScorePlan

from unmask_service.broker import Job, JobProgress, endpoint_of, milliseconds_between

request_logger = logging.getLogger("unmask.requests")

LogFormat = Literal["text", "json"]

# the fields of records that hold tokens which clients have given
PROMPT_FIELDS = ("canvas",)

_NO_FIELDS: Mapping[str, str] = MappingProxyType({})
_context: ContextVar[Mapping[str, str]] = ContextVar("fields of the log lines of a request", default=_NO_FIELDS)

_OF_EVERY_RECORD = {*RESERVED_ATTRS, "taskName"}  # taskName came with Python 3.12
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_PLAIN = re.compile(r"[!#-<>-~]+")
_SECRETS = (
    (re.compile(r"(://)[^/\s@]*@"), r"\1***@"),  # the password in an address
    (re.compile(r"(bearer\s+)[\w.~+/=-]+", re.IGNORECASE), r"\1***"),
    (re.compile(r"(unmask-key-)[\w-]+"), r"\1***"),
)


def configure_logging(level: str, log_format: LogFormat, log_prompts: bool = False) -> None:
    """Log to stderr from this level on: debug, info, warning or error."""
    logging.basicConfig(level=level.upper(), handlers=[LogHandler(log_format, log_prompts)])
    logging.captureWarnings(True)
    logging.getLogger("sse_starlette").setLevel(logging.INFO)  # at debug it logs whole events
    logging.getLogger("redis").setLevel(logging.INFO)  # at debug it logs what a connection receives
    if level != "debug":
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        logging.getLogger("redis").setLevel(logging.WARNING)


class LogHandler(logging.StreamHandler[Any]):
    """Writes lines to stderr, each with its request's fields and without secrets."""

    def __init__(self, log_format: LogFormat, log_prompts: bool = False) -> None:
        super().__init__()
        self._hidden = () if log_prompts else PROMPT_FIELDS
        if log_format == "json":  # objects with `time` (ISO 8601, UTC), `level`, `logger`, `message` and the fields
            names = {"levelname": "level", "name": "logger"}
            self.setFormatter(
                JsonFormatter("%(levelname)s %(name)s %(message)s", rename_fields=names, timestamp="time")
            )
        else:
            self.setFormatter(TextFormatter())

    def format(self, record: logging.LogRecord) -> str:
        for name, value in _context.get().items():
            record.__dict__.setdefault(name, value)
        for name in self._hidden:
            record.__dict__.pop(name, None)
        line = super().format(record)
        for secret, shown in _SECRETS:
            line = secret.sub(shown, line)
        return line


class TextFormatter(logging.Formatter):
    """Lines for people: time, level, logger, message, name=value …. Quoted text cannot forge a line."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 — logging's name
        fields = {name: value for name, value in record.__dict__.items() if name not in _OF_EVERY_RECORD}
        line = super().formatMessage(record).strip().replace("\n", "\\n")
        return " ".join([line, *(f"{name}={_readable(value)}" for name, value in fields.items())])

    def formatException(self, ei: Any) -> str:  # noqa: N802, ANN401 — logging's name and type
        return textwrap.indent(super().formatException(ei), "  ", lambda _: True)


def begin_context(**fields: str | None) -> None:
    """Begin a request: all lines that it logs from now on have these fields."""
    _context.set({name: value for name, value in fields.items() if value is not None})


def add_context(**fields: str) -> None:
    """Add fields to all lines that the request logs from now on."""
    _context.set({**_context.get(), **fields})


def context_field(name: str) -> str | None:
    """A field of the current request, such as `request_id`; None where there is none."""
    return _context.get().get(name)


def _readable(value: object) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    return json.dumps(value, default=str)


# --- one line for each request, at its end: its parameters, times and outcome ---


def log_request(job: Job, progress: JobProgress, outcome: str, reason: str = "", model: str | None = None) -> None:
    """Log the end of a generation or a score."""
    request_logger.info("request", extra=facts_of(job, progress, outcome, reason, model))


def log_rejection(reason: str, model: str, endpoint: str) -> None:
    """Log a request that was refused before it became a job."""
    facts = {"outcome": "rejected", "reason": reason, "model": model, "endpoint": endpoint}
    request_logger.info("request", extra=facts)


def facts_of(
    job: Job, progress: JobProgress, outcome: str, reason: str = "", model: str | None = None
) -> dict[str, Any]:
    """The fields of a generation's or a score's line; those without a value are left out."""
    plan = job.plan
    facts: dict[str, Any] = {
        "outcome": outcome,  # finished, failed or cancelled
        "reason": reason or None,  # the error's code
        "model": model,
        "endpoint": endpoint_of(job.id),
        "id": job.id,
        "request_id": job.request_id,
        "trace_id": job.trace_id,
        "seed": plan.seed,
        "length": plan.length,
        "sub_tokens": plan.sub_tokens,  # to unmask in all samples; of a score: to score
        "network_evaluations": plan.network_evaluations,  # planned, for all samples
        "rounds": progress.rounds,
        # milliseconds from submission: to the start by an engine, to the first reveal, to the end, and as forecast
        "queue_ms": milliseconds_between(job.submitted_at, progress.started_at),
        "first_unmask_ms": milliseconds_between(job.submitted_at, progress.first_unmask_at),
        "total_ms": milliseconds_between(job.submitted_at, progress.ended_at),
        "eta_ms": None if job.expected_seconds is None else round(1000 * job.expected_seconds, 3),
    }
    # `canvas` holds the given token ids, None for holes; of a score, all its tokens. Log handlers drop it without
    # `log_prompts`.
    if isinstance(plan, ScorePlan):
        facts |= {"estimator": plan.request.estimator, "samples": plan.passes, "canvas": plan.tokens}
    else:
        sampler = plan.request.sampler
        facts |= {"sampler": sampler.name, "steps": sampler.steps, "samples": len(plan.schedules)}
        facts |= {"idle_steps": plan.idle_steps, "canvas": plan.canvas}
    return {name: value for name, value in facts.items() if value is not None}
