"""P1 to P4 and P7 of the decision function, for random requests and coupons."""

from collections import Counter
from copy import deepcopy

from hypothesis import given
from hypothesis import strategies as st

from service.domain.coupon import Coupon
from service.domain.decide import Outcome, PriorRequests, decide
from service.domain.request import LIVE_STATES, ReasonCode, Request, RequestState
from tests.builders import AT_MS, coupon, request

_COUPONS, _USERS = (1, 2, 3), 6
Prior = dict[tuple[int, int], PriorRequests]


@st.composite
def _coupon(draw: st.DrawFn, coupon_id: int) -> Coupon:
    quantity = draw(st.integers(1, 6))
    issued = draw(st.integers(0, quantity))
    held = draw(st.integers(0, quantity - issued))
    opens = draw(st.none() | st.integers(AT_MS, AT_MS + 20))
    return coupon(coupon_id, quantity, issued, held, opens_at_ms=opens)


#: coupon, user, suffix of the request id, accepted; few users and ids, so that duplicates and redeliveries are
#: frequent; coupon 9 does not exist
_FIELDS = st.tuples(st.sampled_from((*_COUPONS, 9)), st.integers(1, _USERS), st.sampled_from("abc"), st.booleans())


def _requests(fields: list[tuple[int, int, str, bool]]) -> list[Request]:
    return [
        request(offset, user, coupon_id, request_id=f"{coupon_id}-{user}-{suffix}", accepted=accepted)
        for offset, (coupon_id, user, suffix, accepted) in enumerate(fields)
    ]


def _prior(pairs: dict[tuple[int, int], bool]) -> Prior:
    return {
        (coupon_id, user): PriorRequests({f"{coupon_id}-{user}-a"}, live) for (coupon_id, user), live in pairs.items()
    }


_REQUESTS = st.lists(_FIELDS, max_size=24).map(_requests)
_COUPON_SETS = st.tuples(*map(_coupon, _COUPONS)).map(lambda coupons: {coupon.id: coupon for coupon in coupons})
_PRIOR = st.dictionaries(st.tuples(st.sampled_from(_COUPONS), st.integers(1, _USERS)), st.booleans(), max_size=4).map(
    _prior
)


def _after(coupons: dict[int, Coupon], outcomes: list[Outcome]) -> dict[int, Coupon]:
    """Return the coupons as the database has them once the outcomes are written."""
    issued = Counter(outcome.request.coupon_id for outcome in outcomes if outcome.state is RequestState.ISSUED)
    return {coupon.id: coupon._replace(issued=coupon.issued + issued[coupon.id]) for coupon in coupons.values()}


@given(_COUPON_SETS, _REQUESTS, _PRIOR)
def test_quantity_one_per_user_and_sequence(coupons: dict[int, Coupon], requests: list[Request], prior: Prior) -> None:
    """P1 to P3 hold for any requests: quantity, one live request per user, sequences without a gap, true sold_out."""
    live_before = {pair for pair, requests_before in prior.items() if requests_before.live}

    outcomes = decide(requests, coupons, prior)

    for after in _after(coupons, outcomes).values():
        assert after.issued <= after.quantity - after.held
        of_coupon = [outcome for outcome in outcomes if outcome.request.coupon_id == after.id]
        sequences = [outcome.sequence for outcome in of_coupon if outcome.sequence is not None]
        assert sequences == list(range(coupons[after.id].issued + 1, after.issued + 1))
        if any(outcome.code is ReasonCode.SOLD_OUT for outcome in of_coupon):
            assert (after.issued, after.held) == (after.quantity, 0)
    live_requests = (outcome.request for outcome in outcomes if outcome.state in LIVE_STATES)
    live = Counter((request.coupon_id, request.user_id) for request in live_requests)
    assert all(count == 1 and pair not in live_before for pair, count in live.items())


@given(_COUPON_SETS, _REQUESTS, _PRIOR)
def test_each_request_has_one_outcome_in_offset_order(
    coupons: dict[int, Coupon], requests: list[Request], prior: Prior
) -> None:
    """P4: a request id has one outcome, at its first offset, unless the database has a row with it already."""
    before = {request_id for requests_before in prior.values() for request_id in requests_before.request_ids}

    outcomes = decide(requests, coupons, prior)

    first = {request.request_id: request for request in reversed(requests) if request.request_id not in before}
    expected = sorted(first.values(), key=lambda request: request.log_position)
    assert [outcome.request for outcome in outcomes] == expected


@given(_COUPON_SETS, _REQUESTS, _PRIOR, st.integers(0, 24))
def test_batch_boundaries_make_no_difference(
    coupons: dict[int, Coupon], requests: list[Request], prior: Prior, cut: int
) -> None:
    """P7: requests in two batches, with the state of the first carried over, get the same outcomes as in one."""
    whole = decide(requests, coupons, deepcopy(prior))

    head = decide(requests[:cut], coupons, prior)
    tail = decide(requests[cut:], _after(coupons, head), prior)

    assert head + tail == whole
