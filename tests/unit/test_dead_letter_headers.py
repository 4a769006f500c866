"""The headers of a dead letter, byte for byte as Spring Kafka's DeadLetterPublishingRecoverer writes them."""

import pytest

from service.domain.failures import FailureClass
from service.domain.record import Headers, RawRecord
from service.domain.request import LogPosition
from service.limits import MAX_ERROR_LENGTH
from service.stream.dead_letter_records import Origin, parse_failure, parse_origin, spring_headers

RAW = RawRecord(
    LogPosition(258, 72623859790382856), b"42", b"{}", (("request_id", b"abc"), ("null", None)), 1767225600000
)
SPRING_HEADERS: list[tuple[str, bytes | None]] = [
    ("kafka_dlt-original-topic", b"ISSUE_COUPON"),
    ("kafka_dlt-original-partition", b"\x00\x00\x01\x02"),
    ("kafka_dlt-original-offset", b"\x01\x02\x03\x04\x05\x06\x07\x08"),
    ("kafka_dlt-original-timestamp", b"\x00\x00\x01\x9b\x76\xda\xa8\x00"),
    ("kafka_dlt-original-timestamp-type", b"LogAppendTime"),
    ("kafka_dlt-original-consumer-group", b"coupon"),
    ("kafka_dlt-exception-fqcn", b"psycopg.errors.DivisionByZero"),
    ("kafka_dlt-exception-message", b"null \xed\x95\xa0"),
]


def test_a_dead_letter_has_the_headers_of_spring() -> None:
    """Names, order and encodings are Spring's; they follow the record's own headers."""
    headers = spring_headers(RAW, "psycopg.errors.DivisionByZero", "null 할")

    assert [(str(name), value) for name, value in headers] == [("request_id", b"abc"), ("null", None), *SPRING_HEADERS]


def test_the_origin_of_a_dead_letter_of_ours_is_read_back() -> None:
    """The listener confirms a dead letter by the topic, LogPosition and time in its headers."""
    headers = spring_headers(RAW, "a.Kind", "why")

    assert parse_origin(tuple(headers)) == Origin("ISSUE_COUPON", RAW.log_position, RAW.appended_at_ms)
    assert parse_failure(tuple(headers)) == (FailureClass.POISON, "a.Kind", "why")


def _without(name: str) -> Headers:
    return tuple(header for header in SPRING_HEADERS if header[0] != name)


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("other", b"header"),),
        _without("kafka_dlt-original-topic"),
        _without("kafka_dlt-original-partition"),
        _without("kafka_dlt-original-offset"),
        _without("kafka_dlt-original-timestamp"),
        (*SPRING_HEADERS, ("kafka_dlt-original-timestamp", b"\xff" * 8)),
        (*SPRING_HEADERS, ("kafka_dlt-original-timestamp", b"\x7f" * 8)),
        (*SPRING_HEADERS, ("kafka_dlt-original-partition", b"0")),
        (*SPRING_HEADERS, ("kafka_dlt-original-partition", None)),
        (*SPRING_HEADERS, ("kafka_dlt-original-offset", b"\x00" * 4)),
        (*SPRING_HEADERS, ("kafka_dlt-original-offset", b"")),
        (*SPRING_HEADERS, ("kafka_dlt-original-topic", b"\xff")),
    ],
)
def test_headers_of_another_form_have_no_origin(headers: Headers) -> None:
    """A foreign or broken dead letter is stored as another producer's: never taken for ours, never an exception."""
    assert parse_origin(headers) is None


def test_a_foreign_failure_message_is_kept_as_far_as_it_can_be_stored() -> None:
    """Bytes that are not UTF-8, or that PostgreSQL cannot store, do not stop the listener."""
    headers: Headers = (("kafka_dlt-exception-fqcn", None), ("kafka_dlt-exception-message", b"a\x00b\xff"))

    assert parse_failure(headers) == (FailureClass.POISON, "", "a\ufffdb\ufffd")


def test_a_foreign_failure_message_is_not_longer_than_our_own() -> None:
    """Headers of a megabyte would be stored twice, and shown in every list; the record keeps them in full."""
    headers: Headers = (("kafka_dlt-exception-fqcn", b"E" * 10**6), ("kafka_dlt-exception-message", b"m" * 10**6))

    failure = parse_failure(headers)

    assert len(failure.error_type) == len(failure.message) == MAX_ERROR_LENGTH
