"""Records that cannot be read: each becomes poison with a reason, none raises an exception."""

import pytest

from service.domain.failures import FailureClass
from service.domain.record import RawRecord
from service.domain.request import LogPosition
from service.domain.request_id import RequestIds
from service.stream.codec import UNREADABLE_HEADERS, RecordReader, encode_value
from service.stream.partitioner import partition_of
from tests.builders import AT_MS, PARTITIONS, TOPIC_ID

READER = RecordReader(RequestIds([b"a-key-for-tests-"]), PARTITIONS, faults=False)
PARTITION = partition_of(42, PARTITIONS)
GOOD_VALUE = encode_value(42, 7, AT_MS)


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
        b"\xef\xbb\xbf" + GOOD_VALUE,
        GOOD_VALUE[:-1],
        GOOD_VALUE + b"x",
        GOOD_VALUE + GOOD_VALUE,
        b'{"userId":7,"couponId":42}',
        b'{"userId":7,"requestTimeMillis":1}',
        b'{"couponId":42,"requestTimeMillis":1}',
        b'{"user_id":7,"coupon_id":42,"request_time_millis":1}',
        *[_value(user=text) for text in ("NaN", "Infinity", "1e999", "true", "7.0", "7.5", '"7"', "null", "[7]")],
        *[_value(user=text) for text in ("0", "-1", "9223372036854775808", "9" * 150, "9" * 5000, "07", "+7")],
        *[_value(coupon=text) for text in ("0", "-42", '"42"', "42.0", "9223372036854775808")],
        *[_value(at=text) for text in ("-1", "1.0", '"1"', "true", "253370764800001", "9" * 30)],
        GOOD_VALUE[:-1] + b',"x":"' + b"x" * 65_536 + b'"}',
        GOOD_VALUE[:-1] + b',"x":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        GOOD_VALUE[:-1] + b',"x":"\\ud800"}',
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_value_that_cannot_be_read_is_poison(value: bytes | None) -> None:
    """An unreadable value becomes a dead letter with its reason and its raw bytes."""
    raw = RawRecord(LogPosition(PARTITION, 0), b"42", value, (), AT_MS)

    record = READER.decode(raw, TOPIC_ID)

    assert record.request is None
    assert record.poison is not None
    assert record.poison.failure_class is FailureClass.POISON
    assert record.poison.message
    assert record.raw == raw


@pytest.mark.parametrize("key", [None, b"", b"43", b"042", b"+42", b"42 ", b"42\n", b'"42"', b"\x00" * 8, b"\xff"])
def test_a_key_that_is_not_the_coupon_id_is_poison(key: bytes | None) -> None:
    """Another key may be on another partition, where the coupon has another order; the message shows the key."""
    record = READER.decode(RawRecord(LogPosition(PARTITION, 0), key, GOOD_VALUE, (), AT_MS), TOPIC_ID)

    assert record.poison is not None
    assert repr(key) in record.poison.message


@pytest.mark.parametrize("partition", [number for number in range(PARTITIONS) if number != PARTITION])
def test_a_record_on_a_wrong_partition_is_poison(partition: int) -> None:
    """P3: a producer with another partitioner cannot give a coupon two orders."""
    assert (
        READER.decode(RawRecord(LogPosition(partition, 0), b"42", GOOD_VALUE, (), AT_MS), TOPIC_ID).poison is not None
    )


def test_the_same_record_on_its_own_partition_is_decoded() -> None:
    """The cases above fail because of what they change, not because of what they share."""
    assert READER.decode(RawRecord(LogPosition(PARTITION, 0), b"42", GOOD_VALUE, (), AT_MS), TOPIC_ID).poison is None


def test_headers_that_cannot_be_read_are_poison() -> None:
    """A header name that is not UTF-8 makes one dead letter and stops nothing."""
    unreadable = RawRecord(LogPosition(PARTITION, 0), b"42", GOOD_VALUE, (UNREADABLE_HEADERS,), AT_MS)

    record = READER.decode(unreadable, TOPIC_ID)

    assert record.request is None
    assert record.poison
    assert record.poison.failure_class is FailureClass.POISON
