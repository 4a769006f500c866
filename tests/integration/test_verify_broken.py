"""The proof finds every promise that is violated by a changed row or answer."""

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
    """A correct sale: users 1 to 3 issued, 4 and 5 sold out; beside it poison, a dead request, two foreign records."""

    coupon: Coupon
    request_ids: dict[int, str]

    @property
    def history(self) -> list[ClientAnswer]:
        return [
            ClientAnswer(user, self.coupon.id, "accepted", request_id=request_id)
            for user, request_id in self.request_ids.items()
        ]


@pytest.fixture
def sale(real_log: Log, recoverer: Recoverer, log_id: int, make_coupon: MakeCoupon) -> Sale:
    """Make a correct sale."""
    coupon, other = make_coupon(quantity=3), make_coupon(quantity=3)
    request_ids = {user: real_log.append_request(coupon.id, user) for user in range(1, 6)}
    real_log.append_raw(b"1", b"not json", [])
    real_log.append(other.id, 1, request_id=None, fault="22012 9")
    for user in (11, 12):
        real_log.append(other.id, user, request_id=None)
    held = real_log.issue()
    for attempts_made in (1, 2):
        recoverer.retry(log_id, held, attempts_made)
    return Sale(coupon, request_ids)


@pytest.fixture
def change_rows(admin: Engine) -> Iterator[Callable[[str], None]]:
    """Change rows while the database's own guards are removed; put the guards back at the end."""
    index = "requests_one_live"
    with admin.begin() as tx:
        definition = tx.execute(text(f"SELECT pg_get_indexdef('{index}'::regclass)")).scalar_one()
        tx.execute(text(f"DROP INDEX {index}"))
        tx.execute(text("ALTER TABLE requests DISABLE TRIGGER USER"))

    def change(statement: str) -> None:
        with admin.begin() as tx:
            assert tx.execute(text(statement)).rowcount > 0

    yield change
    with admin.begin() as tx:
        tx.execute(text("TRUNCATE requests"))
        tx.execute(text(definition))
        tx.execute(text("ALTER TABLE requests ENABLE TRIGGER USER"))


def _violations(verifier: Verifier, history: list[ClientAnswer] | None = None) -> set[str]:
    """Return the numbers that must be zero and are not."""
    checks = verifier.verify(history)
    return {f"{check.promise} {number}" for check in checks for number in check.must_be_zero if check.numbers[number]}


_REFUSE = "UPDATE requests SET state = 'refused', code = '{code}', sequence = NULL WHERE user_id = {user}"
#: as if an operator had changed the coupon before the first request
_CHANGE = (
    "INSERT INTO coupon_changes SELECT coupon_id, 1, 1, 0, 0, name, {quantity}, waitlist, opens_at, closes_at,"
    " '{override}', NULL, 'tests' FROM coupon_changes WHERE coupon_id = 1"
)
_COPY = (
    'INSERT INTO requests SELECT log_id, partition, "offset" + 1000, coupon_id, user_id, {request_id}, state, code,'
    " {sequence}, attempts, requested_at, decided_at FROM requests WHERE user_id = {user} AND attempts = 1"
)


@pytest.mark.parametrize(
    ("change", "violation"),
    [
        ("DELETE FROM requests WHERE user_id = 4", "P4 lost"),
        ("DELETE FROM requests WHERE user_id = 3", "P1 miscounted"),
        ("DELETE FROM requests WHERE user_id = 2", "P3 coupons_with_gaps"),
        (_COPY.format(user=4, request_id="'phantom'", sequence="NULL"), "P4 phantom"),
        (_COPY.format(user=4, request_id="request_id", sequence="NULL"), "P2 request_ids_with_two"),
        (_COPY.format(user=3, request_id="'second'", sequence="4"), "P2 users_with_two"),
        (_COPY.format(user=3, request_id="'second'", sequence="4"), "P1 over_issued"),
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
        (_REFUSE.format(code="not_open", user=3), "P5 window_checked_twice"),
        (_REFUSE.format(code="closed", user=3), "P5 closed_too_early"),
        (_CHANGE.format(override="closed", quantity=3), "P3 not_refused_after_close"),
        (_CHANGE.format(override="none", quantity=9), "P3 sold_out_too_early"),
        ("UPDATE coupon_changes SET opens_at = '2100-01-01' WHERE coupon_id = 2", "P3 window_ignored"),
        ("UPDATE coupon_changes SET override = 'paused' WHERE coupon_id = 2", "P3 window_ignored"),
        (_REFUSE.format(code="paused", user=12), "P3 window_ignored"),
        ("UPDATE dead_letters SET state = 'replayed' WHERE code = 'exhausted'", "P4 dead_without_dead_letter"),
        (
            "UPDATE requests SET state = 'standby', code = NULL, decided_at = NULL WHERE user_id = 4",
            "P4 held_without_retry",
        ),
        ("UPDATE requests SET request_id = 'another' WHERE user_id = 2", "P4 contradicted"),
        ("UPDATE offsets SET next_offset = 0", "P4 contradicted"),
        ("DELETE FROM dead_letters WHERE code = 'poison'", "P4 lost"),
        ("DELETE FROM dead_letters WHERE code = 'exhausted'", "P4 dead_without_dead_letter"),
        ('UPDATE dead_letters SET "offset" = "offset" + 1000 WHERE code = \'poison\'', "P4 phantom"),
    ],
)
@pytest.mark.usefixtures("sale")
def test_a_wrong_row_is_found(
    change: str, violation: str, verifier: Verifier, change_rows: Callable[[str], None]
) -> None:
    """The proof trusts no counter, index or constraint; it counts itself."""
    assert _violations(verifier) == set()

    change_rows(change)

    assert violation in _violations(verifier)


@pytest.mark.parametrize(
    "changes",
    [
        ["UPDATE requests SET user_id = 77 WHERE user_id = 3"],
        [_REFUSE.format(code="duplicate", user=12), "UPDATE coupons SET issued = 1 WHERE issued = 2"],
    ],
    ids=["the issuance has another user", "a first request was refused as a duplicate"],
)
@pytest.mark.usefixtures("sale")
def test_a_row_that_differs_from_its_record_is_found(
    changes: list[str], verifier: Verifier, change_rows: Callable[[str], None]
) -> None:
    """P2, P5: the log contains the user of a record and the requests before it, and the row must agree."""
    for change in changes:
        change_rows(change)

    assert _violations(verifier) != set()


def test_an_answer_that_does_not_hold_is_found(sale: Sale, verifier: Verifier, ids: RequestIds) -> None:
    """P5: each client answer is checked."""
    coupon = sale.coupon.id
    unappended = ids.mint(coupon, 8, AT_MS)
    cases: dict[str, tuple[list[ClientAnswer], str]] = {
        "an accepted request that is in no log": (
            [ClientAnswer(8, coupon, "accepted", request_id=unappended)],
            "P5 lost",
        ),
        "an accepted request of another user": (
            [ClientAnswer(8, coupon, "accepted", request_id=sale.request_ids[1])],
            "P5 contradicted",
        ),
        "an accepted request of another coupon": (
            [ClientAnswer(1, 77, "accepted", request_id=sale.request_ids[1])],
            "P5 contradicted",
        ),
        "an accepted request with a text that is no id": (
            [ClientAnswer(8, coupon, "accepted", request_id="x" * 60)],
            "P5 contradicted",
        ),
        "a duplicate of a request in no log": (
            [ClientAnswer(8, coupon, "refused", "duplicate", unappended)],
            "P5 contradicted",
        ),
        "a duplicate of another user's request": (
            [ClientAnswer(8, coupon, "refused", "duplicate", sale.request_ids[1])],
            "P5 contradicted",
        ),
    }

    assert _violations(verifier, sale.history) == set()
    assert {case: _violations(verifier, [*sale.history, *answers]) for case, (answers, _) in cases.items()} == {
        case: {violation} for case, (_, violation) in cases.items()
    }


def test_a_row_without_a_client_answer_is_found(sale: Sale, verifier: Verifier) -> None:
    """P5: an issuance of ours that no client's history contains is an error."""
    assert _violations(verifier, sale.history[1:]) == {"P5 phantom"}


def test_a_duplicate_of_a_refused_request_is_found(
    sale: Sale, real_log: Log, verifier: Verifier, change_rows: Callable[[str], None]
) -> None:
    """P2: a request refused as closed is not live, so the user's next request is not a duplicate."""
    real_log.append_request(sale.coupon.id, 1)
    real_log.issue()
    assert _violations(verifier) == set()

    change_rows(
        "UPDATE requests SET state = 'refused', code = 'closed', sequence = NULL WHERE user_id = 1 AND sequence = 1"
    )

    assert "P2 duplicates_without_first" in _violations(verifier)
