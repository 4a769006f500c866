"""Verdicts from PostgreSQL: the gate's fallback while Redis is unavailable, and whether a repeat has been decided.

Many requests share two queries for admissions, and one for decisions; at most 1,000 requests wait for each.
"""

import asyncio
from collections.abc import Sequence

from sqlalchemy import Engine

from service.domain.coupon import Coupon, CouponState
from service.domain.decide import PriorRequests
from service.domain.errors import RateLimited
from service.domain.rate_limit import LocalLimiter
from service.gate.async_gate import Admission, SeatRequest
from service.gate.batcher import Batcher
from service.gate.keys import Verdict
from service.store import coupons, requests
from service.store.engine import in_transaction

#: above this many waiting requests the API responds with 503 at once
MAX_WAITING = 1_000
_REFUSALS = {
    CouponState.SCHEDULED: Verdict.NOT_OPEN,
    CouponState.PAUSED: Verdict.PAUSED,
    CouponState.CLOSED: Verdict.CLOSED,
    CouponState.SOLD_OUT: Verdict.SOLD_OUT,
}


class DatabaseGate:
    """Admits requests by the database alone while Redis is unavailable.

    It does not see requests that are not decided yet, so it admits too many; the issuer decides. `has_decided` is also
    called while Redis answers, for a repeat whose request is unacknowledged.
    """

    def __init__(self, engine: Engine, limiter: LocalLimiter) -> None:
        """`limiter` charges the requests of this process only."""
        self._engine = engine
        self._limiter = limiter
        self._admissions: Batcher[SeatRequest, Admission] = Batcher(
            "PostgreSQL", lambda seats: asyncio.to_thread(self.admit_many, seats), max_waiting=MAX_WAITING
        )
        self._decisions: Batcher[SeatRequest, bool] = Batcher(
            "PostgreSQL", lambda seats: asyncio.to_thread(self.have_decided, seats), max_waiting=MAX_WAITING
        )

    def charge(self, seat: SeatRequest) -> None:
        """Charge the request to the rate limits of this process; raise RateLimited."""
        if exceeded := self._limiter.charge(seat.user_id, seat.address):
            raise RateLimited(exceeded)

    async def admit(self, seat: SeatRequest) -> Admission:
        """Return the verdict from the database; raise Unavailable when it is away or too many requests wait."""
        return await self._admissions.submit(seat)

    async def has_decided(self, seat: SeatRequest) -> bool:
        """Return whether the request has a row; raise Unavailable as `admit` does."""
        return await self._decisions.submit(seat)

    def admit_many(self, seats: Sequence[SeatRequest]) -> list[Admission]:
        """Return the verdicts, from two queries for all of them; it blocks."""
        with in_transaction(self._engine) as tx:
            found = coupons.get_many(tx, {seat.coupon_id for seat in seats})
            live = requests.live_request_ids(tx, {(seat.coupon_id, seat.user_id) for seat in seats})
        return [
            admission_of(seat, found.get(seat.coupon_id), live.get((seat.coupon_id, seat.user_id))) for seat in seats
        ]

    def have_decided(self, seats: Sequence[SeatRequest]) -> list[bool]:
        """Return which of the requests have a row, by one query; it blocks."""
        with in_transaction(self._engine) as tx:
            prior = requests.prior_requests(tx, {(seat.coupon_id, seat.user_id) for seat in seats})
        none = PriorRequests()
        return [seat.request_id in prior.get((seat.coupon_id, seat.user_id), none).request_ids for seat in seats]


def admission_of(seat: SeatRequest, coupon: Coupon | None, live_request_id: str | None) -> Admission:
    """Apply the rules of admit.lua, in the same order, to a coupon's row.

    live_request_id: the user's request for this coupon that is issued, retrying or on standby.
    """
    if coupon is None:
        return Admission(Verdict.UNKNOWN_COUPON, "")
    state = coupon.state(seat.requested_at_ms)
    if state in (CouponState.OPEN, CouponState.SOLD_OUT) and live_request_id:
        return Admission(Verdict.DUPLICATE, live_request_id)
    if state is CouponState.OPEN:
        return Admission(Verdict.ADMITTED, seat.request_id)
    return Admission(_REFUSALS[state], str(coupon.opens_at_ms or ""))
