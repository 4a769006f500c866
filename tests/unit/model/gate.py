"""The model's gate: the rules of the Lua scripts, and the updates that it gets from the database."""

from collections.abc import Mapping

from service.domain.coupon import Coupon, Override
from service.gate.keys import Verdict, coupon_fields
from service.usecases.write_plan import releases_seat
from tests.unit.model.database import Database, Pair


class Gate:
    """Coupons and seats; it may be emptied at any time."""

    def __init__(self) -> None:
        #: the hash of each coupon that was filled in
        self.coupons: dict[int, dict[str, str]] = {}
        #: the request that has the seat, by coupon and user
        self.seats: dict[Pair, str] = {}
        #: ids of requests whose record the broker has not acknowledged
        self.unacknowledged: set[str] = set()

    def forget(self, coupon_id: int) -> None:
        """Remove the coupon and its seats."""
        self.coupons.pop(coupon_id, None)
        self.seats = {pair: request_id for pair, request_id in self.seats.items() if pair[0] != coupon_id}

    def fill(self, coupon: Coupon, seats: Mapping[Pair, str]) -> None:
        """service/gate/lua/fill.lua."""
        self.coupons[coupon.id] = coupon_fields(coupon)
        self.seats |= seats

    def free_seats(self, coupon_id: int) -> int:
        """Return how many more users the gate admits."""
        fields = self.coupons[coupon_id]
        if "sold_out" in fields:
            return 0
        return int(fields["capacity"]) - sum(seat_coupon_id == coupon_id for seat_coupon_id, _ in self.seats)

    def admit(self, pair: Pair, request_id: str, now_ms: int) -> Verdict:
        """service/gate/lua/admit.lua, for a coupon that is filled in."""
        if verdict := _not_open(self.coupons[pair[0]], now_ms):
            return verdict
        if first := self.seats.get(pair):
            return Verdict.UNACKNOWLEDGED if first in self.unacknowledged else Verdict.DUPLICATE
        if self.free_seats(pair[0]) <= 0:
            return Verdict.SOLD_OUT
        self.seats[pair] = request_id
        self.unacknowledged.add(request_id)
        return Verdict.ADMITTED

    def release(self, pair: Pair, request_id: str) -> None:
        """service/gate/lua/release.lua."""
        self.unacknowledged.discard(request_id)
        if self.seats.get(pair) == request_id:
            del self.seats[pair]

    def update_coupon(self, coupon: Coupon) -> None:
        """service/gate/lua/update_coupon.lua."""
        old, new = self.coupons.get(coupon.id), coupon_fields(coupon)
        gap = coupon.version - int(old["version"]) if old else -1
        if old is None or gap < 0:
            return
        if gap > 1 or (gap and any(int(old[name]) < int(new[name]) for name in ("quantity", "capacity"))):
            self.forget(coupon.id)
        else:
            self.coupons[coupon.id] = ({} if gap else old) | new

    def apply_decisions(self, db: Database) -> None:
        """service/usecases/gate_sync.py: free seats and mark coupons as sold out."""
        for outcome in db.unpublished:
            request, row = outcome.request, db.rows[outcome.request.log_position]
            if (row.state, row.code) == (outcome.state, outcome.code) and releases_seat(row.state, row.code):
                self.release((request.coupon_id, request.user_id), request.request_id)
        db.unpublished = ()
        for coupon in map(db.coupon, db.values):
            if coupon.issued >= coupon.quantity:
                self.update_coupon(coupon)

    def apply_changes(self, db: Database) -> None:
        """service/usecases/gate_sync.py: apply the changes that operators made."""
        for coupon in map(db.coupon, db.values):
            self.update_coupon(coupon)


def _not_open(fields: Mapping[str, str], now_ms: int) -> Verdict | None:
    """Return why the coupon is not open, or None if it is."""
    if fields["override"] == Override.CLOSED or (fields["closes"] and now_ms >= int(fields["closes"])):
        return Verdict.CLOSED
    if fields["override"] == Override.PAUSED:
        return Verdict.PAUSED
    return Verdict.NOT_OPEN if fields["opens"] and now_ms < int(fields["opens"]) else None
