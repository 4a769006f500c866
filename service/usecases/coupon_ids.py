"""Which coupon ids may exist, so that an id that was never created is refused without a fill of the gate."""

import asyncio
from collections.abc import Sequence

from sqlalchemy import Engine

from service.domain.errors import Unavailable
from service.gate.batcher import Batcher
from service.store import coupons
from service.store.engine import in_transaction

#: minimum time between two queries; requests that arrive meanwhile share the next one
_MIN_INTERVAL_SECONDS = 0.02
#: a request does not wait longer for PostgreSQL than for Redis
_TIMEOUT_SECONDS = 1.0
#: above this many waiting requests the API responds with 503 at once
_MAX_WAITING = 20_000


class CouponIds:
    """Caches the largest coupon id: PostgreSQL assigns ids in ascending order, so no coupon has a larger one.

    A request for a larger id asks PostgreSQL again, because another process may have created the coupon a moment ago.
    Only PostgreSQL's answer refuses a request. An id up to the largest one may belong to no coupon; a fill of the gate
    finds that out.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        #: it never decreases, also if the database was restored to an earlier state
        self._largest = 0
        #: the last query; True if PostgreSQL has answered
        self._query: asyncio.Future[bool] | None = None
        self._waiting: Batcher[int, bool] = Batcher(
            "PostgreSQL",
            self._may_exist,
            max_batch_size=_MAX_WAITING,
            max_waiting=_MAX_WAITING,
            min_interval_seconds=_MIN_INTERVAL_SECONDS,
        )

    def is_known_range(self, coupon_id: int) -> bool:
        """Return whether the id is at most the largest one that was read."""
        return coupon_id <= self._largest

    async def may_exist(self, coupon_id: int) -> bool:
        """Return False if a query that began after this call found no coupon with so large an id.

        Return True if PostgreSQL does not answer within a second: the gate may have the coupon. Raises Unavailable if
        too many requests wait.
        """
        return self.is_known_range(coupon_id) or await self._waiting.submit(coupon_id)

    async def _may_exist(self, coupon_ids: Sequence[int]) -> list[bool]:
        """Return which ids may exist, from one query for all of them.

        A query that PostgreSQL does not answer is not started again: each would hold a connection of the pool.
        """
        if self._query is None or self._query.done():
            self._query = asyncio.ensure_future(asyncio.to_thread(self._read_largest))
            await asyncio.wait([self._query], timeout=_TIMEOUT_SECONDS)
            if self._query.done() and self._query.result():
                return [self.is_known_range(coupon_id) for coupon_id in coupon_ids]
        return [True] * len(coupon_ids)

    def _read_largest(self) -> bool:
        """Read the largest id; return whether PostgreSQL answered. It blocks."""
        try:
            with in_transaction(self._engine) as tx:
                self._largest = max(self._largest, coupons.largest_id(tx))
        except Unavailable:
            return False
        return True
