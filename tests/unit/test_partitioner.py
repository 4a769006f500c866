"""The Java client's partitioner, so that every producer agrees on a coupon's partition."""

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
def test_the_hash_is_kafkas(data: bytes, expected: int) -> None:
    """P3: the vectors of org.apache.kafka.common.utils.UtilsTest, as Java's signed numbers."""
    assert int.from_bytes(murmur2(data).to_bytes(4), signed=True) == expected


def test_a_negative_hash_is_made_positive_by_dropping_its_sign_bit() -> None:
    """P3: Kafka's toPositive is a mask, not an absolute value; coupon 21 tells them apart."""
    hashed = -973932308

    assert partition_of(21, 7) == (hashed & 0x7FFFFFFF) % 7
    assert partition_of(21, 7) != abs(hashed) % 7
