"""A receiver of traces: OTLP over HTTP, as a collector's port 4318."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from tests.helpers_server import ANSWER_SECONDS, wait_for


@dataclass(frozen=True)
class Span:
    """A span as it was sent."""

    service: str
    name: str
    trace: str  # ids are hexadecimal
    id: str
    parent: str
    begun: int  # nanoseconds
    ended: int
    failed: bool
    attributes: Mapping[str, Any]
    events: tuple[tuple[str, Mapping[str, Any]], ...]


class Receiver:
    """Keeps all spans that it is sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces", self.path
                message = self.rfile.read(int(self.headers["content-length"]))
                receiver.take(ExportTraceServiceRequest.FromString(message))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take(self, request: ExportTraceServiceRequest) -> None:
        for of_resource in request.resource_spans:
            service = values(of_resource.resource.attributes)["service.name"]
            self.spans += [
                Span(
                    service,
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    span.status.code == span.status.STATUS_CODE_ERROR,
                    values(span.attributes),
                    tuple((event.name, values(event.attributes)) for event in span.events),
                )
                for of_scope in of_resource.scope_spans
                for span in of_scope.spans
            ]

    def of_trace(self, trace: str, names: int) -> list[Span]:
        """Wait for so many spans of a trace; they come in any order."""
        wait_for(lambda: len(self._of(trace)) >= names, ANSWER_SECONDS)
        return self._of(trace)

    def _of(self, trace: str) -> list[Span]:
        return [span for span in [*self.spans] if span.trace == trace]


def values(attributes: "Any") -> dict[str, Any]:  # noqa: ANN401 — protobuf's repeated field
    """Attributes with strings, numbers and truth values."""

    def value(pair: KeyValue) -> str | int | float | bool:
        kind = pair.value.WhichOneof("value")
        assert kind in ("string_value", "int_value", "double_value", "bool_value"), pair
        found: str | int | float | bool = getattr(pair.value, kind)
        return found

    return {pair.key: value(pair) for pair in attributes}
