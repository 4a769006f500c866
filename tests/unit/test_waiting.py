"""What a waiting user can expect: the wait, the outlook, and when to ask again."""

import pytest

from service.domain.coupon import Override
from service.domain.drain_rate import RateRange
from service.domain.request import FINAL_STATES, RequestState
from service.domain.waiting import Outlook, SecondsRange, outlook_of, refresh_after_seconds, wait_of
from tests.builders import coupon

QUEUED = RequestState.QUEUED


def test_a_wait_is_a_range_or_unknown() -> None:
    """The fastest rate gives the shortest wait; without a position or a rate there is no number."""
    assert wait_of(1_000, RateRange(90, 110)) == SecondsRange(9, 12)
    assert wait_of(0, RateRange(5, 5)) == SecondsRange(0, 1)
    assert wait_of(None, RateRange(5, 5)) is None
    assert wait_of(7, None) is None


@pytest.mark.parametrize(
    ("position", "issued", "held", "standby", "expected"),
    [
        (9, 0, 0, 0, Outlook.LIKELY),  # nine ahead take nine of ten
        (10, 0, 0, 0, None),  # of the ten ahead, some may be of other coupons
        (5, 5, 0, 0, None),
        (4, 5, 0, 0, Outlook.LIKELY),
        (4, 4, 1, 0, Outlook.LIKELY),
        (4, 4, 1, 1, None),  # the free seats go to standby first
        (None, 9, 0, 0, None),
        (None, 10, 0, 0, Outlook.UNLIKELY),
        (0, 9, 1, 0, Outlook.UNLIKELY),  # a held seat may be given up, but does not have to
        (0, 5, 0, 5, Outlook.UNLIKELY),
    ],
)
def test_the_outlook_of_a_queued_request(
    position: int | None, issued: int, held: int, standby: int, expected: Outlook | None
) -> None:
    """Likely if fewer are ahead than remain, unlikely if nothing remains, and otherwise unknown."""
    sold = coupon(quantity=10, issued=issued, held=held, standby=standby)

    assert outlook_of(QUEUED, position, sold) is expected


def test_the_outlook_of_other_states() -> None:
    """A held request has a seat, one on standby has none, and a final state has no outlook."""
    sold = coupon(quantity=10)

    assert outlook_of(RequestState.RETRYING, None, sold) is Outlook.LIKELY
    assert outlook_of(RequestState.STANDBY, None, sold) is Outlook.UNLIKELY
    assert {outlook_of(state, 0, sold) for state in FINAL_STATES} == {None}
    assert outlook_of(QUEUED, 0, sold._replace(override=Override.CLOSED)) is Outlook.UNLIKELY
    assert outlook_of(QUEUED, 0, sold._replace(override=Override.PAUSED)) is Outlook.LIKELY
    assert outlook_of(QUEUED, 0, None) is None


def test_the_interval_grows_with_the_wait() -> None:
    """From one second to thirty, by what is expected or, without an expectation, by what was waited."""
    by_age = [refresh_after_seconds(QUEUED, waited, None, 0.5) or 0 for waited in (0, 3, 10, 20, 40, 10**6)]
    by_eta = [refresh_after_seconds(QUEUED, 0, SecondsRange(eta, 10**6), 0.5) or 0 for eta in (0, 10, 20, 40, 10**6)]

    for intervals in (by_age, by_eta):
        assert intervals == sorted(intervals)
        assert (intervals[0], intervals[-1]) == (2, 25)
    assert refresh_after_seconds(QUEUED, -5, None, 0.0) == 1
    assert {refresh_after_seconds(state, 60, None, 0.5) for state in FINAL_STATES} == {None}


@pytest.mark.parametrize("waited", [0, 10, 10**6])
def test_clients_that_wait_together_are_spread(waited: int) -> None:
    """The same wait gives different intervals, each from 1 to 30."""
    intervals = {refresh_after_seconds(QUEUED, waited, None, number / 100) for number in range(100)}

    assert len(intervals) > 1
    assert intervals <= set(range(1, 31))
