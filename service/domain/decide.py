"""The decision: requests in offset order and what is known of their coupons in, outcomes out; pure."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from service.domain.coupon import Coupon, CouponState, Override
from service.domain.request import ReasonCode, Request, RequestState


class Outcome(NamedTuple):
    """What was decided for a request."""

    request: Request
    state: RequestState
    code: ReasonCode | None = None
    #: rank among the issued of its coupon, from 1 without a gap
    sequence: int | None = None


@dataclass(slots=True)
class PriorRequests:
    """What the database knows of one user and coupon."""

    #: request ids that have a row already: their records are redeliveries
    request_ids: set[str] = field(default_factory=set)
    #: an earlier request is issued, retrying or standby
    live: bool = False


@dataclass(slots=True)
class CouponCounters:
    """A coupon's counters while a batch is decided."""

    coupon: Coupon
    issued: int
    held: int
    standby: int
    free: int

    @classmethod
    def of(cls, coupon: Coupon) -> "CouponCounters":
        return cls(coupon, coupon.issued, coupon.held, coupon.standby, coupon.remaining)

    def issue(self, request: Request) -> Outcome:
        self.issued += 1
        self.free -= 1
        return Outcome(request, RequestState.ISSUED, None, self.issued)

    def hold(self, request: Request) -> Outcome:
        self.held += 1
        self.free -= 1
        return Outcome(request, RequestState.RETRYING)

    def wait(self, request: Request) -> Outcome:
        self.standby += 1
        return Outcome(request, RequestState.STANDBY)


def decide(
    requests: Iterable[Request],
    coupons: Mapping[int, Coupon],
    prior: dict[tuple[int, int], PriorRequests],
    failing: Container[str] = frozenset(),
) -> list[Outcome]:
    """Decides requests in the order given, which must be offset order within a partition.

    `coupons` are the locked rows by id; `known` is keyed by (coupon_id, user_id) and is brought up to date.
    A redelivery, whose request id is known, has no outcome. A request whose id is in `failing` cannot be issued
    by a failure of its own: where it is due a seat, it holds it.
    """
    tallies = {coupon_id: CouponCounters.of(coupon) for coupon_id, coupon in coupons.items()}
    outcomes = []
    for request in requests:
        pair = request.coupon_id, request.user_id
        mine = prior.get(pair)
        if mine is None:
            mine = prior[pair] = PriorRequests()
        elif request.request_id in mine.request_ids:
            continue
        outcome = _decide_one(request, tallies.get(request.coupon_id), mine, fails=request.request_id in failing)
        mine.request_ids.add(request.request_id)
        mine.live = mine.live or outcome.state is not RequestState.REFUSED
        outcomes.append(outcome)
    return outcomes


def _decide_one(request: Request, tally: CouponCounters | None, mine: PriorRequests, *, fails: bool) -> Outcome:
    if tally is None:
        return Outcome(request, RequestState.REFUSED, ReasonCode.UNKNOWN_COUPON)
    if code := _window(tally.coupon, request):
        return Outcome(request, RequestState.REFUSED, code)
    if mine.live:
        return Outcome(request, RequestState.REFUSED, ReasonCode.DUPLICATE)
    if tally.free > 0 and not tally.standby:
        return tally.hold(request) if fails else tally.issue(request)
    if tally.held or tally.standby:
        return tally.wait(request)
    return Outcome(request, RequestState.REFUSED, ReasonCode.SOLD_OUT)


_WINDOW = {
    CouponState.SCHEDULED: ReasonCode.NOT_OPEN,
    CouponState.PAUSED: ReasonCode.PAUSED,
    CouponState.CLOSED: ReasonCode.CLOSED,
}


def _window(coupon: Coupon, request: Request) -> ReasonCode | None:
    """Judges a foreign record by the broker's clock; ours were judged at the gate, once, and hear of a close only."""
    if request.accepted:
        return ReasonCode.CLOSED if coupon.override is Override.CLOSED else None
    return _WINDOW.get(coupon.state(request.appended_at_ms))


def issue_seated(requests: Sequence[Request], coupons: Mapping[int, Coupon]) -> list[Outcome]:
    """Issues requests that have a seat, each coupon's in the order given."""
    tallies = {coupon_id: CouponCounters.of(coupon) for coupon_id, coupon in coupons.items()}
    return [tallies[request.coupon_id].issue(request) for request in requests]


class StandbyAction(StrEnum):
    """What comes next for those on standby."""

    #: seats are free: the lowest offsets get them
    PROMOTE = "promote"
    #: no seat is free and none is held: they are refused
    REFUSE = "refuse"
    #: a held seat may still be given up
    WAIT = "wait"


def next_standby_action(coupon: Coupon) -> StandbyAction:
    """What is to be done about the coupon's standby, from its locked row."""
    if not coupon.standby:
        return StandbyAction.WAIT
    if coupon.remaining > 0:
        return StandbyAction.PROMOTE
    return StandbyAction.WAIT if coupon.held else StandbyAction.REFUSE


def decide_replayed(
    requests: Iterable[Request],
    coupons: Mapping[int, Coupon],
    live: Iterable[tuple[int, int]],
    failing: Container[str] = frozenset(),
) -> list[Outcome]:
    """Decides dead requests anew, in the order given, as if they were read now; their window was judged long ago.

    `live` are the pairs of coupon and user that have another request which is issued, held or on standby; `failing` is
    as for decide.
    """
    known = {pair: PriorRequests(live=True) for pair in live}
    return decide((request._replace(accepted=True) for request in requests), coupons, known, failing)
