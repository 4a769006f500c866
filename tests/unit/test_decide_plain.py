"""A plain batch is decided as `decide` decides it, for random requests and coupons."""

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from service.domain.coupon import Coupon, Override
from service.domain.decide import PriorRequests, decide
from service.domain.decide_plain import CouponCounts, PlainColumns, coupons_to_look_up, decide_plain, plain_columns
from service.domain.errors import PoisonRecord, UnverifiedRequestId
from service.domain.failures import classify
from service.domain.record import InjectedFault, Record
from service.domain.request import Request, RequestState
from service.usecases.issue_plain import _count
from service.usecases.write_plan import outbox_kinds, outbox_kinds_for
from tests.builders import coupon, request

_COUPONS, _USERS = (1, 2, 3), 6


@st.composite
def _coupon(draw: st.DrawFn, coupon_id: int) -> Coupon:
    quantity = draw(st.integers(1, 6))
    issued = draw(st.integers(0, quantity))
    held = draw(st.sampled_from((0, 0, draw(st.integers(0, quantity - issued)))))
    standby = draw(st.sampled_from((0, 0, 0, 0, 1)))
    override = draw(st.sampled_from((Override.NONE, Override.NONE, Override.PAUSED, Override.CLOSED)))
    return coupon(coupon_id, quantity, issued, held, standby, override=override)


_SETS = st.tuples(*map(_coupon, _COUPONS)).map(lambda coupons: {one.id: one for one in coupons})
#: coupon, user, suffix of the request id: few of each, so that duplicates and redeliveries are frequent
_FIELDS = st.tuples(
    st.sampled_from((*_COUPONS, *_COUPONS, *_COUPONS, 9)), st.integers(1, _USERS), st.sampled_from("abc")
)
_REQUESTS = st.lists(_FIELDS, max_size=24).map(
    lambda fields: [
        request(offset, user, coupon_id, request_id=f"{coupon_id}-{user}-{suffix}")
        for offset, (coupon_id, user, suffix) in enumerate(fields)
    ]
)
_PRIOR = st.dictionaries(st.tuples(st.sampled_from(_COUPONS), st.integers(1, _USERS)), st.booleans(), max_size=4).map(
    lambda pairs: {(one, user): PriorRequests({f"{one}-{user}-a"}, live) for (one, user), live in pairs.items()}
)


def _columns(requests: list[Request]) -> PlainColumns:
    rows = [(*one.log_position, one.coupon_id, one.user_id, one.request_id, one.requested_at_ms) for one in requests]
    return PlainColumns(*(list(column) for column in zip(*rows, strict=True))) if rows else PlainColumns(*[[]] * 6)


def _counts(one: Coupon) -> CouponCounts:
    return CouponCounts(one.quantity, one.issued, one.held, one.standby, one.override is Override.CLOSED)


@given(_SETS, _REQUESTS, _PRIOR)
def test_a_plain_batch_is_decided_like_any_other(
    coupons: dict[int, Coupon], requests: list[Request], prior: dict[tuple[int, int], PriorRequests]
) -> None:
    """P1 to P3, P5: each new request has the same state, code and sequence, and what follows is the same."""
    outcomes = decide(requests, coupons, deepcopy(prior))
    expected = [(one.request, one.code, one.sequence or 0) for one in outcomes]
    must_wait = any(one.state is RequestState.STANDBY for one in outcomes)

    decided = decide_plain(_columns(requests), {one.id: _counts(one) for one in coupons.values()}, prior)

    unknown = any(one.coupon_id not in coupons for one in requests)
    if unknown or must_wait or any(one.standby for one in coupons.values()):
        event("not plain")
        assert decided is None
        return
    assert decided is not None
    new = [one for one, is_new in zip(requests, decided.is_new, strict=True) if is_new]
    assert list(zip(new, decided.codes, decided.sequences, strict=True)) == expected
    counts = _count(decided)
    assert set(counts) == {(one.state, one.code) for one in outcomes}
    assert sum(counts.values()) == len(outcomes)
    kinds = outbox_kinds(counts, sold_out=decided.sold_out, notices=True)
    assert kinds == outbox_kinds_for(outcomes, coupons, notices=True)


@given(_SETS, _REQUESTS, _PRIOR)
def test_users_who_are_not_looked_up_need_no_look_up(
    sets: dict[int, Coupon], requests: list[Request], prior: dict[tuple[int, int], PriorRequests]
) -> None:
    """P1, P2: without their earlier requests the decision is the same, or has a live row that the database refuses."""
    columns, coupons = _columns(requests), {one.id: _counts(one) for one in sets.values()}
    with_ended = {coupon_id for (coupon_id, _), earlier in prior.items() if not earlier.live}
    needed = coupons_to_look_up(columns, coupons, with_ended)
    looked_up = {pair: earlier for pair, earlier in prior.items() if pair[0] in needed}

    decided = decide_plain(columns, coupons, looked_up)

    unknown = {pair for pair, earlier in prior.items() if earlier.live} - looked_up.keys()
    pairs = list(zip(columns.coupon_ids, columns.user_ids, strict=True))
    if decided is None or unknown.isdisjoint(pairs):
        assert decided == decide_plain(columns, coupons, prior)
    else:
        event("refused by the database")
        new = [pair for pair, is_new in zip(pairs, decided.is_new, strict=True) if is_new]
        live = {pair for pair, code in zip(new, decided.codes, strict=True) if code is None}
        assert unknown & set(pairs) <= live


@pytest.mark.parametrize(
    "change",
    [
        {"accepted": False},
        {"fault": InjectedFault("22012", 1)},
        {"request_id": "", "accepted": False, "poison": classify(UnverifiedRequestId())},
    ],
    ids=["foreign", "fault", "unverified"],
)
def test_one_record_that_needs_attention_makes_a_batch_not_plain(change: dict[str, Any]) -> None:
    """Each of them has a rule that the decision about a plain batch lacks."""
    plain = _records(3)

    assert plain_columns(plain) == PlainColumns(
        (0, 0, 0), (0, 1, 2), (1, 1, 1), (1, 2, 3), ("request-0", "request-1", "request-2"), (5, 5, 5)
    )
    assert plain_columns([*plain[:2], plain[2]._replace(**change)]) is None
    assert plain_columns([]) is None


def test_a_record_that_cannot_be_decoded_is_left_out_of_the_columns() -> None:
    """It becomes a dead letter and takes part in no decision; alone it is a matter of the other way."""
    first, second, third = _records(3)
    second = second._replace(request_id="", accepted=False, poison=classify(PoisonRecord()))

    assert plain_columns([first, second, third]) == PlainColumns(
        (0, 0), (0, 2), (1, 1), (1, 3), ("request-0", "request-2"), (5, 5)
    )
    assert plain_columns([second]) is None


def _records(count: int) -> list[Record]:
    return [Record(0, offset, 1, offset + 1, f"request-{offset}", 5, 6, True, b"1", b"", ()) for offset in range(count)]
