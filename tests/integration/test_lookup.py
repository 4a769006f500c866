"""Where a request stands: from the id itself and the database, with Redis empty or not."""

from collections.abc import Callable

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from service.config import Settings
from service.domain.coupon import Coupon
from service.domain.request import LogPosition, ReasonCode, RequestState
from service.domain.request_id import RequestIds
from service.gate.gate_admin import GateAdmin
from service.usecases.gate_fill import GateFiller
from service.usecases.lookup import CLOCK_SKEW_ALLOWANCE_MS, Lookup
from tests.builders import AT_MS
from tests.gate_client import GateClient, seat
from tests.log import Log

MakeCoupon = Callable[..., Coupon]


@pytest.fixture
def lookup(
    settings: Settings, store: Engine, log_id: int, ids: RequestIds, gate_filler: GateFiller, gate_admin: GateAdmin
) -> Lookup:
    """Reads standings."""
    return Lookup(settings, store, log_id, ids, gate_filler, gate_admin)


@pytest.fixture
def passed(store: Engine, settings: Settings) -> Callable[[int], None]:
    """Lets the issuer have decided all that was tried until a moment."""

    def pass_until(tried_at_ms: int) -> None:
        last = (tried_at_ms + settings.produce_timeout_ms + CLOCK_SKEW_ALLOWANCE_MS + 1) / 1000
        with store.begin() as tx:
            tx.execute(text("UPDATE offsets SET watermark = to_timestamp(:last)"), {"last": last})

    return pass_until


def _state(lookup: Lookup, request_id: str) -> RequestState | None:
    standing = lookup.find(request_id)
    return standing and standing.state


def test_each_state_is_told(lookup: Lookup, real_log: Log, make_coupon: MakeCoupon) -> None:
    """Section 4: queued until it is decided, then what was decided."""
    coupon = make_coupon(quantity=2)
    names = [real_log.ask(coupon.id, user, fault="22012 1" if user == 2 else None) for user in (1, 2, 3)]
    before = [_state(lookup, name) for name in names]

    real_log.issue()

    assert before == [RequestState.QUEUED] * 3
    assert [_state(lookup, name) for name in names] == [
        RequestState.ISSUED,
        RequestState.RETRYING,
        RequestState.STANDBY,
    ]
    standing = lookup.find(names[0])
    assert standing
    assert standing[:7] == (names[0], coupon.id, 1, RequestState.ISSUED, None, 1, 1)
    assert standing.requested_at_ms == AT_MS
    assert standing.decided_at_ms


def test_a_refusal_is_told_with_its_reason(lookup: Lookup, real_log: Log, make_coupon: MakeCoupon) -> None:
    """P5: who was refused reads why, and his second request has a page of its own."""
    coupon = make_coupon(quantity=1)
    first, again, late = real_log.ask(coupon.id, 1), real_log.ask(coupon.id, 1), real_log.ask(coupon.id, 2)
    real_log.issue()

    told = [(found.state, found.code) for name in (first, again, late) if (found := lookup.find(name))]

    assert told == [
        (RequestState.ISSUED, None),
        (RequestState.REFUSED, ReasonCode.DUPLICATE),
        (RequestState.REFUSED, ReasonCode.SOLD_OUT),
    ]


def test_what_is_not_ours_was_never_heard_of(lookup: Lookup, make_coupon: MakeCoupon) -> None:
    """Step 3: a forged id is told from an accepted one without a look at any store."""
    forged = RequestIds([b"somebody else's key"]).mint(make_coupon().id, 7, AT_MS)

    assert lookup.find(forged) is None
    assert lookup.find("nonsense") is None


@pytest.mark.usefixtures("real_log")
def test_a_receipt_is_never_unknown_while_it_may_be_in_the_log(
    lookup: Lookup, ids: RequestIds, make_coupon: MakeCoupon, redis: Redis
) -> None:
    """P4: as long as the issuer has not passed its last chance an id of ours is queued, with Redis empty too."""
    name = ids.mint(make_coupon().id, 7, AT_MS)
    redis.flushall()

    assert _state(lookup, name) is RequestState.QUEUED


@pytest.mark.usefixtures("real_log")
def test_what_certainly_never_arrived_is_unknown(
    lookup: Lookup, ids: RequestIds, make_coupon: MakeCoupon, passed: Callable[[int], None]
) -> None:
    """Step 3: once the issuer has passed minting time and timeout and no seat is kept, the look-up says so."""
    coupon = make_coupon()
    name = ids.mint(coupon.id, 7, AT_MS)

    passed(AT_MS - 2)
    before = _state(lookup, name)
    passed(AT_MS)

    assert before is RequestState.QUEUED
    assert lookup.find(name) is None


def test_what_has_a_seat_is_never_unknown(
    lookup: Lookup,
    ids: RequestIds,
    make_coupon: MakeCoupon,
    real_log: Log,
    passed: Callable[[int], None],
    gate_client: GateClient,
    gate_filler: GateFiller,
    redis: Redis,
) -> None:
    """P4: a repeat is appended under its first id long after the minting; while the seat is kept it is queued."""
    coupon = make_coupon()
    gate_filler.fill(coupon.id)
    name = ids.mint(coupon.id, 7, AT_MS)
    gate_client.admit(seat(7, name, coupon.id))
    passed(AT_MS + 10**6)
    kept = _state(lookup, name)

    redis.flushall()
    real_log.append(coupon.id, 7, name)
    refilled = _state(lookup, name)

    assert (kept, refilled) == (RequestState.QUEUED, RequestState.QUEUED)


def test_a_strangers_record_has_a_page_once_it_is_decided(
    lookup: Lookup, ids: RequestIds, make_coupon: MakeCoupon, real_log: Log
) -> None:
    """Step 3: an id that is derived from a place was never given out before its row was there."""
    coupon = make_coupon()
    place = real_log.append(coupon.id, 7, request_id=None)
    (record,) = real_log.undecided()
    assert record.request
    assert record.request.log_position == place

    before = lookup.find(record.request.request_id)
    real_log.issue()

    assert before is None
    assert _state(lookup, record.request.request_id) is RequestState.ISSUED
    assert lookup.find(ids.derive(LogPosition(5, 2**40), coupon.id, 7, AT_MS)) is None
