"""Traces by OpenTelemetry, over OTLP/HTTP. Without an endpoint in the standard variables nothing of it is imported.

FastAPI makes the span of each HTTP request; `span` makes those below it, and engines those of their tasks. No span
holds a prompt or a text.
"""

import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from unmask_service.logs import add_context
from unmask_service.settings import SettingsError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

TraceContext = Mapping[str, str]  # W3C's traceparent and, where there is one, tracestate

_tracer: "Tracer | None" = None  # of the process, as a logger is; None: traces are off


def start_traces(command: str) -> None:
    """Send the spans of this process to where the variables say; do nothing where they say nothing.

    https://opentelemetry.io/docs/specs/otel/protocol/exporter/. Raises SettingsError: the variables ask for what is
    not supported, or the packages are missing.
    """
    global _tracer
    if not _wanted(os.environ):
        return
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise SettingsError(f"traces need packages that are missing: pip install 'unmask[otel]' ({error})") from error
    resource = Resource.create()  # reads OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": f"unmask-{command}"}))
    provider = TracerProvider(resource=resource.merge(Resource({"service.version": version("unmask")})))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)  # at the end of the process it sends what is left
    _tracer = trace.get_tracer("unmask", version("unmask"))


def _wanted(environment: Mapping[str, str]) -> bool:
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    endpoints = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
        return False
    if not exporter and not any(environment.get(name) for name in endpoints):
        return False
    if exporter not in ("", "otlp"):
        raise SettingsError(f"OTEL_TRACES_EXPORTER: must be otlp or none (got {exporter!r})")
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if protocol := environment.get(name):
            if protocol != "http/protobuf":
                raise SettingsError(f"{name}: must be http/protobuf, on a collector's port 4318 (got {protocol!r})")
            break
    return True


def tracer() -> "Tracer | None":
    """The process' tracer; None: traces are off."""
    return _tracer


@contextlib.asynccontextmanager
async def span(name: str, path: str, model: str, *, parent_of_more: bool = True) -> AsyncIterator[None]:
    """A span below that of the HTTP request, whose log lines get its trace's id.

    `path` is the request's. `parent_of_more`: spans within it are below it, and not beside it.
    """
    if _tracer is None:
        yield
        return
    from opentelemetry.trace import StatusCode, use_span

    current = _tracer.start_span(name, attributes=inference(path, model))
    add_context(trace_id=f"{current.get_span_context().trace_id:032x}")
    scope = use_span(current, record_exception=False, set_status_on_exception=False)
    try:
        with scope if parent_of_more else contextlib.nullcontext():
            yield
    except Exception as error:
        current.set_attribute("error.type", getattr(error, "code", type(error).__qualname__))
        current.set_status(StatusCode.ERROR)
        raise
    finally:
        current.end()


def trace_context() -> TraceContext | None:
    """The current span, for other processes; None: traces are off."""
    if _tracer is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier


def parent_from(trace: TraceContext | None) -> "Context":
    """The parent of spans for work that another process has queued. Call it only while traces are on."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract(trace or {}, Context())


def note_usage(input_tokens: int, output_tokens: int) -> None:
    """Add the tokens of an answer to the current span, if `span` has made it."""
    if _tracer is None:
        return
    from opentelemetry.trace import get_current_span

    current = get_current_span()
    so_far: Mapping[str, Any] = getattr(current, "attributes", None) or {}  # a call may have several jobs
    if "gen_ai.operation.name" not in so_far:  # a status, which may be read many times
        return
    for name, tokens in (("input", input_tokens), ("output", output_tokens)):
        key = f"gen_ai.usage.{name}_tokens"
        current.set_attribute(key, so_far.get(key, 0) + tokens)


def inference(path: str, model: str) -> dict[str, str]:
    """The attributes of spans of a request, by the conventions for generative AI.

    https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/. `score` is a name of our own.
    """
    operation = "text_completion"
    if path.startswith("/v1/chat/"):
        operation = "chat"
    elif path.startswith("/v1/images/"):
        operation = "generate_content"
    elif path.startswith("/score"):
        operation = "score"
    return {"gen_ai.operation.name": operation, "gen_ai.provider.name": "unmask", "gen_ai.request.model": model}


def end_span(current: "Span", at: int, outcome: str, error: str = "") -> None:
    """End a span at a Unix time in nanoseconds."""
    from opentelemetry.trace import StatusCode

    current.set_attribute("unmask.outcome", outcome)
    if error:
        current.set_attribute("error.type", error)
        current.set_status(StatusCode.ERROR)
    current.end(at)
