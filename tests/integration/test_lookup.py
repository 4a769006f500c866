"""The state of a request is found from its id and the database, with or without data in Redis."""

from collections.abc import Callable

import pytest
from redis import Redis
from sqlalchemy import Engine, event, text

from service.config import Settings
from service.domain.coupon import Coupon
from service.domain.errors import Cancelled, KeyMissing
from service.domain.request import LogPosition, ReasonCode, RequestState
from service.domain.request_id import RequestIds
from service.usecases.gate_fill import GateFiller
from service.usecases.key_register import KeyRegister
from service.usecases.lookup import CLOCK_SKEW_ALLOWANCE_MS, Found, Lookup, RequestStatus, Undetermined
from tests.builders import AT_MS, TOPIC_ID
from tests.cancellations import CancelledAt
from tests.gate_client import GateClient, seat
from tests.log import Log
from tests.lookups import determine, find

MakeCoupon = Callable[..., Coupon]


@pytest.fixture
def advance_watermark(store: Engine, settings: Settings) -> Callable[[int], None]:
    """Set the watermark so that every append tried until a time is decided."""

    def advance(tried_at_ms: int) -> None:
        last = (tried_at_ms + settings.produce_timeout_ms + CLOCK_SKEW_ALLOWANCE_MS + 1) / 1000
        with store.begin() as tx:
            tx.execute(text("UPDATE offsets SET watermark = to_timestamp(:last)"), {"last": last})

    return advance


def _state(lookup: Lookup, request_id: str) -> RequestState | None:
    status = find(lookup, request_id)
    return status and status.state


def test_each_state_is_reported(lookup: Lookup, real_log: Log, make_coupon: MakeCoupon) -> None:
    """A request is queued until it is decided, and then in the state that was decided."""
    coupon = make_coupon(quantity=2)
    names = [real_log.append_request(coupon.id, user, fault="22012 1" if user == 2 else None) for user in (1, 2, 3)]
    before = [_state(lookup, name) for name in names]

    real_log.issue()

    assert before == [RequestState.QUEUED] * 3
    assert [_state(lookup, name) for name in names] == [
        RequestState.ISSUED,
        RequestState.RETRYING,
        RequestState.STANDBY,
    ]
    status = find(lookup, names[0])
    assert status
    assert status[:7] == (names[0], coupon.id, 1, RequestState.ISSUED, None, 1, 1)
    assert status.requested_at_ms == AT_MS
    assert status.decided_at_ms


def test_a_refusal_has_its_reason(lookup: Lookup, real_log: Log, make_coupon: MakeCoupon) -> None:
    """P5: a refused request shows its reason, and a user's second request has a status of its own."""
    coupon = make_coupon(quantity=1)
    first, repeat, late = (
        real_log.append_request(coupon.id, 1),
        real_log.append_request(coupon.id, 1),
        real_log.append_request(coupon.id, 2),
    )
    real_log.issue()

    states = [(found.state, found.code) for name in (first, repeat, late) if (found := find(lookup, name))]

    assert states == [
        (RequestState.ISSUED, None),
        (RequestState.REFUSED, ReasonCode.DUPLICATE),
        (RequestState.REFUSED, ReasonCode.SOLD_OUT),
    ]


def test_a_forged_id_is_unknown(lookup: Lookup, make_coupon: MakeCoupon) -> None:
    """A forged id is recognized by its MAC, if this process has every key that signs."""
    forged = RequestIds([b"somebody else's key"]).mint(make_coupon().id, 7, AT_MS)

    assert find(lookup, forged) is None
    assert find(lookup, "nonsense") is None


def test_an_id_is_not_unknown_while_a_key_is_missing(lookup: Lookup, make_coupon: MakeCoupon, store: Engine) -> None:
    """P5: an API without the new key must not deny a request that another one accepted; it answers 503."""
    rotated = RequestIds([b"a key that came later"])
    with store.begin() as tx:
        KeyRegister(rotated).register(tx, announce=False)

    with pytest.raises(KeyMissing, match=rotated.fingerprints[0]):
        find(lookup, rotated.mint(make_coupon().id, 7, AT_MS))
    assert find(lookup, "nonsense") is None


@pytest.mark.usefixtures("real_log")
def test_a_receipt_is_never_unknown_while_it_may_be_in_the_log(
    lookup: Lookup, ids: RequestIds, make_coupon: MakeCoupon, redis: Redis
) -> None:
    """P4: until the watermark has passed it, an id of this service is queued, also while Redis is empty."""
    name = ids.mint(make_coupon().id, 7, AT_MS)
    redis.flushall()

    assert _state(lookup, name) is RequestState.QUEUED


@pytest.mark.usefixtures("real_log")
def test_a_request_that_certainly_is_not_in_the_log_is_unknown(
    lookup: Lookup, ids: RequestIds, make_coupon: MakeCoupon, advance_watermark: Callable[[int], None]
) -> None:
    """P4: a request is unknown only after the watermark has passed minting time and timeout, and without a seat."""
    coupon = make_coupon()
    name = ids.mint(coupon.id, 7, AT_MS)

    advance_watermark(AT_MS - 2)
    before = _state(lookup, name)
    advance_watermark(AT_MS)

    assert before is RequestState.QUEUED
    assert find(lookup, name) is None


def test_a_request_with_a_seat_is_never_unknown(
    lookup: Lookup,
    ids: RequestIds,
    make_coupon: MakeCoupon,
    real_log: Log,
    advance_watermark: Callable[[int], None],
    gate_client: GateClient,
    gate_filler: GateFiller,
    redis: Redis,
) -> None:
    """P4: a repeat is appended under its first id long after the minting; while it has its seat it is queued."""
    coupon = make_coupon()
    gate_filler.fill(coupon.id)
    name = ids.mint(coupon.id, 7, AT_MS)
    gate_client.admit(seat(7, name, coupon.id))
    advance_watermark(AT_MS + 10**6)
    kept = _state(lookup, name)

    redis.flushall()
    real_log.append(coupon.id, 7, name)
    refilled = _state(lookup, name)

    assert (kept, refilled) == (RequestState.QUEUED, RequestState.QUEUED)


def test_a_foreign_record_has_a_status_once_it_is_decided(
    lookup: Lookup, ids: RequestIds, make_coupon: MakeCoupon, real_log: Log
) -> None:
    """An id that is derived from a log position is given out only after its row exists."""
    coupon = make_coupon()
    log_position = real_log.append(coupon.id, 7, request_id=None)
    (record,) = real_log.undecided()
    assert record.request
    assert record.request.log_position == log_position

    before = find(lookup, record.request.request_id)
    real_log.issue()

    assert before is None
    assert _state(lookup, record.request.request_id) is RequestState.ISSUED
    assert find(lookup, ids.derive(TOPIC_ID, LogPosition(5, 2**40), coupon.id, 7, AT_MS)) is None


def test_many_are_found_as_each_by_itself(
    lookup: Lookup,
    real_log: Log,
    ids: RequestIds,
    make_coupon: MakeCoupon,
    exhaust_retries: Callable[[], None],
    statements: list[str],
) -> None:
    """Issued, refused, dead, held, on standby, queued, foreign, forged and unknown ones, by six statements."""
    coupon, other = make_coupon(quantity=2), make_coupon(quantity=1)
    names = [real_log.append_request(coupon.id, user, fault="22012 9" if user == 2 else None) for user in (1, 2, 1)]
    real_log.issue()
    exhaust_retries()
    names += [real_log.append_request(other.id, user, fault="22012 1" if user == 1 else None) for user in (1, 2)]
    real_log.append(coupon.id, 9, request_id=None)
    (foreign,) = [record.request for record in real_log.undecided() if record.request and record.request.user_id == 9]
    real_log.issue()
    names += [real_log.append_request(coupon.id, user) for user in (4, 5)]
    names += [foreign.request_id, ids.derive(TOPIC_ID, LogPosition(5, 2**40), coupon.id, 7, AT_MS)]
    names += [RequestIds([b"somebody else's key"]).mint(coupon.id, 7, AT_MS), "nonsense"]

    statements.clear()
    found = lookup.find_many([*names, *names]).found
    executed = len(statements)

    assert found == {name: lookup.find_many([name]).found[name] for name in names}
    assert [status and status.state for status in (find(lookup, name) for name in names)] == [
        RequestState.ISSUED, RequestState.DEAD, RequestState.REFUSED, RequestState.RETRYING, RequestState.STANDBY,
        RequestState.QUEUED, RequestState.QUEUED, RequestState.ISSUED, None, None, None,
    ]  # fmt: skip
    assert (
        executed <= 7
    )  # one begins the snapshot, and the last one reads the register of keys, because of the forged id


@pytest.mark.parametrize("has_seat", [False, True])
def test_a_request_that_is_decided_while_it_is_determined_has_its_state(
    lookup: Lookup,
    gate_filler: GateFiller,
    real_log: Log,
    ids: RequestIds,
    make_coupon: MakeCoupon,
    advance_watermark: Callable[[int], None],
    *,
    has_seat: bool,
) -> None:
    """P5: its row is looked for once more after the log, because a repeat may have been decided in between."""
    coupon = make_coupon()
    name = ids.mint(coupon.id, 7, AT_MS)
    advance_watermark(AT_MS)
    in_doubt = lookup.find_many([name]).found[name]
    assert isinstance(in_doubt, Undetermined)
    real_log.append(coupon.id, 7, name)
    real_log.issue()

    if has_seat:
        gate_filler.fill(coupon.id)
    (status,) = determine(lookup, [in_doubt])

    assert status
    assert status.state is RequestState.ISSUED


def test_a_second_request_of_a_user_is_queued_while_it_is_in_the_log(
    lookup: Lookup, real_log: Log, make_coupon: MakeCoupon, advance_watermark: Callable[[int], None]
) -> None:
    """P5: the database admits a user twice while Redis is away and the first request is not decided."""
    coupon_id = make_coupon().id
    names = [real_log.append_request(coupon_id, 7) for _ in range(2)]
    advance_watermark(AT_MS)

    assert [_state(lookup, name) for name in names] == [RequestState.QUEUED] * 2


def test_many_that_are_in_doubt_are_determined_together(
    lookup: Lookup,
    real_log: Log,
    ids: RequestIds,
    make_coupon: MakeCoupon,
    advance_watermark: Callable[[int], None],
    statements: list[str],
) -> None:
    """Of several partitions, with two statements; each as it would be by itself."""
    coupons = [make_coupon() for _ in range(4)]
    in_log = [real_log.append_request(coupon.id, 7) for coupon in coupons]
    not_in_log = [ids.mint(coupon.id, 8, AT_MS) for coupon in coupons]
    advance_watermark(AT_MS)
    found = lookup.find_many([*in_log, *not_in_log]).found.values()

    statements.clear()
    states = [status and status.state for status in determine(lookup, [_in_doubt(one) for one in found])]

    assert states == [RequestState.QUEUED] * 4 + [None] * 4
    assert len(statements) == 2


def test_a_cancelled_search_of_the_log_stops_at_its_next_record(
    lookup: Lookup,
    real_log: Log,
    ids: RequestIds,
    make_coupon: MakeCoupon,
    advance_watermark: Callable[[int], None],
) -> None:
    """The undecided tail may have millions of records, and a shutdown waits for the thread that reads them."""
    coupon_id = make_coupon().id
    for user in (1, 2, 3):
        real_log.append_request(coupon_id, user)
    unknown = ids.mint(coupon_id, 7, AT_MS)
    advance_watermark(AT_MS)
    in_doubt = _in_doubt(lookup.find_many([unknown]).found[unknown])
    cancellation = CancelledAt(2)

    with pytest.raises(Cancelled):
        lookup.determine_many([in_doubt], cancellation)

    assert cancellation.left == -1


def _in_doubt(found: Found) -> Undetermined:
    assert isinstance(found, Undetermined)
    return found


def test_a_queued_request_and_its_coupon_are_of_the_same_moment(
    lookup: Lookup, store: Engine, real_log: Log, make_coupon: MakeCoupon
) -> None:
    """A request that takes the last seat just then is not compared with the coupon that it has used up."""
    coupon = make_coupon(quantity=1)
    name = real_log.append_request(coupon.id, 7)
    (undecided,) = real_log.undecided()

    pending = [real_log.issue]

    def decide_first(_: object, __: object, statement: str, *___: object) -> None:
        if "FROM coupons" in statement and pending:
            pending.pop()()

    event.listen(store, "before_cursor_execute", decide_first)
    snapshot = lookup.find_many([name])
    found = snapshot.found[name]

    assert isinstance(found, RequestStatus)
    assert found.state is RequestState.QUEUED
    assert snapshot.coupons[coupon.id].issued == 0
    assert snapshot.checkpoints[found.partition].next_offset == undecided.raw.log_position.offset
    assert _state(lookup, name) is RequestState.ISSUED
