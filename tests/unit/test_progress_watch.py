"""The progress that a process has seen, and what follows from it for a queued request."""

from collections.abc import Iterator

import pytest

from service.domain.drain_rate import RateRange
from service.domain.request import RequestState
from service.domain.waiting import Outlook, Prospect, SecondsRange
from service.gate.async_gate import Place
from service.store.checkpoints import Checkpoint
from service.usecases.lookup import RequestStatus, Snapshot
from service.usecases.progress_watch import PartitionProgress, ProgressWatch
from tests.builders import AT_MS, coupon

QUEUED = RequestStatus("a request", 1, 7, RequestState.QUEUED, None, None, 0, AT_MS, None, 3, None)


@pytest.fixture
def watch() -> ProgressWatch:
    """The watch of a process, whose clock advances by a second with each snapshot."""
    seconds: Iterator[float] = iter(map(float, range(100)))
    return ProgressWatch(lambda: next(seconds))


def _snapshot(next_offset: int, log_id: int = 1) -> Snapshot:
    return Snapshot(log_id, {3: Checkpoint(next_offset, AT_MS)}, {}, {})


def test_a_position_does_not_grow_when_a_commit_is_lost(watch: ProgressWatch) -> None:
    """The records are decided again, and the position waits until the checkpoint has passed where it was."""
    positions = []
    for next_offset in (10, 30, 20, 40):
        watch.observe(_snapshot(next_offset))
        positions.append(watch.describe(QUEUED, place=Place(100, 1)).prospect.position)

    assert positions == [90, 70, 70, 60]


def test_the_offsets_of_another_log_mean_other_records(watch: ProgressWatch) -> None:
    """Its checkpoint counts from the beginning again."""
    watch.observe(_snapshot(1_000))
    watch.observe(_snapshot(5, log_id=2))

    assert watch.of(3) == PartitionProgress(3, 5, None)
    assert watch.describe(QUEUED).log_id == 2


def test_a_wait_is_known_after_the_backlog_has_moved(watch: ProgressWatch) -> None:
    """Requests that were seen waiting make the moves of the checkpoint a rate."""
    watch.observe(_snapshot(0))
    first = watch.describe(QUEUED, coupon(quantity=10), Place(1_000, 5))
    for next_offset in (0, 100, 200):
        watch.observe(_snapshot(next_offset))
    moved = watch.describe(QUEUED, coupon(quantity=10), Place(1_000, 11))

    assert first.prospect == Prospect(1_000, None, Outlook.LIKELY)
    assert watch.of(3) == PartitionProgress(3, 200, RateRange(100, 100))
    assert moved.prospect == Prospect(800, SecondsRange(8, 9), None)


def test_without_the_gate_there_is_no_position(watch: ProgressWatch) -> None:
    """Nor a wait; the outlook is unlikely once nothing remains."""
    watch.observe(_snapshot(10))

    assert watch.describe(QUEUED, coupon(quantity=10)).prospect == Prospect()
    assert watch.describe(QUEUED, coupon(quantity=10, issued=10)).prospect == Prospect(outlook=Outlook.UNLIKELY)
