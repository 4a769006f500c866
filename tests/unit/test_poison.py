"""Records that cannot be read: each becomes poison with a reason, none an exception."""

import pytest

from service.domain.failures import FailureClass
from service.domain.record import RawRecord
from service.domain.request import LogPosition
from service.domain.request_id import RequestIds
from service.stream.codec import UNREADABLE_HEADERS, RecordReader, encode_value
from service.stream.partitioner import partition_of
from tests.builders import AT_MS, PARTITIONS

READER = RecordReader(RequestIds([b"a-key-for-tests-"]), PARTITIONS, faults=False)
HOME = partition_of(42, PARTITIONS)
GOOD = encode_value(42, 7, AT_MS)


def _value(user: str = "7", coupon: str = "42", at: str = "1") -> bytes:
    return f'{{"userId":{user},"couponId":{coupon},"requestTimeMillis":{at}}}'.encode()


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"null",
        b"7",
        b"[7,42,1]",
        b"{}",
        b"\xff\xfe\x00",
        b"\xef\xbb\xbf" + GOOD,
        GOOD[:-1],
        GOOD + b"x",
        GOOD + GOOD,
        b'{"userId":7,"couponId":42}',
        b'{"userId":7,"requestTimeMillis":1}',
        b'{"couponId":42,"requestTimeMillis":1}',
        b'{"user_id":7,"coupon_id":42,"request_time_millis":1}',
        *[_value(user=text) for text in ("NaN", "Infinity", "1e999", "true", "7.0", "7.5", '"7"', "null", "[7]")],
        *[_value(user=text) for text in ("0", "-1", "9223372036854775808", "9" * 150, "9" * 5000, "07", "+7")],
        *[_value(coupon=text) for text in ("0", "-42", '"42"', "42.0", "9223372036854775808")],
        *[_value(at=text) for text in ("-1", "1.0", '"1"', "true", "253370764800001", "9" * 30)],
        GOOD[:-1] + b',"x":"' + b"x" * 65_536 + b'"}',
        GOOD[:-1] + b',"x":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        GOOD[:-1] + b',"x":"\\ud800"}',
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_value_that_cannot_be_read_is_poison(value: bytes | None) -> None:
    """Step 5: what cannot be read goes to the dead letters with its reason; its raw bytes are kept."""
    raw = RawRecord(LogPosition(HOME, 0), b"42", value, (), AT_MS)

    record = READER.decode(raw)

    assert record.request is None
    assert record.poison is not None
    assert record.poison.failure_class is FailureClass.POISON
    assert record.poison.message
    assert record.raw == raw


@pytest.mark.parametrize("key", [None, b"", b"43", b"042", b"+42", b"42 ", b"42\n", b'"42"', b"\x00" * 8, b"\xff"])
def test_a_key_that_is_not_the_coupons_is_poison(key: bytes | None) -> None:
    """Step 5: another key may be on another partition, where the coupon has no order; the message shows it."""
    record = READER.decode(RawRecord(LogPosition(HOME, 0), key, GOOD, (), AT_MS))

    assert record.poison is not None
    assert repr(key) in record.poison.message


@pytest.mark.parametrize("partition", [at for at in range(PARTITIONS) if at != HOME])
def test_a_record_on_a_foreign_partition_is_poison(partition: int) -> None:
    """Step 5: a producer with another partitioner cannot give a coupon two orders."""
    assert READER.decode(RawRecord(LogPosition(partition, 0), b"42", GOOD, (), AT_MS)).poison is not None


def test_the_same_record_at_home_is_read() -> None:
    """The cases above fail by what they change, not by what they share."""
    assert READER.decode(RawRecord(LogPosition(HOME, 0), b"42", GOOD, (), AT_MS)).poison is None


def test_headers_that_cannot_be_read_are_poison() -> None:
    """Step 5: a header name that is not UTF-8 makes one dead letter; it stops nobody."""
    unreadable = RawRecord(LogPosition(HOME, 0), b"42", GOOD, (UNREADABLE_HEADERS,), AT_MS)

    record = READER.decode(unreadable)

    assert record.request is None
    assert record.poison
    assert record.poison.failure_class is FailureClass.POISON
