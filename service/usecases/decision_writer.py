"""Updates requests that have rows; at the end of the transaction, writes the outbox entries of their outcomes."""

from collections.abc import Sequence

from sqlalchemy import Connection

from service.domain.decide import Outcome
from service.store import coupons, engine, outbox, requests
from service.store.outbox import OutboxKind
from service.usecases.write_plan import outbox_kinds_for


class DecisionWriter:
    """Collects the outcomes of released savepoints.

    At the end of the transaction it writes outbox entries for their offset ranges.
    """

    def __init__(self, tx: Connection, *, notices: bool) -> None:
        """Create it after the coupons are locked: `decided_at` must be later than the lock."""
        self._tx = tx
        self._notices = notices
        self._outcomes: dict[int, list[Outcome]] = {}
        self.decided_at = engine.database_now(tx)

    def update(self, log_id: int, outcomes: Sequence[Outcome], *, attempts_added: int) -> None:
        """Write outcomes of one log and add attempts to each request."""
        requests.update(self._tx, log_id, outcomes, self.decided_at, attempts_added=attempts_added)

    def add_outcomes(self, log_id: int, outcomes: Sequence[Outcome]) -> None:
        """Add outcomes whose savepoint was released. They may also be `retrying` or `standby`, which cause no entry."""
        if outcomes:
            self._outcomes.setdefault(log_id, []).extend(outcomes)

    def write_outbox(self) -> set[OutboxKind]:
        """Write the outbox entries of all outcomes that were added and return their kinds."""
        written = set()
        for log_id, outcomes in self._outcomes.items():
            touched = coupons.get_many(self._tx, {outcome.request.coupon_id for outcome in outcomes})
            kinds = outbox_kinds_for(outcomes, touched, notices=self._notices)
            ranges = outbox.ranges_of(outcome.request.log_position for outcome in outcomes)
            outbox.insert(self._tx, log_id, kinds, ranges, self.decided_at)
            written |= kinds
        return written
