"""Records that are gone: the proof reports them, an operator records them as lost, their users are told."""

from collections.abc import Callable

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from sqlalchemy import Engine, text

from service.config import Settings
from service.domain.coupon import Coupon
from service.domain.errors import Conflict
from service.domain.request import ReasonCode, RequestState
from service.domain.request_id import RequestIds
from service.gate.gate_admin import GateAdmin
from service.stream.codec import RecordReader
from service.stream.partitioner import partition_of
from service.stream.topics import Topic
from service.usecases.issue import Issuer
from service.usecases.log_recovery import LogRecovery
from service.usecases.lookup import Lookup
from service.verification.history import ClientAnswer
from service.verification.verify import Verifier
from tests.builders import PARTITIONS, key_register
from tests.integration.conftest import Query
from tests.log import Log
from tests.lookups import find

MakeCoupon = Callable[..., Coupon]


@pytest.fixture
def recovery(
    settings: Settings, store: Engine, ids: RequestIds, reader: RecordReader, gate_admin: GateAdmin
) -> LogRecovery:
    """The actions under test."""
    return LogRecovery(settings, store, ids, reader, gate_admin)


@pytest.fixture
def delete_head(settings: Settings) -> Callable[[int], None]:
    """Delete the records of the first coupon's partition before an offset, as retention would."""
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})

    def delete(before: int) -> None:
        head = TopicPartition(Topic.ISSUE_COUPON, partition_of(1, PARTITIONS), before)
        assert admin.delete_records([head])[head].result(10).low_watermark == before

    return delete


def _violations(verifier: Verifier, history: list[ClientAnswer] | None = None) -> set[str]:
    """Return the numbers that must be zero and are not."""
    checks = verifier.verify(history)
    return {name for check in checks for name in check.must_be_zero if check.numbers[name]}


def _details(verifier: Verifier) -> str:
    return "\n".join(detail for check in verifier.verify() for detail in check.details)


def test_records_that_were_deleted_undecided_are_reported(
    verifier: Verifier, real_log: Log, make_coupon: MakeCoupon, delete_head: Callable[[int], None], store: Engine
) -> None:
    """P4: the proof fails and names the range, also after the offset was moved by hand."""
    partition = partition_of(make_coupon().id, PARTITIONS)
    real_log.append_request(1, 1)
    real_log.issue()
    undecided = real_log.positions[partition]
    for user in (2, 3, 4):
        real_log.append_request(1, user)
    delete_head(undecided + 2)

    assert _violations(verifier) == {"deleted"}
    assert f"partition {partition}: offsets {undecided} to {undecided + 1} were deleted" in _details(verifier)

    with store.begin() as tx:
        moved = "UPDATE offsets SET next_offset = :next WHERE partition = :partition"
        tx.execute(text(moved), {"next": undecided + 2, "partition": partition})
    assert _violations(verifier) == {"moved_by_hand"}
    assert f"partition {partition}: its next offset was moved by 2 by hand" in _details(verifier)

    real_log.positions[partition] = undecided + 2
    real_log.issue()
    assert _violations(verifier) == {"moved_by_hand"}


def test_skipped_records_are_recorded_and_their_users_are_told(
    verifier: Verifier,
    real_log: Log,
    make_coupon: MakeCoupon,
    delete_head: Callable[[int], None],
    recovery: LogRecovery,
    gate_admin: GateAdmin,
    lookup: Lookup,
    ids: RequestIds,
    query: Query,
) -> None:
    """P4, P5: a request with a seat becomes dead with a notice; any other id from before is answered so."""
    coupon = make_coupon(quantity=5)
    partition = partition_of(coupon.id, PARTITIONS)
    undecided = real_log.positions[partition]
    request_ids = {user: real_log.append_request(coupon.id, user) for user in (1, 2, 3)}
    gate_admin.fill(coupon, [(user, request_id) for user, request_id in request_ids.items() if user != 2])
    delete_head(undecided + 2)  # users 1 and 2 are lost; the gate names 1 and 3

    recovered = recovery.skip(partition, "tests", "retention")

    assert recovered.requests == 1
    assert query("SELECT user_id, state, code, attempts FROM requests") == [(1, "dead", "lost", 0)]
    assert query("SELECT kind, partition FROM outbox ORDER BY kind") == [("gate", partition), ("notify", partition)]
    assert query("SELECT first_offset, end_offset, reason, recorded_by FROM lost_ranges") == [
        (undecided, undecided + 2, "retention", "tests")
    ]
    found = {user: find(lookup, request_id) for user, request_id in request_ids.items()}
    states = {user: (status.state, status.code) for user, status in found.items() if status}
    assert states == {
        1: (RequestState.DEAD, ReasonCode.LOST),
        2: (RequestState.DEAD, ReasonCode.LOST),
        3: (RequestState.QUEUED, None),
    }
    real_log.positions[partition] = undecided + 2
    real_log.append_request(coupon.id, 1)  # user 1 asks again
    real_log.issue()
    assert query("SELECT user_id FROM requests WHERE state = 'issued' ORDER BY sequence") == [(3,), (1,)]
    history = [
        ClientAnswer(user, coupon.id, "accepted", request_id=request_id) for user, request_id in request_ids.items()
    ]
    assert _violations(verifier, history) == set()
    assert f"offsets {undecided} to {undecided + 1} were recorded as lost by tests: retention" in _details(verifier)
    with pytest.raises(Conflict):
        recovery.skip(partition, "tests", "again")
    assert find(lookup, ids.mint(coupon.id, 9, 2**45)) is not None  # minted after the loss: it may be on its way


def test_a_log_that_was_adopted_closes_the_earlier_one(
    verifier: Verifier,
    real_log: Log,
    make_coupon: MakeCoupon,
    recovery: LogRecovery,
    gate_admin: GateAdmin,
    store: Engine,
    admin: Engine,
    log_id: int,
    query: Query,
) -> None:
    """P3: an issuer of the closed log is fenced; its undecided requests are lost; the gate is emptied."""
    coupon = make_coupon(quantity=5)
    first = real_log.append_request(coupon.id, 1)
    real_log.issue()
    with admin.begin() as tx:
        tx.execute(text("UPDATE logs SET topic_id = 'the deleted topic'"))
    lost = RequestIds([b"x"]).mint(coupon.id, 7, 1)  # an id that no key verifies is not recorded
    kept = real_log.append_request(coupon.id, 2)
    gate_admin.fill(coupon, [(1, first), (2, kept), (3, real_log._ids.mint(coupon.id, 3, 1)), (7, lost)])
    assert _violations(verifier) == {"other_topic"}

    recovered = recovery.adopt("tests")

    assert recovered is not None
    assert recovered.requests == 1
    assert query("SELECT user_id, code FROM requests WHERE state = 'dead'") == [(3, "lost")]
    assert gate_admin.is_cold(coupon.id)
    assert query("SELECT count(*), count(closed_at) FROM logs") == [(2, 1)]
    stale = Issuer(store, log_id, key_register(), notices=False)
    with pytest.raises(Exception, match="were advanced by another issuer"):
        stale.issue(real_log.undecided(), real_log.positions)
    assert recovery.adopt("tests") is None


def test_the_rows_of_an_unclosed_log_prove_nothing(
    verifier: Verifier, real_log: Log, make_coupon: MakeCoupon, store: Engine, admin: Engine, query: Query
) -> None:
    """P3: records of a new topic that were decided at the old one's offsets are not redeliveries."""
    coupon = make_coupon(quantity=2)
    partition = partition_of(coupon.id, PARTITIONS)
    beginning = real_log.positions[partition]
    for user in (1, 2, 3, 4):
        real_log.append_request(coupon.id, user)
    real_log.positions[partition] = beginning + 2
    with store.begin() as tx:
        skipped = "UPDATE offsets SET next_offset = next_offset + 2, advanced_to = advanced_to + 2 WHERE partition = :p"
        tx.execute(text(skipped), {"p": partition})
    real_log.issue()  # users 3 and 4 are issued before 1 and 2
    with admin.begin() as tx:
        tx.execute(text("UPDATE logs SET topic_id = topic_id || ' before', closed_at = now()"))
        tx.execute(
            text(
                "INSERT INTO logs (topic, topic_id, adopted_by) SELECT topic, replace(topic_id, ' before', ''), 'hand'"
                " FROM logs"
            )
        )
        tx.execute(
            text("INSERT INTO offsets SELECT 2, partition, :at, :at, watermark FROM offsets WHERE partition = :p"),
            {"at": beginning, "p": partition},
        )
    real_log._issuer = Issuer(store, 2, key_register(), notices=False)
    real_log.positions = {partition: beginning}
    real_log.issue()
    assert query("SELECT user_id FROM requests WHERE code = 'sold_out' ORDER BY 1") == [(1,), (2,)]

    assert {"unclosed", "lost"} <= _violations(verifier)
