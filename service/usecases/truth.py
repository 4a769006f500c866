"""What the API asks the database when the gate cannot answer: many requests in one query, at a bounded rate."""

import asyncio
from collections.abc import Sequence

from sqlalchemy import Engine

from service.domain.coupon import Coupon, CouponState
from service.domain.decide import PriorRequests
from service.gate.admission import Judged, Seat
from service.gate.gather import Gatherer
from service.gate.names import Verdict
from service.store import coupons, requests
from service.store.engine import answering

#: above this many waiting requests the API answers 503 at once
WAITING_MOST = 1_000
_STATES = {
    CouponState.SCHEDULED: Verdict.NOT_OPEN,
    CouponState.PAUSED: Verdict.PAUSED,
    CouponState.CLOSED: Verdict.CLOSED,
    CouponState.SOLD_OUT: Verdict.SOLD_OUT,
}


class TruthGate:
    """Admits by the database alone. It does not see what is under way, so it admits too many; the issuer decides."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._admissions: Gatherer[Seat, Judged] = Gatherer("PostgreSQL", self._admit_many, waiting_most=WAITING_MOST)
        self._decisions: Gatherer[Seat, bool] = Gatherer("PostgreSQL", self._decided_many, waiting_most=WAITING_MOST)

    async def admit(self, seat: Seat) -> Judged:
        """The database's word; raises Unavailable when it is away or asked too much."""
        return await self._admissions.ask(seat)

    async def has_decided(self, seat: Seat) -> bool:
        """Whether the request has a row; asked like admissions, many in one query."""
        return await self._decisions.ask(seat)

    async def _decided_many(self, seats: Sequence[Seat]) -> list[bool]:
        return await asyncio.to_thread(self._decided, seats)

    def _decided(self, seats: Sequence[Seat]) -> list[bool]:
        with answering(self._engine) as tx:
            known = requests.known(tx, {(seat.coupon_id, seat.user_id) for seat in seats})
        nothing = PriorRequests()
        return [seat.request_id in known.get((seat.coupon_id, seat.user_id), nothing).request_ids for seat in seats]

    async def _admit_many(self, seats: Sequence[Seat]) -> list[Judged]:
        return await asyncio.to_thread(self._read, seats)

    def _read(self, seats: Sequence[Seat]) -> list[Judged]:
        with answering(self._engine) as tx:
            found = coupons.some(tx, {seat.coupon_id for seat in seats})
            live = requests.live(tx, {(seat.coupon_id, seat.user_id) for seat in seats})
        return [judge(seat, found.get(seat.coupon_id), live.get((seat.coupon_id, seat.user_id))) for seat in seats]


def judge(seat: Seat, coupon: Coupon | None, first: str | None) -> Judged:
    """The same questions in the same order as the gate's script."""
    if coupon is None:
        return Judged(Verdict.UNKNOWN_COUPON, "", {})
    state = coupon.state(seat.now_ms)
    if state in (CouponState.OPEN, CouponState.SOLD_OUT) and first:
        return Judged(Verdict.DUPLICATE, first, {})
    if state is CouponState.OPEN:
        return Judged(Verdict.ADMITTED, seat.request_id, {})
    return Judged(_STATES[state], str(coupon.opens_at_ms or ""), {})
