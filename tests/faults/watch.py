"""Looks at the database while a fault lasts: no coupon is ever over-issued, no partition ever goes back."""

import threading
from typing import Self

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from service.store import engine
from tests.faults.ledger import Invariant, Ledger, Violated

_EVERY_SECONDS = 0.25
_OVER_ISSUED = text(
    "SELECT coupons.id, quantity, count(*) FROM coupons JOIN requests ON coupon_id = coupons.id"
    " WHERE coupons.id > :after AND requests.state IN ('issued', 'retrying')"
    " GROUP BY coupons.id HAVING count(*) > quantity"
)
_OFFSETS = text("SELECT log_id, partition, next_offset FROM offsets")


class Watch:
    """A thread that takes samples from rows, not counters; a database that is away gives none."""

    def __init__(self, database_url: str, ledger: Ledger, newer_than: int) -> None:
        self.samples = 0
        self._ledger = ledger
        self._newer_than = newer_than
        self._violated: Violated | None = None
        self._engine = engine.build(database_url, "watch", connections=1)
        self._reached: dict[tuple[int, int], int] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Ends the samples; raises Violated if one of them broke a promise."""
        self._over.set()
        self._thread.join()
        self._engine.dispose()
        if self._violated:
            raise self._violated
        assert self.samples, "nothing was sampled"

    def _run(self) -> None:
        while not self._over.wait(_EVERY_SECONDS):
            try:
                self._sample()
            except SQLAlchemyError:
                continue
            except Violated as violated:
                self._violated = violated
                return

    def _sample(self) -> None:
        with self._engine.connect() as connection:
            over_issued = connection.execute(_OVER_ISSUED, {"after": self._newer_than}).all()
            offsets = {(row.log_id, row.partition): row.next_offset for row in connection.execute(_OFFSETS)}
        back = {at: offset for at, offset in offsets.items() if offset < self._reached.get(at, 0)}
        self._reached = offsets
        self.samples += 1
        self._ledger.check(Invariant.NEVER_OVER_ISSUED, not over_issued, over_issued)
        self._ledger.check(Invariant.NEVER_BACK, not back, back)
