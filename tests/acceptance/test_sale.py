"""A sale from the users' point of view: P1 to P4, foreign records and windows."""

from collections import Counter

from tests.system import System


def test_a_coupon_is_never_over_issued(system: System) -> None:
    """P1: of 300 users at once, exactly the quantity gets a coupon, and the others get a refusal."""
    coupon = system.make_coupon(quantity=100)

    answers = system.request_many(coupon, range(1, 301))

    statuses = Counter(answer.status_code for answer in answers if answer)
    assert statuses == {202: 100, 409: 200}
    request_ids = [answer.json()["request_id"] for answer in answers if answer and answer.status_code == 202]
    assert Counter(system.wait_until_final(request_id)["state"] for request_id in request_ids) == {"issued": 100}
    assert system.http.get(f"/coupons/{coupon}").json()["state"] == "sold_out"


def test_a_user_gets_one_coupon_despite_repeats(system: System) -> None:
    """P2: ten requests at once of each of twenty users give twenty issuances; each repeat names the first one."""
    coupon = system.make_coupon(quantity=100)

    system.request_many(coupon, [user for user in range(1, 21) for _ in range(10)])

    answers = [answer for answer in system.history if answer.coupon_id == coupon]
    for answer in answers:
        if answer.outcome == "accepted" and answer.request_id:
            assert system.wait_until_final(answer.request_id)["state"] == "issued"
    assert len({(answer.user_id, answer.request_id) for answer in answers}) == 20
    assert system.count("SELECT count(*) FROM requests WHERE coupon_id = :id", id=coupon) == 20


def test_requests_are_decided_in_offset_order(system: System) -> None:
    """P3: a request sent after another's 202 has a higher sequence."""
    coupon = system.make_coupon(quantity=30)

    request_ids = [
        answer.json()["request_id"] for user in range(1, 31) if (answer := system.request_issuance(coupon, user))
    ]

    assert [system.wait_until_final(request_id)["sequence"] for request_id in request_ids] == list(range(1, 31))


def test_an_accepted_request_is_never_unknown(system: System) -> None:
    """P4: right after a 202 the request has a status page, even with an emptied Valkey."""
    coupon = system.make_coupon(quantity=5)
    answer = system.request_issuance(coupon, 1)
    assert answer is not None

    system.redis.flushall()
    page = system.http.get(answer.headers["location"])

    assert page.status_code == 200
    assert system.wait_until_final(page.json()["request_id"])["state"] == "issued"


def test_a_foreign_record_is_issued(system: System) -> None:
    """A record as the report's Spring producer writes it is decided in its order."""
    coupon = system.make_coupon(quantity=2)

    system.produce(coupon, b'{"userId":7,"couponId":%d,"requestTimeMillis":1767225600000}' % coupon)

    issued = "SELECT count(*) FROM requests WHERE coupon_id = :id AND user_id = 7 AND state = 'issued'"
    system.eventually(lambda: system.count(issued, id=coupon) == 1)


def test_the_gate_applies_the_window(system: System) -> None:
    """Before the window: not_open with Retry-After; after it: closed."""
    not_open = system.make_coupon(quantity=1, opens_at="2099-01-01T00:00:00Z")
    closed = system.make_coupon(quantity=1, closes_at="2020-01-01T00:00:00Z")

    early, late = system.request_issuance(not_open, 1), system.request_issuance(closed, 1)

    assert early is not None
    assert (early.status_code, early.json()["code"]) == (409, "not_open")
    assert int(early.headers["retry-after"]) > 3600
    assert late is not None
    assert (late.status_code, late.json()["code"]) == (409, "closed")
