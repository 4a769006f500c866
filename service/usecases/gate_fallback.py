"""What the API asks the database when the gate cannot answer: many requests in one query, at a bounded rate."""

import asyncio
from collections.abc import Sequence

from sqlalchemy import Engine

from service.domain.coupon import Coupon, CouponState
from service.domain.decide import PriorRequests
from service.gate.async_gate import Admission, SeatRequest
from service.gate.batcher import Batcher
from service.gate.keys import Verdict
from service.store import coupons, requests
from service.store.engine import in_transaction

#: above this many waiting requests the API answers 503 at once
MAX_WAITING = 1_000
_STATES = {
    CouponState.SCHEDULED: Verdict.NOT_OPEN,
    CouponState.PAUSED: Verdict.PAUSED,
    CouponState.CLOSED: Verdict.CLOSED,
    CouponState.SOLD_OUT: Verdict.SOLD_OUT,
}


class DatabaseGate:
    """Admits by the database alone. It does not see what is under way, so it admits too many; the issuer decides."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._admissions: Batcher[SeatRequest, Admission] = Batcher(
            "PostgreSQL", self._admit_many, max_waiting=MAX_WAITING
        )
        self._decisions: Batcher[SeatRequest, bool] = Batcher("PostgreSQL", self._decided_many, max_waiting=MAX_WAITING)

    async def admit(self, seat: SeatRequest) -> Admission:
        """The database's word; raises Unavailable when it is away or asked too much."""
        return await self._admissions.submit(seat)

    async def has_decided(self, seat: SeatRequest) -> bool:
        """Whether the request has a row; asked like admissions, many in one query."""
        return await self._decisions.submit(seat)

    async def _decided_many(self, seats: Sequence[SeatRequest]) -> list[bool]:
        return await asyncio.to_thread(self._decided, seats)

    def _decided(self, seats: Sequence[SeatRequest]) -> list[bool]:
        with in_transaction(self._engine) as tx:
            known = requests.prior_requests(tx, {(seat.coupon_id, seat.user_id) for seat in seats})
        nothing = PriorRequests()
        return [seat.request_id in known.get((seat.coupon_id, seat.user_id), nothing).request_ids for seat in seats]

    async def _admit_many(self, seats: Sequence[SeatRequest]) -> list[Admission]:
        return await asyncio.to_thread(self._read, seats)

    def _read(self, seats: Sequence[SeatRequest]) -> list[Admission]:
        with in_transaction(self._engine) as tx:
            found = coupons.get_many(tx, {seat.coupon_id for seat in seats})
            live = requests.live_request_ids(tx, {(seat.coupon_id, seat.user_id) for seat in seats})
        return [
            admission_of(seat, found.get(seat.coupon_id), live.get((seat.coupon_id, seat.user_id))) for seat in seats
        ]


def admission_of(seat: SeatRequest, coupon: Coupon | None, first: str | None) -> Admission:
    """The same questions in the same order as the gate's script."""
    if coupon is None:
        return Admission(Verdict.UNKNOWN_COUPON, "", {})
    state = coupon.state(seat.requested_at_ms)
    if state in (CouponState.OPEN, CouponState.SOLD_OUT) and first:
        return Admission(Verdict.DUPLICATE, first, {})
    if state is CouponState.OPEN:
        return Admission(Verdict.ADMITTED, seat.request_id, {})
    return Admission(_STATES[state], str(coupon.opens_at_ms or ""), {})
