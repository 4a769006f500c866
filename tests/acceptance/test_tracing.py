"""One trace follows a request over all processes, if its caller or the ratio says so; otherwise nothing is made."""

from collections.abc import Iterator
from itertools import count
from secrets import token_hex
from typing import NamedTuple

import pytest

from service.config import Settings
from service.domain.record import RawRecord
from service.domain.request import LogPosition
from service.stream import log_reader
from service.stream.dead_letter_records import SpringHeader, parse_origin
from service.stream.topics import Topic
from service.tracing import TRACEPARENT
from tests.fixtures.running import running
from tests.system import System, client_answer
from tests.trace_receiver import ReceivedSpan, TraceReceiver, chain_to

CALL = ("coupons-api", "POST /coupons/{coupon_id}/issuances")
APPEND = ("coupons-api", "send ISSUE_COUPON")
BATCH = ("coupons-issuer", "process ISSUE_COUPON")
RETRY = ("coupons-worker", "process retry.issue")
NOTIFY = ("coupons-worker", "process notify.deliver")
POST = ("coupons-worker", "POST")
_users = count(1)  # each has a rate limit


class Traced(NamedTuple):
    """A running system that records the traces that callers ask for, and no others."""

    system: System
    receiver: TraceReceiver

    def wait_for(self, trace_id: str, *steps: tuple[str, str]) -> list[ReceivedSpan]:
        """Wait until a trace has these steps; return its spans."""

        def complete() -> list[ReceivedSpan] | None:
            spans = self.receiver.spans_of(trace_id)
            return spans if {*steps} <= {span.step for span in spans} else None

        return self.system.eventually(complete)


@pytest.fixture(scope="module")
def _started_traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    with TraceReceiver() as receiver:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_TRACES_SAMPLER_ARG": "0",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        with running(tmp_path_factory.mktemp("traced"), variables) as system:
            yield Traced(system, receiver)


@pytest.fixture
def traced(_started_traced: Traced) -> Iterator[Traced]:
    """After each test every accepted request must be final, and the verification must pass."""
    _started_traced.system.wait_until_ready()
    yield _started_traced
    _started_traced.system.wait_until_idle()
    _started_traced.system.assert_promises()


def _request(system: System, traceparent: str | None, fault: str | None = None) -> str:
    """Request a new coupon as a new user; return the request id."""
    coupon, user = system.make_coupon(quantity=1), next(_users)
    given = {TRACEPARENT: traceparent, "Fault": fault}
    headers = {name: value for name, value in given.items() if value is not None}
    response = system.http.post(f"/coupons/{coupon}/issuances", json={"user_id": user}, headers=headers)
    system.history.append(client_answer(user, coupon, response))
    assert response.status_code == 202, response.text
    return str(response.json()["request_id"])


def _record_of(settings: Settings, request: dict[str, object]) -> RawRecord:
    at = LogPosition(int(str(request["partition"])), int(str(request["offset"])))
    return next(log_reader.read_records(settings, Topic.ISSUE_COUPON, at.partition, at.offset))


def test_one_trace_follows_a_request_from_its_caller_to_the_webhook(traced: Traced) -> None:
    trace_id, caller = token_hex(16), token_hex(8)

    request_id = _request(traced.system, f"00-{trace_id}-{caller}-01")

    spans = traced.wait_for(trace_id, CALL, APPEND, BATCH, NOTIFY, POST)
    first, append, post = (next(span for span in spans if span.step == step) for step in (CALL, APPEND, POST))
    assert chain_to(spans, post) == [CALL, APPEND, BATCH, NOTIFY, POST]
    assert [span.kind for span in (first, append, post)] == ["SERVER", "PRODUCER", "CLIENT"]
    assert first.parent_id == caller
    assert append.attributes["coupon.request_id"] == request_id
    assert not any(span.failed for span in spans)
    assert f"00-{trace_id}-{post.span_id}-01" in traced.system.receiver.traceparents.values()
    record = _record_of(traced.system.settings, traced.system.read_status(request_id))
    assert dict(record.headers)[TRACEPARENT] == f"00-{trace_id}-{append.span_id}-01".encode()


def test_one_trace_follows_a_request_that_fails_to_its_dead_letter(traced: Traced) -> None:
    """The request has a form that FastAPI's route answers: it has one span as well."""
    trace_id = token_hex(16)

    request_id = _request(traced.system, f"00-{trace_id}-{token_hex(8)}-01", fault="22012 9")

    status = traced.system.wait_until_final(request_id)
    spans = traced.wait_for(trace_id, CALL, APPEND, BATCH, RETRY, NOTIFY, POST)
    retries = [span for span in spans if span.step == RETRY]
    assert [span.step for span in spans if span.service == "coupons-api"].count(CALL) == 1
    assert len([span for span in spans if span.service == "coupons-api"]) == 2
    assert chain_to(spans, retries[0]) == [CALL, APPEND, BATCH, RETRY]
    assert sorted(span.failed for span in retries) == [False, True]
    record = _record_of(traced.system.settings, status)
    traced.system.wait_until_idle()
    dead = [
        letter
        for letter in log_reader.read_records(
            traced.system.settings, Topic.DEAD_LETTERS, record.log_position.partition, None
        )
        if (origin := parse_origin(letter.headers)) and origin.log_position == record.log_position
    ]
    assert len(dead) == 1
    kept = [header for header in dead[0].headers if header[0] not in set(SpringHeader)]
    assert kept == list(record.headers)
    assert (dead[0].key, dead[0].value) == (record.key, record.value)


_NOT_TO_BE_TRACED = (
    None,
    f"00-{token_hex(16)}-{token_hex(8)}-00",
    f"00-{token_hex(16)}-{token_hex(8)}",
    f"ff-{token_hex(16)}-{token_hex(8)}-01",
    f"00-{32 * '0'}-{token_hex(8)}-01",
    f"00-{token_hex(16)}-{token_hex(8)}-01-more",
    600 * "x",
)


def test_a_request_that_is_not_to_be_traced_leaves_no_trace(traced: Traced) -> None:
    """A caller that does not sample decides so; a malformed header counts as none, and the ratio is 0."""
    system, before = traced.system, len(traced.receiver.spans)

    plain = [_request(system, traceparent) for traceparent in _NOT_TO_BE_TRACED]
    by_fastapi = [_request(system, traceparent, fault="none") for traceparent in _NOT_TO_BE_TRACED]

    records = [_record_of(system.settings, system.wait_until_final(request_id)) for request_id in plain + by_fastapi]
    assert [name for record in records for name, _ in record.headers if name == TRACEPARENT] == []
    trace_id = token_hex(16)
    _request(system, f"00-{trace_id}-{token_hex(8)}-01")
    traced.wait_for(trace_id, CALL, POST)
    assert {span.trace_id for span in traced.receiver.spans[before:]} == {trace_id}


def test_routes_are_traced_and_streams_and_probes_are_not(traced: Traced) -> None:
    request_id = _request(traced.system, None)
    traced.system.wait_until_final(request_id)
    trace_id = token_hex(16)
    headers = {TRACEPARENT: f"00-{trace_id}-{token_hex(8)}-01"}

    for path in (f"/issuances/{request_id}/events", "/healthz", "/readyz", "/metrics"):
        assert traced.system.http.get(path, headers=headers).is_success
    for path in (f"/issuances/{request_id}", f"/issuances/{request_id}?a=b", "/coupons"):  # the first one is plain
        traced.system.http.get(path, headers=headers)

    steps = [("coupons-api", "GET /issuances/{request_id}"), ("coupons-api", "GET /coupons")]
    spans = traced.wait_for(trace_id, *steps)
    assert sorted(span.step for span in spans) == sorted([steps[0], *steps])


def test_without_a_receiver_no_record_continues_a_trace(system: System) -> None:
    request_id = _request(system, f"00-{token_hex(16)}-{token_hex(8)}-01")

    record = _record_of(system.settings, system.wait_until_final(request_id))
    assert [name for name, _ in record.headers] == ["request_id"]
