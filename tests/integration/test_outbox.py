"""The outbox: a batch is claimed by one, stays together, and is claimed again when its lease ends."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine

from service.store import outbox
from service.store.outbox import OffsetRange, OutboxBatch, OutboxKind
from tests.integration.conftest import Query
from tests.waiting import eventually

AT = datetime(2026, 1, 1, tzinfo=UTC)
LONG, AT_ONCE, TINY = 60.0, 0.0, 0.05


@pytest.fixture
def put(store: Engine) -> Callable[..., None]:
    """Insert outbox entries of ten offsets each: `put(3)`, `put(2, OutboxKind.GATE)`."""

    def insert(count: int, kind: OutboxKind = OutboxKind.NOTIFY) -> None:
        with store.begin() as tx:
            outbox.insert(tx, 1, [kind], [OffsetRange(0, 10 * at, 10 * at + 9) for at in range(count)], AT)

    return insert


def _claim(
    store: Engine, lease: float = LONG, offsets: int = 30, kind: OutboxKind = OutboxKind.NOTIFY
) -> OutboxBatch | None:
    with store.begin() as tx:
        return outbox.claim_batch(tx, kind, lease, offsets)


def _ids(claim: OutboxBatch | None) -> list[int]:
    assert claim
    return [entry.id for entry in claim.entries]


def test_two_claimers_never_share_a_delivery(store: Engine, put: Callable[..., None]) -> None:
    """P4: concurrent claimers take all entries, each entry once, each delivery by one claimer."""
    put(40)

    def take() -> list[OutboxBatch]:
        claims = []
        while claim := _claim(store):
            claims.append(claim)
        return claims

    with ThreadPoolExecutor(4) as pool:
        taken = [claim for done in [pool.submit(take) for _ in range(4)] for claim in done.result()]

    assert sorted(entry_id for claim in taken for entry_id in _ids(claim)) == list(range(1, 41))
    assert len({claim.delivery_id for claim in taken}) == len(taken) == 14


def test_a_claim_takes_what_it_asked_for_in_order(store: Engine, put: Callable[..., None]) -> None:
    """As many records as fit one POST and no more, the oldest first, of one kind."""
    put(2, OutboxKind.GATE)
    put(5)

    claim = _claim(store, offsets=35)

    assert claim
    assert [(entry.range, entry.log_id, entry.decided_at, entry.attempts) for entry in claim.entries] == [
        (OffsetRange(0, first, first + 9), 1, AT, 1) for first in (0, 10, 20)
    ]


def test_one_entry_larger_than_a_claim_is_claimed_all_the_same(store: Engine) -> None:
    """P4: a batch of more records than a claim takes does not stay unclaimed."""
    with store.begin() as tx:
        outbox.insert(tx, 1, [OutboxKind.NOTIFY], [OffsetRange(0, 0, 9_999)], AT)

    assert len(_ids(_claim(store, offsets=1))) == 1


def test_a_failed_delivery_keeps_its_entries_and_its_id(store: Engine, put: Callable[..., None]) -> None:
    """The receiver recognises a repeat by its id, because a repeat has the same entries and no new ones."""
    put(3)
    first = _claim(store, offsets=30)
    assert first
    put(3)

    with store.begin() as tx:
        outbox.postpone_batch(tx, first, AT_ONCE, "away")
    second = _claim(store, offsets=1000)

    assert second
    assert second.delivery_id == first.delivery_id
    assert _ids(second) == _ids(first)
    assert [entry.attempts for entry in second.entries] == [2, 2, 2]


def test_a_postponed_delivery_waits_and_does_not_stop_the_others(store: Engine, put: Callable[..., None]) -> None:
    """A delivery that failed is due later; entries written since are claimed at once."""
    put(1)
    first = _claim(store)
    assert first
    with store.begin() as tx:
        outbox.postpone_batch(tx, first, LONG, "away")
    put(1)

    assert _ids(_claim(store)) == [2]
    assert _claim(store) is None


def test_an_expired_lease_allows_another_claim(store: Engine, put: Callable[..., None]) -> None:
    """P7: after a claimer was killed another one claims the same delivery."""
    put(2)
    first = _claim(store, lease=TINY)
    assert first

    second = eventually(lambda: _claim(store))

    assert second
    assert (second.delivery_id, _ids(second)) == (first.delivery_id, _ids(first))


def test_a_lease_excludes_others_and_a_finished_batch_is_deleted(
    store: Engine, put: Callable[..., None], query: Query
) -> None:
    """While one claimer has the lease no other does, and afterwards nothing is left."""
    put(2)
    claim = _claim(store)
    assert claim
    assert _claim(store) is None

    with store.begin() as tx:
        outbox.delete_batch(tx, claim)

    assert query("SELECT count(*) FROM outbox") == [(0,)]


def test_the_sweep_finds_kinds_that_wait_and_not_those_in_progress(store: Engine, put: Callable[..., None]) -> None:
    """P6: an entry whose message was lost is found once it has waited for the grace time."""
    put(1)
    put(1, OutboxKind.GATE)
    _claim(store, kind=OutboxKind.GATE)

    with store.begin() as tx:
        assert outbox.overdue_kinds(tx, grace_seconds=60) == []
    with store.begin() as tx:
        assert outbox.overdue_kinds(tx, grace_seconds=0) == [OutboxKind.NOTIFY]
