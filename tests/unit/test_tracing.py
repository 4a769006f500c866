"""Spans of one process: which requests get one, what continues a trace, and what is imported without a receiver."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from secrets import token_hex

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import get_current_span

from service import tracing
from service.config import Settings
from service.domain.record import RawRecord, Record
from service.domain.request import LogPosition
from service.limits import MAX_TRACES_PER_SECOND
from service.tracing.sampler import LimitedSampler, parent_of
from tests.trace_receiver import ReceivedSpan, TraceReceiver
from tests.unit import facts
from tests.unit.conftest import Facts

CALLER = f"00-{token_hex(16)}-{token_hex(8)}"
_VALID = (f"{CALLER}-01", f"{CALLER}-03", f"{CALLER}-ff", f"01-{CALLER[3:]}-01", f"cc-{CALLER[3:]}-01-of the future")
_MALFORMED = (
    "",
    "00",
    CALLER,
    f"{CALLER}-1",
    f"{CALLER}-01-more",
    f"{CALLER.upper()}-01",
    f"ff{CALLER[2:]}-01",
    f"00-{32 * '0'}-{token_hex(8)}-01",
    f"00-{token_hex(16)}-{16 * '0'}-01",
    f"{CALLER}-01{600 * ' '}",
    "\xe9" * 55,
)


def _settings(endpoint: str, ratio: float = 1.0) -> Settings:
    given = {name.lower(): value for name, value in facts.ENVIRONMENT.items()}
    return Settings(**given, otel_exporter_otlp_endpoint=endpoint, otel_traces_sampler_arg=ratio)  # type: ignore[arg-type]


@pytest.fixture
def receiver() -> Iterator[TraceReceiver]:
    """A receiver of this process's spans."""
    with TraceReceiver() as started:
        tracing.configure(_settings(started.endpoint), "tests")
        yield started
        tracing.close()


def _sent(receiver: TraceReceiver) -> list[ReceivedSpan]:
    """End the recording; return all spans."""
    tracing.close()
    return receiver.spans


def _record(offset: int, *headers: tuple[str, bytes | None]) -> Record:
    return Record.of(RawRecord(LogPosition(0, offset), None, None, headers, 0), None)


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_the_ratio_decides_where_the_caller_does_not(ratio: float) -> None:
    """A caller decides with a valid header only: a malformed one counts as none."""
    assert all(parent_of(header.encode("latin-1"), ratio) is not None for header in _VALID)
    assert parent_of(f"{CALLER}-00".encode(), ratio) is None
    assert parent_of(f"{CALLER}-02".encode(), ratio) is None
    for header in (None, *(malformed.encode("latin-1") for malformed in _MALFORMED)):
        parent = parent_of(header, ratio)
        assert (parent is not None) == (ratio == 1.0), header
        assert not get_current_span(parent or Context()).get_span_context().is_valid


def test_no_more_traces_begin_in_a_second_than_the_limit() -> None:
    """Callers may ask for one with each request."""
    now = [0.0]
    sampler = LimitedSampler(3, lambda: now[0])

    def sampled(times: int) -> int:
        decisions = [sampler.should_sample(None, 1, "a request").decision for _ in range(times)]
        return decisions.count(Decision.RECORD_AND_SAMPLE)

    assert sampled(5) == 3
    now[0] = 0.9
    assert sampled(5) == 0
    now[0] = 1.0
    assert sampled(5) == 3


def test_the_limit_holds_for_requests(receiver: TraceReceiver) -> None:
    tracer = tracing.active_tracer()
    assert tracer
    began = int(time.monotonic())

    begun = [
        tracer.begin_request(f"{CALLER}-01".encode(), b"POST", "/", b"/") for _ in range(3 * MAX_TRACES_PER_SECOND)
    ]

    seconds = int(time.monotonic()) - began + 1
    for trace in filter(None, begun):
        trace.end(202)
    assert len(_sent(receiver)) == sum(trace is not None for trace in begun) <= seconds * MAX_TRACES_PER_SECOND


def test_a_batch_is_one_span_in_the_first_trace_with_links_to_the_others(receiver: TraceReceiver) -> None:
    """It is linked to records that are traced, and to no more than the SDK keeps: 128."""
    names = [f"00-{token_hex(16)}-{token_hex(8)}" for _ in range(200)]
    records = [
        _record(0),
        _record(1, ("request_id", b"an id")),
        _record(2, ("traceparent", f"{CALLER}-00".encode())),
        _record(3, ("traceparent", None)),
        _record(4, ("traceparent", b"\xff\xfe")),
        *(
            _record(5 + at, ("request_id", b"an id"), ("traceparent", f"{name}-01".encode()))
            for at, name in enumerate(names)
        ),
    ]

    with tracing.batch(records, "A_TOPIC", "a group"):
        continued = tracing.current_traceparent()

    (span,) = _sent(receiver)
    assert (span.name, span.kind, span.attributes["messaging.batch.message_count"]) == (
        "process A_TOPIC",
        "CONSUMER",
        205,
    )
    assert [span.trace_id, span.parent_id] == names[0].split("-")[1:]
    assert [["00", *link] for link in span.links] == [name.split("-") for name in names[1:129]]
    assert continued == f"00-{span.trace_id}-{span.span_id}-01"


def test_a_batch_without_a_trace_is_no_span(receiver: TraceReceiver) -> None:
    with tracing.batch([_record(1, ("request_id", b"an id"))], "A_TOPIC", "a group"):
        assert tracing.current_traceparent() == ""

    assert _sent(receiver) == []


def test_a_message_and_a_post_continue_the_trace_and_only_if_it_is_recorded(receiver: TraceReceiver) -> None:
    with tracing.task("notify.deliver", "an id", {"traceparent": f"{CALLER}-01"}):
        headers = tracing.message_headers()
        with tracing.post("http://user:secret@receiver.example:99/path?key=secret") as post:
            post.on_response(204)
    for others in ({}, None, {"traceparent": f"{CALLER}-00"}, {"traceparent": "malformed"}, {"traceparent": 7}):
        with tracing.task("notify.deliver", "an id", others), tracing.post("http://receiver.example") as untraced:
            assert (tracing.message_headers(), untraced.headers) == ({}, {})

    client, task = _sent(receiver)
    assert task.parent_id == CALLER.rpartition("-")[2]
    assert headers == {"traceparent": f"00-{task.trace_id}-{task.span_id}-01"}
    assert post.headers == {"traceparent": f"00-{task.trace_id}-{client.span_id}-01"}
    assert client.attributes == {
        "http.request.method": "POST",
        "server.address": "receiver.example",
        "server.port": 99,
        "http.response.status_code": 204,
    }


def test_a_trace_is_continued_over_threads(receiver: TraceReceiver) -> None:
    with tracing.continued(f"{CALLER}-01"):
        assert tracing.message_headers() == {"traceparent": f"{CALLER}-01"}
    with tracing.continued(""):
        assert tracing.message_headers() == {}

    assert _sent(receiver) == []


def test_a_failure_is_exported_without_its_text(receiver: TraceReceiver) -> None:
    """The text of a database's error names users."""
    with (
        pytest.raises(ValueError, match="a user"),
        tracing.task("retry.issue", "an id", {"traceparent": f"{CALLER}-01"}),
    ):
        raise ValueError("a user")

    (span,) = _sent(receiver)
    assert span.failed
    assert span.attributes["error.type"] == "ValueError"
    assert "user" not in str(span)


def test_a_process_ends_in_time_without_its_receiver() -> None:
    """Nobody answers at the address: the port is taken by a socket that accepts nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
        tracing.configure(_settings(f"http://127.0.0.1:{deaf.getsockname()[1]}"), "tests")
        with tracing.task("notify.deliver", "an id", {"traceparent": f"{CALLER}-01"}):
            pass
        began = time.monotonic()
        tracing.close()
        assert time.monotonic() - began < 3


def test_everything_works_without_a_tracer() -> None:
    tracing.configure(_settings(""), "tests")

    assert (tracing.active_tracer(), tracing.current_request(), tracing.current_traceparent()) == (None, None, "")
    with (
        tracing.batch([_record(1, ("traceparent", f"{CALLER}-01".encode()))], "A_TOPIC", "a group"),
        tracing.continued(f"{CALLER}-01"),
        tracing.task("notify.deliver", "an id", {"traceparent": f"{CALLER}-01"}),
        tracing.post("http://receiver.example") as post,
    ):
        post.on_response(500)
        assert (tracing.message_headers(), post.headers) == ({}, {})


def test_fastapis_own_telemetry_is_off_without_a_tracer() -> None:
    """Each of its kinds would look for a provider at every request."""
    assert not any(tracing.fastapi_options().values())


_PRINT_SDK = """
import sys
import service.api.server, workers.celery
print(*(name for name in sys.modules if name.startswith(("opentelemetry.sdk.trace", "opentelemetry.exporter"))))
"""


def test_nothing_that_records_traces_is_imported_without_a_receiver(import_facts: Facts) -> None:
    """FastAPI imports OpenTelemetry's API, and redis-py the part of its SDK that is for metrics, where there is one."""
    command = [sys.executable, "-c", _PRINT_SDK]
    output = subprocess.run(
        command, env={**os.environ, **facts.ENVIRONMENT}, capture_output=True, check=True, text=True
    ).stdout

    assert output.split() == []
    issuer = import_facts["workers.issuer"]["modules"]
    assert "service.tracing" in issuer
    assert [name for name in issuer if name.startswith(("opentelemetry.sdk.trace", "opentelemetry.exporter"))] == []
