"""Deciding a poll: one transaction, in offset order, whatever else happens."""

from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from service.domain.coupon import Coupon
from service.domain.errors import Fenced
from service.domain.record import Record
from service.domain.request import ReasonCode, RequestState
from service.domain.request_id import RequestIds
from service.store.outbox import OutboxKind
from service.stream.codec import RecordReader
from service.stream.partitioner import partition_of
from service.usecases.issue import Issuer
from tests.builders import PARTITIONS, raw, records
from tests.integration.conftest import Ask

MakeCoupon = Callable[..., Coupon]
_ROWS = 'SELECT user_id, state, code, sequence FROM requests WHERE coupon_id = :id ORDER BY "offset"'
_TABLES = "requests", "outbox", "retries", "dead_letters"


@pytest.fixture
def line(reader: RecordReader, ids: RequestIds) -> Callable[..., list[Record]]:
    """Records of users, one after another: `line(coupon, range(1, 5), first=7, faults={2: "22012 1"})`."""
    return lambda coupon, users, **more: records(reader, ids, coupon.id, users, **more)


def _partition(coupon: Coupon) -> int:
    return partition_of(coupon.id, PARTITIONS)


def _written(ask: Ask) -> dict[str, int]:
    return {table: ask(f"SELECT count(*) FROM {table}")[0][0] for table in _TABLES}


def test_a_poll_is_issued_in_offset_order(
    issuer: Issuer, positions: dict[int, int], make_coupon: MakeCoupon, line: Callable[..., list[Record]], ask: Ask
) -> None:
    """P3: rows, sequences, counters, hand-offs and the offset are all there, and the sequence is the offset order."""
    coupon = make_coupon(quantity=3)
    partition = _partition(coupon)

    issued = issuer.issue(line(coupon, range(1, 6)), positions)

    assert ask(_ROWS, id=coupon.id) == [
        *[(user, "issued", None, user) for user in (1, 2, 3)],
        *[(user, "refused", "sold_out", None) for user in (4, 5)],
    ]
    assert ask("SELECT issued, held FROM coupons") == [(3, 0)]
    assert ask("SELECT next_offset FROM offsets WHERE partition = :p", p=partition) == [(5,)]
    assert ask("SELECT kind, partition, first_offset, last_offset FROM outbox ORDER BY kind") == [
        ("gate", partition, 0, 4),
        ("notify", partition, 0, 4),
    ]
    assert ask("SELECT DISTINCT decided_at FROM outbox") == ask("SELECT DISTINCT decided_at FROM requests")
    assert issued.next_offsets == {partition: 5}
    assert issued.outbox_kinds == {OutboxKind.NOTIFY, OutboxKind.GATE}
    assert issued.counts == {(RequestState.ISSUED, None): 3, (RequestState.REFUSED, ReasonCode.SOLD_OUT): 2}


def test_without_a_webhook_there_is_no_notice_to_hand_off(
    store: Engine,
    log_id: int,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    line: Callable[..., list[Record]],
    ask: Ask,
) -> None:
    """Step 8: no webhook URL, no work; and a gate that has nothing to learn is told nothing."""
    issued = Issuer(store, log_id, notices=False).issue(line(make_coupon(quantity=9), range(1, 4)), positions)

    assert issued.outbox_kinds == set()
    assert _written(ask)["outbox"] == 0


def test_a_redelivery_changes_nothing(
    issuer: Issuer,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    line: Callable[..., list[Record]],
    ids: RequestIds,
    reader: RecordReader,
    ask: Ask,
) -> None:
    """P2: a second record under a request id that was decided moves the offset and nothing else."""
    coupon = make_coupon(quantity=3)
    first = line(coupon, range(1, 5))
    moved = issuer.issue(first, positions).next_offsets
    before = ask(_ROWS, id=coupon.id), ask("SELECT issued, held FROM coupons")
    again = [
        reader.decode(raw(ids, coupon.id, number + 1, number + 4, request_id=record.request.request_id))
        for number, record in enumerate(first)
        if record.request
    ]

    issued = issuer.issue(again, moved)

    assert issued.counts == {}
    assert issued.next_offsets[_partition(coupon)] == 8
    assert (ask(_ROWS, id=coupon.id), ask("SELECT issued, held FROM coupons")) == before


def test_who_was_overtaken_writes_nothing(
    issuer: Issuer, positions: dict[int, int], make_coupon: MakeCoupon, line: Callable[..., list[Record]], ask: Ask
) -> None:
    """P7: an issuer that wakes up after another has moved one of its partitions is fenced off, whole poll and all."""
    coupons = [make_coupon() for _ in range(PARTITIONS)]
    mine, theirs = coupons[0], next(one for one in coupons if _partition(one) != _partition(coupons[0]))
    issuer.issue(line(theirs, range(1, 3)), positions)
    before = _written(ask), ask("SELECT partition, next_offset FROM offsets ORDER BY 1")

    with pytest.raises(Fenced) as fenced:
        issuer.issue([*line(mine, range(1, 3)), *line(theirs, range(3, 5))], positions)

    assert fenced.value.partitions == {_partition(theirs)}
    assert (_written(ask), ask("SELECT partition, next_offset FROM offsets ORDER BY 1")) == before


def test_an_unknown_coupon_is_refused(
    issuer: Issuer, positions: dict[int, int], reader: RecordReader, ids: RequestIds, ask: Ask
) -> None:
    """Step 5: a business answer, in the row and final, beside nothing else."""
    issuer.issue(records(reader, ids, 999, range(1, 2)), positions)

    assert ask(_ROWS, id=999) == [(1, "refused", "unknown_coupon", None)]


def test_requests_of_many_coupons_share_a_poll(
    issuer: Issuer, positions: dict[int, int], make_coupon: MakeCoupon, line: Callable[..., list[Record]], ask: Ask
) -> None:
    """P1, P3: in one poll over all partitions each coupon is counted and numbered for itself."""
    coupons = [make_coupon(quantity=number + 1) for number in range(12)]
    at = dict.fromkeys(range(PARTITIONS), 0)
    poll = []
    for coupon in coupons:
        poll += line(coupon, range(1, 9), first=at[_partition(coupon)])
        at[_partition(coupon)] += 8

    issued = issuer.issue(poll, positions)

    assert issued.next_offsets == at
    for coupon in coupons:
        sequences = [row.sequence for row in ask(_ROWS, id=coupon.id)]
        assert sequences == [*range(1, coupon.quantity + 1), *[None] * (8 - min(8, coupon.quantity))][:8]


def test_a_record_that_was_read_as_foreign_is_judged_by_its_append_time(
    issuer: Issuer, positions: dict[int, int], make_coupon: MakeCoupon, reader: RecordReader, ids: RequestIds, ask: Ask
) -> None:
    """Step 2: a stranger's record before the opening is refused in the row, ours at the same moment is issued."""
    coupon = make_coupon(opens_at_ms=2**42)
    ours = raw(ids, coupon.id, 1, 0)
    theirs = raw(ids, coupon.id, 2, 1)._replace(headers=())

    issuer.issue([reader.decode(ours), reader.decode(theirs)], positions)

    assert ask("SELECT state, code FROM requests ORDER BY user_id") == [("issued", None), ("refused", "not_open")]
