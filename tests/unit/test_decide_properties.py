"""The promises of a decision, over random lines of random coupons."""

from collections import Counter
from copy import deepcopy

from hypothesis import given
from hypothesis import strategies as st

from service.domain.coupon import Coupon
from service.domain.decide import Outcome, PriorRequests, decide
from service.domain.request import LIVE_STATES, ReasonCode, Request, RequestState
from tests.builders import AT_MS, coupon, request

_COUPONS, _USERS = (1, 2, 3), 6
Line = list[Request]
Knowledge = dict[tuple[int, int], PriorRequests]


@st.composite
def _coupon(draw: st.DrawFn, coupon_id: int) -> Coupon:
    quantity = draw(st.integers(1, 6))
    issued = draw(st.integers(0, quantity))
    held = draw(st.integers(0, quantity - issued))
    opens = draw(st.none() | st.integers(AT_MS, AT_MS + 20))
    return coupon(coupon_id, quantity, issued, held, opens_at_ms=opens)


#: few users and few ids of each, so that duplicates and redeliveries abound; coupon 9 does not exist
_WANTS = st.tuples(st.sampled_from((*_COUPONS, 9)), st.integers(1, _USERS), st.sampled_from("abc"), st.booleans())


def _line(wants: list[tuple[int, int, str, bool]]) -> Line:
    return [
        request(offset, user, one, request_id=f"{one}-{user}-{name}", accepted=accepted)
        for offset, (one, user, name, accepted) in enumerate(wants)
    ]


def _knowledge(pairs: dict[tuple[int, int], bool]) -> Knowledge:
    return {(one, user): PriorRequests({f"{one}-{user}-a"}, live) for (one, user), live in pairs.items()}


_LINES = st.lists(_WANTS, max_size=24).map(_line)
_COUPON_SETS = st.tuples(*(_coupon(one) for one in _COUPONS)).map(lambda all_: {one.id: one for one in all_})
_KNOWN = st.dictionaries(st.tuples(st.sampled_from(_COUPONS), st.integers(1, _USERS)), st.booleans(), max_size=4).map(
    _knowledge
)


def _after(coupons: dict[int, Coupon], outcomes: list[Outcome]) -> dict[int, Coupon]:
    """The coupons as the database has them once the outcomes are written."""
    issued = Counter(done.request.coupon_id for done in outcomes if done.state is RequestState.ISSUED)
    return {one.id: one._replace(issued=one.issued + issued[one.id]) for one in coupons.values()}


@given(_COUPON_SETS, _LINES, _KNOWN)
def test_never_too_many_never_two_never_a_gap(coupons: dict[int, Coupon], line: Line, known: Knowledge) -> None:
    """P1 to P3 hold for every line: quantity, one live request per user, sequences, honest sold_out."""
    live_before = {pair for pair, mine in known.items() if mine.live}

    outcomes = decide(line, coupons, known)

    after = _after(coupons, outcomes)
    for one in after.values():
        assert one.issued <= one.quantity - one.held
        mine = [done for done in outcomes if done.request.coupon_id == one.id]
        given_out = [done.sequence for done in mine if done.sequence is not None]
        assert given_out == list(range(coupons[one.id].issued + 1, one.issued + 1))
        if any(done.code is ReasonCode.SOLD_OUT for done in mine):
            assert (one.issued, one.held) == (one.quantity, 0)
    live = Counter((done.request.coupon_id, done.request.user_id) for done in outcomes if done.state in LIVE_STATES)
    assert all(count == 1 and pair not in live_before for pair, count in live.items())


@given(_COUPON_SETS, _LINES, _KNOWN)
def test_each_request_has_one_outcome_in_offset_order(coupons: dict[int, Coupon], line: Line, known: Knowledge) -> None:
    """P4: a request id is answered once, at its first offset, unless the database knows it already."""
    before = {name for mine in known.values() for name in mine.request_ids}

    outcomes = decide(line, coupons, known)

    first = {one.request_id: one for one in reversed(line) if one.request_id not in before}
    assert [done.request for done in outcomes] == sorted(first.values(), key=lambda one: one.log_position)


@given(_COUPON_SETS, _LINES, _KNOWN, st.integers(0, 24))
def test_where_a_poll_ends_makes_no_difference(
    coupons: dict[int, Coupon], line: Line, known: Knowledge, cut: int
) -> None:
    """P7: a line cut anywhere, its state carried over, is answered as the line in one piece."""
    whole = decide(line, coupons, deepcopy(known))

    head = decide(line[:cut], coupons, known)
    tail = decide(line[cut:], _after(coupons, head), known)

    assert head + tail == whole
