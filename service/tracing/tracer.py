"""The spans of a process, made and exported with OpenTelemetry's SDK; imported only where traces are recorded."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from importlib import metadata
from itertools import islice
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.context import Context, attach, detach
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased
from opentelemetry.trace import Link, Span, SpanKind, get_current_span
from opentelemetry.util.types import AttributeValue

from service.config import Settings
from service.domain.record import Headers, Record
from service.limits import MAX_TRACES_PER_SECOND
from service.tracing import TRACEPARENT, Post
from service.tracing.request_spans import RequestSpans, fail, kind_of, traceparent_of
from service.tracing.sampler import LimitedSampler, extract, parent_of

_CLOSE_SECONDS = 2.0
_TRACEPARENT = TRACEPARENT.encode()
#: the paths of probes and scrapes, which come all the time
_UNTRACED_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
_ISSUANCES_SUFFIX = "/issuances"
#: the end of the paths of event streams, whose spans would last as long as a user waits
_STREAM_SUFFIX = "/events"
#: links of a span where the SDK has no limit of its own
_MAX_LINKS = 128


class Tracer:
    """Makes the spans of this process; a thread sends them to the receiver."""

    def __init__(self, settings: Settings, process: str) -> None:
        version = metadata.version("coupons")
        resource = Resource.create(
            {
                "service.namespace": "coupons",
                "service.name": settings.otel_service_name or f"coupons-{process}",
                "service.version": version,
            }
        )
        limits = SpanLimits()
        limited = LimitedSampler(MAX_TRACES_PER_SECOND)
        self._max_links = _MAX_LINKS if limits.max_links is None else limits.max_links
        self._ratio = settings.otel_traces_sampler_arg
        self._exporter = OTLPSpanExporter(f"{settings.otel_exporter_otlp_endpoint.rstrip('/')}/v1/traces")
        self._provider = TracerProvider(
            # it is asked only about traces that are to be recorded: see parent_of and _if_sampled
            ParentBased(root=limited, remote_parent_sampled=limited),
            resource,
            shutdown_on_exit=False,
            span_limits=limits,
        )
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("coupons", version)

    def close(self) -> None:
        """Send the spans that wait; give up after _CLOSE_SECONDS, for a process must stop without the receiver."""
        closing = Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)
        if closing.is_alive():
            self._exporter.shutdown()  # type: ignore[no-untyped-call]  # ends the pause before another attempt

    def begin_request(self, traceparent: bytes | None, method: bytes, route: str, path: bytes) -> RequestSpans | None:
        """Begin the span of a plain request; None if it is not recorded.

        Only requests for coupons are traced by the ratio. Users ask for the state of theirs many times, and would use
        up the limit of traces.
        """
        parent = parent_of(traceparent, self._ratio if method == b"POST" else 0.0)
        if parent is None:
            return None
        attributes = {
            "http.request.method": method.decode(),
            "http.route": route,
            "url.path": path.decode("latin-1"),
            "url.scheme": "http",
        }
        call = self._tracer.start_span(f"{method.decode()} {route}", parent, SpanKind.SERVER, attributes)
        return RequestSpans(self._tracer, call) if call.is_recording() else None

    def current_request(self) -> RequestSpans | None:
        """Return the trace of the request whose span is the current one; its span is ended by FastAPI."""
        call = get_current_span()
        return RequestSpans(self._tracer, call) if call.is_recording() else None

    def fastapi_options(self) -> dict[str, Any]:
        """Return the options of FastAPI's `telemetry` that depend on this tracer."""
        return {"tracer_provider": self._provider, "exclude": self._is_untraced}

    def _is_untraced(self, scope: Mapping[str, Any]) -> bool:
        """Return whether FastAPI makes no span for a request: the same rule as for plain ones, and the exceptions."""
        path: str = scope["path"]
        if path in _UNTRACED_PATHS or path.endswith(_STREAM_SUFFIX):
            return True
        header = next((value for name, value in scope["headers"] if name == _TRACEPARENT), None)
        is_for_coupon = scope["method"] == "POST" and path.endswith(_ISSUANCES_SUFFIX)
        return parent_of(header, self._ratio if is_for_coupon else 0.0) is None

    def current_traceparent(self) -> str:
        """Return the `traceparent` of the current span; empty if it is not recorded."""
        span = get_current_span().get_span_context()
        return traceparent_of(span) if span.is_valid and span.trace_flags.sampled else ""

    @contextmanager
    def continued(self, traceparent: str) -> Iterator[None]:
        """Make the span that the header names the current one during the block."""
        token = attach(extract(traceparent))
        try:
            yield
        finally:
            detach(token)

    @contextmanager
    def batch(self, records: Sequence[Record], topic: str, group: str) -> Iterator[None]:
        """Record the block as the issuer's work on records, if some belong to traces that are recorded.

        The span belongs to the trace of the first of them and is linked to the others, as many as the SDK keeps.
        """
        found = filter(None, (_sampled_parent(record.headers) for record in records))
        parents = list(islice(found, 1 + self._max_links))
        if not parents:
            yield
            return
        attributes: dict[str, AttributeValue] = {
            "messaging.system": "kafka",
            "messaging.operation.type": "process",
            "messaging.operation.name": "process",
            "messaging.destination.name": topic,
            "messaging.consumer.group.name": group,
            "messaging.batch.message_count": len(records),
        }
        links = [Link(get_current_span(parent).get_span_context()) for parent in parents[1:]]
        with self._span(f"process {topic}", SpanKind.CONSUMER, attributes, parents[0], links):
            yield

    @contextmanager
    def task(self, name: str, task_id: str, headers: Mapping[str, Any]) -> Iterator[None]:
        """Record the block as a run of a Celery task, if its message continues a trace that is recorded."""
        traceparent = headers.get(TRACEPARENT)
        parent = _if_sampled(extract(traceparent)) if isinstance(traceparent, str) else None
        if parent is None:
            yield
            return
        attributes: dict[str, AttributeValue] = {
            "messaging.system": "celery",
            "messaging.operation.type": "process",
            "messaging.operation.name": name,
            "messaging.destination.name": name.partition(".")[0],
            "messaging.message.id": task_id,
        }
        with self._span(f"process {name}", SpanKind.CONSUMER, attributes, parent):
            yield

    @contextmanager
    def post(self, url: str) -> Iterator[Post]:
        """Record the block as a POST, if the current span is recorded.

        The URL can contain a secret, so only its host and port are exported.
        """
        if not get_current_span().is_recording():
            yield Post()
            return
        parts = urlsplit(url)
        attributes: dict[str, AttributeValue] = {"http.request.method": "POST", "server.address": parts.hostname or ""}
        if parts.port:
            attributes["server.port"] = parts.port
        with self._span("POST", SpanKind.CLIENT, attributes) as span:
            yield _RecordedPost(span)

    @contextmanager
    def _span(
        self,
        name: str,
        kind: SpanKind,
        attributes: Mapping[str, AttributeValue],
        parent: Context | None = None,
        links: Sequence[Link] = (),
    ) -> Iterator[Span]:
        """Record the block as a span, which is the current one in it; `parent` is the current context if None."""
        with self._tracer.start_as_current_span(
            name, parent, kind, attributes, links, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except Exception as error:
                fail(span, kind_of(error))
                raise


class _RecordedPost(Post):
    """A POST whose receiver can continue the trace."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self.headers = {TRACEPARENT: traceparent_of(span.get_span_context())}

    def on_response(self, status: int) -> None:
        self._span.set_attribute("http.response.status_code", status)
        if status >= HTTPStatus.BAD_REQUEST:
            fail(self._span, str(status))


def _sampled_parent(headers: Headers) -> Context | None:
    """Return the context with a record's trace as the parent, if the trace is recorded."""
    for name, value in headers:
        if name == TRACEPARENT and value is not None:
            return _if_sampled(extract(value.decode("latin-1")))
    return None


def _if_sampled(parent: Context) -> Context | None:
    return parent if get_current_span(parent).get_span_context().trace_flags.sampled else None
