"""The progress that a process has seen, and what follows from it for a queued request."""

import asyncio
from collections.abc import Iterator

import pytest

from service.domain.coupon import Coupon
from service.domain.drain_rate import RateRange
from service.domain.request import RequestState
from service.domain.waiting import Outlook, Prospect, SecondsRange
from service.store.checkpoints import Checkpoint
from service.usecases.lookup import RequestStatus, Snapshot
from service.usecases.progress_watch import PartitionProgress, ProgressWatch
from service.usecases.stream_listener import REREAD_SECONDS, Listener, StreamEnd
from tests.builders import AT_MS, coupon

QUEUED = RequestStatus("a request", 1, 7, RequestState.QUEUED, None, None, 0, AT_MS, None, 3, None)


@pytest.fixture
def watch() -> ProgressWatch:
    """The watch of a process, whose clock advances by a second with each snapshot."""
    seconds: Iterator[float] = iter(map(float, range(100)))
    return ProgressWatch(lambda: next(seconds))


def _snapshot(next_offset: int, log_id: int = 1, sold: Coupon | None = None) -> Snapshot:
    return Snapshot(log_id, {3: Checkpoint(next_offset, AT_MS)}, {}, {sold.id: sold} if sold else {})


def _queued_at(offset: int) -> RequestStatus:
    return QUEUED._replace(offset=offset)


def test_a_position_does_not_grow_when_a_commit_is_lost(watch: ProgressWatch) -> None:
    """The records are decided again, and the position waits until the checkpoint has passed where it was."""
    positions = []
    for next_offset in (10, 30, 20, 40):
        watch.observe(_snapshot(next_offset))
        positions.append(watch.describe(_queued_at(100)).prospect.position)

    assert positions == [90, 70, 70, 60]


def test_the_offsets_of_another_log_mean_other_records(watch: ProgressWatch) -> None:
    """Its checkpoint counts from the beginning again."""
    watch.observe(_snapshot(1_000))
    watch.observe(_snapshot(5, log_id=2))

    assert watch.of(3) == PartitionProgress(3, 5, None)


def test_a_wait_is_known_after_the_backlog_has_moved(watch: ProgressWatch) -> None:
    """Requests that were seen waiting make the moves of the checkpoint a rate."""
    watch.observe(_snapshot(0))
    first = watch.describe(_queued_at(1_000), _snapshot(0, sold=coupon(quantity=10)))
    for next_offset in (0, 100, 200):
        watch.observe(_snapshot(next_offset))
    moved = watch.describe(_queued_at(1_000), _snapshot(200, sold=coupon(quantity=1_000)))

    assert first.prospect == Prospect(1_000, None, None)
    assert watch.of(3) == PartitionProgress(3, 200, RateRange(100, 100))
    assert moved.prospect == Prospect(800, SecondsRange(8, 9), Outlook.LIKELY)


def test_without_the_gate_there_is_no_position(watch: ProgressWatch) -> None:
    """Nor a wait; the outlook is unlikely once nothing remains."""
    watch.observe(_snapshot(10))

    ample, sold_out = coupon(quantity=10), coupon(quantity=10, issued=10)
    assert watch.describe(QUEUED, _snapshot(10, sold=ample)).prospect == Prospect()
    assert watch.describe(QUEUED, _snapshot(10, sold=sold_out)).prospect == Prospect(outlook=Outlook.UNLIKELY)


def test_a_state_belongs_to_the_snapshot_in_which_it_was_found(watch: ProgressWatch) -> None:
    """A stream that opens with it reads the request again, although a later snapshot was seen meanwhile."""
    found_in, later = _snapshot(100, sold=coupon(quantity=60)), _snapshot(200)
    watch.observe(found_in)
    watch.observe(later)

    status = watch.describe(_queued_at(160), found_in)
    listener = Listener(watch.describe(QUEUED, found_in), now=0, ends_at=10)

    assert status.prospect == Prospect(0, None, None)  # with the 60 ahead at that time it is not likely
    assert (status.log_id, status.next_offset) == (1, 100)
    assert listener.is_due(1, later.checkpoints[3], now=0)
    assert not listener.is_due(1, found_in.checkpoints[3], now=0)
    assert Listener(watch.describe(QUEUED), now=0, ends_at=10).is_due(1, later.checkpoints[3], now=0)


def test_a_request_is_read_again_although_its_offset_was_not_reached(watch: ProgressWatch) -> None:
    """The recorded offset may be that of a repeat, which is appended later than the record that is decided."""
    found_in = _snapshot(100)
    listener = Listener(watch.describe(_queued_at(10**6), found_in), now=0, ends_at=10)

    assert not listener.is_due(1, Checkpoint(200, AT_MS), now=REREAD_SECONDS - 1)
    assert listener.is_due(1, Checkpoint(200, AT_MS), now=REREAD_SECONDS)
    assert not listener.is_due(1, found_in.checkpoints[3], now=REREAD_SECONDS)


def test_nothing_replaces_a_final_state(watch: ProgressWatch) -> None:
    """A state that was read before it and arrives after it is ignored."""
    listener = Listener(watch.describe(QUEUED), now=0, ends_at=10)
    final = watch.describe(QUEUED._replace(state=RequestState.ISSUED, sequence=1, decided_at_ms=AT_MS))
    listener.update(final)
    listener.update(watch.describe(QUEUED))

    news = asyncio.run(listener.next())

    assert (news.status, news.end) == (final, StreamEnd.DECIDED)
