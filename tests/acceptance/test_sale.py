"""A sale as users see it."""

from collections import Counter

from tests.system import System


def test_a_coupon_is_never_over_issued(system: System) -> None:
    """P1: of 300 users who press at once, exactly the quantity is issued, and the others are told so."""
    coupon = system.make_coupon(quantity=100)

    answers = system.ask_many(coupon, range(1, 301))

    told = Counter(answer.status_code for answer in answers if answer)
    assert told == {202: 100, 409: 200}
    receipts = [answer.json()["request_id"] for answer in answers if answer and answer.status_code == 202]
    assert Counter(system.final(receipt)["state"] for receipt in receipts) == {"issued": 100}
    assert system.http.get(f"/coupons/{coupon}").json()["state"] == "sold_out"


def test_a_user_has_one_coupon_however_often_he_presses(system: System) -> None:
    """P2: ten presses at once of each of twenty users give twenty issuances; each repeat names the first request."""
    coupon = system.make_coupon(quantity=100)

    system.ask_many(coupon, [user for user in range(1, 21) for _ in range(10)])

    for told in system.history:
        if told.coupon_id == coupon and told.outcome == "accepted" and told.request_id:
            assert system.final(told.request_id)["state"] == "issued"
    named = {(told.user_id, told.request_id) for told in system.history if told.coupon_id == coupon}
    assert len(named) == 20
    assert system.count("SELECT count(*) FROM requests WHERE coupon_id = :id", id=coupon) == 20


def test_requests_are_decided_in_offset_order(system: System) -> None:
    """P3: who pressed after another's receipt has a higher sequence."""
    coupon = system.make_coupon(quantity=30)

    receipts = [answer.json()["request_id"] for user in range(1, 31) if (answer := system.ask(coupon, user))]

    assert [system.final(receipt)["sequence"] for receipt in receipts] == list(range(1, 31))


def test_a_receipt_is_never_unknown(system: System) -> None:
    """P4: right after a 202 the request's page is there, with Valkey emptied too."""
    coupon = system.make_coupon(quantity=5)
    answer = system.ask(coupon, 1)
    assert answer is not None

    system.redis.flushall()
    page = system.http.get(answer.headers["location"])

    assert page.status_code == 200
    assert system.final(page.json()["request_id"])["state"] == "issued"


def test_a_foreign_record_is_issued_like_ours(system: System) -> None:
    """A message as the report's Spring producer writes it takes its place in line."""
    coupon = system.make_coupon(quantity=2)

    system.produce(coupon, b'{"userId":7,"couponId":%d,"requestTimeMillis":1767225600000}' % coupon)

    issued = "SELECT count(*) FROM requests WHERE coupon_id = :id AND user_id = 7 AND state = 'issued'"
    system.eventually(lambda: system.count(issued, id=coupon) == 1)


def test_the_window_is_judged_at_the_gate(system: System) -> None:
    """Before it opens a coupon answers not_open with the time to wait, after it closes closed."""
    soon = system.make_coupon(quantity=1, opens_at="2099-01-01T00:00:00Z")
    over = system.make_coupon(quantity=1, closes_at="2020-01-01T00:00:00Z")

    early, late = system.ask(soon, 1), system.ask(over, 1)

    assert early is not None
    assert (early.status_code, early.json()["code"]) == (409, "not_open")
    assert int(early.headers["retry-after"]) > 3600
    assert late is not None
    assert (late.status_code, late.json()["code"]) == (409, "closed")
