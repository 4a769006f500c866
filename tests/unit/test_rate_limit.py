"""The limiter of one process, which works while the gate does not answer."""

import pytest

from service.domain import rate_limit
from service.domain.rate_limit import Exceeded, LimitScope, LocalLimiter, RateLimit

_SECOND_US = 1_000_000
_FIVE_IN_TWO = RateLimit(5, 2)


class _Clock:
    """A clock that the test sets, in microseconds."""

    def __init__(self) -> None:
        self.now_us = 0

    def __call__(self) -> int:
        return self.now_us


def _charge(limiter: LocalLimiter, times: int, user_id: int = 1, address: str = "") -> list[Exceeded | None]:
    return [limiter.charge(user_id, address) for _ in range(times)]


def test_a_burst_is_admitted_and_then_the_rate() -> None:
    """Five at once; one more after each 400 ms; a request that is limited costs nothing."""
    clock = _Clock()
    limiter = LocalLimiter({LimitScope.USER: _FIVE_IN_TWO}, clock)

    assert _charge(limiter, 5) == [None] * 5
    assert _charge(limiter, 2) == [Exceeded(LimitScope.USER, _FIVE_IN_TWO, 400_000)] * 2
    clock.now_us += 399_999
    assert limiter.charge(1, "") == Exceeded(LimitScope.USER, _FIVE_IN_TWO, 1)
    clock.now_us += 1
    assert _charge(limiter, 2) == [None, Exceeded(LimitScope.USER, _FIVE_IN_TWO, 400_000)]
    clock.now_us += 2 * _SECOND_US
    assert _charge(limiter, 6)[:5] == [None] * 5


def test_a_limit_that_has_no_room_charges_no_other() -> None:
    """What the limit of all callers refuses is not taken from the user's own limit."""
    clock = _Clock()
    limiter = LocalLimiter({LimitScope.USER: _FIVE_IN_TWO, LimitScope.ALL: RateLimit(1, 1)}, clock)

    scopes = [None if found is None else found.scope for found in _charge(limiter, 9)]
    clock.now_us += _SECOND_US

    assert scopes == [None, *[LimitScope.ALL] * 8]
    assert limiter.charge(1, "") is None


def test_users_and_addresses_have_limits_of_their_own() -> None:
    """Another user from the same address is limited with it; without an address nobody is."""
    limiter = LocalLimiter({LimitScope.USER: RateLimit(1, 60), LimitScope.ADDRESS: RateLimit(2, 60)}, _Clock())

    found = [limiter.charge(user, address) for user, address in ((1, "a"), (1, "b"), (2, "a"), (3, "a"), (4, ""))]

    assert [exceeded and exceeded.scope for exceeded in found] == [
        None, LimitScope.USER, None, LimitScope.ADDRESS, None
    ]  # fmt: skip


def test_the_limiter_forgets_what_has_passed_and_never_grows_beyond_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger who sends a user id of its own with each request cannot fill the memory."""
    monkeypatch.setattr(rate_limit, "_MAX_STATES", 10)
    clock = _Clock()
    limiter = LocalLimiter({LimitScope.USER: _FIVE_IN_TWO}, clock)

    for user in range(1, 101):
        limiter.charge(user, "")
    assert len(limiter._arrivals) == 10
    clock.now_us += _SECOND_US
    limiter.charge(1, "")

    assert len(limiter._arrivals) == 1
