"""The ceiling of undecided records, counted from acknowledged offsets and the issuers' progress."""

import pytest

from service.domain.request import LogPosition
from service.usecases.backlog import Backlog


class _OpenLog:
    """The log that is open."""

    id = 1


def _backlog(max_undecided: int, *last: tuple[int, int], log: type[_OpenLog] = _OpenLog) -> Backlog:
    """Return the backlog of a process whose last records got these offsets, by partition."""
    backlog = Backlog(max_undecided, lambda: log.id)
    for partition, offset in last:
        backlog.on_appended(LogPosition(partition, offset))
    return backlog


@pytest.mark.parametrize(
    ("max_undecided", "next_offsets", "is_full"),
    [
        (20, {0: 0, 1: 100}, True),  # 10 and 11 are undecided
        (21, {0: 0, 1: 100}, False),
        (20, {0: 1, 1: 100}, False),
        (20, {0: 0, 1: 200}, False),  # partition 1 is decided beyond the last offset of this process
        (20, {0: 0}, False),  # the progress of partition 1 is not known
        (5, {}, False),
        (5, {7: 0}, False),  # this process has no record in partition 7
        (0, {0: 0, 1: 0}, False),  # no ceiling
    ],
)
def test_partitions_count_from_their_progress_to_the_last_known_offset(
    max_undecided: int, next_offsets: dict[int, int], *, is_full: bool
) -> None:
    """A partition counts only if both are known: what is not known never refuses a request."""
    backlog = _backlog(max_undecided, (0, 3), (0, 9), (1, 110))
    backlog.update(next_offsets)

    assert backlog.is_full is is_full


def test_requests_are_accepted_again_when_a_tenth_of_the_ceiling_is_free() -> None:
    """The answer does not change with every record at the ceiling."""
    backlog = _backlog(100, (0, 100))

    found = []
    for next_offset in (0, 1, 10, 11):
        backlog.update({0: next_offset})
        found.append(backlog.is_full)

    assert found == [True, True, True, False]


def test_the_offsets_of_another_log_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The topic was deleted and created again: its records begin at offset 0."""
    backlog = _backlog(100, (0, 1_000_000))
    backlog.update({0: 0})
    assert backlog.is_full

    monkeypatch.setattr(_OpenLog, "id", 2)
    backlog.update({0: 0})

    assert not backlog.is_full
