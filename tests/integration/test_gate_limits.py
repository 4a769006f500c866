"""Rate limits at the gate: one charge per request, before any seat."""

import asyncio
import time

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from service.config import Settings
from service.domain.rate_limit import LimitScope, RateLimit, RateLimits
from service.gate.async_gate import Admissions, AsyncGate, SeatRequest
from service.gate.gate_admin import GateAdmin
from service.gate.keys import Verdict
from tests.builders import AT_MS, coupon
from tests.gate_client import GateClient, seat

#: long enough for a test that stops for a moment
_WINDOW_SECONDS = 1_000
#: the states of the window that contains AT_MS
_STATES = f"gate:limit:user:{AT_MS // (_WINDOW_SECONDS * 1000)}"
_TWO_PER_USER: RateLimits = {LimitScope.USER: RateLimit(2, _WINDOW_SECONDS)}


@pytest.fixture
def limited(settings: Settings, redis: Redis) -> GateClient:
    """A client of an emptied gate that admits two requests of a user at once."""
    redis.flushdb()
    return GateClient(settings.redis_url, _TWO_PER_USER)


def _verdicts(client: GateClient, *seats: SeatRequest) -> list[Verdict]:
    return [admission.verdict for admission in client.admit(*seats)]


def test_a_limited_request_takes_no_seat(limited: GateClient, gate_admin: GateAdmin, redis: Redis) -> None:
    """The third request of the user in a window is refused with the time until there is room; the next user is not."""
    for number in (1, 2, 3):
        gate_admin.fill(coupon(number), [])

    admissions = limited.admit(*(seat(7, f"of-{number}", number) for number in (1, 2, 3)), seat(8, "other", 3))

    assert [admission.verdict for admission in admissions] == [
        Verdict.ADMITTED,
        Verdict.ADMITTED,
        Verdict.RATE_LIMITED,
        Verdict.ADMITTED,
    ]
    assert admissions[2].detail == f"user {_WINDOW_SECONDS // 2 * 1_000_000}"
    assert redis.hgetall("gate:3:seats") == {b"8": b"other"}
    assert redis.zscore("gate:unacknowledged", "of-3") is None


def test_a_refusal_is_charged_too(limited: GateClient, gate_admin: GateAdmin) -> None:
    """Duplicates, sold-out and unknown coupons cost work as well, one by one and for all of a coupon."""
    gate_admin.fill(coupon(quantity=1, issued=1), [(7, "first")])
    unknown = seat(9, coupon_id=5)
    unknown.coupon_exists = False

    assert _verdicts(limited, seat(7), seat(7), seat(7)) == [*[Verdict.DUPLICATE] * 2, Verdict.RATE_LIMITED]
    assert _verdicts(limited, seat(8), seat(8), seat(8)) == [*[Verdict.SOLD_OUT] * 2, Verdict.RATE_LIMITED]
    assert _verdicts(limited, unknown, unknown, unknown) == [*[Verdict.UNKNOWN_COUPON] * 2, Verdict.RATE_LIMITED]


def test_a_request_that_waits_for_a_fill_is_charged_once(limited: GateClient, gate_admin: GateAdmin) -> None:
    """It is called again after the fill."""
    assert _verdicts(limited, *[seat(7)] * 5) == [Verdict.COLD] * 5
    gate_admin.fill(coupon(), [])

    assert _verdicts(limited, seat(7)) == [Verdict.ADMITTED]


def test_a_caller_whose_limit_has_no_room_causes_no_fill(limited: GateClient, gate_admin: GateAdmin) -> None:
    """Whatever coupons it requests; other callers of the same call cause one."""
    gate_admin.fill(coupon(quantity=1, issued=1), [])
    limited.admit(seat(7), seat(7))

    cold = [seat(7, coupon_id=2), seat(8, coupon_id=2), seat(7, coupon_id=2), seat(7, coupon_id=3)]
    assert _verdicts(limited, *cold) == [
        Verdict.RATE_LIMITED,
        Verdict.COLD,
        Verdict.RATE_LIMITED,
        Verdict.RATE_LIMITED,
    ]


def test_the_repeat_of_an_unacknowledged_request_is_free(limited: GateClient, gate_admin: GateAdmin) -> None:
    """Its user got no answer; the repeats after the acknowledgement are charged."""
    gate_admin.fill(coupon(), [])
    limited.admit(seat(7, "first"))

    assert _verdicts(limited, *[seat(7)] * 9) == [Verdict.UNACKNOWLEDGED] * 9
    limited.record_offset(seat(7, "first"), 3)
    assert _verdicts(limited, seat(7), seat(7)) == [Verdict.DUPLICATE, Verdict.RATE_LIMITED]


def test_the_limit_of_all_callers_is_shared(settings: Settings, redis: Redis, gate_admin: GateAdmin) -> None:
    """Requests of any user and coupon count, whichever process sends them."""
    for number in (1, 2):
        gate_admin.fill(coupon(number), [])
    limits = {LimitScope.ALL: RateLimit(3, _WINDOW_SECONDS)}
    first, second = (GateClient(settings.redis_url, limits) for _ in range(2))

    assert _verdicts(first, seat(1), seat(2, coupon_id=2)) == [Verdict.ADMITTED] * 2
    assert _verdicts(second, seat(3), seat(4)) == [Verdict.ADMITTED, Verdict.RATE_LIMITED]
    assert redis.hlen("gate:1:seats") == 2


def test_the_limit_is_refilled_with_time_and_its_states_end_with_their_window(
    limited: GateClient, gate_admin: GateAdmin, redis: Redis
) -> None:
    """By the server's clock, to the microsecond; the states of a window are kept until the end of the next one."""
    gate_admin.fill(coupon(quantity=1, issued=1), [])
    half_ms = _WINDOW_SECONDS * 500

    assert _verdicts(limited, *[seat(7)] * 3)[-1] is Verdict.RATE_LIMITED
    assert redis.hgetall(_STATES) == {b"7": b"%d" % ((AT_MS + _WINDOW_SECONDS * 1000) * 1000)}
    assert 0 < int(redis.pttl(_STATES)) <= 2 * _WINDOW_SECONDS * 1000
    assert _verdicts(limited, seat(7, now_ms=AT_MS + half_ms - 1)) == [Verdict.RATE_LIMITED]
    assert _verdicts(limited, *[seat(7, now_ms=AT_MS + half_ms)] * 2) == [Verdict.SOLD_OUT, Verdict.RATE_LIMITED]


@pytest.mark.parametrize("written", ["abc", "-1", "", "9" * 20, "1e300", "nan"])
def test_a_state_that_something_else_wrote_counts_as_none(
    limited: GateClient, gate_admin: GateAdmin, redis: Redis, written: str
) -> None:
    """It does not lock a user out."""
    gate_admin.fill(coupon(quantity=1, issued=1), [])
    redis.hset(_STATES, "7", written)

    assert _verdicts(limited, *[seat(7)] * 3) == [*[Verdict.SOLD_OUT] * 2, Verdict.RATE_LIMITED]


def test_a_key_of_another_type_is_replaced(limited: GateClient, gate_admin: GateAdmin, redis: Redis) -> None:
    """It fails no request."""
    gate_admin.fill(coupon(quantity=1, issued=1), [])
    redis.set(_STATES, "text")

    assert _verdicts(limited, *[seat(7)] * 3) == [*[Verdict.SOLD_OUT] * 2, Verdict.RATE_LIMITED]


def test_a_state_that_is_far_ahead_limits_for_two_windows_at_most(
    limited: GateClient, gate_admin: GateAdmin, redis: Redis
) -> None:
    """It counts as a used-up burst, and nobody reads it after the next window."""
    gate_admin.fill(coupon(quantity=1, issued=1), [])
    redis.hset(_STATES, "7", "9" * 16)

    assert _verdicts(limited, seat(7)) == [Verdict.RATE_LIMITED]
    later_ms = AT_MS + 2 * _WINDOW_SECONDS * 1000
    assert _verdicts(limited, *[seat(7, now_ms=later_ms)] * 3) == [*[Verdict.SOLD_OUT] * 2, Verdict.RATE_LIMITED]


def test_without_limits_nothing_is_written(gate_client: GateClient, gate_admin: GateAdmin, redis: Redis) -> None:
    """A limit that is off costs no command."""
    gate_admin.fill(coupon(), [])
    gate_client.admit(seat(7))

    assert list(redis.scan_iter("gate:limit:*")) == []


def _admit_now(url: str, request: SeatRequest, shift_ms: int = 0) -> Admissions:
    async def call() -> Admissions:
        async with AsyncRedis.from_url(url) as client:
            return await AsyncGate(client, shift_ms=lambda: shift_ms).admit([request])

    return asyncio.run(call())


@pytest.mark.parametrize(("shift_ms", "admitted"), [(0, False), (3_600_000, True)])
def test_windows_are_judged_by_the_servers_clock(
    settings: Settings, gate_admin: GateAdmin, shift_ms: int, *, admitted: bool
) -> None:
    """The API machines' clocks differ; only a test shifts the time for its process."""
    gate_admin.fill(coupon(opens_at_ms=int(time.time() * 1000) + 1_800_000), [])

    found = _admit_now(settings.redis_url, seat(7), shift_ms)

    assert (found.others == {}) is admitted
    assert abs(found.now_ms - shift_ms - time.time() * 1000) < 60_000
