"""Issues a plain batch: the decisions and rows of `Issuer.issue_any`, in two messages to the database."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import Engine

from service import crash_points
from service.crash_points import CrashPoint
from service.domain.decide_plain import (
    PlainColumns,
    PlainDecisions,
    coupons_to_look_up,
    decide_plain,
    plain_columns,
)
from service.domain.errors import Fenced
from service.domain.failures import FailureClass, classify
from service.domain.record import Record
from service.domain.request import ReasonCode, RequestState
from service.log import get_logger
from service.log_events import LogEvent
from service.store import plain_batches
from service.store.plain_batches import HasLiveRow, LockedBatch, PlainBatchTransactions, Prior
from service.usecases.write_plan import IssueResult, checkpoint_advances, new_dead_letter, offset_ranges, outbox_kinds

_log = get_logger(__name__)
#: A held seat is decided by its next retry, a second or two later. Until then each batch of the coupon is read in vain.
_WAITING_SECONDS = 1.0


class PlainIssuer:
    """Issues plain batches. Between batches it keeps a connection, and nothing that decides."""

    def __init__(self, engine: Engine, log_id: int, *, notices: bool) -> None:
        """notices: whether final decisions are delivered to a webhook."""
        self._transactions = PlainBatchTransactions(engine, log_id)
        self._notices = notices
        #: coupons whose users' earlier requests the last batch needed: the next one reads them with the locks
        self._looked_up: set[int] = set()
        #: coupons with requests that wait for a seat, and the monotonic time until which their batches are not tried
        self._waiting: set[int] = set()
        self._waiting_until = 0.0

    def issue(
        self, records: Sequence[Record], next_offsets: Mapping[int, int], on_decided: Callable[[], None]
    ) -> IssueResult | None:
        """Decide and commit the records as `Issuer.issue` does, or return None and leave nothing behind.

        It returns None if the batch is not plain: no record has a request, a record needs attention, a coupon is
        unknown, a request is on standby or would be, the database refuses a row, or the transaction takes too long.
        """
        columns = plain_columns(records)
        if columns is None or (
            time.monotonic() < self._waiting_until and self._waiting.intersection(columns.coupon_ids)
        ):
            return None
        try:
            try:
                issued = self._issue_in_transaction(columns, records, next_offsets, on_decided)
            except HasLiveRow:
                self._looked_up = set(columns.coupon_ids)
                issued = self._issue_in_transaction(columns, records, next_offsets, on_decided)
        except Exception as error:
            failure = classify(error)
            if failure.failure_class is FailureClass.SYSTEM:
                raise
            _log.warning(LogEvent.BATCH_NOT_PLAIN, reason=str(failure))
            return None
        if issued:
            crash_points.reach(CrashPoint.ISSUER_COMMITTED)
        return issued

    def _issue_in_transaction(
        self,
        columns: PlainColumns,
        records: Sequence[Record],
        next_offsets: Mapping[int, int],
        on_decided: Callable[[], None],
    ) -> IssueResult | None:
        """Run the transaction. A crash before the last message was sent leaves nothing behind.

        After that the database commits, whether this process is there to hear of it or not.
        """
        dead = [new_dead_letter(record, record.poison, ReasonCode.POISON) for record in records if record.poison]
        with self._transactions.transaction():
            advances = checkpoint_advances(records, next_offsets)
            expected = {advance.partition: advance.expected_offset for advance in advances}
            self._transactions.lock_and_read(expected, columns, self._looked_up)
            encoded = plain_batches.encode(columns)  # while the database locks and reads
            locked = self._transactions.receive_locked()
            if fenced := expected.keys() - locked.partitions:
                raise Fenced(fenced)
            crash_points.reach(CrashPoint.ISSUER_LOCKED)
            decided = decide_plain(columns, locked.coupons, self._earlier_requests(columns, locked))
            if decided is None:
                if waiting := {coupon_id for coupon_id, coupon in locked.coupons.items() if coupon.makes_wait}:
                    self._waiting, self._waiting_until = waiting, time.monotonic() + _WAITING_SECONDS
                return None
            if not all(decided.is_new):
                encoded = plain_batches.encode(columns.only(decided.is_new))
            counts = _count(decided)
            kinds = outbox_kinds(counts, sold_out=decided.sold_out, notices=self._notices)
            crash_points.reach(CrashPoint.ISSUER_WRITTEN)
            self._transactions.write_and_commit(
                encoded, decided, locked.decided_at, advances, kinds, offset_ranges(advances), dead
            )
            on_decided()
            self._transactions.receive_commit()
        next_offsets = {advance.partition: advance.next_offset for advance in advances}
        return IssueResult(
            len(records), next_offsets, outbox_kinds=kinds, has_dead_letters=bool(dead), counts=counts, plain=True
        )

    def _earlier_requests(self, columns: PlainColumns, locked: LockedBatch) -> Prior:
        """Return the earlier requests that the decisions need: those read with the locks, and others by a message more.

        The index of live rows answers for the users of all other coupons when the rows are inserted.
        """
        needed = coupons_to_look_up(columns, locked.coupons, locked.with_ended)
        missing = needed - self._looked_up
        self._looked_up = needed | {coupon_id for coupon_id, _ in locked.prior}
        return locked.prior | (self._transactions.read_prior(columns, missing) if missing else {})


def _count(decided: PlainDecisions) -> Counter[tuple[RequestState, ReasonCode | None]]:
    """Return the number of requests by state and code."""
    return Counter(
        {
            (RequestState.REFUSED if code else RequestState.ISSUED, code): count
            for code, count in Counter(decided.codes).items()
        }
    )
