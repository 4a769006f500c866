"""Reading a record: the report's own, ours, and whose window is judged where."""

import json

import pytest

from service.domain.record import Headers, InjectedFault, RawRecord
from service.domain.request import LogPosition
from service.domain.request_id import RequestIds
from service.stream.codec import FAULT_HEADER, REQUEST_ID_HEADER, RecordReader, encode_value, parse_injected_fault
from service.stream.partitioner import partition_of
from tests.builders import AT_MS, PARTITIONS

IDS = RequestIds([b"a-key-for-tests-"])
READER = RecordReader(IDS, PARTITIONS, faults=True)
SPRINGS = b'{"userId":7,"couponId":42,"requestTimeMillis":1767225600000}'
PLACE = LogPosition(partition_of(42, PARTITIONS), 5)


def _raw(value: bytes = SPRINGS, headers: Headers = ()) -> RawRecord:
    return RawRecord(PLACE, b"42", value, headers, AT_MS + 9)


def test_the_reports_message_is_read() -> None:
    """Section 1: what the report's Spring producer writes asks for a coupon here, with an id from its place."""
    raw = _raw(headers=(("__TypeId__", b"com.example.IssueCouponMessage"),))

    record = READER.decode(raw)

    assert record.poison is None
    assert record.request is not None
    expected = (PLACE, 42, 7, IDS.derive(PLACE, 42, 7, AT_MS + 9), 1767225600000, AT_MS + 9, False)
    assert record.request == expected
    assert READER.decode(raw) == record


def test_we_write_what_the_report_reads() -> None:
    """Section 1: our value is the report's JSON, field by field."""
    assert json.loads(encode_value(42, 7, 1767225600000)) == json.loads(SPRINGS)


def test_our_id_is_believed() -> None:
    """Step 3: a record with an id of ours for this coupon and user was accepted at the gate."""
    name = IDS.mint(42, 7, AT_MS)

    request = READER.decode(_raw(headers=((REQUEST_ID_HEADER, name.encode()),))).request

    assert request is not None
    assert (request.request_id, request.accepted) == (name, True)


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"\xff\xfe",
        b"A" * 60,
        RequestIds([b"somebody else's!"]).mint(42, 7, AT_MS).encode(),
        IDS.mint(42, 8, AT_MS).encode(),
        IDS.mint(43, 7, AT_MS).encode(),
        IDS.derive(PLACE, 42, 7, AT_MS + 9).encode(),
    ],
    ids=["null", "empty", "binary", "unsigned", "other key", "other user", "other coupon", "derived, not minted"],
)
def test_an_id_that_is_not_this_requests_makes_the_record_foreign(header: bytes | None) -> None:
    """Step 3: a forged or borrowed id buys no way around the window; the record is read, as a stranger's."""
    request = READER.decode(_raw(headers=((REQUEST_ID_HEADER, header),))).request

    assert request is not None
    assert (request.request_id, request.accepted) == (IDS.derive(PLACE, 42, 7, AT_MS + 9), False)


@pytest.mark.parametrize(
    "more",
    [b'"event":"x"', b'"nested":{"a":[1,{"b":null}]}', b'"x":"\\u0000"', b'"x":' + b"[" * 50 + b"]" * 50],
)
def test_unknown_fields_are_ignored(more: bytes) -> None:
    """Step 5: a producer that has learnt a new field is understood."""
    assert READER.decode(_raw(SPRINGS[:-1] + b"," + more + b"}")).request == READER.decode(_raw()).request


def test_the_largest_values_are_read() -> None:
    """Step 1: ids reach to 2⁶³−1, a value to 64 KiB."""
    most = 2**63 - 1
    value = b'{"userId":%d,"couponId":%d,"requestTimeMillis":0,"x":"%%s"}' % (most, most)
    value = value.replace(b"%s", b"x" * (65_536 - len(value) + 2))
    raw = RawRecord(LogPosition(partition_of(most, PARTITIONS), 0), b"%d" % most, value, (), AT_MS)

    request = READER.decode(raw).request

    assert len(value) == 65_536
    assert request is not None
    assert (request.coupon_id, request.user_id) == (most, most)


def test_a_fault_is_obeyed_only_when_asked_for() -> None:
    """Faults on demand are for demos and tests: elsewhere the header is nothing but a header."""
    raw = _raw(headers=((FAULT_HEADER, b"22012 2"),))

    assert READER.decode(raw).fault == InjectedFault("22012", 2)
    assert RecordReader(IDS, PARTITIONS, faults=False).decode(raw).fault is None


@pytest.mark.parametrize(
    "text", ["", "22012", "22012 0", "22012 10", "22012 1\n", "40001 1", "23505 1", "22012' 1", "2201a 1", "22012  1"]
)
def test_a_fault_of_another_form_is_none(text: str) -> None:
    """Only a record's own class of failure can be asked for, and nothing that could leave its SQL string."""
    assert parse_injected_fault(text) is None
