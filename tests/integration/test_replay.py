"""Replays decide dead requests again under their old offset; every action is in the audit trail."""

from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from service.config import Settings
from service.domain.coupon import Coupon, Override
from service.domain.dead_letter import DeadLetterCode, DeadLetterFilter, DeadLetterState
from service.domain.errors import Conflict, NotFound
from service.domain.request import LogPosition, ReasonCode, RequestState
from service.domain.request_id import RequestIds
from service.store import dead_letter_actions, dead_letters
from service.stream.codec import RecordReader
from service.usecases.coupons import CouponService
from service.usecases.dead_letter_topic import store_received
from service.usecases.issue import Issuer
from service.usecases.recover import Recoverer
from service.usecases.replay import DeadLetterService
from service.verification.verify import Verifier
from tests.builders import TOPIC_ID, key_register, records
from tests.integration.conftest import Query, StartSale
from tests.log import Log

MakeCoupon = Callable[..., Coupon]
MakeDead = Callable[..., Coupon]
_ROWS = 'SELECT user_id, state, code, sequence, attempts FROM requests ORDER BY "offset"'
_ACTIONS = "SELECT dead_letter_id, action, acted_by, state, code FROM dead_letter_actions ORDER BY id"


@pytest.fixture
def make_dead(start_sale: StartSale, exhaust_retries: Callable[[], None]) -> MakeDead:
    """Create a coupon, decide its first requests and retry those that fail until they are dead."""

    def issue(quantity: int, users: range, faults: dict[int, str]) -> Coupon:
        sale = start_sale(quantity, users, faults)
        exhaust_retries()
        return sale.coupon

    return issue


def test_a_replay_decides_once_and_announces_the_result(
    make_dead: MakeDead, dead_letter_service: DeadLetterService, query: Query
) -> None:
    """A seat is free, so the dead request is issued; a second replay returns the result of the first."""
    make_dead(quantity=3, users=range(1, 3), faults={1: "22012 3"})
    before = query("SELECT count(*) FROM outbox WHERE kind = 'notify'")[0][0]

    first, second = dead_letter_service.replay(1), dead_letter_service.replay(1)

    assert (first.state, first.code) == (RequestState.ISSUED, None)
    assert second == first
    assert query(_ROWS) == [(1, "issued", None, 2, 4), (2, "issued", None, 1, 1)]
    assert query(_ACTIONS) == [(1, "replayed", "tests", "issued", None)]
    assert query("SELECT state FROM dead_letters") == [("replayed",)]
    assert query("SELECT count(*) FROM outbox WHERE kind = 'notify'") == [(before + 1,)]


def test_a_replay_checks_eligibility_again(
    make_dead: MakeDead, coupon_service: CouponService, dead_letter_service: DeadLetterService, query: Query
) -> None:
    """Meanwhile the coupon is sold out, or the operator closed it."""
    coupon = make_dead(quantity=1, users=range(1, 3), faults={1: "22012 3"})
    assert dead_letter_service.replay(1) == (
        1,
        query("SELECT request_id FROM requests WHERE user_id = 1")[0][0],
        *_refused("sold_out"),
    )
    assert query(_ROWS)[0] == (1, "refused", "sold_out", None, 4)

    coupon_service.change(coupon.id, {"override": Override.CLOSED})
    query("UPDATE dead_letters SET state = 'new' RETURNING 1")
    assert dead_letter_service.replay(1)[2:4] == _refused("closed")[:2]


def _refused(code: str) -> tuple[RequestState, ReasonCode, None]:
    return RequestState.REFUSED, ReasonCode(code), None


def test_a_replayed_request_is_on_standby_under_its_old_offset(
    make_dead: MakeDead,
    issuer: Issuer,
    recoverer: Recoverer,
    dead_letter_service: DeadLetterService,
    log_id: int,
    reader: RecordReader,
    ids: RequestIds,
    query: Query,
) -> None:
    """P3: its offset is lower than that of another standby request, so it receives the next free seat."""
    coupon = make_dead(quantity=1, users=range(1, 2), faults={1: "22012 3"})
    (position,) = query("SELECT partition, next_offset FROM offsets WHERE next_offset > 0")
    batch = records(reader, ids, coupon.id, range(2, 4), first=1, faults={2: "22012 9"})
    issuer.issue(batch, {position.partition: position.next_offset})
    assert [row.state for row in query(_ROWS)] == ["dead", "retrying", "standby"]

    assert dead_letter_service.replay(1).state is RequestState.STANDBY
    for attempts_made in (1, 2):
        recoverer.retry(log_id, [LogPosition(position.partition, 1)], attempts_made)

    assert [(row.user_id, row.state, row.sequence) for row in query(_ROWS)] == [
        (1, "issued", 1),
        (2, "dead", None),
        (3, "refused", None),
    ]


def test_a_replay_that_fails_is_retried_and_may_be_dead_again(
    make_dead: MakeDead, dead_letter_service: DeadLetterService, exhaust_retries: Callable[[], None], query: Query
) -> None:
    """Its seat is held; dead again, the same dead letter is new again, with its first error and all attempts."""
    make_dead(quantity=3, users=range(1, 2), faults={1: "22012 9"})
    first_error = query("SELECT first_error FROM dead_letters")
    query("UPDATE dead_letters SET forwarded_at = now(), dlt_partition = 0, dlt_offset = 7 RETURNING 1")

    assert dead_letter_service.replay(1).state is RequestState.RETRYING
    assert query("SELECT held FROM coupons") == [(1,)]
    exhaust_retries()

    assert query(_ROWS) == [(1, "dead", "exhausted", None, 6)]
    assert query("SELECT id, state, attempts, forwarded_at, dlt_offset FROM dead_letters") == [
        (1, "new", 6, None, None)
    ]
    assert query("SELECT first_error FROM dead_letters") == first_error
    assert dead_letter_service.replay(1).state is RequestState.RETRYING
    assert [row.action for row in query(_ACTIONS)] == ["replayed", "replayed"]


def test_replay_many_decides_in_offset_order_and_a_dry_run_changes_nothing(
    make_dead: MakeDead, coupon_service: CouponService, dead_letter_service: DeadLetterService, query: Query
) -> None:
    """P3: three are dead, two seats are free; the dry run returns what the replay does."""
    coupon = make_dead(quantity=3, users=range(1, 5), faults=dict.fromkeys((1, 2, 3), "22012 3"))
    coupon_service.change(coupon.id, {"quantity": 3})
    filters = DeadLetterFilter(coupon_id=coupon.id, code=DeadLetterCode.EXHAUSTED)
    before = query(_ROWS)

    previewed = dead_letter_service.replay_many(filters, 100, dry_run=True)
    assert (query(_ROWS), query(_ACTIONS)) == (before, [])
    limited = dead_letter_service.replay_many(filters, 1, dry_run=False)
    remaining = dead_letter_service.replay_many(filters, 100, dry_run=False)

    assert [(result.dead_letter_id, result.state) for result in previewed] == [
        (1, RequestState.ISSUED),
        (2, RequestState.ISSUED),
        (3, RequestState.REFUSED),
    ]
    assert limited + remaining == previewed
    assert dead_letter_service.replay_many(filters, 100, dry_run=False) == []
    assert dead_letter_service.replay_many(DeadLetterFilter(coupon_id=999), 100, dry_run=False) == []


def test_a_dry_run_of_one_dead_letter_changes_nothing(
    make_dead: MakeDead, dead_letter_service: DeadLetterService, query: Query
) -> None:
    """It returns what the replay does; after the replay it returns the latest result, as a repeat does."""
    make_dead(quantity=1, users=[1], faults={1: "22012 3"})
    before = query(_ROWS)

    previewed = dead_letter_service.replay(1, dry_run=True)

    assert (query(_ROWS), query(_ACTIONS)) == (before, [])
    replayed = dead_letter_service.replay(1)
    assert [previewed, dead_letter_service.replay(1, dry_run=True)] == [replayed, replayed]
    assert len(query(_ACTIONS)) == 1


def test_a_discarded_dead_letter_stays_dead(
    make_dead: MakeDead, dead_letter_service: DeadLetterService, query: Query
) -> None:
    """A discarded dead letter cannot be replayed, and a replayed one cannot be discarded."""
    make_dead(quantity=3, users=range(1, 3), faults=dict.fromkeys((1, 2), "22012 3"))

    dead_letter_service.discard(1)
    dead_letter_service.discard(1)
    with pytest.raises(Conflict) as caught:
        dead_letter_service.replay(1)
    assert caught.value.code == "discarded"
    dead_letter_service.replay(2)
    with pytest.raises(Conflict) as caught:
        dead_letter_service.discard(2)

    assert caught.value.code == "replayed"
    assert query(_ACTIONS) == [(1, "discarded", "tests", None, None), (2, "replayed", "tests", "issued", None)]
    assert query(_ROWS)[0].state == "dead"
    for action in (dead_letter_service.replay, dead_letter_service.discard):
        with pytest.raises(NotFound):
            action(999)


def test_poison_is_replayed_once_it_can_be_decoded(
    settings: Settings,
    real_log: Log,
    store: Engine,
    dead_letter_service: DeadLetterService,
    ids: RequestIds,
    make_coupon: MakeCoupon,
    verifier: Verifier,
    query: Query,
) -> None:
    """Until then the replay raises Conflict with the reason; a version that decodes it uses the old offset."""
    coupon = make_coupon()
    real_log.append_raw(b"1", b"not json", [])
    request_id = real_log.append_request(coupon.id, 7)
    strict = RecordReader(ids, settings.topic_partitions + 1, faults=False)
    Issuer(store, 1, key_register(), notices=False).issue(
        [strict.decode(record.raw, TOPIC_ID) for record in real_log.undecided()], real_log.positions
    )
    assert query("SELECT code, request_id FROM dead_letters") == [("poison", None)] * 2

    with pytest.raises(Conflict, match="still cannot be decoded") as caught:
        dead_letter_service.replay(1)
    assert caught.value.code == "not_replayable"
    assert _count_decodable_now(verifier) == 1
    assert dead_letter_service.replay(2)[1:3] == (request_id, RequestState.ISSUED)

    assert query("SELECT state, request_id FROM dead_letters ORDER BY id") == [("new", None), ("replayed", request_id)]
    assert _count_decodable_now(verifier) == 0


def _count_decodable_now(verifier: Verifier) -> int:
    """Return how many records were poison to an older version; the proof must be green."""
    checks = verifier.verify()
    assert [check for check in checks if not check.ok] == []
    return next(check.numbers["decodable_now"] for check in checks if "decodable_now" in check.numbers)


def test_a_dead_letter_of_another_producer_cannot_be_replayed(
    store: Engine, reader: RecordReader, ids: RequestIds, dead_letter_service: DeadLetterService, query: Query
) -> None:
    """It is stored and can be discarded, but it has no offset in our topic."""
    (record,) = records(reader, ids, 1, range(1, 2))
    store_received(store, reader, [record.raw])

    with pytest.raises(Conflict, match="Another producer"):
        dead_letter_service.replay(1)
    assert dead_letter_service.replay_many(DeadLetterFilter(), 10, dry_run=False) == []
    dead_letter_service.discard(1)

    assert query("SELECT state FROM dead_letters") == [("discarded",)]


def test_dead_letters_are_listed_by_filters_and_pages(
    make_dead: MakeDead, dead_letter_service: DeadLetterService, store: Engine
) -> None:
    """The newest come first; coupon, code and state are filters, and pages are read by keyset."""
    first = make_dead(quantity=9, users=range(1, 4), faults=dict.fromkeys((1, 2, 3), "22012 9"))
    dead_letter_service.discard(2)

    def page(filters: DeadLetterFilter, before_id: int | None = None, limit: int = 10) -> list[int]:
        with store.begin() as tx:
            return [dead_letter.id for dead_letter in dead_letter_actions.page(tx, filters, before_id, limit)]

    assert page(DeadLetterFilter()) == [3, 2, 1]
    assert page(DeadLetterFilter(coupon_id=first.id, state=DeadLetterState.NEW)) == [3, 1]
    assert page(DeadLetterFilter(), limit=2) == [3, 2]
    assert page(DeadLetterFilter(), before_id=2) == [1]
    assert page(DeadLetterFilter(code=DeadLetterCode.POISON)) == []
    assert page(DeadLetterFilter(coupon_id=999)) == []
    with store.begin() as tx:
        dead_letter = dead_letter_actions.get(tx, 1)
    assert dead_letter is not None
    summary = dead_letter.summary
    assert summary.last_error.startswith("psycopg.errors.DivisionByZero: ")
    assert (summary.attempts, summary.user_id, dead_letter.raw.key) == (3, 1, b"%d" % first.id)


def test_the_proof_accepts_every_result_of_a_replay(
    real_log: Log,
    make_coupon: MakeCoupon,
    coupon_service: CouponService,
    dead_letter_service: DeadLetterService,
    exhaust_retries: Callable[[], None],
    verifier: Verifier,
    query: Query,
) -> None:
    """P3, P5: issued after others were sold out, refused despite a lower offset, a duplicate of a later request."""
    coupon = make_coupon(quantity=2)
    for user in (1, 2, 3):
        real_log.append_request(coupon.id, user, fault="22012 3")
    for user in (4, 5, 6):
        real_log.append_request(coupon.id, user)
    real_log.issue()
    exhaust_retries()
    exhaust_retries()
    real_log.append_request(coupon.id, 3)
    coupon_service.change(coupon.id, {"quantity": 4})
    real_log.issue()

    results = [result[2:4] for result in dead_letter_service.replay_many(DeadLetterFilter(), 100, dry_run=False)]

    assert results == [
        (RequestState.ISSUED, None),
        (RequestState.REFUSED, ReasonCode.SOLD_OUT),
        (RequestState.REFUSED, ReasonCode.DUPLICATE),
    ]
    assert [row.state for row in query("SELECT state FROM dead_letters")] == ["replayed"] * 3
    assert [check for check in verifier.verify() if not check.ok] == []


def test_recent_dead_letters_are_counted(make_dead: MakeDead, store: Engine, query: Query) -> None:
    """An alert needs the number of the last minute."""
    make_dead(quantity=3, users=range(1, 4), faults=dict.fromkeys((1, 2, 3), "22012 9"))
    query("UPDATE dead_letters SET dead_at = now() - interval '2 minutes' WHERE id = 1 RETURNING 1")

    with store.begin() as tx:
        assert dead_letters.count_recent(tx, 60) == 2


def test_replay_many_skips_what_cannot_be_replayed(
    real_log: Log, make_coupon: MakeCoupon, dead_letter_service: DeadLetterService, exhaust_retries: Callable[[], None]
) -> None:
    """Unreadable dead letters do not use up the limit of a replay."""
    coupon = make_coupon(quantity=5)
    real_log.append_raw(b"%d" % coupon.id, b"not json", [])
    real_log.append_request(coupon.id, 1, fault="22012 3")
    real_log.issue()
    exhaust_retries()

    assert [result.state for result in dead_letter_service.replay_many(DeadLetterFilter(), 1, dry_run=False)] == [
        RequestState.ISSUED
    ]
