"""The proof stays green after every replay, whatever the order in which operators replay, close and open."""

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
from tests.builders import TOPIC_ID, key_register
from tests.integration.conftest import Query
from tests.log import Log

MakeCoupon = Callable[..., Coupon]
_STATES = 'SELECT state, code FROM requests ORDER BY "offset"'


@pytest.fixture
def issue_as_poison(
    settings: Settings, store: Engine, real_log: Log, log_id: int, ids: RequestIds
) -> Callable[[], None]:
    """Decide the undecided records with a version of the issuer that cannot read them."""
    strict = RecordReader(ids, settings.topic_partitions + 1, faults=False)

    def issue() -> None:
        records = [strict.decode(record.raw, TOPIC_ID) for record in real_log.undecided()]
        assert all(record.poison for record in records)
        real_log.positions |= (
            Issuer(store, log_id, key_register(), notices=False).issue(records, real_log.positions).next_offsets
        )

    return issue


def _violated(verifier: Verifier) -> list[Check]:
    """Return the checks that are not ok."""
    return [check for check in verifier.verify() if not check.ok]


def test_a_replayed_poison_record_is_issued_after_later_requests(
    real_log: Log,
    make_coupon: MakeCoupon,
    issue_as_poison: Callable[[], None],
    dead_letter_service: DeadLetterService,
    verifier: Verifier,
    query: Query,
) -> None:
    """P3, P4: it is not lost while it waits, and its late sequence is no violation."""
    coupon = make_coupon()
    real_log.append_request(coupon.id, 7)
    issue_as_poison()
    real_log.append_request(coupon.id, 8)
    real_log.issue()
    assert _violated(verifier) == []

    assert dead_letter_service.replay(1).state is RequestState.ISSUED

    assert query('SELECT user_id, sequence FROM requests ORDER BY "offset"') == [(7, 2), (8, 1)]
    assert _violated(verifier) == []


def test_a_request_replayed_after_a_close_may_be_dead_again(
    real_log: Log,
    make_coupon: MakeCoupon,
    issue_as_poison: Callable[[], None],
    coupon_service: CouponService,
    dead_letter_service: DeadLetterService,
    exhaust_retries: Callable[[], None],
    verifier: Verifier,
    query: Query,
) -> None:
    """P3: it was decided by the values at the time of the replay, though its offset is after the close."""
    coupon = make_coupon()
    coupon_service.change(coupon.id, {"override": Override.CLOSED})
    real_log.append_request(coupon.id, 7, fault="22012 9")
    issue_as_poison()
    coupon_service.change(coupon.id, {"override": Override.NONE})

    assert dead_letter_service.replay(1).state is RequestState.RETRYING
    exhaust_retries()

    assert query(_STATES) == [("dead", "exhausted")]
    assert _violated(verifier) == []


def test_a_duplicate_stays_valid_when_its_first_request_is_refused_later(
    real_log: Log,
    make_coupon: MakeCoupon,
    exhaust_retries: Callable[[], None],
    dead_letter_service: DeadLetterService,
    verifier: Verifier,
    query: Query,
) -> None:
    """P2: the first request was live when the second was refused, whatever became of it later."""
    coupon = make_coupon()
    real_log.append_request(coupon.id, 7, fault="22012 3")
    real_log.append_request(coupon.id, 7)
    real_log.issue()
    exhaust_retries()
    real_log.append_request(coupon.id, 7)
    real_log.issue()

    assert dead_letter_service.replay(1)[2:4] == (RequestState.REFUSED, ReasonCode.DUPLICATE)

    assert query(_STATES) == [("refused", "duplicate"), ("refused", "duplicate"), ("issued", None)]
    assert query('SELECT user_id, sequence, attempts FROM requests ORDER BY "offset"')[1:] == [(7, None, 1), (7, 1, 1)]
    assert _violated(verifier) == []


def test_of_a_record_and_its_redelivery_one_is_replayed(
    real_log: Log,
    make_coupon: MakeCoupon,
    issue_as_poison: Callable[[], None],
    dead_letter_service: DeadLetterService,
    verifier: Verifier,
    query: Query,
) -> None:
    """P2: two poison records have one request id; a replay of both issues one of them."""
    coupon = make_coupon()
    request_id = real_log.append_request(coupon.id, 7)
    real_log.append(coupon.id, 7, request_id)
    issue_as_poison()

    results = dead_letter_service.replay_many(DeadLetterFilter(), 100, dry_run=False)

    reasons = {result.dead_letter_id: (result.state, result.why) for result in results}
    assert reasons == {
        1: (RequestState.ISSUED, None),
        2: (None, "Another record of the same request has been decided."),
    }
    assert query(_STATES) == [("issued", None)]
    assert _violated(verifier) == []


@pytest.fixture
def no_refusals(admin: Engine) -> Iterator[None]:
    """Make the database reject every row of a refused request."""
    with admin.begin() as tx:
        tx.execute(text("ALTER TABLE requests ADD CONSTRAINT no_refusals CHECK (state <> 'refused') NOT VALID"))
    yield
    with admin.begin() as tx:
        tx.execute(text("ALTER TABLE requests DROP CONSTRAINT no_refusals"))


@pytest.mark.usefixtures("no_refusals")
def test_a_replayed_request_whose_refusal_cannot_be_written_holds_no_seat(
    real_log: Log,
    make_coupon: MakeCoupon,
    exhaust_retries: Callable[[], None],
    dead_letter_service: DeadLetterService,
    verifier: Verifier,
    query: Query,
) -> None:
    """P1, P3: it stays dead, since it must not hold a seat instead of being refused."""
    coupon = make_coupon(quantity=2)
    real_log.append_request(coupon.id, 7, fault="22012 3")
    real_log.issue()
    exhaust_retries()
    real_log.append_request(coupon.id, 7)
    real_log.issue()

    with pytest.raises(Conflict, match="The decision could not be written") as caught:
        dead_letter_service.replay(1)

    assert caught.value.code == "not_replayable"
    assert query(_STATES) == [("dead", "exhausted"), ("issued", None)]
    assert query("SELECT state FROM dead_letters") == [("new",)]
    assert _violated(verifier) == []
