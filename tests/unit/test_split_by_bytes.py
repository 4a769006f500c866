"""One statement stores a bounded number of bytes."""

import pytest

from service.domain.record import RawRecord
from service.domain.request import LogPosition
from service.store.raw_records import record_bytes, split_by_bytes

_MEGABYTE = 1_000_000


def _split_offsets(*sizes: int) -> list[list[int]]:
    """Return the offsets of each part, for records whose values have these sizes."""
    raws = [
        RawRecord(LogPosition(0, offset), b"1", b"x" * size, (("name", None),), 0) for offset, size in enumerate(sizes)
    ]
    return [[raw.log_position.offset for raw in part] for part in split_by_bytes(raws, record_bytes)]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], []),
        ([9 * _MEGABYTE], [[0]]),
        ([100] * 4, [[0, 1, 2, 3]]),
        ([3 * _MEGABYTE, 2 * _MEGABYTE, _MEGABYTE, 9 * _MEGABYTE, 10], [[0], [1, 2], [3], [4]]),
    ],
    ids=["no records", "one record above the limit", "small records", "large records between small ones"],
)
def test_records_that_are_too_large_together_are_split_in_order(sizes: list[int], expected: list[list[int]]) -> None:
    """A statement with many large records would exceed its time limit in every retry."""
    assert _split_offsets(*sizes) == expected
