"""The sweep of appends that nobody heard of: settled, left alone, or their seats freed; never too early."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest
from redis import Redis
from sqlalchemy import Engine

from service.config import Settings
from service.domain.coupon import Coupon
from service.domain.request_id import RequestIds
from service.gate.gate_admin import GateAdmin
from service.store import checkpoints
from service.store.checkpoints import CheckpointAdvance
from service.stream.codec import RecordReader
from service.stream.partitioner import partition_of
from service.usecases.gate_sync import release_expired_seats
from service.usecases.issue import Issuer
from service.usecases.lookup import CLOCK_SKEW_ALLOWANCE_MS
from tests.builders import AT_MS, PARTITIONS, raw
from tests.gate_client import GateClient, seat

MakeCoupon = Callable[..., Coupon]
LEASE = 60.0


class Appends(NamedTuple):
    """Users' appends that the broker was not heard of."""

    coupon: Coupon
    settle: Callable[[int], int]
    pass_until: Callable[[int], None]
    unsettled: Callable[[], set[str]]


@pytest.fixture
def appends(
    settings: Settings,
    store: Engine,
    log_id: int,
    ids: RequestIds,
    gate_admin: GateAdmin,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
) -> Appends:
    """A warm gate, and the sweep's and the issuer's clocks in the test's hand."""
    coupon = make_coupon()
    gate_admin.fill(coupon, [])
    partition = partition_of(coupon.id, PARTITIONS)

    def pass_until(at_ms: int) -> None:
        at = positions[partition]
        with store.begin() as tx:
            checkpoints.advance(tx, log_id, [CheckpointAdvance(partition, at, at, at_ms)])

    return Appends(
        coupon,
        lambda now_ms: release_expired_seats(settings, store, log_id, ids, gate_admin, now_ms),
        pass_until,
        lambda: set(gate_admin.unacknowledged(2**52, 100)),
    )


def _last_chance(settings: Settings, tried_at_ms: int) -> int:
    return tried_at_ms + settings.produce_timeout_ms + CLOCK_SKEW_ALLOWANCE_MS


def test_an_append_that_never_arrived_frees_its_seat_once_the_issuer_has_passed(
    appends: Appends, gate_client: GateClient, ids: RequestIds, gate_admin: GateAdmin, settings: Settings
) -> None:
    """Step 3: only what cannot be in the log any more is freed, with an allowance for clocks that differ."""
    coupon = appends.coupon.id
    name = ids.mint(coupon, 7, AT_MS)
    gate_client.admit(seat(7, name, coupon))

    appends.pass_until(_last_chance(settings, AT_MS))
    early = appends.settle(AT_MS + 10**6), gate_admin.seat_holder(coupon, 7)
    appends.pass_until(_last_chance(settings, AT_MS) + 1)
    freed = appends.settle(AT_MS + 10**6), gate_admin.seat_holder(coupon, 7)

    assert early == (0, name)
    assert freed == (1, None)
    assert appends.unsettled() == set()


def test_an_append_under_way_is_not_looked_at(
    appends: Appends, gate_client: GateClient, ids: RequestIds, gate_admin: GateAdmin
) -> None:
    """Step 3: as long as the producer itself may still succeed, the sweep keeps away."""
    coupon = appends.coupon.id
    name = ids.mint(coupon, 7, AT_MS)
    gate_client.admit(seat(7, name, coupon))
    appends.pass_until(2**42)

    assert appends.settle(AT_MS + 4_999) == 0
    assert gate_admin.seat_holder(coupon, 7) == name


def test_a_repeat_keeps_the_seat(
    appends: Appends, gate_client: GateClient, ids: RequestIds, gate_admin: GateAdmin, settings: Settings
) -> None:
    """Step 3: what counts is the last try, not the minting; a repeat may still be on its way."""
    coupon = appends.coupon.id
    name = ids.mint(coupon, 7, AT_MS)
    gate_client.admit(seat(7, name, coupon))
    gate_client.admit(seat(7, "repeat", coupon, now_ms=AT_MS + 50_000))
    appends.pass_until(_last_chance(settings, AT_MS) + 1)

    assert appends.settle(AT_MS + 10**6) == 0
    assert gate_admin.seat_holder(coupon, 7) == name


class Interrupted(GateAdmin):
    """The gate's upkeep, with a user who presses again in the middle of the sweep."""

    def __init__(self, redis: Redis, press: Callable[[], object]) -> None:
        super().__init__(redis)
        self._press = press

    def settle(self, request_ids: Sequence[str]) -> None:
        self._press()
        super().resolve_unacknowledged(request_ids)


def test_a_repeat_in_the_middle_of_the_sweep_keeps_the_seat(
    appends: Appends,
    gate_client: GateClient,
    ids: RequestIds,
    redis: Redis,
    settings: Settings,
    store: Engine,
    log_id: int,
) -> None:
    """Step 3: a seat is freed only if nobody has tried since the sweep looked, to the last moment."""
    coupon = appends.coupon.id
    name = ids.mint(coupon, 7, AT_MS)
    gate_client.admit(seat(7, name, coupon))
    appends.pass_until(_last_chance(settings, AT_MS) + 1)
    upkeep = Interrupted(redis, lambda: gate_client.admit(seat(7, "repeat", coupon, now_ms=AT_MS + 10**6)))

    assert release_expired_seats(settings, store, log_id, ids, upkeep, AT_MS + 10**6) == 0
    assert upkeep.seat_holder(coupon, 7) == name


def test_a_request_that_has_a_row_is_settled_and_keeps_its_seat(
    appends: Appends,
    gate_client: GateClient,
    ids: RequestIds,
    gate_admin: GateAdmin,
    issuer: Issuer,
    positions: dict[int, int],
    reader: RecordReader,
) -> None:
    """P5: an ack that was lost on its way does not cost the user what the issuer has given."""
    coupon = appends.coupon.id
    name = ids.mint(coupon, 7, AT_MS)
    gate_client.admit(seat(7, name, coupon))
    issuer.issue([reader.decode(raw(ids, coupon, 7, 0, request_id=name))], positions)

    assert appends.settle(AT_MS + 10**6) == 0
    assert gate_admin.seat_holder(coupon, 7) == name
    assert appends.unsettled() == set()


def test_an_id_that_nobody_can_read_any_more_is_let_go(appends: Appends, gate_client: GateClient) -> None:
    """Step 3: after its key has gone an id cannot be judged; it does not stand at the sweep's head for ever."""
    gate_client.admit(seat(7, "signed-with-a-key-that-is-gone", appends.coupon.id))

    assert appends.settle(AT_MS + 10**6) == 0
    assert appends.unsettled() == set()
