"""The database keeps P1 to P3 by itself, whoever writes to it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from service.domain.coupon import Coupon
from service.domain.request import RequestState
from tests.builders import insert_request
from tests.integration.conftest import Ask
from tests.waiting import eventually

MakeCoupon = Callable[..., Coupon]


def _fill(store: Engine, coupon: Coupon, count: int) -> None:
    with store.begin() as tx:
        for number in range(count):
            insert_request(tx, number, coupon_id=coupon.id, sequence=number + 1)


def _counters(ask: Ask, coupon: Coupon) -> tuple[int, int]:
    row = ask("SELECT issued, held FROM coupons WHERE id = :id", id=coupon.id)[0]
    return row.issued, row.held


@pytest.mark.parametrize("state", [RequestState.ISSUED, RequestState.RETRYING])
def test_no_caller_can_over_issue(state: RequestState, store: Engine, make_coupon: MakeCoupon, ask: Ask) -> None:
    """P1: one more than the quantity, issued or held, is refused by the database whatever the caller believes."""
    coupon = make_coupon(quantity=3)
    _fill(store, coupon, 3)

    with pytest.raises(IntegrityError, match="never_over_issued"), store.begin() as tx:
        insert_request(tx, 9, coupon_id=coupon.id, state=state, sequence=4 if state is RequestState.ISSUED else None)

    assert _counters(ask, coupon) == (3, 0)


@pytest.mark.parametrize("sequence", [1, 2])
def test_two_callers_at_once_cannot_over_issue(sequence: int, store: Engine, make_coupon: MakeCoupon, ask: Ask) -> None:
    """P1: of two transactions that each saw the last seat free, one is refused, whichever sequence it gives out."""
    coupon = make_coupon(quantity=1)

    def second() -> None:
        with store.begin() as tx:
            insert_request(tx, 1, coupon_id=coupon.id, sequence=sequence)

    with ThreadPoolExecutor(1) as pool:
        with store.begin() as tx:
            insert_request(tx, 0, coupon_id=coupon.id, sequence=1)
            late = pool.submit(second)
            eventually(lambda: late.done() or ask("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
        with pytest.raises(IntegrityError):
            late.result()

    assert _counters(ask, coupon) == (1, 0)


@pytest.mark.parametrize("first", [RequestState.ISSUED, RequestState.RETRYING, RequestState.STANDBY])
@pytest.mark.parametrize("second", [RequestState.ISSUED, RequestState.RETRYING, RequestState.STANDBY])
def test_no_caller_can_give_a_user_two(
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
def test_no_caller_can_leave_a_gap_or_give_a_sequence_twice(
    sequence: int, store: Engine, make_coupon: MakeCoupon, ask: Ask
) -> None:
    """P3: the next sequence is the one after the last, and no other."""
    coupon = make_coupon(quantity=9)
    _fill(store, coupon, 2)

    with pytest.raises(IntegrityError, match="sequences that do not follow"), store.begin() as tx:
        insert_request(tx, 9, coupon_id=coupon.id, sequence=sequence)

    assert _counters(ask, coupon) == (2, 0)


@pytest.mark.parametrize("sequences", [[3, 5], [3, 3], [4, 5], [2, 3], [1, 4], [4, 3, 6]])
def test_no_batch_can_leave_a_gap_or_give_a_sequence_twice(
    sequences: list[int], store: Engine, make_coupon: MakeCoupon, ask: Ask
) -> None:
    """P3: the rows of one statement are held to the same, as a whole."""
    coupon = make_coupon(quantity=9)
    _fill(store, coupon, 2)
    several = text(
        "INSERT INTO requests SELECT 1, 0, 10 + n, :coupon, 10 + n, 'r' || n, 'issued', NULL, sequence, 1, now(), now()"
        " FROM unnest(CAST(:sequences AS int[])) WITH ORDINALITY AS given(sequence, n)"
    )

    with pytest.raises(IntegrityError, match="sequences that do not follow"), store.begin() as tx:
        tx.execute(several, {"coupon": coupon.id, "sequences": sequences})

    assert _counters(ask, coupon) == (2, 0)
    with store.begin() as tx:
        tx.execute(several, {"coupon": coupon.id, "sequences": [4, 3, 5]})
    assert _counters(ask, coupon) == (5, 0)


@pytest.mark.parametrize("sequence", [1, 3])
def test_a_held_request_cannot_be_issued_out_of_sequence(
    sequence: int, store: Engine, make_coupon: MakeCoupon, ask: Ask
) -> None:
    """P3: the same binds a request that becomes issued later."""
    coupon = make_coupon(quantity=9)
    _fill(store, coupon, 1)
    with store.begin() as tx:
        insert_request(tx, 9, coupon_id=coupon.id, state=RequestState.RETRYING)

    with pytest.raises(IntegrityError), store.begin() as tx:
        tx.execute(
            text("UPDATE requests SET state = 'issued', sequence = :n, decided_at = now() WHERE \"offset\" = 9"),
            {"n": sequence},
        )

    assert _counters(ask, coupon) == (1, 1)


def test_counters_follow_every_change_of_state(store: Engine, make_coupon: MakeCoupon, ask: Ask) -> None:
    """P1: issued and held are what the rows say, moved by the database alone."""
    coupon = make_coupon(quantity=9)
    seen = []
    with store.begin() as tx:
        for offset in range(3):
            insert_request(tx, offset, coupon_id=coupon.id, state=RequestState.RETRYING)
    seen.append(_counters(ask, coupon))
    for change in (
        'state = \'issued\', sequence = "offset" + 1, decided_at = now() WHERE "offset" < 2',
        "state = 'dead', code = 'exhausted', decided_at = now() WHERE \"offset\" = 2",
    ):
        with store.begin() as tx:
            tx.execute(text(f"UPDATE requests SET {change}"))
        seen.append(_counters(ask, coupon))

    assert seen == [(0, 3), (2, 1), (2, 0)]


def test_a_statement_that_moves_many_is_counted_row_by_row(store: Engine, make_coupon: MakeCoupon, ask: Ask) -> None:
    """P1, P3: touched issuances count nothing, a held request counts where it goes, no two get one sequence."""
    one, other = make_coupon(quantity=9), make_coupon(quantity=9)
    _fill(store, one, 2)
    with store.begin() as tx:
        for offset in (8, 9):
            insert_request(tx, offset, coupon_id=one.id, state=RequestState.RETRYING)

    with store.begin() as tx:
        tx.execute(text("UPDATE requests SET attempts = 3"))
        tx.execute(text('UPDATE requests SET coupon_id = :id WHERE "offset" = 9'), {"id": other.id})
    assert (_counters(ask, one), _counters(ask, other)) == ((2, 1), (0, 1))

    with store.begin() as tx:
        insert_request(tx, 10, coupon_id=other.id, state=RequestState.RETRYING)
    with pytest.raises(IntegrityError, match="sequences that do not follow"), store.begin() as tx:
        tx.execute(
            text("UPDATE requests SET state = 'issued', sequence = 1, decided_at = now() WHERE state = 'retrying'")
        )


def test_a_request_of_an_unknown_coupon_can_only_be_refused(store: Engine) -> None:
    """P1: what has no coupon has no quantity, so nothing of it can be issued."""
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
def test_what_was_issued_stays_as_it_was_issued(change: str, store: Engine, make_coupon: MakeCoupon) -> None:
    """P1, P3: no caller can move an issuance behind the counters' back, to another coupon, user or sequence."""
    coupon, _ = make_coupon(quantity=3), make_coupon(quantity=1)
    _fill(store, coupon, 1)

    with pytest.raises(IntegrityError, match="what was issued stays"), store.begin() as tx:
        tx.execute(text(f"UPDATE requests SET {change}"))
