"""The spans of one recorded request in the API: the call, and the append of its record to the log."""

from opentelemetry.trace import Span, SpanContext, SpanKind, StatusCode, Tracer, set_span_in_context

from service.domain.request import LogPosition

_FIRST_SERVER_ERROR = 500


def traceparent_of(span: SpanContext) -> str:
    """Return the header by which a next step continues the trace of a span (W3C Trace Context, version 00)."""
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"


def fail(span: Span, error: str) -> None:
    """Mark a span as failed. Only the kind of the error is exported: its text can name users, and is in the log."""
    span.set_attribute("error.type", error)
    span.set_status(StatusCode.ERROR)


def kind_of(error: BaseException) -> str:
    """Return the name of an exception's type."""
    return f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")


class RequestSpans:
    """What a request carries while it is accepted; see service.tracing.RequestTrace."""

    __slots__ = ("_append", "_call", "_tracer")

    def __init__(self, tracer: Tracer, call: Span) -> None:
        self._tracer = tracer
        self._call = call
        self._append: Span | None = None

    def start_append(self, topic: str, request_id: str) -> bytes:
        """Begin the span of the append; return the record's `traceparent`."""
        self._append = self._tracer.start_span(
            f"send {topic}",
            set_span_in_context(self._call),
            SpanKind.PRODUCER,
            {
                "messaging.system": "kafka",
                "messaging.operation.type": "send",
                "messaging.operation.name": "send",
                "messaging.destination.name": topic,
                "coupon.request_id": request_id,
            },
        )
        return traceparent_of(self._append.get_span_context()).encode()

    def end_append(self, outcome: LogPosition | Exception) -> None:
        """End the span of the append."""
        if self._append is None:
            return
        if isinstance(outcome, LogPosition):
            self._append.set_attribute("messaging.destination.partition.id", str(outcome.partition))
            self._append.set_attribute("messaging.kafka.offset", outcome.offset)
        else:
            fail(self._append, kind_of(outcome))
        self._append.end()

    def end(self, status: int) -> None:
        """End the span of the call with the status of the response."""
        self._call.set_attribute("http.response.status_code", status)
        if status >= _FIRST_SERVER_ERROR:
            fail(self._call, str(status))
        self._call.end()
