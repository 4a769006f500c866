"""The sweep of unacknowledged requests: resolved, left alone, or their seats released, never too early."""

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
from service.usecases.key_register import KeyRegister
from service.usecases.lookup import CLOCK_SKEW_ALLOWANCE_MS
from tests.builders import AT_MS, PARTITIONS, TOPIC_ID, raw
from tests.gate_client import GateClient, seat

MakeCoupon = Callable[..., Coupon]
LEASE = 60.0


class Sweep(NamedTuple):
    """One coupon, the sweep at a given time, the issuer's watermark, and what is unacknowledged."""

    coupon: Coupon
    run: Callable[[int], int]
    advance_watermark: Callable[[int], None]
    unacknowledged: Callable[[], set[str]]


@pytest.fixture
def sweep(
    settings: Settings,
    store: Engine,
    log_id: int,
    ids: RequestIds,
    gate_admin: GateAdmin,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
) -> Sweep:
    """An open gate; the test sets the clocks of the sweep and of the issuer."""
    coupon = make_coupon()
    gate_admin.fill(coupon, [])
    partition = partition_of(coupon.id, PARTITIONS)

    def advance_watermark(at_ms: int) -> None:
        next_offset = positions[partition]
        with store.begin() as tx:
            checkpoints.advance(tx, log_id, [CheckpointAdvance(partition, next_offset, next_offset, at_ms)])

    return Sweep(
        coupon,
        lambda now_ms: release_expired_seats(settings, store, ids, KeyRegister(ids), gate_admin, now_ms),
        advance_watermark,
        lambda: set(gate_admin.unacknowledged(2**52, 100)),
    )


def _last_append_ms(settings: Settings, attempted_at_ms: int) -> int:
    return attempted_at_ms + settings.produce_timeout_ms + CLOCK_SKEW_ALLOWANCE_MS


def test_a_request_that_never_reached_the_log_releases_its_seat_once_the_watermark_has_passed(
    sweep: Sweep, gate_client: GateClient, ids: RequestIds, gate_admin: GateAdmin, settings: Settings
) -> None:
    """P4: only a request that cannot be in the log any more loses its seat, with an allowance for clock skew."""
    coupon = sweep.coupon.id
    request_id = ids.mint(coupon, 7, AT_MS)
    gate_client.admit(seat(7, request_id, coupon))

    sweep.advance_watermark(_last_append_ms(settings, AT_MS))
    early = sweep.run(AT_MS + 10**6), gate_admin.seat_holder(coupon, 7)
    sweep.advance_watermark(_last_append_ms(settings, AT_MS) + 1)
    late = sweep.run(AT_MS + 10**6), gate_admin.seat_holder(coupon, 7)

    assert early == (0, request_id)
    assert late == (1, None)
    assert sweep.unacknowledged() == set()


def test_a_request_that_may_still_be_acknowledged_is_left_alone(
    sweep: Sweep, gate_client: GateClient, ids: RequestIds, gate_admin: GateAdmin
) -> None:
    """P4: within the produce timeout the producer may still succeed."""
    coupon = sweep.coupon.id
    request_id = ids.mint(coupon, 7, AT_MS)
    gate_client.admit(seat(7, request_id, coupon))
    sweep.advance_watermark(2**42)

    assert sweep.run(AT_MS + 4_999) == 0
    assert gate_admin.seat_holder(coupon, 7) == request_id


def test_a_repeat_keeps_the_seat(
    sweep: Sweep, gate_client: GateClient, ids: RequestIds, gate_admin: GateAdmin, settings: Settings
) -> None:
    """P4: the last attempt counts, not the time of minting; a repeat may still be on its way."""
    coupon = sweep.coupon.id
    request_id = ids.mint(coupon, 7, AT_MS)
    gate_client.admit(seat(7, request_id, coupon))
    gate_client.admit(seat(7, "repeat", coupon, now_ms=AT_MS + 50_000))
    sweep.advance_watermark(_last_append_ms(settings, AT_MS) + 1)

    assert sweep.run(AT_MS + 10**6) == 0
    assert gate_admin.seat_holder(coupon, 7) == request_id


class InterruptedGateAdmin(GateAdmin):
    """A client in which a user repeats the request in the middle of the sweep."""

    def __init__(self, redis: Redis, repeat: Callable[[], object]) -> None:
        super().__init__(redis)
        self._repeat = repeat

    def resolve_unacknowledged(self, request_ids: Sequence[str]) -> None:
        self._repeat()
        super().resolve_unacknowledged(request_ids)


def test_a_repeat_in_the_middle_of_the_sweep_keeps_the_seat(
    sweep: Sweep,
    gate_client: GateClient,
    ids: RequestIds,
    redis: Redis,
    settings: Settings,
    store: Engine,
) -> None:
    """P4: a seat is released only if there was no attempt since the sweep read the requests."""
    coupon = sweep.coupon.id
    request_id = ids.mint(coupon, 7, AT_MS)
    gate_client.admit(seat(7, request_id, coupon))
    sweep.advance_watermark(_last_append_ms(settings, AT_MS) + 1)
    interrupted = InterruptedGateAdmin(
        redis, lambda: gate_client.admit(seat(7, "repeat", coupon, now_ms=AT_MS + 10**6))
    )

    assert release_expired_seats(settings, store, ids, KeyRegister(ids), interrupted, AT_MS + 10**6) == 0
    assert interrupted.seat_holder(coupon, 7) == request_id


def test_a_request_that_has_a_row_is_resolved_and_keeps_its_seat(
    sweep: Sweep,
    gate_client: GateClient,
    ids: RequestIds,
    gate_admin: GateAdmin,
    issuer: Issuer,
    positions: dict[int, int],
    reader: RecordReader,
) -> None:
    """P5: a lost acknowledgement does not cost the user an issued coupon."""
    coupon = sweep.coupon.id
    request_id = ids.mint(coupon, 7, AT_MS)
    gate_client.admit(seat(7, request_id, coupon))
    issuer.issue([reader.decode(raw(ids, coupon, 7, 0, request_id=request_id), TOPIC_ID)], positions)

    assert sweep.run(AT_MS + 10**6) == 0
    assert gate_admin.seat_holder(coupon, 7) == request_id
    assert sweep.unacknowledged() == set()


def test_an_id_that_cannot_be_decoded_is_resolved(sweep: Sweep, gate_client: GateClient) -> None:
    """An id whose key was removed cannot be decoded; it does not stay at the head of the sweep forever."""
    gate_client.admit(seat(7, "signed-with-a-key-that-is-gone", sweep.coupon.id))

    assert sweep.run(AT_MS + 10**6) == 0
    assert sweep.unacknowledged() == set()
