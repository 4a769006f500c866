"""A transaction that decides requests which have rows already: what it writes, and the hand-offs at its end."""

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection

from service.domain.decide import Outcome
from service.store import coupons, engine, outbox, requests
from service.store.outbox import OffsetRange, OutboxKind
from service.usecases.write_plan import outbox_kinds_for


class DecisionWriter:
    """Keeps in mind what was written, so that each decision is handed off once, by the moment it carries."""

    def __init__(self, tx: Connection, *, notices: bool) -> None:
        self._tx = tx
        self._notices = notices
        self._written: dict[int, list[Outcome]] = {}
        self.decided_at = engine.database_now(tx)

    def update(self, log_id: int, outcomes: Sequence[Outcome], *, attempts_added: int) -> None:
        """Writes outcomes of one log; `spent` attempts are added to each request."""
        requests.update(self._tx, log_id, outcomes, self.decided_at, attempts_added=attempts_added)

    def mark_final(self, log_id: int, outcomes: Sequence[Outcome]) -> None:
        """Says that these outcomes are written for good: no savepoint takes them back any more."""
        self._written.setdefault(log_id, []).extend(outcomes)

    def write_outbox(self) -> set[OutboxKind]:
        """Leaves the work for Celery that follows from all that stands; which kinds of it there are."""
        found = set()
        for log, outcomes in self._written.items():
            touched = coupons.get_many(self._tx, {outcome.request.coupon_id for outcome in outcomes})
            kinds = outbox_kinds_for(outcomes, touched, notices=self._notices)
            outbox.insert(self._tx, log, kinds, _ranges(outcomes), self.decided_at)
            found |= kinds
        return found


def _ranges(outcomes: Sequence[Outcome]) -> list[OffsetRange]:
    offsets: dict[int, list[int]] = {}
    for outcome in outcomes:
        offsets.setdefault(outcome.request.log_position.partition, []).append(outcome.request.log_position.offset)
    return [found for partition, at in sorted(offsets.items()) for found in _close(partition, sorted(at))]


def _close(partition: int, offsets: Sequence[int]) -> Iterator[OffsetRange]:
    """Ranges that cover the offsets and not the long stretches between them."""
    first = last = offsets[0]
    for offset in offsets:
        if offset - last > outbox.MAX_OFFSETS_PER_ENTRY:
            yield OffsetRange(partition, first, last)
            first = offset
        last = offset
    yield OffsetRange(partition, first, last)
