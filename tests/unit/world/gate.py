"""The gate as plain values: its scripts' rules, and what it is told of the database."""

from collections.abc import Mapping

from service.domain.coupon import Coupon, Override
from service.gate.keys import Verdict, coupon_fields
from service.usecases.write_plan import frees_seat
from tests.unit.world.database import Database, Pair


class Gate:
    """Who has a seat, as far as it was told; it may be emptied at any moment."""

    def __init__(self) -> None:
        #: the hash of each coupon that it knows
        self.told: dict[int, dict[str, str]] = {}
        #: who has a seat, and by which request
        self.seats: dict[Pair, str] = {}
        #: request ids of which the broker has not been heard
        self.unsettled: set[str] = set()

    def forget(self, coupon_id: int) -> None:
        """It knows nothing of the coupon any more."""
        self.told.pop(coupon_id, None)
        self.seats = {pair: name for pair, name in self.seats.items() if pair[0] != coupon_id}

    def fill(self, coupon: Coupon, seats: Mapping[Pair, str]) -> None:
        """service/gate/lua/fill.lua."""
        self.told[coupon.id] = coupon_fields(coupon)
        self.seats |= seats

    def room(self, coupon_id: int) -> int:
        """How many more it lets in."""
        told = self.told[coupon_id]
        return 0 if "sold_out" in told else int(told["capacity"]) - sum(one == coupon_id for one, _ in self.seats)

    def admit(self, pair: Pair, request_id: str, now_ms: int) -> Verdict:
        """service/gate/lua/admit.lua, for a coupon that it knows."""
        if verdict := _shut(self.told[pair[0]], now_ms):
            return verdict
        if first := self.seats.get(pair):
            return Verdict.UNACKNOWLEDGED if first in self.unsettled else Verdict.DUPLICATE
        if self.room(pair[0]) <= 0:
            return Verdict.SOLD_OUT
        self.seats[pair] = request_id
        self.unsettled.add(request_id)
        return Verdict.ADMITTED

    def release(self, pair: Pair, request_id: str) -> None:
        """service/gate/lua/release.lua."""
        self.unsettled.discard(request_id)
        if self.seats.get(pair) == request_id:
            del self.seats[pair]

    def tell(self, coupon: Coupon) -> None:
        """service/gate/lua/update_coupon.lua."""
        told, news = self.told.get(coupon.id), coupon_fields(coupon)
        gap = coupon.version - int(told["version"]) if told else -1
        if told is None or gap < 0:
            return
        if gap > 1 or (gap and any(int(told[name]) < int(news[name]) for name in ("quantity", "capacity"))):
            self.forget(coupon.id)
        else:
            self.told[coupon.id] = ({} if gap else told) | news

    def hear_decisions(self, db: Database) -> None:
        """service/usecases/gate_sync.py: seats that come back and coupons that are gone."""
        for outcome in db.untold:
            request, row = outcome.request, db.rows[outcome.request.log_position]
            if (row.state, row.code) == (outcome.state, outcome.code) and frees_seat(row.state, row.code):
                self.release((request.coupon_id, request.user_id), request.request_id)
        db.untold = ()
        for coupon in map(db.coupon, db.values):
            if coupon.issued >= coupon.quantity:
                self.tell(coupon)

    def hear_changes(self, db: Database) -> None:
        """The same: what operators changed."""
        for coupon in map(db.coupon, db.values):
            self.tell(coupon)


def _shut(told: Mapping[str, str], now_ms: int) -> Verdict | None:
    if told["override"] == Override.CLOSED or (told["closes"] and now_ms >= int(told["closes"])):
        return Verdict.CLOSED
    if told["override"] == Override.PAUSED:
        return Verdict.PAUSED
    return Verdict.NOT_OPEN if told["opens"] and now_ms < int(told["opens"]) else None
