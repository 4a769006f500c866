"""The rebalance benchmark computes unavailability correctly from what the members read."""

import pytest

from benchmarks.rebalance.unavailability import GroupHistory, Process, RecordRead, Window

FIRST, SECOND, SECOND_RESTARTED = Process("first", 1), Process("second", 2), Process("second", 3)
WINDOW = Window(10.0, 20.0)


def test_a_partition_that_changed_its_reader_is_distinguished_from_one_that_kept_it() -> None:
    """The longest wait of each kind counts; the last reader before the event is the previous owner."""
    history = GroupHistory(
        [
            RecordRead(0, 7, FIRST, 9.0, 9.1),
            RecordRead(0, 8, FIRST, 10.5, 10.75),
            RecordRead(1, 3, FIRST, 9.0, 9.1),
            RecordRead(1, 4, SECOND, 11.0, 13.0),
            RecordRead(1, 5, SECOND, 13.0, 13.5),
        ]
    )

    effect = history.effect(WINDOW)

    assert (effect.stayed, effect.moved, effect.reassigned) == (0.25, 2.0, 1)


def test_a_restarted_member_takes_over_from_its_previous_process() -> None:
    """It is another process of the same member: the wait counts, and no partition was reassigned."""
    history = GroupHistory([RecordRead(0, 1, SECOND, 9.0, 9.1), RecordRead(0, 2, SECOND_RESTARTED, 10.0, 10.5)])

    effect = history.effect(WINDOW)

    assert (effect.moved, effect.reassigned) == (0.5, 0)


def test_a_record_waits_until_its_first_read() -> None:
    """A record that is read again later does not wait twice; it counts as a duplicate."""
    history = GroupHistory(
        [
            RecordRead(0, 1, FIRST, 9.0, 9.1),
            RecordRead(0, 2, SECOND, 10.0, 12.0),
            RecordRead(0, 1, SECOND, 9.0, 19.0),
        ]
    )

    effect = history.effect(WINDOW)

    assert (effect.moved, effect.duplicates) == (2.0, 1)


def test_a_partition_without_a_reader_waits_for_the_whole_window() -> None:
    """Unavailability that does not end within the window is not missed."""
    history = GroupHistory([RecordRead(0, 1, FIRST, 9.0, 9.1)])

    assert history.effect(WINDOW).stayed == 10.0


@pytest.mark.parametrize(("offsets", "unread"), [([4, 5, 6], 0), ([4, 7], 2)])
def test_records_that_were_not_read_are_counted(offsets: list[int], unread: int) -> None:
    history = GroupHistory([RecordRead(0, offset, FIRST, 9.0, 9.1) for offset in offsets])

    assert history.unread_count() == unread
