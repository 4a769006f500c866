"""Sample the database during a fault: no coupon is over-issued, no partition's offset moves back."""

import threading
from typing import Self

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from service.store import engine
from tests.faults.invariants import Invariant, InvariantChecker, InvariantViolated

_INTERVAL_SECONDS = 0.25
_OVER_ISSUED = text(
    "SELECT coupons.id, quantity, count(*) FROM coupons JOIN requests ON coupon_id = coupons.id"
    " WHERE coupons.id > :after AND requests.state IN ('issued', 'retrying')"
    " GROUP BY coupons.id HAVING count(*) > quantity"
)
_OFFSETS = text("SELECT log_id, partition, next_offset FROM offsets")


class DatabaseSampler:
    """A thread that samples rows, not counters; while the database is unavailable it takes no samples.

    `newer_than` is a coupon id: only coupons with a higher id are checked.
    """

    def __init__(self, database_url: str, checker: InvariantChecker, newer_than: int) -> None:
        self.samples = 0
        self._checker = checker
        self._newer_than = newer_than
        self._violation: InvariantViolated | None = None
        self._engine = engine.build(database_url, "sampler", connections=1)
        self._offsets: dict[tuple[int, int], int] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="database sampler")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop sampling; raise InvariantViolated if a sample violated an invariant."""
        self._stopping.set()
        self._thread.join()
        self._engine.dispose()
        if self._violation:
            raise self._violation
        assert self.samples, "no sample was taken"

    def _run(self) -> None:
        while not self._stopping.wait(_INTERVAL_SECONDS):
            try:
                self._sample()
            except SQLAlchemyError:
                continue
            except InvariantViolated as violation:
                self._violation = violation
                return

    def _sample(self) -> None:
        with self._engine.connect() as connection:
            over_issued = connection.execute(_OVER_ISSUED, {"after": self._newer_than}).all()
            offsets = {(row.log_id, row.partition): row.next_offset for row in connection.execute(_OFFSETS)}
        moved_back = {key: offset for key, offset in offsets.items() if offset < self._offsets.get(key, 0)}
        self._offsets = offsets
        self.samples += 1
        self._checker.check(Invariant.NEVER_OVER_ISSUED, not over_issued, over_issued)
        self._checker.check(Invariant.OFFSETS_ADVANCE, not moved_back, moved_back)
