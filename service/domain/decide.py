"""The decision: requests in offset order and what is known of their coupons in, outcomes out; pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from service.domain.coupon import Coupon, CouponState
from service.domain.request import Code, Request, State


class Outcome(NamedTuple):
    """What was decided for a request."""

    request: Request
    state: State
    code: Code | None = None
    #: rank among the issued of its coupon, from 1 without a gap
    sequence: int | None = None


@dataclass(slots=True)
class Known:
    """What the database knows of one user and coupon."""

    #: request ids that have a row already: their records are redeliveries
    request_ids: set[str] = field(default_factory=set)
    #: an earlier request is issued, retrying or standby
    live: bool = False


@dataclass(slots=True)
class Tally:
    """A coupon's counters while a batch is decided."""

    coupon: Coupon
    issued: int
    held: int

    @classmethod
    def of(cls, coupon: Coupon) -> "Tally":
        return cls(coupon, coupon.issued, coupon.held)

    @property
    def free(self) -> int:
        return self.coupon.quantity - self.issued - self.held

    def issue(self, request: Request) -> Outcome:
        self.issued += 1
        return Outcome(request, State.ISSUED, sequence=self.issued)


def decide(
    requests: Iterable[Request], coupons: Mapping[int, Coupon], known: dict[tuple[int, int], Known]
) -> list[Outcome]:
    """Decides requests in the order given, which must be offset order within a partition.

    `coupons` are the locked rows by id; `known` is keyed by (coupon_id, user_id) and is brought up to date.
    A redelivery, whose request id is known, has no outcome.
    """
    tallies = {coupon_id: Tally.of(coupon) for coupon_id, coupon in coupons.items()}
    outcomes = []
    for request in requests:
        mine = known.setdefault((request.coupon_id, request.user_id), Known())
        if request.request_id in mine.request_ids:
            continue
        outcome = _decide_one(request, tallies.get(request.coupon_id), mine)
        mine.request_ids.add(request.request_id)
        mine.live = mine.live or outcome.state is not State.REFUSED
        outcomes.append(outcome)
    return outcomes


def _decide_one(request: Request, tally: Tally | None, mine: Known) -> Outcome:
    if tally is None:
        return Outcome(request, State.REFUSED, Code.UNKNOWN_COUPON)
    if not request.accepted and (code := _window(tally.coupon, request.appended_at_ms)):
        return Outcome(request, State.REFUSED, code)
    if mine.live:
        return Outcome(request, State.REFUSED, Code.DUPLICATE)
    if tally.free > 0:
        return tally.issue(request)
    if tally.held:
        return Outcome(request, State.STANDBY)
    return Outcome(request, State.REFUSED, Code.SOLD_OUT)


_WINDOW = {
    CouponState.SCHEDULED: Code.NOT_OPEN,
    CouponState.PAUSED: Code.PAUSED,
    CouponState.CLOSED: Code.CLOSED,
}


def _window(coupon: Coupon, appended_at_ms: int) -> Code | None:
    """Judges a foreign record by the broker's clock; ours were judged at the gate, once."""
    return _WINDOW.get(coupon.state(appended_at_ms))


def settle(coupon: Coupon, standby: Sequence[Request]) -> list[Outcome]:
    """Gives free seats to the lowest standby offsets; refuses the rest once no seat of the coupon is held.

    `standby` is in offset order and `coupon` is its locked row after the change that may have freed a seat.
    """
    tally = Tally.of(coupon)
    promoted = [tally.issue(request) for request in standby[: max(tally.free, 0)]]
    if tally.held:
        return promoted
    return promoted + [Outcome(request, State.REFUSED, Code.SOLD_OUT) for request in standby[len(promoted) :]]
