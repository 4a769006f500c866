"""The Java client's partitioner: every producer sends a coupon to the same partition."""

import pytest

from service.stream.partitioner import murmur2, partition_of


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_hash_is_that_of_kafka(data: bytes, expected: int) -> None:
    """P3: the test vectors of org.apache.kafka.common.utils.UtilsTest, as Java's signed numbers."""
    assert int.from_bytes(murmur2(data).to_bytes(4), signed=True) == expected


def test_a_negative_hash_is_made_positive_by_dropping_its_sign_bit() -> None:
    """P3: Kafka's toPositive is a mask, not an absolute value; they differ for coupon 21."""
    hashed = -973932308

    assert partition_of(21, 7) == (hashed & 0x7FFFFFFF) % 7
    assert partition_of(21, 7) != abs(hashed) % 7
