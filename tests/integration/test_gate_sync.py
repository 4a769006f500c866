"""The gate follows the decisions in the database: released seats and coupons that are sold out."""

from collections.abc import Callable, Sequence

import pytest
from redis import Redis
from sqlalchemy import Engine

from service.domain.coupon import Coupon
from service.domain.errors import Unavailable
from service.domain.record import Record
from service.domain.request_id import RequestIds
from service.gate.client import build_client
from service.gate.gate_admin import GateAdmin
from service.stream.codec import RecordReader
from service.usecases.gate_sync import sync_decisions
from service.usecases.issue import Issuer
from service.usecases.recover import Recoverer
from tests.builders import TOPIC_ID, raw, records
from tests.integration.conftest import Query
from tests.waiting import eventually

MakeCoupon = Callable[..., Coupon]
LEASE = 60.0


def _seats(batch: Sequence[Record]) -> dict[int, str]:
    return {record.request.user_id: record.request.request_id for record in batch if record.request}


def test_a_request_refused_as_sold_out_keeps_its_seat_and_closes_the_gate(
    issuer: Issuer,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    reader: RecordReader,
    ids: RequestIds,
    store: Engine,
    gate_admin: GateAdmin,
    redis: Redis,
    query: Query,
) -> None:
    """Issued and sold_out requests keep their seats; once all coupons are issued the gate refuses by itself."""
    coupon = make_coupon(quantity=2, waitlist=1)
    batch = records(reader, ids, coupon.id, range(1, 4))
    gate_admin.fill(coupon, _seats(batch).items())
    issuer.issue(batch, positions)

    assert sync_decisions(store, gate_admin, LEASE) == 1

    assert {user: gate_admin.seat_holder(coupon.id, user) for user in (1, 2, 3)} == _seats(batch)
    assert redis.hget(f"gate:{coupon.id}", "sold_out") == b"1"
    assert query("SELECT count(*) FROM outbox WHERE kind = 'gate'") == [(0,)]
    assert sync_decisions(store, gate_admin, LEASE) == 0


def test_a_dead_request_releases_its_seat(
    issuer: Issuer,
    recoverer: Recoverer,
    log_id: int,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    reader: RecordReader,
    ids: RequestIds,
    store: Engine,
    gate_admin: GateAdmin,
) -> None:
    """A user whose request is dead can request again."""
    coupon = make_coupon(quantity=5)
    batch = records(reader, ids, coupon.id, range(1, 3), faults={1: "22012 9"})
    gate_admin.fill(coupon, _seats(batch).items())
    held = issuer.issue(batch, positions).held
    for attempts_made in (1, 2):
        recoverer.retry(log_id, held, attempts_made)

    while sync_decisions(store, gate_admin, LEASE):
        pass

    assert gate_admin.seat_holder(coupon.id, 1) is None
    assert gate_admin.seat_holder(coupon.id, 2) == _seats(batch)[2]


def test_a_duplicate_releases_only_its_own_seat(
    issuer: Issuer,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    reader: RecordReader,
    ids: RequestIds,
    store: Engine,
    gate_admin: GateAdmin,
) -> None:
    """P5: a second request admitted while Redis was empty is refused as a duplicate; the first one keeps the seat."""
    coupon = make_coupon()
    first, second = (reader.decode(raw(ids, coupon.id, 7, offset), TOPIC_ID) for offset in (0, 1))
    assert first.request
    gate_admin.fill(coupon, [(7, first.request.request_id)])
    issuer.issue([first, second], positions)

    while sync_decisions(store, gate_admin, LEASE):
        pass

    assert gate_admin.seat_holder(coupon.id, 7) == first.request.request_id


def test_without_redis_the_batch_is_postponed(
    issuer: Issuer,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    reader: RecordReader,
    ids: RequestIds,
    store: Engine,
    gate_admin: GateAdmin,
    redis: Redis,
) -> None:
    """P6: what could not be published stays in the outbox and is published after the lease."""
    coupon = make_coupon(quantity=1)
    gate_admin.fill(coupon, [])
    issuer.issue(records(reader, ids, coupon.id, range(1, 2)), positions)

    away = build_client("redis://127.0.0.1:9/0")

    with pytest.raises(Unavailable):
        sync_decisions(store, GateAdmin(away), lease_seconds=0.05)

    assert eventually(lambda: sync_decisions(store, gate_admin, LEASE)) == 1
    assert redis.hget(f"gate:{coupon.id}", "sold_out") == b"1"
