"""A dead letter's headers, byte for byte as Spring Kafka's DeadLetterPublishingRecoverer writes them."""

import pytest

from service.domain.failures import FailureClass
from service.domain.record import Headers, RawRecord
from service.domain.request import LogPosition
from service.stream.dead_letter_records import Origin, parse_failure, parse_origin, spring_headers

RAW = RawRecord(
    LogPosition(258, 72623859790382856), b"42", b"{}", (("request_id", b"abc"), ("null", None)), 1767225600000
)
SPRINGS: list[tuple[str, bytes | None]] = [
    ("kafka_dlt-original-topic", b"ISSUE_COUPON"),
    ("kafka_dlt-original-partition", b"\x00\x00\x01\x02"),
    ("kafka_dlt-original-offset", b"\x01\x02\x03\x04\x05\x06\x07\x08"),
    ("kafka_dlt-original-timestamp", b"\x00\x00\x01\x9b\x76\xda\xa8\x00"),
    ("kafka_dlt-original-timestamp-type", b"LogAppendTime"),
    ("kafka_dlt-original-consumer-group", b"coupon"),
    ("kafka_dlt-exception-fqcn", b"psycopg.errors.DivisionByZero"),
    ("kafka_dlt-exception-message", b"null \xed\x95\xa0"),
]


def test_spring_reads_a_dead_letter_of_ours_as_its_own() -> None:
    """Step 7: names, order and encodings of Spring's headers, after the record's own."""
    written = spring_headers(RAW, "psycopg.errors.DivisionByZero", "null 할")

    assert [(str(name), value) for name, value in written] == [("request_id", b"abc"), ("null", None), *SPRINGS]


def test_a_dead_letter_of_ours_says_where_it_comes_from() -> None:
    """Step 7: the listener confirms a dead letter by the topic, place and time in its headers."""
    written = spring_headers(RAW, "a.Kind", "why")

    assert parse_origin(tuple(written)) == Origin("ISSUE_COUPON", RAW.log_position, RAW.appended_at_ms)
    assert parse_failure(tuple(written)) == (FailureClass.POISON, "a.Kind", "why")


def _without(name: str) -> Headers:
    return tuple(header for header in SPRINGS if header[0] != name)


@pytest.mark.parametrize(
    "found",
    [
        (),
        (("other", b"header"),),
        _without("kafka_dlt-original-topic"),
        _without("kafka_dlt-original-partition"),
        _without("kafka_dlt-original-offset"),
        _without("kafka_dlt-original-timestamp"),
        (*SPRINGS, ("kafka_dlt-original-timestamp", b"\xff" * 8)),
        (*SPRINGS, ("kafka_dlt-original-timestamp", b"\x7f" * 8)),
        (*SPRINGS, ("kafka_dlt-original-partition", b"0")),
        (*SPRINGS, ("kafka_dlt-original-partition", None)),
        (*SPRINGS, ("kafka_dlt-original-offset", b"\x00" * 4)),
        (*SPRINGS, ("kafka_dlt-original-offset", b"")),
        (*SPRINGS, ("kafka_dlt-original-topic", b"\xff")),
    ],
)
def test_headers_of_another_form_name_no_origin(found: Headers) -> None:
    """Step 7: a foreign or broken dead letter is stored as a stranger's, never mistaken, never an exception."""
    assert parse_origin(found) is None


def test_a_strangers_reason_is_kept_as_far_as_it_can_be_stored() -> None:
    """Step 7: bytes that are no UTF-8, or that PostgreSQL cannot store, do not stop the listener."""
    found: Headers = (("kafka_dlt-exception-fqcn", None), ("kafka_dlt-exception-message", b"a\x00b\xff"))

    assert parse_failure(found) == (FailureClass.POISON, "", "a\ufffdb\ufffd")
