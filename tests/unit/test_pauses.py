"""The benchmark of rebalances reads its members' notes rightly."""

import pytest

from benchmarks.pauses import Account, Process, Read, Span

FIRST, SECOND, SECOND_AGAIN = Process("first", 1), Process("second", 2), Process("second", 3)
WINDOW = Span(10.0, 20.0)


def test_a_partition_that_another_took_over_is_told_from_one_that_stayed() -> None:
    """The longest wait of each kind; who read last before the event counts as the one it is taken from."""
    account = Account(
        [
            Read(0, 7, FIRST, 9.0, 9.1),
            Read(0, 8, FIRST, 10.5, 10.75),
            Read(1, 3, FIRST, 9.0, 9.1),
            Read(1, 4, SECOND, 11.0, 13.0),
            Read(1, 5, SECOND, 13.0, 13.5),
        ]
    )

    effect = account.effect(WINDOW)

    assert (effect.stayed, effect.moved, effect.passed_on) == (0.25, 2.0, 1)


def test_a_restarted_member_takes_over_from_itself() -> None:
    """Another process, the same member: the pause is told, and nothing has gone to another."""
    account = Account([Read(0, 1, SECOND, 9.0, 9.1), Read(0, 2, SECOND_AGAIN, 10.0, 10.5)])

    effect = account.effect(WINDOW)

    assert (effect.moved, effect.passed_on) == (0.5, 0)


def test_a_record_waited_until_its_first_reading() -> None:
    """One that is read again later does not wait twice; it is counted."""
    account = Account([Read(0, 1, FIRST, 9.0, 9.1), Read(0, 2, SECOND, 10.0, 12.0), Read(0, 1, SECOND, 9.0, 19.0)])

    effect = account.effect(WINDOW)

    assert (effect.moved, effect.read_again) == (2.0, 1)


def test_a_partition_that_nobody_reads_waits_for_as_long_as_was_watched() -> None:
    """A pause that does not end is not overlooked."""
    account = Account([Read(0, 1, FIRST, 9.0, 9.1)])

    assert account.effect(WINDOW).stayed == 10.0


@pytest.mark.parametrize(("offsets", "skipped"), [([4, 5, 6], 0), ([4, 7], 2)])
def test_records_that_nobody_read_are_found(offsets: list[int], skipped: int) -> None:
    account = Account([Read(0, offset, FIRST, 9.0, 9.1) for offset in offsets])

    assert account.skipped() == skipped
