"""The width of a report's bins, and from when to when a coupon was sold."""

from datetime import UTC, datetime, timedelta

import pytest

from service.domain.coupon_report import Period, RequestCounts, bin_seconds, find_sell_out
from service.domain.request import ReasonCode, RequestState
from service.domain.request_id import RequestIds, derived_prefix
from service.limits import MAX_ID, MAX_REPORT_POINTS
from service.timestamps import to_datetime
from tests.builders import AT_MS, TOPIC_ID, coupon, request

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def _seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


@pytest.mark.parametrize(
    ("seconds", "width"),
    [(0, 1), (0.001, 1), (998, 1), (998.001, 2), (1996, 2), (86_400, 120), (86_400 * 366, 43_200), (1e9, 2_592_000)],
)
def test_a_bin_is_as_narrow_as_the_number_of_points_allows(seconds: float, width: int) -> None:
    """The first and the last bin may have a part of the period only."""
    assert bin_seconds(Period(NOON, NOON + _seconds(seconds))) == width


def test_a_series_of_all_times_that_can_be_stored_is_bounded() -> None:
    everything = Period(to_datetime(0), datetime(9999, 1, 1, tzinfo=UTC))

    assert (everything.last - everything.first).total_seconds() / bin_seconds(everything) + 2 <= MAX_REPORT_POINTS


def _counts(issued: int, *, requested: bool = True) -> RequestCounts:
    """Return the counts of a coupon that was requested at noon, and issued from a second to five seconds later."""
    sent = Period(NOON, NOON + _seconds(5)) if requested else None
    issuings = Period(NOON + _seconds(1), NOON + _seconds(5)) if issued else None
    return RequestCounts(issued, 0, issued, {}, {}, 0, 0, sent, issuings, sent)


@pytest.mark.parametrize(
    ("opened_at", "since"),
    [(None, NOON), (NOON - _seconds(2), NOON - _seconds(2)), (NOON + _seconds(2), NOON), (NOON, NOON)],
    ids=["no opening", "opened before", "moved since", "opened then"],
)
def test_a_coupon_is_sold_from_its_opening_or_its_first_request(opened_at: datetime | None, since: datetime) -> None:
    """An opening after the first issuance was set later."""
    found = find_sell_out(coupon(quantity=10), opened_at, _counts(10))

    assert found == (since, NOON + _seconds(5), (NOON + _seconds(5) - since).total_seconds())


def test_a_coupon_with_seats_is_not_sold_out() -> None:
    """Also one whose quantity was raised after a sell-out."""
    assert find_sell_out(coupon(quantity=10), None, _counts(9)) is None
    assert find_sell_out(coupon(quantity=11), NOON, _counts(10)) is None
    assert find_sell_out(coupon(quantity=1), NOON, _counts(0)) is None


def test_without_an_opening_a_sale_to_foreign_requests_has_no_begin() -> None:
    """The time of a foreign request is what its producer wrote."""
    assert find_sell_out(coupon(quantity=1), None, _counts(1, requested=False)) is None


def test_a_sale_that_foreign_requests_ended_before_the_first_accepted_one_has_no_time() -> None:
    counts = _counts(10)
    assert counts.issuings is not None
    late = counts._replace(requested=Period(counts.issuings.last + _seconds(1), counts.issuings.last + _seconds(2)))
    assert find_sell_out(coupon(quantity=10), None, late) is None


@pytest.mark.parametrize("coupon_id", [1, 255, 2**40 + 7, MAX_ID])
def test_only_derived_ids_of_the_coupon_begin_with_its_prefix(coupon_id: int) -> None:
    """Whatever key signs them, user and time."""
    prefix = derived_prefix(coupon_id)
    for key in (b"a key", b"another key"):
        ids = RequestIds([key])
        for user in (1, MAX_ID):
            position = request(5).log_position
            assert ids.derive(TOPIC_ID, position, coupon_id, user, AT_MS).startswith(prefix)
            assert not ids.mint(coupon_id, user, AT_MS).startswith(prefix)
            assert not ids.derive(TOPIC_ID, position, coupon_id - 1 or 2, user, AT_MS).startswith(prefix)


def test_no_cell_of_an_export_is_a_formula() -> None:
    """Spreadsheets take a cell for one that begins with =, +, - or @: ids, states, codes, numbers and times do not."""
    ids = RequestIds([b"a key"])
    texts = [*RequestState, *ReasonCode, *(ids.mint(number, MAX_ID - number, AT_MS) for number in range(1, 1_000))]

    assert all(text[0].isalnum() for text in texts)
