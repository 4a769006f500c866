"""A receiver of traces on loopback: OTLP over HTTP, as a collector has it."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class ReceivedSpan(NamedTuple):
    """A span with what tests look at; ids are in hex, as in `traceparent`."""

    trace_id: str
    span_id: str
    #: empty: the first span of its trace
    parent_id: str
    #: name of the process that sent it
    service: str
    name: str
    kind: str
    attributes: dict[str, str | int]
    #: trace ids and span ids
    links: list[tuple[str, str]]
    failed: bool

    @property
    def step(self) -> tuple[str, str]:
        """What was done, and where."""
        return self.service, self.name


class TraceReceiver:
    """Receives spans in a thread of its own while the `with` block runs."""

    def __init__(self) -> None:
        self._spans: list[ReceivedSpan] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, name="trace receiver", daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        """The value of OTEL_EXPORTER_OTLP_ENDPOINT."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def spans(self) -> list[ReceivedSpan]:
        """The spans received so far."""
        with self._lock:
            return list(self._spans)

    def spans_of(self, trace_id: str) -> list[ReceivedSpan]:
        """Return the spans of a trace."""
        return [span for span in self.spans if span.trace_id == trace_id]

    def receive(self, body: bytes) -> None:
        """Take one export."""
        received = ExportTraceServiceRequest.FromString(body)
        with self._lock:
            for process in received.resource_spans:
                names = {at.key: at.value.string_value for at in process.resource.attributes}
                for scope in process.scope_spans:
                    self._spans += [_received(span, names["service.name"]) for span in scope.spans]


def chain_to(spans: list[ReceivedSpan], last: ReceivedSpan) -> list[tuple[str, str]]:
    """Return the steps from the first span that was received down to this one."""
    by_id = {span.span_id: span for span in spans}
    parent = by_id.get(last.parent_id)
    return [*(chain_to(spans, parent) if parent else []), last.step]


def _received(span: Span, service: str) -> ReceivedSpan:
    return ReceivedSpan(
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        service,
        span.name,
        Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        {at.key: _value(at.value) for at in span.attributes},
        [(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        span.status.code == span.status.STATUS_CODE_ERROR,
    )


def _value(value: AnyValue) -> str | int:
    return value.int_value if value.HasField("int_value") else value.string_value


def _handler(receiver: TraceReceiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/traces":
                receiver.receive(body)
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name in the base class
            """Write no access log."""

    return Handler
