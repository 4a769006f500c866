"""Traces of requests; without OTEL_EXPORTER_OTLP_ENDPOINT there are none, and the SDK that records them is not loaded.

One trace follows a request: the call, the append of its record, the issuer's batch, Celery's tasks, the webhook. Each
step passes the W3C header `traceparent` to the next one, and only if the trace is recorded: a step that gets none makes
no span. What is imported from here works without a tracer and then does nothing.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from service.config import Settings
from service.domain.record import Record
from service.domain.request import LogPosition

if TYPE_CHECKING:
    from service.tracing.tracer import Tracer

#: the header of HTTP requests, Kafka's records and Celery's messages that names the trace and the last span
TRACEPARENT = "traceparent"


class RequestTrace(Protocol):
    """The spans of one recorded request in the API."""

    def start_append(self, topic: str, request_id: str) -> bytes:
        """Begin the span of the append; return the record's `traceparent`."""

    def end_append(self, outcome: LogPosition | Exception) -> None:
        """End the span of the append."""

    def end(self, status: int) -> None:
        """End the span of the call with the status of the response."""


class Post:
    """A POST to another service."""

    #: what it sends beside its own headers
    headers: Mapping[str, str] = {}

    def on_response(self, status: int) -> None:
        """Take the status of the response."""


class _Process:
    """The tracer of this process; None: no traces."""

    tracer: "Tracer | None" = None


def configure(settings: Settings, process: str) -> None:
    """Begin to record traces if the settings name a receiver; `process` is the name under which it shows the spans."""
    if settings.otel_exporter_otlp_endpoint and _Process.tracer is None:
        from service.tracing.tracer import Tracer  # noqa: PLC0415  # its packages are optional, and take half a second

        _Process.tracer = Tracer(settings, process)


def close() -> None:
    """Send the spans that wait, for two seconds at most; later spans are not recorded."""
    tracer, _Process.tracer = _Process.tracer, None
    if tracer:
        tracer.close()


def active_tracer() -> "Tracer | None":
    """Return the tracer of this process, for code that runs for each request."""
    return _Process.tracer


def fastapi_options() -> dict[str, Any]:
    """Return FastAPI's `telemetry`: a span for each recorded request that reaches it, and no further telemetry."""
    never: dict[str, Any] = {"metrics": False, "logs": False, "operation_spans": False, "auto_configure": False}
    return never | (_Process.tracer.fastapi_options() if _Process.tracer else {"tracing": False})


def current_request() -> RequestTrace | None:
    """Return the trace of the request that FastAPI is handling, if it is recorded."""
    return _Process.tracer.current_request() if _Process.tracer else None


def current_traceparent() -> str:
    """Return the `traceparent` of the current span; empty if nothing is recorded."""
    return _Process.tracer.current_traceparent() if _Process.tracer else ""


def message_headers() -> dict[str, str]:
    """Return what a message carries so that its task continues the current trace."""
    traceparent = current_traceparent()
    return {TRACEPARENT: traceparent} if traceparent else {}


def batch(records: Sequence[Record], topic: str, group: str) -> AbstractContextManager[object]:
    """Record the block as the issuer's work on records, in the trace of the first one that belongs to a trace."""
    return _Process.tracer.batch(records, topic, group) if _Process.tracer else nullcontext()


def continued(traceparent: str) -> AbstractContextManager[object]:
    """Continue a trace in the block, which is no span itself; with an empty `traceparent`, continue none."""
    return _Process.tracer.continued(traceparent) if _Process.tracer and traceparent else nullcontext()


def task(name: str, task_id: str, headers: Mapping[str, Any] | None) -> AbstractContextManager[object]:
    """Record the block as a run of a Celery task, if the headers of its message continue a trace."""
    return _Process.tracer.task(name, task_id, headers or {}) if _Process.tracer else nullcontext()


def post(url: str) -> AbstractContextManager[Post]:
    """Record the block as a POST, if a trace is being recorded."""
    return _Process.tracer.post(url) if _Process.tracer else nullcontext(Post())
