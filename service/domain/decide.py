"""Pure functions that decide requests in offset order."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from service.domain.coupon import Coupon, CouponState, Override
from service.domain.request import ReasonCode, Request, RequestState


class Outcome(NamedTuple):
    """The decision about one request."""

    request: Request
    state: RequestState
    code: ReasonCode | None = None
    #: number among the issued requests of its coupon, from 1 without a gap
    sequence: int | None = None


@dataclass(slots=True)
class PriorRequests:
    """The earlier requests of one user for one coupon."""

    #: request ids that have a row: a record that carries one of them is a redelivery
    request_ids: set[str] = field(default_factory=set)
    #: an earlier request is issued, retrying or standby
    live: bool = False


@dataclass(slots=True)
class CouponCounters:
    """The counters of a coupon while a batch is decided."""

    coupon: Coupon
    issued: int
    held: int
    standby: int
    free: int

    @classmethod
    def of(cls, coupon: Coupon) -> "CouponCounters":
        """Start from the values of the locked row."""
        return cls(coupon, coupon.issued, coupon.held, coupon.standby, coupon.remaining)

    def issue(self, request: Request) -> Outcome:
        """Issue the coupon with the next sequence."""
        self.issued += 1
        self.free -= 1
        return Outcome(request, RequestState.ISSUED, None, self.issued)

    def hold(self, request: Request) -> Outcome:
        """Keep a free seat for a request that is retried."""
        self.held += 1
        self.free -= 1
        return Outcome(request, RequestState.RETRYING)

    def wait(self, request: Request) -> Outcome:
        """Put the request on standby."""
        self.standby += 1
        return Outcome(request, RequestState.STANDBY)


def decide(
    requests: Iterable[Request],
    coupons: Mapping[int, Coupon],
    prior: dict[tuple[int, int], PriorRequests],
    failing: Container[str] = frozenset(),
    *,
    refuse_foreign: bool = False,
) -> list[Outcome]:
    """Decide requests in the order given, which must be offset order within each partition.

    `coupons` are the locked rows by id. `prior` is keyed by (coupon_id, user_id) and is updated. `failing` holds the
    ids of requests whose write fails: such a request is held if it is entitled to a seat. `refuse_foreign`: whether
    requests without an id of this service are refused. A redelivery has no outcome.
    """
    counters = {coupon_id: CouponCounters.of(coupon) for coupon_id, coupon in coupons.items()}
    outcomes = []
    for request in requests:
        pair = request.coupon_id, request.user_id
        earlier = prior.get(pair)
        if earlier is None:
            earlier = prior[pair] = PriorRequests()
        elif request.request_id in earlier.request_ids:
            continue
        fails = request.request_id in failing
        counter = counters.get(request.coupon_id)
        outcome = _decide_one(request, counter, live=earlier.live, fails=fails, refuse_foreign=refuse_foreign)
        earlier.request_ids.add(request.request_id)
        earlier.live = earlier.live or outcome.state is not RequestState.REFUSED
        outcomes.append(outcome)
    return outcomes


_WINDOW_REFUSALS = {
    CouponState.SCHEDULED: ReasonCode.NOT_OPEN,
    CouponState.PAUSED: ReasonCode.PAUSED,
    CouponState.CLOSED: ReasonCode.CLOSED,
}


def _decide_one(
    request: Request, counters: CouponCounters | None, *, live: bool, fails: bool, refuse_foreign: bool
) -> Outcome:
    """Apply the rules in their order: coupon, foreign, window, duplicate, free seat, standby, sold out.

    The gate checked the window of an accepted request, so only a later close applies to it. The window of a foreign
    record is checked against the broker's append time.
    """
    if counters is None:
        return Outcome(request, RequestState.REFUSED, ReasonCode.UNKNOWN_COUPON)
    coupon = counters.coupon
    if request.accepted:
        code = ReasonCode.CLOSED if coupon.override is Override.CLOSED else None
    elif refuse_foreign:
        code = ReasonCode.FOREIGN
    else:
        code = _WINDOW_REFUSALS.get(coupon.state(request.appended_at_ms))
    if code is None and live:
        code = ReasonCode.DUPLICATE
    if code:
        return Outcome(request, RequestState.REFUSED, code)
    if counters.free > 0 and not counters.standby:
        return counters.hold(request) if fails else counters.issue(request)
    if counters.held or counters.standby:
        return counters.wait(request)
    return Outcome(request, RequestState.REFUSED, ReasonCode.SOLD_OUT)


def issue_seated(requests: Sequence[Request], coupons: Mapping[int, Coupon]) -> list[Outcome]:
    """Issue held or standby requests, those of each coupon in the order given, without deciding eligibility again."""
    counters = {coupon_id: CouponCounters.of(coupon) for coupon_id, coupon in coupons.items()}
    return [counters[request.coupon_id].issue(request) for request in requests]


class StandbyAction(StrEnum):
    """What to do next with the standby requests of a coupon."""

    #: seats are free: promote the lowest offsets
    PROMOTE = "promote"
    #: no seat is free and none is held: refuse all
    REFUSE = "refuse"
    #: a held seat may still be released
    WAIT = "wait"


def next_standby_action(coupon: Coupon) -> StandbyAction:
    """Return what to do with the standby requests of the coupon, by its locked row."""
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
    """Decide dead requests again, in the order given, as if they were read now; their windows are not checked again.

    `live` are the (coupon_id, user_id) that have another live request; `failing` is as in decide.
    """
    prior = {pair: PriorRequests(live=True) for pair in live}
    return decide((request._replace(accepted=True) for request in requests), coupons, prior, failing)
