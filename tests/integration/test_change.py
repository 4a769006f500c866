"""Creating, reading and changing coupons: a change applies from a recorded offset and reaches the gate."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from service.domain.coupon import Coupon, CouponFilter, Override
from service.domain.errors import Conflict, NotFound
from service.domain.request_id import RequestIds
from service.gate.gate_admin import GateAdmin
from service.gate.keys import Verdict
from service.store import coupons
from service.stream.codec import RecordReader
from service.usecases.coupons import CouponService
from service.usecases.gate_fill import GateFiller
from service.usecases.gate_sync import sync_coupon_changes
from service.usecases.issue import Issuer
from service.verification.verify import Verifier
from tests.builders import records
from tests.gate_client import GateClient, seat
from tests.integration.conftest import Query, StartSale
from tests.log import Log
from tests.waiting import eventually

MakeCoupon = Callable[..., Coupon]
_ROWS = 'SELECT user_id, state, code FROM requests ORDER BY "offset"'


def test_a_higher_quantity_promotes_standby_requests_first(
    start_sale: StartSale,
    coupon_service: CouponService,
    query: Query,
) -> None:
    """P5: of two standby requests, the one with the lower offset gets the new seat, before any later record."""
    coupon, _ = start_sale(quantity=1, users=range(1, 4), faults={1: "22012 2"})

    changed = coupon_service.change(coupon.id, {"quantity": 2})

    assert (changed.quantity, changed.issued, changed.held, changed.standby, changed.version) == (2, 1, 1, 1, 1)
    assert query(_ROWS) == [(1, "retrying", None), (2, "issued", None), (3, "standby", None)]


def test_a_change_is_kept_if_standby_cannot_be_decided_now(
    start_sale: StartSale,
    coupon_service: CouponService,
    store: Engine,
    query: Query,
) -> None:
    """While the database is busy the change is committed and the sweep promotes later; the result shows both."""
    coupon, _ = start_sale(quantity=1, users=range(1, 3), faults={1: "22012 2"})

    with store.begin() as other:
        other.execute(text("SELECT FROM retries FOR UPDATE"))
        changed = coupon_service.change(coupon.id, {"quantity": 2})

    assert (changed.quantity, changed.issued, changed.standby) == (2, 0, 1)
    assert query("SELECT count(*) FROM coupon_changes WHERE version = 1") == [(1,)]


def test_a_change_applies_from_the_checkpoint(
    real_log: Log, make_coupon: MakeCoupon, coupon_service: CouponService, verifier: Verifier, query: Query
) -> None:
    """P3: a close refuses and a raise serves the records after the checkpoint, and verification accepts both."""
    coupon = make_coupon(quantity=2)
    for user in (1, 2, 3):
        real_log.append_request(coupon.id, user)
    real_log.issue()
    coupon_service.change(coupon.id, {"quantity": 3})
    for user in (4, 5):
        real_log.append_request(coupon.id, user)
    real_log.issue()
    real_log.append_request(coupon.id, 6)
    coupon_service.change(coupon.id, {"override": Override.CLOSED, "quantity": 9})
    real_log.issue()
    coupon_service.change(coupon.id, {"override": Override.NONE})
    real_log.append_request(coupon.id, 6)
    real_log.issue()

    assert query(_ROWS) == [
        (1, "issued", None),
        (2, "issued", None),
        (3, "refused", "sold_out"),
        (4, "issued", None),
        (5, "refused", "sold_out"),
        (6, "refused", "closed"),
        (6, "issued", None),
    ]
    offsets = [row[0] for row in query("SELECT first_offset FROM coupon_changes ORDER BY version")]
    first = min(row[0] for row in query('SELECT "offset" FROM requests'))
    assert offsets == [None, first + 3, first + 5, first + 6]
    assert [check for check in verifier.verify() if not check.ok] == []


def test_a_new_name_and_the_archive_change_no_decision(
    real_log: Log, make_coupon: MakeCoupon, coupon_service: CouponService, verifier: Verifier, query: Query
) -> None:
    """P3: they are versions like others, and the proof reads them."""
    coupon = make_coupon(quantity=2)
    for values in ({"name": "another"}, {"name": "a third"}, {"override": Override.CLOSED, "archived_at_ms": 1}):
        real_log.append_request(coupon.id, coupon_service.change(coupon.id, values).version)
        real_log.issue()

    assert query(_ROWS) == [(1, "issued", None), (2, "issued", None), (3, "refused", "closed")]
    assert [check for check in verifier.verify() if not check.ok] == []


def test_a_change_waits_for_the_issuer_and_reads_its_checkpoint(
    issuer: Issuer,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    reader: RecordReader,
    ids: RequestIds,
    coupon_service: CouponService,
    store: Engine,
    query: Query,
) -> None:
    """P3: the offset is read under the coupon's lock, so no decision falls between reading and writing it."""
    coupon = make_coupon(quantity=5)
    line = records(reader, ids, coupon.id, range(1, 4))

    with ThreadPoolExecutor(2) as pool, store.begin() as other:
        coupons.lock(other, [coupon.id])
        issuing = pool.submit(issuer.issue, line, positions)
        eventually(lambda: query("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
        changing = pool.submit(coupon_service.change, coupon.id, {"quantity": 9})
        eventually(lambda: query("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' OFFSET 1"))
        other.commit()
        issuing.result()
        changing.result()

    assert query("SELECT first_offset FROM coupon_changes WHERE version = 1") == [(3,)]


def test_a_contradictory_change_is_refused_and_changes_nothing(
    issuer: Issuer,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    reader: RecordReader,
    ids: RequestIds,
    coupon_service: CouponService,
    query: Query,
) -> None:
    """A quantity below issued plus held, a window that ends before it begins, and an unknown coupon are refused."""
    coupon = make_coupon(quantity=3, opens_at_ms=1_000)
    issuer.issue(records(reader, ids, coupon.id, range(1, 3), faults={1: "22012 2"}), positions)

    for values, code in (({"quantity": 1}, "quantity_below_live"), ({"closes_at_ms": 1_000}, "window")):
        with pytest.raises(Conflict) as caught:
            coupon_service.change(coupon.id, values)
        assert caught.value.code == code
    for call in (partial(coupon_service.change, 999, {"quantity": 5}), partial(coupon_service.get, 999)):
        with pytest.raises(NotFound) as missing:
            call()
        assert missing.value.code == "unknown_coupon"
    assert coupon_service.change(coupon.id, {"quantity": 3}).version == 0
    assert query("SELECT max(version) FROM coupon_changes") == [(0,)]
    assert coupon_service.change(coupon.id, {"quantity": 2}).remaining == 0


def test_the_gate_is_updated_at_once_or_by_the_sweep(
    make_coupon: MakeCoupon,
    coupon_service: CouponService,
    gate_admin: GateAdmin,
    store: Engine,
    gate_client: GateClient,
    redis: Redis,
    query: Query,
) -> None:
    """A pause refuses the next request; an update that arrives late or twice changes nothing."""
    coupon = make_coupon(quantity=5)
    gate_admin.fill(coupon, [])

    paused = coupon_service.change(coupon.id, {"override": Override.PAUSED})
    assert gate_client.admit(seat(1))[0].verdict is Verdict.PAUSED
    opened = coupon_service.change(coupon.id, {"override": Override.NONE})
    gate_admin.update_coupons([paused])

    assert gate_client.admit(seat(1))[0].verdict is Verdict.ADMITTED
    assert query("SELECT count(*) FROM coupon_changes WHERE published_at IS NULL") == [(0,)]
    query("UPDATE coupon_changes SET published_at = NULL WHERE version = 2 RETURNING 1")
    redis.hset(f"gate:{coupon.id}", mapping={"override": "closed", "version": "1"})
    assert sync_coupon_changes(store, gate_admin) == 1
    assert gate_client.admit(seat(2))[0].verdict is Verdict.ADMITTED
    assert opened.version == 2


def test_an_older_fill_does_not_open_the_gate(
    make_coupon: MakeCoupon, coupon_service: CouponService, gate_admin: GateAdmin
) -> None:
    """P6: a fill that read the coupon before it was paused must not admit requests afterwards."""
    before = make_coupon(quantity=5)
    after = coupon_service.change(before.id, {"override": Override.PAUSED})

    gate_admin.fill(before, [(1, "a")])
    assert gate_admin.is_cold(before.id)

    gate_admin.fill(after, [(1, "a")])
    assert not gate_admin.is_cold(before.id)


def test_after_a_higher_quantity_refused_users_are_admitted(
    real_log: Log,
    make_coupon: MakeCoupon,
    coupon_service: CouponService,
    gate_filler: GateFiller,
    gate_admin: GateAdmin,
    gate_client: GateClient,
) -> None:
    """P5: `sold_out` holds for its instant; with more seats the gate admits users who have none."""
    coupon = make_coupon(quantity=1, waitlist=1)
    names = [real_log.append_request(coupon.id, user) for user in (1, 2)]
    gate_admin.fill(coupon, [(1, names[0]), (2, names[1])])
    real_log.issue()
    assert gate_client.admit(seat(3))[0].verdict is Verdict.SOLD_OUT

    coupon_service.change(coupon.id, {"quantity": 2})
    gate_filler.fill(coupon.id)

    assert [gate_client.admit(seat(user))[0].verdict for user in (1, 2, 3, 4)] == [
        Verdict.DUPLICATE,
        Verdict.ADMITTED,
        Verdict.ADMITTED,
        Verdict.SOLD_OUT,
    ]


def test_a_new_coupon_is_in_the_gate_at_once(
    coupon_service: CouponService, gate_admin: GateAdmin, gate_client: GateClient
) -> None:
    """P6: the first request of a sale needs no fill; a coupon is stored as it was given and listed once."""
    created = [coupon_service.create(f"coupon {number}", number, 2, 1_000, None) for number in (1, 2, 3)]

    assert [(coupon.name, coupon.quantity, coupon.waitlist, coupon.opens_at_ms) for coupon in created] == [
        (f"coupon {number}", number, 2, 1_000) for number in (1, 2, 3)
    ]
    assert not any(gate_admin.is_cold(coupon.id) for coupon in created)
    assert gate_client.admit(seat(7, "a", created[0].id))[0].verdict is Verdict.ADMITTED
    assert coupon_service.list_page(CouponFilter(), created[0].id, 1) == [created[1]]
    assert list(coupon_service.iterate_ids()) == [coupon.id for coupon in created]
