"""Decoding records: the report's own, those of this API, and foreign records."""

import json
from typing import Any

import pytest
from confluent_kafka import Message

from service.domain.errors import UnverifiedRequestId
from service.domain.failures import error_type_name
from service.domain.record import Headers, InjectedFault, RawRecord
from service.domain.request import LogPosition
from service.domain.request_id import RequestIds
from service.stream import log_reader
from service.stream.codec import FAULT_HEADER, REQUEST_ID_HEADER, RecordReader, encode_value, parse_injected_fault
from service.stream.partitioner import partition_of
from tests.builders import AT_MS, PARTITIONS, TOPIC_ID

IDS = RequestIds([b"a-key-for-tests-"])
READER = RecordReader(IDS, PARTITIONS, faults=True)
SPRING_VALUE = b'{"userId":7,"couponId":42,"requestTimeMillis":1767225600000}'
POSITION = LogPosition(partition_of(42, PARTITIONS), 5)


def _raw(value: bytes = SPRING_VALUE, headers: Headers = ()) -> RawRecord:
    return RawRecord(POSITION, b"42", value, headers, AT_MS + 9)


def test_a_message_of_the_reports_producer_is_decoded() -> None:
    """A record of the report's Spring producer is a request here, with an id derived from its LogPosition."""
    raw = _raw(headers=(("__TypeId__", b"com.example.IssueCouponMessage"),))

    record = READER.decode(raw, TOPIC_ID)

    assert record.poison is None
    assert record.request is not None
    expected = (POSITION, 42, 7, IDS.derive(TOPIC_ID, POSITION, 42, 7, AT_MS + 9), 1767225600000, AT_MS + 9, False)
    assert record.request == expected
    assert READER.decode(raw, TOPIC_ID) == record


def test_our_value_is_the_reports_json() -> None:
    """Our value has the report's JSON, field by field."""
    assert json.loads(encode_value(42, 7, 1767225600000)) == json.loads(SPRING_VALUE)


def test_a_record_with_our_request_id_is_accepted() -> None:
    """A record with an id of ours for its coupon and user has passed the gate."""
    request_id = IDS.mint(42, 7, AT_MS)

    request = READER.decode(_raw(headers=((REQUEST_ID_HEADER, request_id.encode()),)), TOPIC_ID).request

    assert request is not None
    assert (request.request_id, request.accepted) == (request_id, True)


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"\xff\xfe",
        b"A" * 60,
        RequestIds([b"another's secret"]).mint(42, 8, AT_MS).encode(),
        IDS.mint(42, 8, AT_MS).encode(),
        IDS.mint(43, 7, AT_MS).encode(),
        IDS.derive(TOPIC_ID, POSITION, 42, 7, AT_MS + 9).encode(),
    ],
    ids=[
        "null",
        "empty",
        "binary",
        "unsigned",
        "other key and user",
        "other user",
        "other coupon",
        "derived, not minted",
    ],
)
def test_a_request_id_that_does_not_fit_makes_the_record_foreign(header: bytes | None) -> None:
    """A forged or borrowed id does not bypass the coupon's window; the record is read as a foreign one."""
    request = READER.decode(_raw(headers=((REQUEST_ID_HEADER, header),)), TOPIC_ID).request

    assert request is not None
    assert (request.request_id, request.accepted) == (IDS.derive(TOPIC_ID, POSITION, 42, 7, AT_MS + 9), False)


def test_a_request_id_that_no_key_verifies_does_not_make_the_record_foreign() -> None:
    """P5: it may be an accepted request whose key is missing here, so it gets no derived id; a forged one neither."""
    unknown = RequestIds([b"another's secret"]).mint(42, 7, AT_MS).encode()

    record = READER.decode(_raw(headers=((REQUEST_ID_HEADER, unknown),)), TOPIC_ID)

    assert record.request is None
    assert record.poison is not None
    assert record.poison.error_type == error_type_name(UnverifiedRequestId)


@pytest.mark.parametrize(
    "extra",
    [b'"event":"x"', b'"nested":{"a":[1,{"b":null}]}', b'"x":"\\u0000"', b'"x":' + b"[" * 50 + b"]" * 50],
)
def test_unknown_fields_are_ignored(extra: bytes) -> None:
    """A producer may add fields."""
    assert (
        READER.decode(_raw(SPRING_VALUE[:-1] + b"," + extra + b"}"), TOPIC_ID).request
        == READER.decode(_raw(), TOPIC_ID).request
    )


def test_the_largest_ids_and_values_are_decoded() -> None:
    """Ids reach 2⁶³−1, a value 64 KiB."""
    max_id = 2**63 - 1
    value = b'{"userId":%d,"couponId":%d,"requestTimeMillis":0,"x":"%%s"}' % (max_id, max_id)
    value = value.replace(b"%s", b"x" * (65_536 - len(value) + 2))
    raw = RawRecord(LogPosition(partition_of(max_id, PARTITIONS), 0), b"%d" % max_id, value, (), AT_MS)

    request = READER.decode(raw, TOPIC_ID).request

    assert len(value) == 65_536
    assert request is not None
    assert (request.coupon_id, request.user_id) == (max_id, max_id)


def test_injected_faults_are_decoded_only_if_enabled() -> None:
    """Injected faults are for demos and tests; elsewhere the header has no meaning."""
    raw = _raw(headers=((FAULT_HEADER, b"22012 2"),))

    assert READER.decode(raw, TOPIC_ID).fault == InjectedFault("22012", 2)
    assert RecordReader(IDS, PARTITIONS, faults=False).decode(raw, TOPIC_ID).fault is None


@pytest.mark.parametrize(
    "text", ["", "22012", "22012 0", "22012 10", "22012 1\n", "40001 1", "23505 1", "22012' 1", "2201a 1", "22012  1"]
)
def test_a_malformed_injected_fault_is_ignored(text: str) -> None:
    """Only failures of class record can be injected, and no text that could leave its SQL string."""
    assert parse_injected_fault(text) is None


_ID = IDS.mint(42, 7, AT_MS).encode()
_OTHER_ID = IDS.mint(42, 7, AT_MS).encode()
_VALUE_WITH_ID = encode_value(42, 7, 1767225600000, _ID.decode())
_OURS = [(REQUEST_ID_HEADER, _ID)]
_TRACE = ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")


@pytest.mark.parametrize(
    ("key", "value", "headers", "partition", "is_plain"),
    [
        (b"42", SPRING_VALUE, _OURS, POSITION.partition, True),
        (b"42", SPRING_VALUE[:-1] + b',"more":1}', _OURS, POSITION.partition, True),
        (b"42", _VALUE_WITH_ID, None, POSITION.partition, True),
        (b"42", _VALUE_WITH_ID, _OURS, POSITION.partition, True),
        (b"42", _VALUE_WITH_ID, [(REQUEST_ID_HEADER, _OTHER_ID)], POSITION.partition, False),
        (b"42", SPRING_VALUE[:-1] + b',"requestId":7}', _OURS, POSITION.partition, True),
        (b"42", SPRING_VALUE[:-1] + b',"requestId":"theirs"}', None, POSITION.partition, False),
        (b"42", SPRING_VALUE, [*_OURS, _TRACE], POSITION.partition, False),
        (b"42", SPRING_VALUE, [*_OURS, (FAULT_HEADER, b"22012 1")], POSITION.partition, False),
        (b"42", SPRING_VALUE, [(FAULT_HEADER, b"22012 1")], POSITION.partition, False),
        (b"42", SPRING_VALUE, None, POSITION.partition, False),
        (b"42", SPRING_VALUE, [(REQUEST_ID_HEADER, None)], POSITION.partition, False),
        (b"42", SPRING_VALUE, [(REQUEST_ID_HEADER, _ID[:-1] + b"_")], POSITION.partition, False),
        (b"42", SPRING_VALUE, [("Request_Id", _ID)], POSITION.partition, False),
        (b"43", SPRING_VALUE, _OURS, POSITION.partition, False),
        (None, SPRING_VALUE, _OURS, POSITION.partition, False),
        (b"42", SPRING_VALUE, _OURS, (POSITION.partition + 1) % PARTITIONS, False),
        (b"42", SPRING_VALUE.replace(b":7,", b":8,"), _OURS, POSITION.partition, False),
        (b"42", b"{", _OURS, POSITION.partition, False),
        (b"42", b"[" * 60_000, _OURS, POSITION.partition, False),
        (b"42", b"\xff", _OURS, POSITION.partition, False),
        (b"42", SPRING_VALUE + b" " * 65_536, _OURS, POSITION.partition, False),
        (b"42", None, _OURS, POSITION.partition, False),
    ],
)
def test_a_plain_message_is_decoded_like_any_other(
    key: bytes | None, value: bytes | None, headers: Any, partition: int, is_plain: bool
) -> None:
    """The quick way is taken for our own records only, and returns the same record."""
    message = Message("", partition, 5, key, value, headers, None, (1, AT_MS + 9))

    record = READER.decode_plain(message)

    assert (record is not None) == is_plain
    if record:
        assert record == READER.decode(log_reader.raw_record(message), TOPIC_ID)


@pytest.mark.parametrize(
    ("value", "headers", "accepted"),
    [
        (SPRING_VALUE, ((REQUEST_ID_HEADER, _ID),), True),
        (_VALUE_WITH_ID, (), True),
        (_VALUE_WITH_ID, ((REQUEST_ID_HEADER, None),), True),
        (_VALUE_WITH_ID, ((REQUEST_ID_HEADER, _ID),), True),
        (_VALUE_WITH_ID, ((REQUEST_ID_HEADER, _OTHER_ID),), False),
        (_VALUE_WITH_ID.replace(b":7,", b":8,"), (), False),
        (SPRING_VALUE[:-1] + b',"requestId":{"theirs":[1]}}', (), False),
        (SPRING_VALUE[:-1] + b',"requestId":null}', ((REQUEST_ID_HEADER, _ID),), True),
    ],
    ids=["header", "value", "null header", "both", "both and different", "of another user", "of another form", "null"],
)
def test_the_request_id_is_in_the_header_or_in_the_value(value: bytes, headers: Headers, accepted: bool) -> None:
    """Where it is in both and differs, somebody has put a record together: it is foreign."""
    request = READER.decode(_raw(value, headers), TOPIC_ID).request

    assert request is not None
    assert request.accepted == accepted
    if accepted:
        assert request.request_id == _ID.decode()


def test_a_value_with_the_request_id_is_the_reports_json_with_one_field_more() -> None:
    """Spring Kafka's JsonDeserializer ignores fields that its class does not have."""
    assert json.loads(_VALUE_WITH_ID) == json.loads(SPRING_VALUE) | {"requestId": _ID.decode()}
