"""Which requests are traced: as their callers decide, else a share of them, and a fixed number a second at most."""

import re
import time
from collections.abc import Callable, Sequence
from random import random

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes

from service.tracing import TRACEPARENT

#: Version, trace, span and flags. This test takes a tenth of the time in which the library parses a header, so only a
#: header that asks for a trace is parsed.
_SHAPE = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]([0-9a-f])(?:-.*)?")
_NOT_SAMPLED = b"02468ace"
_propagator = TraceContextTextMapPropagator()


def extract(traceparent: str) -> Context:
    """Return a context with the caller's span as the parent; an empty one if the header is malformed."""
    return _propagator.extract({TRACEPARENT: traceparent}, Context())


def parent_of(traceparent: bytes | None, ratio: float) -> Context | None:
    """Return the context in which the span of a request begins; None if the request is not to be traced.

    traceparent: the header, by which a caller decides; None without it. A malformed one counts as none, as the W3C's
    Trace Context demands. ratio: the share of the requests to trace whose callers do not decide.
    """
    if traceparent is not None and (match := _SHAPE.fullmatch(traceparent)):
        if match[1] in _NOT_SAMPLED:
            return None
        parent = extract(traceparent.decode("latin-1"))
        caller = get_current_span(parent).get_span_context()
        if caller.is_valid:
            return parent if caller.trace_flags.sampled else None
    return Context() if random() < ratio else None  # noqa: S311  # no secret depends on it


class LimitedSampler(Sampler):
    """Samples everything that it is asked about, but only so much a second: anybody may send a `traceparent`."""

    def __init__(self, max_per_second: int, now_seconds: Callable[[], float] = time.monotonic) -> None:
        self._max_per_second = max_per_second
        self._now_seconds = now_seconds
        self._second, self._sampled = 0, 0

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Return the decision of ALWAYS_ON while this second has room."""
        second = int(self._now_seconds())
        if second != self._second:
            self._second, self._sampled = second, 0
        self._sampled += 1
        chosen = ALWAYS_ON if self._sampled <= self._max_per_second else ALWAYS_OFF
        return chosen.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """Describe the sampler."""
        return f"LimitedSampler{{{self._max_per_second}/s}}"
