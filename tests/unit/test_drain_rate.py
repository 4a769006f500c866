"""The rate at which a backlog is decided, from checkpoints at different times."""

from service.domain.drain_rate import DrainRate, RateRange


def _observed(*checkpoints: tuple[float, int], waiting: int) -> DrainRate:
    """Return what was observed at these times while the record with offset `waiting` waited."""
    rate = DrainRate()
    rate.note_waiting(waiting)
    for at, next_offset in checkpoints:
        rate.observe(next_offset, at)
    return rate


def test_the_range_spans_the_last_seconds() -> None:
    """The means of the last five and of the last twenty seconds are its ends."""
    slow, fast = [(at, 10 * at) for at in range(11)], [(10 + at, 100 + 50 * at) for at in range(1, 6)]

    rate = _observed(*slow, *fast, waiting=10_000)

    assert rate.range_at(15) == RateRange(350 / 15, 50)


def test_nothing_is_known_before_a_second_is_over() -> None:
    """A batch decides thousands of records at once, so a shorter time says little."""
    rate = _observed((0, 0), (0.9, 4_000), waiting=10_000)

    assert rate.range_at(0.9) is None
    rate.observe(5_000, 1.25)
    assert rate.range_at(1.25) == RateRange(4_000, 4_000)


def test_a_partition_without_a_backlog_has_no_rate() -> None:
    """Its checkpoint follows the arrivals: ten a second say nothing about a burst of thousands."""
    rate = _observed((0, 0), (1, 10), (2, 20), waiting=5)

    assert rate.range_at(2) is None


def test_a_partition_that_does_not_move_has_no_rate() -> None:
    """Nobody knows how long a wait is at a rate of zero."""
    rate = _observed((0, 0), (1, 100), *((at, 100) for at in range(2, 8)), waiting=10_000)

    assert rate.range_at(7) is None


def test_old_moves_are_forgotten() -> None:
    """Twenty seconds after the last observation nothing is known."""
    rate = _observed((0, 0), (1, 100), waiting=10_000)

    assert rate.range_at(20.9) is not None
    assert rate.range_at(21.1) is None
