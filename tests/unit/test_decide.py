"""Deciding a batch: which requests are issued, which wait for a held seat, which are refused and why."""

import pytest

from service.domain.coupon import Coupon, Override
from service.domain.decide import Outcome, PriorRequests, decide
from service.domain.request import ReasonCode, Request, RequestState
from tests.builders import AT_MS, coupon, request


def _decided(
    *requests: Request, of: Coupon, prior: dict[tuple[int, int], PriorRequests] | None = None
) -> list[Outcome]:
    """Decide the requests of one coupon."""
    return decide(requests, {of.id: of}, {} if prior is None else prior)


def _results(outcomes: list[Outcome]) -> list[tuple[int, RequestState, ReasonCode | None]]:
    """Return offset, state and code of each outcome."""
    return [(outcome.request.log_position.offset, outcome.state, outcome.code) for outcome in outcomes]


def test_requests_are_issued_in_offset_order_until_sold_out() -> None:
    """P3: as many requests as the quantity are issued in offset order, and the next one is refused sold_out."""
    requests = [request(offset) for offset in range(4)]

    outcomes = _decided(*requests, of=coupon(quantity=3))

    assert [(outcome.state, outcome.sequence) for outcome in outcomes] == [
        (RequestState.ISSUED, 1),
        (RequestState.ISSUED, 2),
        (RequestState.ISSUED, 3),
        (RequestState.REFUSED, None),
    ]
    assert outcomes[3].code is ReasonCode.SOLD_OUT


def test_sequences_continue_after_those_already_issued() -> None:
    """P3: a batch's sequences follow the earlier ones without a gap, whatever is refused in between."""
    requests = [request(0, user_id=1), request(1, user_id=1), request(2, user_id=2)]

    outcomes = _decided(*requests, of=coupon(quantity=9, issued=4))

    assert [outcome.sequence for outcome in outcomes] == [5, None, 6]


def test_coupons_of_one_batch_do_not_affect_each_other() -> None:
    """P1, P3: each coupon of a batch has its own quantity and sequences."""
    coupons = {1: coupon(1, quantity=1), 2: coupon(2, quantity=1)}
    requests = [request(offset, user_id=offset + 1, coupon_id=offset % 2 + 1) for offset in range(4)]

    outcomes = decide(requests, coupons, {})

    assert [(outcome.state, outcome.sequence) for outcome in outcomes[:2]] == [(RequestState.ISSUED, 1)] * 2
    assert [outcome.code for outcome in outcomes[2:]] == [ReasonCode.SOLD_OUT] * 2


def test_a_user_has_one_live_request_within_a_batch() -> None:
    """P2: a user's second request for the same coupon is a duplicate, within a batch too."""
    outcomes = _decided(request(0, user_id=7), request(1, user_id=7), of=coupon())

    assert _results(outcomes) == [(0, RequestState.ISSUED, None), (1, RequestState.REFUSED, ReasonCode.DUPLICATE)]


def test_a_user_has_one_live_request_across_batches() -> None:
    """P2: a user with a live request in the database is refused as a duplicate, even if the coupon is sold out."""
    prior = {(1, 7): PriorRequests({"earlier"}, live=True)}

    outcomes = _decided(request(5, user_id=7), of=coupon(quantity=1, issued=1), prior=prior)

    assert _results(outcomes) == [(5, RequestState.REFUSED, ReasonCode.DUPLICATE)]


def test_a_user_whose_request_was_refused_may_request_again() -> None:
    """P2: an earlier request that ended without a coupon does not make the next one a duplicate."""
    prior = {(1, 7): PriorRequests({"earlier"}, live=False)}

    outcomes = _decided(request(5, user_id=7), of=coupon(), prior=prior)

    assert _results(outcomes) == [(5, RequestState.ISSUED, None)]


@pytest.mark.parametrize("live", [True, False])
def test_a_request_id_that_has_a_row_is_a_redelivery(live: bool) -> None:
    """P2: a redelivery changes nothing and has no outcome."""
    prior = {(1, 7): PriorRequests({"the-same"}, live=live)}

    assert _decided(request(9, user_id=7, request_id="the-same"), of=coupon(), prior=prior) == []


def test_a_record_twice_in_a_batch_counts_once() -> None:
    """P2: a request id at two offsets of one batch is decided at the first and ignored at the second."""
    twice = [request(0, user_id=7, request_id="a"), request(3, user_id=7, request_id="a")]

    assert _results(_decided(*twice, of=coupon())) == [(0, RequestState.ISSUED, None)]


def test_a_request_for_an_unknown_coupon_is_refused() -> None:
    """An unknown coupon is a business answer and is never retried."""
    outcomes = decide([request(0, coupon_id=99)], {}, {})

    assert _results(outcomes) == [(0, RequestState.REFUSED, ReasonCode.UNKNOWN_COUPON)]


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
def test_a_foreign_record_is_checked_against_the_window_by_its_append_time(
    window: dict[str, int], code: ReasonCode | None
) -> None:
    """A foreign record did not pass the gate, so the broker's append time must be within the coupon's window."""
    foreign = request(0, accepted=False)._replace(requested_at_ms=0)

    outcomes = _decided(foreign, of=coupon(**window))  # type: ignore[arg-type]

    assert outcomes[0].code is code
    assert outcomes[0].state is (RequestState.REFUSED if code else RequestState.ISSUED)


@pytest.mark.parametrize(
    "window",
    [{"opens_at_ms": AT_MS + 1}, {"closes_at_ms": AT_MS}, {"override": Override.PAUSED}],
)
def test_an_accepted_request_is_issued_outside_the_window_too(window: dict[str, int]) -> None:
    """P5: window and pause are checked once, at the gate; a 202 stays valid when they change."""
    outcomes = _decided(request(0, accepted=True), of=coupon(**window))  # type: ignore[arg-type]

    assert _results(outcomes) == [(0, RequestState.ISSUED, None)]


def test_a_request_behind_a_held_last_seat_is_on_standby() -> None:
    """P5: while a failed request holds the last seat, the next eligible one is on standby and not refused sold_out."""
    outcomes = _decided(request(0), request(1, user_id=1), of=coupon(quantity=3, issued=2, held=1))

    assert _results(outcomes) == [(0, RequestState.STANDBY, None), (1, RequestState.REFUSED, ReasonCode.DUPLICATE)]


def test_a_free_seat_is_issued_while_another_is_held() -> None:
    """P3: a held seat blocks only itself; free seats are issued at once."""
    outcomes = _decided(request(0), request(1), of=coupon(quantity=3, issued=1, held=1))

    assert _results(outcomes) == [(0, RequestState.ISSUED, None), (1, RequestState.STANDBY, None)]


@pytest.mark.parametrize("override", list(Override))
def test_foreign_requests_can_be_refused(override: Override) -> None:
    """No caller of a foreign record was authenticated: it takes no seat, whatever the coupon's window is."""
    foreign, own = request(0, accepted=False), request(1)

    outcomes = decide([foreign, own], {1: coupon(quantity=1, override=override)}, {}, refuse_foreign=True)

    assert (outcomes[0].state, outcomes[0].code) == (RequestState.REFUSED, ReasonCode.FOREIGN)
    assert outcomes[1].code is not ReasonCode.FOREIGN
    assert (outcomes[1].state is RequestState.ISSUED) == (override is not Override.CLOSED)


def test_a_foreign_request_that_was_refused_does_not_exclude_its_user() -> None:
    """P2: the user's own request for the coupon is issued afterwards."""
    refused, own = request(0, user_id=7, accepted=False), request(1, user_id=7)

    outcomes = decide([refused, own], {1: coupon()}, {}, refuse_foreign=True)

    assert [outcome.state for outcome in outcomes] == [RequestState.REFUSED, RequestState.ISSUED]
