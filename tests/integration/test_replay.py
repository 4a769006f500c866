"""Dead letters come back under their rank, once, and every action stands in the audit trail."""

from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from service.config import Settings
from service.domain.coupon import Coupon, Override
from service.domain.dead_letter import DeadLetterFilter, DeadLetterState
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
from tests.builders import records
from tests.integration.conftest import Ask, Sell
from tests.log import Log

MakeCoupon = Callable[..., Coupon]
Die = Callable[..., Coupon]
_ROWS = 'SELECT user_id, state, code, sequence, attempts FROM requests ORDER BY "offset"'
_TRAIL = "SELECT dead_letter_id, action, via, state, code FROM dead_letter_actions ORDER BY id"


@pytest.fixture
def die(sell: Sell, exhaust: Callable[[], None]) -> Die:
    """A coupon's first poll, whose failing requests have died."""

    def issue(quantity: int, users: range, faults: dict[int, str]) -> Coupon:
        sold = sell(quantity, users, faults)
        exhaust()
        return sold.coupon

    return issue


def test_a_replay_is_final_again_and_told_again(die: Die, dead_letter_service: DeadLetterService, ask: Ask) -> None:
    """Step 7: a seat is left, so the dead one gets it; a second call answers what came of the first."""
    die(quantity=3, users=range(1, 3), faults={1: "22012 3"})
    before = ask("SELECT count(*) FROM outbox WHERE kind = 'notify'")[0][0]

    first, second = dead_letter_service.replay(1), dead_letter_service.replay(1)

    assert (first.state, first.code) == (RequestState.ISSUED, None)
    assert second == first
    assert ask(_ROWS) == [(1, "issued", None, 2, 4), (2, "issued", None, 1, 1)]
    assert ask(_TRAIL) == [(1, "replayed", "api", "issued", None)]
    assert ask("SELECT state FROM dead_letters") == [("replayed",)]
    assert ask("SELECT count(*) FROM outbox WHERE kind = 'notify'") == [(before + 1,)]


def test_eligibility_is_checked_anew(
    die: Die, coupon_service: CouponService, dead_letter_service: DeadLetterService, ask: Ask
) -> None:
    """Step 7: meanwhile the coupon is gone, the user has another, or the operator closed it."""
    coupon = die(quantity=1, users=range(1, 3), faults={1: "22012 3"})
    assert dead_letter_service.replay(1) == (
        1,
        ask("SELECT request_id FROM requests WHERE user_id = 1")[0][0],
        *_refused("sold_out"),
    )
    assert ask(_ROWS)[0] == (1, "refused", "sold_out", None, 4)

    coupon_service.change(coupon.id, {"override": Override.CLOSED})
    ask("UPDATE dead_letters SET state = 'new' RETURNING 1")
    assert dead_letter_service.replay(1)[2:4] == _refused("closed")[:2]


def _refused(code: str) -> tuple[RequestState, ReasonCode, None]:
    return RequestState.REFUSED, ReasonCode(code), None


def test_a_replay_stands_by_under_its_old_rank(
    die: Die,
    issuer: Issuer,
    recoverer: Recoverer,
    dead_letter_service: DeadLetterService,
    log_id: int,
    reader: RecordReader,
    ids: RequestIds,
    ask: Ask,
) -> None:
    """Step 7: it lies before another who waits, so the seat that comes back is its own."""
    coupon = die(quantity=1, users=range(1, 2), faults={1: "22012 3"})
    (position,) = ask("SELECT partition, next_offset FROM offsets WHERE next_offset > 0")
    line = records(reader, ids, coupon.id, range(2, 4), first=1, faults={2: "22012 9"})
    issuer.issue(line, {position.partition: position.next_offset})
    assert [row.state for row in ask(_ROWS)] == ["dead", "retrying", "standby"]

    assert dead_letter_service.replay(1).state is RequestState.STANDBY
    for made in (1, 2):
        recoverer.retry(log_id, [LogPosition(position.partition, 1)], made)

    assert [(row.user_id, row.state, row.sequence) for row in ask(_ROWS)] == [
        (1, "issued", 1),
        (2, "dead", None),
        (3, "refused", None),
    ]


def test_a_replay_that_fails_has_its_attempts_anew_and_may_die_again(
    die: Die, dead_letter_service: DeadLetterService, exhaust: Callable[[], None], ask: Ask
) -> None:
    """Step 7: its seat is held; dead again, the same letter is new again, with its first error and all attempts."""
    die(quantity=3, users=range(1, 2), faults={1: "22012 9"})
    with_error = ask("SELECT first_error FROM dead_letters")
    ask("UPDATE dead_letters SET forwarded_at = now(), dlt_partition = 0, dlt_offset = 7 RETURNING 1")

    assert dead_letter_service.replay(1).state is RequestState.RETRYING
    assert ask("SELECT held FROM coupons") == [(1,)]
    exhaust()

    assert ask(_ROWS) == [(1, "dead", "exhausted", None, 6)]
    assert ask("SELECT id, state, attempts, forwarded_at, dlt_offset FROM dead_letters") == [(1, "new", 6, None, None)]
    assert ask("SELECT first_error FROM dead_letters") == with_error
    assert dead_letter_service.replay(1).state is RequestState.RETRYING
    assert [row.action for row in ask(_TRAIL)] == ["replayed", "replayed"]


def test_in_bulk_the_seats_go_by_rank_and_a_dry_run_only_tells(
    die: Die, coupon_service: CouponService, dead_letter_service: DeadLetterService, ask: Ask
) -> None:
    """Step 7: three are dead, two seats are left; what the dry run says is what comes of it."""
    coupon = die(quantity=3, users=range(1, 5), faults=dict.fromkeys((1, 2, 3), "22012 3"))
    coupon_service.change(coupon.id, {"quantity": 3})
    meant = DeadLetterFilter(coupon_id=coupon.id, code=ReasonCode.EXHAUSTED)
    before = ask(_ROWS)

    dry = dead_letter_service.replay_many(meant, 100, dry_run=True)
    assert (ask(_ROWS), ask(_TRAIL)) == (before, [])
    limited = dead_letter_service.replay_many(meant, 1, dry_run=False)
    rest = dead_letter_service.replay_many(meant, 100, dry_run=False)

    assert [(one.dead_letter_id, one.state) for one in dry] == [
        (1, RequestState.ISSUED),
        (2, RequestState.ISSUED),
        (3, RequestState.REFUSED),
    ]
    assert limited + rest == dry
    assert dead_letter_service.replay_many(meant, 100, dry_run=False) == []
    assert dead_letter_service.replay_many(DeadLetterFilter(coupon_id=999), 100, dry_run=False) == []


def test_what_is_discarded_stays_dead(die: Die, dead_letter_service: DeadLetterService, ask: Ask) -> None:
    """Step 7: put away once and for all; a replay says so, and so does a discard of what was replayed."""
    die(quantity=3, users=range(1, 3), faults=dict.fromkeys((1, 2), "22012 3"))

    dead_letter_service.discard(1)
    dead_letter_service.discard(1)
    with pytest.raises(Conflict) as caught:
        dead_letter_service.replay(1)
    assert caught.value.code == "discarded"
    dead_letter_service.replay(2)
    with pytest.raises(Conflict) as caught:
        dead_letter_service.discard(2)

    assert caught.value.code == "replayed"
    assert ask(_TRAIL) == [(1, "discarded", "api", None, None), (2, "replayed", "api", "issued", None)]
    assert ask(_ROWS)[0].state == "dead"
    for act in (dead_letter_service.replay, dead_letter_service.discard):
        with pytest.raises(NotFound):
            act(999)


def test_what_nobody_can_read_is_not_replayed_until_somebody_can(
    settings: Settings,
    real_log: Log,
    store: Engine,
    dead_letter_service: DeadLetterService,
    ids: RequestIds,
    make_coupon: MakeCoupon,
    verifier: Verifier,
    ask: Ask,
) -> None:
    """Step 7: poison says why; a version that can read it brings it back under its own rank."""
    coupon = make_coupon()
    real_log.append_raw(b"1", b"not json", [])
    name = real_log.ask(coupon.id, 7)
    strict = RecordReader(ids, settings.topic_partitions + 1, faults=False)
    Issuer(store, 1, notices=False).issue([strict.decode(one.raw) for one in real_log.undecided()], real_log.positions)
    assert ask("SELECT code, request_id FROM dead_letters") == [("poison", None)] * 2

    with pytest.raises(Conflict, match="still cannot be read") as caught:
        dead_letter_service.replay(1)
    assert caught.value.code == "not_replayable"
    assert _readable_by_now(verifier) == 1
    assert dead_letter_service.replay(2)[1:3] == (name, RequestState.ISSUED)

    assert ask("SELECT state, request_id FROM dead_letters ORDER BY id") == [("new", None), ("replayed", name)]
    assert _readable_by_now(verifier) == 0


def _readable_by_now(verifier: Verifier) -> int:
    """Records that were poison to an older version, in a proof that is green."""
    checks = verifier.verify()
    assert [check for check in checks if not check.ok] == []
    return next(check.numbers["readable_by_now"] for check in checks if "readable_by_now" in check.numbers)


def test_another_producers_letter_has_no_rank(
    store: Engine, reader: RecordReader, ids: RequestIds, dead_letter_service: DeadLetterService, ask: Ask
) -> None:
    """Step 7: it is stored, listed and can be discarded; it cannot be replayed."""
    (record,) = records(reader, ids, 1, range(1, 2))
    store_received(store, reader, [record.raw])

    with pytest.raises(Conflict, match="another producer"):
        dead_letter_service.replay(1)
    assert dead_letter_service.replay_many(DeadLetterFilter(), 10, dry_run=False) == []
    dead_letter_service.discard(1)

    assert ask("SELECT state FROM dead_letters") == [("discarded",)]


def test_letters_are_found_by_filters_a_page_at_a_time(
    die: Die, dead_letter_service: DeadLetterService, store: Engine
) -> None:
    """Section 4: the newest first, by coupon, code and state, keyset by keyset."""
    first = die(quantity=9, users=range(1, 4), faults=dict.fromkeys((1, 2, 3), "22012 9"))
    dead_letter_service.discard(2)

    def found(filters: DeadLetterFilter, before_id: int | None = None, limit: int = 10) -> list[int]:
        with store.begin() as tx:
            return [letter.id for letter in dead_letter_actions.page(tx, filters, before_id, limit)]

    assert found(DeadLetterFilter()) == [3, 2, 1]
    assert found(DeadLetterFilter(coupon_id=first.id, state=DeadLetterState.NEW)) == [3, 1]
    assert found(DeadLetterFilter(), limit=2) == [3, 2]
    assert found(DeadLetterFilter(), before_id=2) == [1]
    assert found(DeadLetterFilter(code=ReasonCode.POISON)) == []
    assert found(DeadLetterFilter(coupon_id=999)) == []
    with store.begin() as tx:
        letter = dead_letter_actions.get(tx, 1)
    assert letter is not None
    assert letter.last_error.startswith("psycopg.errors.DivisionByZero: ")
    assert (letter.attempts, letter.user_id, letter.raw.key) == (3, 1, b"%d" % first.id)


def test_the_proof_knows_replays(
    real_log: Log,
    make_coupon: MakeCoupon,
    coupon_service: CouponService,
    dead_letter_service: DeadLetterService,
    exhaust: Callable[[], None],
    verifier: Verifier,
    ask: Ask,
) -> None:
    """Step 9: served long after others heard "sold out", refused though a lower offset, a duplicate of a later one."""
    coupon = make_coupon(quantity=2)
    for user in (1, 2, 3):
        real_log.ask(coupon.id, user, fault="22012 3")
    for user in (4, 5, 6):
        real_log.ask(coupon.id, user)
    real_log.issue()
    exhaust()
    exhaust()
    real_log.ask(coupon.id, 3)
    coupon_service.change(coupon.id, {"quantity": 4})
    real_log.issue()

    outcomes = [one[2:4] for one in dead_letter_service.replay_many(DeadLetterFilter(), 100, dry_run=False)]

    assert outcomes == [
        (RequestState.ISSUED, None),
        (RequestState.REFUSED, ReasonCode.SOLD_OUT),
        (RequestState.REFUSED, ReasonCode.DUPLICATE),
    ]
    assert [row.state for row in ask("SELECT state FROM dead_letters")] == ["replayed"] * 3
    assert [check for check in verifier.verify() if not check.ok] == []


def test_how_many_died_lately_is_counted(die: Die, store: Engine, ask: Ask) -> None:
    """Step 7: an alert looks at the last minute."""
    die(quantity=3, users=range(1, 4), faults=dict.fromkeys((1, 2, 3), "22012 9"))
    ask("UPDATE dead_letters SET dead_at = now() - interval '2 minutes' WHERE id = 1 RETURNING 1")

    with store.begin() as tx:
        assert dead_letters.count_recent(tx, 60) == 2


def test_what_cannot_be_read_is_in_nobodys_way(
    real_log: Log, make_coupon: MakeCoupon, dead_letter_service: DeadLetterService, exhaust: Callable[[], None]
) -> None:
    """Step 7: a replay of one brings back the first that can be brought back."""
    coupon = make_coupon(quantity=5)
    real_log.append_raw(b"%d" % coupon.id, b"not json", [])
    real_log.ask(coupon.id, 1, fault="22012 3")
    real_log.issue()
    exhaust()

    assert [one.state for one in dead_letter_service.replay_many(DeadLetterFilter(), 1, dry_run=False)] == [
        RequestState.ISSUED
    ]
