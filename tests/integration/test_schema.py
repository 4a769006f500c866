"""The database itself enforces P1 to P3 for every writer."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from service.domain.coupon import Coupon
from service.domain.request import RequestState
from tests.builders import insert_request
from tests.integration.conftest import Query
from tests.waiting import eventually

MakeCoupon = Callable[..., Coupon]


def _issue(store: Engine, coupon: Coupon, count: int) -> None:
    """Insert so many issued requests."""
    with store.begin() as tx:
        for number in range(count):
            insert_request(tx, number, coupon_id=coupon.id, sequence=number + 1)


def _counters(query: Query, coupon: Coupon) -> tuple[int, int]:
    """Return the coupon's counters of issued and held requests."""
    row = query("SELECT issued, held FROM coupons WHERE id = :id", id=coupon.id)[0]
    return row.issued, row.held


@pytest.mark.parametrize("state", [RequestState.ISSUED, RequestState.RETRYING])
def test_no_caller_can_over_issue(state: RequestState, store: Engine, make_coupon: MakeCoupon, query: Query) -> None:
    """P1: the database refuses one issued or held request more than the quantity, from every caller."""
    coupon = make_coupon(quantity=3)
    _issue(store, coupon, 3)

    with pytest.raises(IntegrityError, match="never_over_issued"), store.begin() as tx:
        insert_request(tx, 9, coupon_id=coupon.id, state=state, sequence=4 if state is RequestState.ISSUED else None)

    assert _counters(query, coupon) == (3, 0)


@pytest.mark.parametrize("sequence", [1, 2])
def test_two_concurrent_callers_cannot_over_issue(
    sequence: int, store: Engine, make_coupon: MakeCoupon, query: Query
) -> None:
    """P1: two transactions each saw the last seat free; one of them is refused, whatever its sequence."""
    coupon = make_coupon(quantity=1)

    def second() -> None:
        with store.begin() as tx:
            insert_request(tx, 1, coupon_id=coupon.id, sequence=sequence)

    with ThreadPoolExecutor(1) as pool:
        with store.begin() as tx:
            insert_request(tx, 0, coupon_id=coupon.id, sequence=1)
            inserting = pool.submit(second)
            eventually(
                lambda: inserting.done() or query("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            )
        with pytest.raises(IntegrityError):
            inserting.result()

    assert _counters(query, coupon) == (1, 0)


@pytest.mark.parametrize("first", [RequestState.ISSUED, RequestState.RETRYING, RequestState.STANDBY])
@pytest.mark.parametrize("second", [RequestState.ISSUED, RequestState.RETRYING, RequestState.STANDBY])
def test_no_caller_can_issue_a_user_two_coupons(
    first: RequestState, second: RequestState, store: Engine, make_coupon: MakeCoupon
) -> None:
    """P2: a second live row of a user and coupon is refused in every live state."""
    coupon = make_coupon(quantity=9)
    with store.begin() as tx:
        insert_request(
            tx, 0, coupon_id=coupon.id, user_id=7, state=first, sequence=1 if first is RequestState.ISSUED else None
        )
    following = (2 if first is RequestState.ISSUED else 1) if second is RequestState.ISSUED else None

    with pytest.raises(IntegrityError, match="requests_one_live"), store.begin() as tx:
        insert_request(tx, 1, coupon_id=coupon.id, user_id=7, state=second, sequence=following)


@pytest.mark.parametrize("sequence", [0, 2, 4, 5, 2**40])
def test_no_caller_can_skip_or_repeat_a_sequence(
    sequence: int, store: Engine, make_coupon: MakeCoupon, query: Query
) -> None:
    """P3: only the sequence after the last one is accepted."""
    coupon = make_coupon(quantity=9)
    _issue(store, coupon, 2)

    with pytest.raises(IntegrityError, match="sequences that do not follow"), store.begin() as tx:
        insert_request(tx, 9, coupon_id=coupon.id, sequence=sequence)

    assert _counters(query, coupon) == (2, 0)


@pytest.mark.parametrize("sequences", [[3, 5], [3, 3], [4, 5], [2, 3], [1, 4], [4, 3, 6]])
def test_no_batch_can_skip_or_repeat_a_sequence(
    sequences: list[int], store: Engine, make_coupon: MakeCoupon, query: Query
) -> None:
    """P3: the rows of one statement are checked together by the same rule."""
    coupon = make_coupon(quantity=9)
    _issue(store, coupon, 2)
    insert_many = text(
        "INSERT INTO requests SELECT 1, 0, 10 + n, :coupon, 10 + n, 'r' || n, 'issued', NULL, sequence, 1, now(), now()"
        " FROM unnest(CAST(:sequences AS int[])) WITH ORDINALITY AS numbered(sequence, n)"
    )

    with pytest.raises(IntegrityError, match="sequences that do not follow"), store.begin() as tx:
        tx.execute(insert_many, {"coupon": coupon.id, "sequences": sequences})

    assert _counters(query, coupon) == (2, 0)
    with store.begin() as tx:
        tx.execute(insert_many, {"coupon": coupon.id, "sequences": [4, 3, 5]})
    assert _counters(query, coupon) == (5, 0)


@pytest.mark.parametrize("sequence", [1, 3])
def test_a_held_request_cannot_be_issued_out_of_sequence(
    sequence: int, store: Engine, make_coupon: MakeCoupon, query: Query
) -> None:
    """P3: the rule also applies to a request that is issued later."""
    coupon = make_coupon(quantity=9)
    _issue(store, coupon, 1)
    with store.begin() as tx:
        insert_request(tx, 9, coupon_id=coupon.id, state=RequestState.RETRYING)

    with pytest.raises(IntegrityError), store.begin() as tx:
        tx.execute(
            text("UPDATE requests SET state = 'issued', sequence = :n, decided_at = now() WHERE \"offset\" = 9"),
            {"n": sequence},
        )

    assert _counters(query, coupon) == (1, 1)


def test_counters_follow_every_change_of_state(store: Engine, make_coupon: MakeCoupon, query: Query) -> None:
    """P1: the triggers alone keep issued and held equal to the rows."""
    coupon = make_coupon(quantity=9)
    counters = []
    with store.begin() as tx:
        for offset in range(3):
            insert_request(tx, offset, coupon_id=coupon.id, state=RequestState.RETRYING)
    counters.append(_counters(query, coupon))
    for change in (
        'state = \'issued\', sequence = "offset" + 1, decided_at = now() WHERE "offset" < 2',
        "state = 'dead', code = 'exhausted', decided_at = now() WHERE \"offset\" = 2",
    ):
        with store.begin() as tx:
            tx.execute(text(f"UPDATE requests SET {change}"))
        counters.append(_counters(query, coupon))

    assert counters == [(0, 3), (2, 1), (2, 0)]


def test_a_statement_that_changes_many_rows_is_counted_row_by_row(
    store: Engine, admin: Engine, make_coupon: MakeCoupon, query: Query
) -> None:
    """P1, P3: updated issuances do not count again, a held request counts where it goes, no two rows get a sequence."""
    coupon, other = make_coupon(quantity=9), make_coupon(quantity=9)
    _issue(store, coupon, 2)
    with store.begin() as tx:
        for offset in (8, 9):
            insert_request(tx, offset, coupon_id=coupon.id, state=RequestState.RETRYING)

    with admin.begin() as tx:  # the service's role cannot change the coupon of a request
        tx.execute(text("UPDATE requests SET attempts = 3"))
        tx.execute(text('UPDATE requests SET coupon_id = :id WHERE "offset" = 9'), {"id": other.id})
    assert (_counters(query, coupon), _counters(query, other)) == ((2, 1), (0, 1))

    with store.begin() as tx:
        insert_request(tx, 10, coupon_id=other.id, state=RequestState.RETRYING)
    with pytest.raises(IntegrityError, match="sequences that do not follow"), store.begin() as tx:
        tx.execute(
            text("UPDATE requests SET state = 'issued', sequence = 1, decided_at = now() WHERE state = 'retrying'")
        )


def test_a_request_of_an_unknown_coupon_can_only_be_refused(store: Engine) -> None:
    """P1: without a coupon there is no quantity, so nothing can be issued."""
    with store.begin() as tx:
        insert_request(tx, 0, coupon_id=99, state=RequestState.REFUSED)

    with pytest.raises(IntegrityError), store.begin() as tx:
        insert_request(tx, 1, coupon_id=99, sequence=1)


@pytest.mark.parametrize(
    "change",
    [
        "coupon_id = (SELECT max(id) FROM coupons)",
        "user_id = 77",
        "sequence = 9",
        "state = 'dead', code = 'exhausted', sequence = NULL",
    ],
)
def test_an_issued_row_cannot_be_changed(change: str, store: Engine, admin: Engine, make_coupon: MakeCoupon) -> None:
    """P1, P3: no caller can change coupon, user, sequence or state of an issuance, past the counters."""
    coupon, _ = make_coupon(quantity=3), make_coupon(quantity=1)
    _issue(store, coupon, 1)

    with pytest.raises(IntegrityError, match="what was issued stays"), admin.begin() as tx:
        tx.execute(text(f"UPDATE requests SET {change}"))
