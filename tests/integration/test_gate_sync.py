"""The gate follows the database: seats that come back, coupons that are gone, appends nobody heard of."""

from collections.abc import Callable, Sequence

import pytest
from redis import Redis
from sqlalchemy import Engine

from service import resources
from service.domain.coupon import Coupon
from service.domain.errors import Unavailable
from service.domain.record import Record
from service.domain.request_id import RequestIds
from service.gate.gate_admin import GateAdmin
from service.stream.codec import RecordReader
from service.usecases.gate_sync import sync_decisions
from service.usecases.issue import Issuer
from service.usecases.recover import Recoverer
from tests.builders import raw, records
from tests.integration.conftest import Ask
from tests.waiting import eventually

MakeCoupon = Callable[..., Coupon]
LEASE = 60.0


def _names(line: Sequence[Record]) -> dict[int, str]:
    return {record.request.user_id: record.request.request_id for record in line if record.request}


def test_sold_out_keeps_its_seat_and_shuts_the_gate(
    issuer: Issuer,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    reader: RecordReader,
    ids: RequestIds,
    store: Engine,
    gate_admin: GateAdmin,
    redis: Redis,
    ask: Ask,
) -> None:
    """Step 2: who was issued or heard sold_out keeps the seat, and once all is issued the gate says so by itself."""
    coupon = make_coupon(quantity=2, waitlist=1)
    line = records(reader, ids, coupon.id, range(1, 4))
    gate_admin.fill(coupon, _names(line).items())
    issuer.issue(line, positions)

    assert sync_decisions(store, gate_admin, LEASE) == 1

    assert {user: gate_admin.seat_holder(coupon.id, user) for user in (1, 2, 3)} == _names(line)
    assert redis.hget(f"gate:{coupon.id}", "sold_out") == b"1"
    assert ask("SELECT count(*) FROM outbox WHERE kind = 'gate'") == [(0,)]
    assert sync_decisions(store, gate_admin, LEASE) == 0


def test_the_dead_give_their_seat_back(
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
    """Step 2: who got nothing through no fault of his own may ask again."""
    coupon = make_coupon(quantity=5)
    line = records(reader, ids, coupon.id, range(1, 3), faults={1: "22012 9"})
    gate_admin.fill(coupon, _names(line).items())
    held = issuer.issue(line, positions).held
    for attempts_made in (1, 2):
        recoverer.retry(log_id, held, attempts_made)

    while sync_decisions(store, gate_admin, LEASE):
        pass

    assert gate_admin.seat_holder(coupon.id, 1) is None
    assert gate_admin.seat_holder(coupon.id, 2) == _names(line)[2]


def test_a_duplicate_gives_back_its_own_seat_only(
    issuer: Issuer,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    reader: RecordReader,
    ids: RequestIds,
    store: Engine,
    gate_admin: GateAdmin,
) -> None:
    """Step 2: a second request that slipped in while Redis was empty is refused; the first one's seat stays."""
    coupon = make_coupon()
    first, second = (reader.decode(raw(ids, coupon.id, 7, offset)) for offset in (0, 1))
    assert first.request
    gate_admin.fill(coupon, [(7, first.request.request_id)])
    issuer.issue([first, second], positions)

    while sync_decisions(store, gate_admin, LEASE):
        pass

    assert gate_admin.seat_holder(coupon.id, 7) == first.request.request_id


def test_without_redis_the_word_waits(
    issuer: Issuer,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    reader: RecordReader,
    ids: RequestIds,
    store: Engine,
    gate_admin: GateAdmin,
    redis: Redis,
) -> None:
    """P6: a word that could not be told stays in its row and is told after the lease."""
    coupon = make_coupon(quantity=1)
    gate_admin.fill(coupon, [])
    issuer.issue(records(reader, ids, coupon.id, range(1, 2)), positions)

    away = Redis.from_url("redis://127.0.0.1:9/0", **resources._redis_options())

    with pytest.raises(Unavailable):
        sync_decisions(store, GateAdmin(away), lease_seconds=0.05)

    assert eventually(lambda: sync_decisions(store, gate_admin, LEASE)) == 1
    assert redis.hget(f"gate:{coupon.id}", "sold_out") == b"1"
