"""What is stored in one statement is bounded by its bytes."""

import pytest

from service.domain.record import RawRecord
from service.domain.request import LogPosition
from service.store.raw_records import split_by_bytes

_MEGABYTE = 1_000_000


def _portions(*sizes: int) -> list[list[int]]:
    """Offsets by portion, of records whose values have these sizes."""
    raws = [RawRecord(LogPosition(0, at), b"1", b"x" * size, (("name", None),), 0) for at, size in enumerate(sizes)]
    return [[one.log_position.offset for one in some] for some in split_by_bytes(raws, lambda raw: raw)]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], []),
        ([9 * _MEGABYTE], [[0]]),
        ([100] * 4, [[0, 1, 2, 3]]),
        ([3 * _MEGABYTE, 2 * _MEGABYTE, _MEGABYTE, 9 * _MEGABYTE, 10], [[0], [1, 2], [3], [4]]),
    ],
    ids=["none", "one that is too large", "small ones", "large ones between small ones"],
)
def test_records_are_cut_in_order_where_they_are_too_large_together(
    sizes: list[int], expected: list[list[int]]
) -> None:
    """Step 5: a statement of many large records would run into its time limit, time after time."""
    assert _portions(*sizes) == expected
