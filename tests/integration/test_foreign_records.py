"""FOREIGN_RECORDS=refuse: only records with a request id of this service are issued, and every part agrees on that."""

from collections.abc import Callable

import httpx
import pytest
from sqlalchemy import Engine, text

from service.domain.api_key import NewKey
from service.domain.caller import Role
from service.domain.coupon import Coupon
from service.domain.request import ReasonCode, RequestState
from service.limits import MAX_ID
from service.usecases.issue import Issuer
from service.usecases.key_register import KeyRegister
from service.usecases.lookup import Lookup
from service.verification.history import ClientAnswer
from service.verification.verify import Verifier
from tests.builders import AT_MS
from tests.fixtures.callers import bearer
from tests.integration.conftest import Query
from tests.log import Log
from tests.lookups import find

MakeCoupon = Callable[..., Coupon]


@pytest.fixture
def strict_log(real_log: Log, store: Engine, log_id: int, key_register: KeyRegister) -> Log:
    """The topic with an issuer that refuses foreign records."""
    real_log._issuer = Issuer(store, log_id, key_register, notices=True, refuse_foreign=True)
    return real_log


def test_foreign_records_are_refused_and_take_no_seat(
    strict_log: Log, make_coupon: MakeCoupon, verifier: Verifier, lookup: Lookup, query: Query
) -> None:
    """Row and look-up have the code `foreign`, a notice is due, the user's own request is issued, the proof agrees."""
    coupon = make_coupon(quantity=1, opens_at_ms=AT_MS + 10**13)
    strict_log.append(coupon.id, 7, request_id=None)
    own = strict_log.append_request(coupon.id, 7)
    strict_log.append(coupon.id, 8, request_id=own)  # another user's id

    strict_log.issue()

    rows = query('SELECT user_id, state, code, request_id FROM requests ORDER BY "offset"')
    assert [tuple(row)[:3] for row in rows] == [
        (7, "refused", "foreign"),
        (7, "issued", None),
        (8, "refused", "foreign"),
    ]
    status = find(lookup, rows[0].request_id)
    assert status
    assert (status.state, status.code) == (RequestState.REFUSED, ReasonCode.FOREIGN)
    assert query("SELECT DISTINCT kind FROM outbox ORDER BY 1") == [("gate",), ("notify",)]
    checks = verifier.verify([ClientAnswer(7, coupon.id, "accepted", request_id=own)])
    assert [check for check in checks if not check.ok] == []


def test_records_that_were_issued_before_the_setting_stay_issued(
    real_log: Log, make_coupon: MakeCoupon, store: Engine, log_id: int, key_register: KeyRegister, verifier: Verifier
) -> None:
    """P5: the setting counts from the record on at which the issuer has it; the proof accepts both sides of it."""
    coupon = make_coupon(quantity=2)
    real_log.append(coupon.id, 1, request_id=None)
    real_log.issue()
    real_log._issuer = Issuer(store, log_id, key_register, notices=True, refuse_foreign=True)
    real_log.append(coupon.id, 1, request_id=None)
    real_log.append(coupon.id, 2, request_id=None)

    real_log.issue()

    assert [check for check in verifier.verify() if not check.ok] == []


def test_an_accepted_request_that_was_refused_as_foreign_is_found(
    real_log: Log, make_coupon: MakeCoupon, store: Engine, verifier: Verifier
) -> None:
    """P5: an id of this service was given out with a 202, so such a refusal contradicts it."""
    coupon = make_coupon(quantity=1)
    for user in (1, 2):
        real_log.append_request(coupon.id, user)
    real_log.issue()
    with store.begin() as tx:
        tx.execute(text("UPDATE requests SET code = 'foreign' WHERE code = 'sold_out'"))

    found = {name: number for check in verifier.verify() if not check.ok for name, number in check.numbers.items()}

    assert found["window_checked_twice"] == 1


def test_a_user_of_a_foreign_record_is_shown_with_every_digit(
    api: httpx.Client, keys: dict[Role, NewKey], real_log: Log, make_coupon: MakeCoupon, query: Query
) -> None:
    """Another producer's user id may have 64 bits, which is more than JavaScript holds."""
    real_log.append(make_coupon(quantity=1).id, MAX_ID, request_id=None)
    real_log.issue()
    [(request_id,)] = query("SELECT request_id FROM requests")

    shown = api.get(f"/issuances/{request_id}", headers=bearer(keys[Role.READ].text))

    assert f'"user_id":{MAX_ID}' in shown.text
