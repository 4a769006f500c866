"""The proof turns red for every promise that is broken behind its back."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from sqlalchemy import Engine, text

from service.domain.coupon import Coupon
from service.domain.request_id import RequestIds
from service.usecases.recover import Recoverer
from service.verification.history import ClientAnswer
from service.verification.verify import Verifier
from tests.builders import AT_MS
from tests.log import Log

MakeCoupon = Callable[..., Coupon]


class Sale(NamedTuple):
    """A sale that went well: users 1 to 3 issued, 4 and 5 sold out; beside it poison, a dead one, two strangers."""

    coupon: Coupon
    names: dict[int, str]

    @property
    def history(self) -> list[ClientAnswer]:
        return [ClientAnswer(user, self.coupon.id, "accepted", request_id=name) for user, name in self.names.items()]


@pytest.fixture
def sale(real_log: Log, recoverer: Recoverer, log_id: int, make_coupon: MakeCoupon) -> Sale:
    """A sale that went well."""
    coupon, other = make_coupon(quantity=3), make_coupon(quantity=3)
    names = {user: real_log.ask(coupon.id, user) for user in range(1, 6)}
    real_log.append_raw(b"1", b"not json", [])
    real_log.append(other.id, 1, request_id=None, fault="22012 9")
    for user in (11, 12):
        real_log.append(other.id, user, request_id=None)
    held = real_log.issue()
    for attempts_made in (1, 2):
        recoverer.retry(log_id, held, attempts_made)
    return Sale(coupon, names)


@pytest.fixture
def break_(store: Engine) -> Iterator[Callable[[str], None]]:
    """Changes rows with the database's own guards taken away, and puts them back at the end."""
    guard = "requests_one_live"
    with store.begin() as tx:
        definition = tx.execute(text(f"SELECT pg_get_indexdef('{guard}'::regclass)")).scalar_one()
        tx.execute(text(f"DROP INDEX {guard}"))
        tx.execute(text("ALTER TABLE requests DISABLE TRIGGER USER"))

    def change(statement: str) -> None:
        with store.begin() as tx:
            assert tx.execute(text(statement)).rowcount > 0

    yield change
    with store.begin() as tx:
        tx.execute(text("TRUNCATE requests"))
        tx.execute(text(definition))
        tx.execute(text("ALTER TABLE requests ENABLE TRIGGER USER"))


def _red(verifier: Verifier, history: list[ClientAnswer] | None = None) -> set[str]:
    """The numbers that should be zero and are not."""
    checks = verifier.verify(history)
    return {f"{check.promise} {name}" for check in checks for name in check.must_be_zero if check.numbers[name]}


_REFUSE = "UPDATE requests SET state = 'refused', code = '{code}', sequence = NULL WHERE user_id = {user}"
#: as if an operator had changed the coupon before anyone asked
_CHANGE = (
    "INSERT INTO coupon_changes SELECT coupon_id, 1, 1, 0, 0, {quantity}, waitlist, opens_at, closes_at, '{override}'"
    " FROM coupon_changes WHERE coupon_id = 1"
)
_COPY = (
    'INSERT INTO requests SELECT log_id, partition, "offset" + 1000, coupon_id, user_id, {name}, state, code,'
    " {sequence}, attempts, requested_at, decided_at FROM requests WHERE user_id = {user} AND attempts = 1"
)


@pytest.mark.parametrize(
    ("change", "red"),
    [
        ("DELETE FROM requests WHERE user_id = 4", "P4 lost"),
        ("DELETE FROM requests WHERE user_id = 3", "P1 miscounted"),
        ("DELETE FROM requests WHERE user_id = 2", "P3 coupons_with_gaps"),
        (_COPY.format(user=4, name="'phantom'", sequence="NULL"), "P4 phantom"),
        (_COPY.format(user=4, name="request_id", sequence="NULL"), "P2 request_ids_with_two"),
        (_COPY.format(user=3, name="'second'", sequence="4"), "P2 users_with_two"),
        (_COPY.format(user=3, name="'second'", sequence="4"), "P1 over_issued"),
        ("UPDATE requests SET sequence = 3 - sequence WHERE sequence < 3", "P3 out_of_order"),
        ("UPDATE requests SET sequence = 4 WHERE sequence = 3", "P3 coupons_with_gaps"),
        ("UPDATE requests SET sequence = 2 WHERE sequence = 3", "P3 coupons_with_gaps"),
        ("UPDATE requests SET sequence = 3 WHERE user_id = 2", "P3 coupons_with_gaps"),
        ("UPDATE requests SET sequence = 0 WHERE user_id = 1 AND sequence = 1", "P3 coupons_with_gaps"),
        (
            "UPDATE requests SET state = 'refused', code = 'sold_out', sequence = NULL WHERE user_id = 3",
            "P3 sold_out_too_early",
        ),
        ("UPDATE requests SET state = 'issued', code = NULL, sequence = 4 WHERE user_id = 4", "P1 over_issued"),
        ("UPDATE coupons SET quantity = 2, issued = 2 WHERE issued = 3", "P1 over_issued"),
        ("UPDATE coupons SET issued = 2 WHERE issued = 3", "P1 miscounted"),
        ("UPDATE coupons SET held = 1 WHERE issued = 2", "P1 miscounted"),
        ("UPDATE coupons SET standby = 1 WHERE issued = 2", "P1 miscounted"),
        (_REFUSE.format(code="not_open", user=3), "P5 judged_twice"),
        (_REFUSE.format(code="closed", user=3), "P5 closed_too_early"),
        (_CHANGE.format(override="closed", quantity=3), "P3 decided_though_closed"),
        (_CHANGE.format(override="none", quantity=9), "P3 sold_out_too_early"),
        ("UPDATE coupon_changes SET opens_at = '2100-01-01' WHERE coupon_id = 2", "P3 window_ignored"),
        ("UPDATE coupon_changes SET override = 'paused' WHERE coupon_id = 2", "P3 window_ignored"),
        (_REFUSE.format(code="paused", user=12), "P3 window_ignored"),
        ("UPDATE dead_letters SET state = 'replayed' WHERE code = 'exhausted'", "P4 dead_without_letter"),
        (
            "UPDATE requests SET state = 'standby', code = NULL, decided_at = NULL WHERE user_id = 4",
            "P4 held_without_retry",
        ),
        ("UPDATE requests SET request_id = 'another' WHERE user_id = 2", "P4 contradicted"),
        ("UPDATE offsets SET next_offset = 0", "P4 contradicted"),
        ("DELETE FROM dead_letters WHERE code = 'poison'", "P4 lost"),
        ("DELETE FROM dead_letters WHERE code = 'exhausted'", "P4 dead_without_letter"),
        ('UPDATE dead_letters SET "offset" = "offset" + 1000 WHERE code = \'poison\'', "P4 phantom"),
    ],
)
@pytest.mark.usefixtures("sale")
def test_a_row_that_is_wrong_is_seen(change: str, red: str, verifier: Verifier, break_: Callable[[str], None]) -> None:
    """Step 9: the proof believes no counter, index or constraint; it counts itself."""
    assert _red(verifier) == set()

    break_(change)

    assert red in _red(verifier)


@pytest.mark.parametrize(
    "changes",
    [
        ["UPDATE requests SET user_id = 77 WHERE user_id = 3"],
        [_REFUSE.format(code="duplicate", user=12), "UPDATE coupons SET issued = 1 WHERE issued = 2"],
    ],
    ids=["the coupon of one user is another's", "a first request was refused as a duplicate"],
)
@pytest.mark.usefixtures("sale")
def test_a_row_that_differs_from_its_record_is_seen(
    changes: list[str], verifier: Verifier, break_: Callable[[str], None]
) -> None:
    """P2, P5: whom a record names and whether he had asked before stands in the log, and the row must agree."""
    for change in changes:
        break_(change)

    assert _red(verifier) != set()


def test_an_answer_that_does_not_hold_is_seen(sale: Sale, verifier: Verifier, ids: RequestIds) -> None:
    """P5: what clients were told is judged call by call."""
    coupon = sale.coupon.id
    nowhere = ids.mint(coupon, 8, AT_MS)
    cases: dict[str, tuple[list[ClientAnswer], str]] = {
        "a receipt that is in no log": ([ClientAnswer(8, coupon, "accepted", request_id=nowhere)], "P5 lost"),
        "another user's receipt": ([ClientAnswer(8, coupon, "accepted", request_id=sale.names[1])], "P5 contradicted"),
        "another coupon's receipt": ([ClientAnswer(1, 77, "accepted", request_id=sale.names[1])], "P5 contradicted"),
        "a receipt that is none": ([ClientAnswer(8, coupon, "accepted", request_id="x" * 60)], "P5 contradicted"),
        "a duplicate of nothing": ([ClientAnswer(8, coupon, "refused", "duplicate", nowhere)], "P5 contradicted"),
        "another's duplicate": ([ClientAnswer(8, coupon, "refused", "duplicate", sale.names[1])], "P5 contradicted"),
    }

    assert _red(verifier, sale.history) == set()
    assert {case: _red(verifier, [*sale.history, *more]) for case, (more, _) in cases.items()} == {
        case: {red} for case, (_, red) in cases.items()
    }


def test_a_row_that_nobody_asked_for_is_seen(sale: Sale, verifier: Verifier) -> None:
    """P5: an issuance of ours that stands in no client's history came from nowhere."""
    assert _red(verifier, sale.history[1:]) == {"P5 phantom"}


def test_a_duplicate_of_one_who_was_turned_away_is_seen(
    sale: Sale, real_log: Log, verifier: Verifier, break_: Callable[[str], None]
) -> None:
    """P2: who heard "closed" was in nobody's way, and his next request is no duplicate."""
    real_log.ask(sale.coupon.id, 1)
    real_log.issue()
    assert _red(verifier) == set()

    break_("UPDATE requests SET state = 'refused', code = 'closed', sequence = NULL WHERE user_id = 1 AND sequence = 1")

    assert "P2 duplicates_of_nothing" in _red(verifier)
