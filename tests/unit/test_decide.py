"""Deciding a batch: who is issued, who waits for a held seat, who is refused and why."""

import pytest

from service.domain.coupon import Coupon, Override
from service.domain.decide import Outcome, PriorRequests, decide
from service.domain.request import ReasonCode, Request, RequestState
from tests.builders import AT_MS, coupon, request


def _decided(
    *requests: Request, of: Coupon, known: dict[tuple[int, int], PriorRequests] | None = None
) -> list[Outcome]:
    return decide(requests, {of.id: of}, {} if known is None else known)


def _answers(outcomes: list[Outcome]) -> list[tuple[int, RequestState, ReasonCode | None]]:
    return [(outcome.request.log_position.offset, outcome.state, outcome.code) for outcome in outcomes]


def test_the_first_in_the_log_are_the_first_served() -> None:
    """P3: as many as there are coupons are issued, in offset order, and the next one hears sold_out."""
    line = [request(offset) for offset in range(4)]

    outcomes = _decided(*line, of=coupon(quantity=3))

    assert [(outcome.state, outcome.sequence) for outcome in outcomes] == [
        (RequestState.ISSUED, 1),
        (RequestState.ISSUED, 2),
        (RequestState.ISSUED, 3),
        (RequestState.REFUSED, None),
    ]
    assert outcomes[3].code is ReasonCode.SOLD_OUT


def test_sequences_go_on_where_the_coupon_stands() -> None:
    """P3: a batch's sequences follow those issued before it without a gap, whatever is refused in between."""
    line = [request(0, user_id=1), request(1, user_id=1), request(2, user_id=2)]

    outcomes = _decided(*line, of=coupon(quantity=9, issued=4))

    assert [outcome.sequence for outcome in outcomes] == [5, None, 6]


def test_each_coupon_counts_for_itself() -> None:
    """P1, P3: requests of several coupons in one batch take nothing from each other."""
    coupons = {1: coupon(1, quantity=1), 2: coupon(2, quantity=1)}
    line = [request(offset, user_id=offset + 1, coupon_id=offset % 2 + 1) for offset in range(4)]

    outcomes = decide(line, coupons, {})

    assert [(outcome.state, outcome.sequence) for outcome in outcomes[:2]] == [(RequestState.ISSUED, 1)] * 2
    assert [outcome.code for outcome in outcomes[2:]] == [ReasonCode.SOLD_OUT] * 2


def test_a_user_has_one_live_request_within_a_batch() -> None:
    """P2: the second request of a user for the same coupon is a duplicate, in the same batch too."""
    outcomes = _decided(request(0, user_id=7), request(1, user_id=7), of=coupon())

    assert _answers(outcomes) == [(0, RequestState.ISSUED, None), (1, RequestState.REFUSED, ReasonCode.DUPLICATE)]


def test_a_user_has_one_live_request_across_batches() -> None:
    """P2: a user whose earlier request is live in the database hears duplicate, even when nothing is left."""
    known = {(1, 7): PriorRequests({"earlier"}, live=True)}

    outcomes = _decided(request(5, user_id=7), of=coupon(quantity=1, issued=1), known=known)

    assert _answers(outcomes) == [(5, RequestState.REFUSED, ReasonCode.DUPLICATE)]


def test_a_user_who_was_refused_may_ask_again() -> None:
    """P2: an earlier request that ended without a coupon does not stand in the way of the next."""
    known = {(1, 7): PriorRequests({"earlier"}, live=False)}

    outcomes = _decided(request(5, user_id=7), of=coupon(), known=known)

    assert _answers(outcomes) == [(5, RequestState.ISSUED, None)]


@pytest.mark.parametrize("live", [True, False])
def test_a_known_request_id_is_a_redelivery(live: bool) -> None:
    """P2: a record whose request id has a row already changes nothing and answers nothing."""
    known = {(1, 7): PriorRequests({"the-same"}, live=live)}

    assert _decided(request(9, user_id=7, request_id="the-same"), of=coupon(), known=known) == []


def test_a_record_twice_in_a_batch_counts_once() -> None:
    """P2: the same request id at two offsets of one batch is decided at the first and passed over at the second."""
    twice = [request(0, user_id=7, request_id="a"), request(3, user_id=7, request_id="a")]

    assert _answers(_decided(*twice, of=coupon())) == [(0, RequestState.ISSUED, None)]


def test_a_coupon_that_does_not_exist_is_refused() -> None:
    """Step 5: a request for an unknown coupon is a business answer, never retried."""
    outcomes = decide([request(0, coupon_id=99)], {}, {})

    assert _answers(outcomes) == [(0, RequestState.REFUSED, ReasonCode.UNKNOWN_COUPON)]


@pytest.mark.parametrize(
    ("window", "code"),
    [
        ({"opens_at_ms": AT_MS + 1}, ReasonCode.NOT_OPEN),
        ({"opens_at_ms": AT_MS}, None),
        ({"closes_at_ms": AT_MS}, ReasonCode.CLOSED),
        ({"closes_at_ms": AT_MS + 1}, None),
        ({"override": Override.PAUSED}, ReasonCode.PAUSED),
        ({"override": Override.CLOSED}, ReasonCode.CLOSED),
        ({"override": Override.CLOSED, "opens_at_ms": AT_MS + 1}, ReasonCode.CLOSED),
    ],
)
def test_a_foreign_record_is_judged_by_the_time_the_broker_gave_it(
    window: dict[str, int], code: ReasonCode | None
) -> None:
    """Step 2: a record without an id of ours never passed the gate, so its append time is held to the window."""
    foreign = request(0, accepted=False)._replace(requested_at_ms=0)

    outcomes = _decided(foreign, of=coupon(**window))  # type: ignore[arg-type]

    assert outcomes[0].code is code
    assert outcomes[0].state is (RequestState.REFUSED if code else RequestState.ISSUED)


@pytest.mark.parametrize(
    "window",
    [{"opens_at_ms": AT_MS + 1}, {"closes_at_ms": AT_MS}, {"override": Override.PAUSED}],
)
def test_what_was_accepted_is_issued(window: dict[str, int]) -> None:
    """P5: the window and the pause are judged once, at the gate; a receipt outlives both."""
    outcomes = _decided(request(0, accepted=True), of=coupon(**window))  # type: ignore[arg-type]

    assert _answers(outcomes) == [(0, RequestState.ISSUED, None)]


def test_a_seat_that_is_held_makes_followers_wait() -> None:
    """P5: while a failed request holds the last seat, the next eligible one stands by and is not told sold_out."""
    outcomes = _decided(request(0), request(1, user_id=1), of=coupon(quantity=3, issued=2, held=1))

    assert _answers(outcomes) == [(0, RequestState.STANDBY, None), (1, RequestState.REFUSED, ReasonCode.DUPLICATE)]


def test_a_free_seat_is_given_while_another_is_held() -> None:
    """P3: a held seat keeps only itself, the free ones are issued at once."""
    outcomes = _decided(request(0), request(1), of=coupon(quantity=3, issued=1, held=1))

    assert _answers(outcomes) == [(0, RequestState.ISSUED, None), (1, RequestState.STANDBY, None)]
