"""Maps a key to its partition with the Java client's murmur2, so that all producers agree."""

from functools import lru_cache

_M = 0x5BD1E995
_SEED = 0x9747B28C
_MASK = 0xFFFFFFFF


@lru_cache(maxsize=65536)
def partition_of(coupon_id: int, partitions: int) -> int:
    """Return the partition of a coupon: positive murmur2 of the decimal key, modulo the partition count.

    Source: org.apache.kafka.common.utils.Utils.murmur2 and librdkafka's `murmur2_random`.
    """
    return (murmur2(b"%d" % coupon_id) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """Return the 32-bit MurmurHash2 of the data with Kafka's seed, unsigned."""
    whole = len(data) & ~3
    hashed = _SEED ^ len(data)
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "little") * _M & _MASK
        word = (word ^ word >> 24) * _M & _MASK
        hashed = (hashed * _M & _MASK) ^ word
    if tail := data[whole:]:
        hashed = (hashed ^ int.from_bytes(tail, "little")) * _M & _MASK
    hashed = (hashed ^ hashed >> 13) * _M & _MASK
    return hashed ^ hashed >> 15
