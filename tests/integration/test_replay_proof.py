"""The proof stays green whatever comes of replays, in whatever order operators replay, close and open."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine, text

from service.config import Settings
from service.domain.coupon import Coupon, Override
from service.domain.dead_letter import DeadLetterFilter
from service.domain.errors import Conflict
from service.domain.request import ReasonCode, RequestState
from service.domain.request_id import RequestIds
from service.stream.codec import RecordReader
from service.usecases.coupons import CouponService
from service.usecases.issue import Issuer
from service.usecases.replay import DeadLetterService
from service.verification.verify import Check, Verifier
from tests.integration.conftest import Ask
from tests.log import Log

MakeCoupon = Callable[..., Coupon]
_STATES = 'SELECT state, code FROM requests ORDER BY "offset"'


@pytest.fixture
def misread(settings: Settings, store: Engine, real_log: Log, log_id: int, ids: RequestIds) -> Callable[[], None]:
    """The issuer, in a version that cannot read what has been appended, decides it."""
    strict = RecordReader(ids, settings.topic_partitions + 1, faults=False)

    def issue() -> None:
        records = [strict.decode(one.raw) for one in real_log.undecided()]
        assert all(record.poison for record in records)
        real_log.positions |= Issuer(store, log_id, notices=False).issue(records, real_log.positions).next_offsets

    return issue


def _bad(verifier: Verifier) -> list[Check]:
    return [check for check in verifier.verify() if not check.ok]


def test_one_that_could_not_be_read_is_issued_behind_its_followers(
    real_log: Log,
    make_coupon: MakeCoupon,
    misread: Callable[[], None],
    dead_letter_service: DeadLetterService,
    verifier: Verifier,
    ask: Ask,
) -> None:
    """P3, P4: nothing is lost while it waits, and that its sequence is not its rank is no disorder."""
    coupon = make_coupon()
    real_log.ask(coupon.id, 7)
    misread()
    real_log.ask(coupon.id, 8)
    real_log.issue()
    assert _bad(verifier) == []

    assert dead_letter_service.replay(1).state is RequestState.ISSUED

    assert ask('SELECT user_id, sequence FROM requests ORDER BY "offset"') == [(7, 2), (8, 1)]
    assert _bad(verifier) == []


def test_one_that_is_replayed_after_a_close_may_die_again(
    real_log: Log,
    make_coupon: MakeCoupon,
    misread: Callable[[], None],
    coupon_service: CouponService,
    dead_letter_service: DeadLetterService,
    exhaust: Callable[[], None],
    verifier: Verifier,
    ask: Ask,
) -> None:
    """P3: it was decided by the values of that day, though its place lies behind the close."""
    coupon = make_coupon()
    coupon_service.change(coupon.id, {"override": Override.CLOSED})
    real_log.ask(coupon.id, 7, fault="22012 9")
    misread()
    coupon_service.change(coupon.id, {"override": Override.NONE})

    assert dead_letter_service.replay(1).state is RequestState.RETRYING
    exhaust()

    assert ask(_STATES) == [("dead", "exhausted")]
    assert _bad(verifier) == []


def test_a_duplicate_of_one_who_came_back_a_duplicate(
    real_log: Log,
    make_coupon: MakeCoupon,
    exhaust: Callable[[], None],
    dead_letter_service: DeadLetterService,
    verifier: Verifier,
    ask: Ask,
) -> None:
    """P2: the first was live when the second was refused, whatever became of it later."""
    coupon = make_coupon()
    real_log.ask(coupon.id, 7, fault="22012 3")
    real_log.ask(coupon.id, 7)
    real_log.issue()
    exhaust()
    real_log.ask(coupon.id, 7)
    real_log.issue()

    assert dead_letter_service.replay(1)[2:4] == (RequestState.REFUSED, ReasonCode.DUPLICATE)

    assert ask(_STATES) == [("refused", "duplicate"), ("refused", "duplicate"), ("issued", None)]
    assert ask('SELECT user_id, sequence, attempts FROM requests ORDER BY "offset"')[1:] == [(7, None, 1), (7, 1, 1)]
    assert _bad(verifier) == []


def test_of_an_append_and_its_repeat_one_comes_back(
    real_log: Log,
    make_coupon: MakeCoupon,
    misread: Callable[[], None],
    dead_letter_service: DeadLetterService,
    verifier: Verifier,
    ask: Ask,
) -> None:
    """P2: nobody could read either of the two records, which ask for the same under one request id."""
    coupon = make_coupon()
    name = real_log.ask(coupon.id, 7)
    real_log.append(coupon.id, 7, name)
    misread()

    done = dead_letter_service.replay_many(DeadLetterFilter(), 100, dry_run=False)

    whys = {one.dead_letter_id: (one.state, one.why) for one in done}
    assert whys == {1: (RequestState.ISSUED, None), 2: (None, "its request has been decided as another record")}
    assert ask(_STATES) == [("issued", None)]
    assert _bad(verifier) == []


@pytest.fixture
def no_refusals(store: Engine) -> Iterator[None]:
    """A database that takes no row of a request that is refused."""
    with store.begin() as tx:
        tx.execute(text("ALTER TABLE requests ADD CONSTRAINT no_refusals CHECK (state <> 'refused') NOT VALID"))
    yield
    with store.begin() as tx:
        tx.execute(text("ALTER TABLE requests DROP CONSTRAINT no_refusals"))


@pytest.mark.usefixtures("no_refusals")
def test_one_that_is_due_no_seat_holds_none(
    real_log: Log,
    make_coupon: MakeCoupon,
    exhaust: Callable[[], None],
    dead_letter_service: DeadLetterService,
    verifier: Verifier,
    ask: Ask,
) -> None:
    """P1, P3: its refusal cannot be written; a seat is not what it gets instead."""
    coupon = make_coupon(quantity=2)
    real_log.ask(coupon.id, 7, fault="22012 3")
    real_log.issue()
    exhaust()
    real_log.ask(coupon.id, 7)
    real_log.issue()

    with pytest.raises(Conflict, match="what was decided could not be written") as caught:
        dead_letter_service.replay(1)

    assert caught.value.code == "not_replayable"
    assert ask(_STATES) == [("dead", "exhausted"), ("issued", None)]
    assert ask("SELECT state FROM dead_letters") == [("new",)]
    assert _bad(verifier) == []
