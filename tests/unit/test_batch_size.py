"""Where the issuer ends a batch: odd records do not make thousands of plain ones dear."""

import pytest

from service.domain.record import InjectedFault, Record
from workers.issuer.buffer import next_batch_size

_FAULT = InjectedFault("22012", 1)


def _records(count: int, odd: set[int]) -> list[Record]:
    plain = Record(0, 0, 1, 1, "an id", 5, 6, True, b"1", b"", ())
    return [
        plain if at not in odd else plain._replace(accepted=at % 2 > 0, fault=_FAULT if at % 2 else None)
        for at in range(count)
    ]


@pytest.mark.parametrize(
    ("count", "odd", "sizes"),
    [
        (0, set(), []),
        (4_000, set(), [4_000]),
        (1, {0}, [1]),
        (4_000, {1_000}, [1_001, 2_999]),
        (4_000, {2_500}, [2_500, 1_500]),
        (9_000, {3_000, 3_001, 4_400, 8_000}, [3_000, 1_401, 3_599, 1_000]),
        (4_000, {7, 3_999}, [8, 3_991, 1]),
        (4_000, set(range(0, 4_000, 500)), [4_000]),
        (4_000, set(range(4_000)), [4_000]),
    ],
)
def test_a_long_stretch_of_plain_records_is_a_batch_of_its_own(count: int, odd: set[int], sizes: list[int]) -> None:
    """Every record is in one batch, in order."""
    records, taken = _records(count, odd), []
    while records:
        taken.append(next_batch_size(records))
        records = records[taken[-1] :]

    assert taken == sizes
