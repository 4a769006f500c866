"""A small sale with the generated client, at the URL that is its argument. Prints what it requested, for the proof."""

import json
import sys
import time
from urllib.parse import urljoin
from urllib.request import urlopen

from coupons_client import (
    ApiClient,
    Configuration,
    CouponsApi,
    CouponView,
    IssuancesApi,
    IssuanceView,
    NewCoupon,
    NewIssuance,
    Problem,
    RequestState,
)
from coupons_client.exceptions import ConflictException

FINAL = {RequestState.ISSUED, RequestState.REFUSED, RequestState.DEAD}
WINNER, LATE = 2**53 - 1, 7


def create(coupons: CouponsApi, name: str) -> CouponView:
    """Create a coupon for one user."""
    response = coupons.create_coupon_with_http_info(NewCoupon(name=name, quantity=1))
    created: CouponView = response.data
    assert response.headers is not None
    assert response.headers["location"] == f"/coupons/{created.id}"
    return created


def wait_until_final(issuances: IssuancesApi, request_id: str) -> IssuanceView:
    """Read the state of a request until it is final."""
    while True:
        found: IssuanceView = issuances.get_issuance(request_id)
        if found.state in FINAL:
            return found
        time.sleep(0.02)


def list_ids(coupons: CouponsApi) -> list[int]:
    """Return the ids of all coupons, from pages of one."""
    found: list[int] = []
    cursor: str | None = None
    while True:
        page = coupons.list_coupons(cursor=cursor, limit=1)
        assert len(page.coupons) == 1
        found += [coupon.id for coupon in page.coupons]
        cursor = page.next
        if cursor is None:
            return found


def refusal(issuances: IssuancesApi, coupon_id: int, user_id: int) -> Problem:
    """Request a coupon that the user does not get; return the problem."""
    problem = None
    try:
        issuances.request_coupon(coupon_id, NewIssuance(user_id=user_id))
    except ConflictException as error:
        problem = error.data
    assert isinstance(problem, Problem)
    return problem


def main(api_url: str) -> None:
    """Sell a coupon to one of two users."""
    with ApiClient(Configuration(host=api_url)) as client:
        coupons, issuances = CouponsApi(client), IssuancesApi(client)
        coupon, other = create(coupons, "Python"), create(coupons, "another page")

        receipt = issuances.request_coupon(coupon.id, NewIssuance(user_id=WINNER))
        issued = wait_until_final(issuances, receipt.request_id)
        assert (issued.state, issued.sequence, issued.user_id) == (RequestState.ISSUED, 1, WINNER)

        assert refusal(issuances, coupon.id, WINNER).code == "duplicate"
        refused = refusal(issuances, coupon.id, LATE)
        assert (refused.status, refused.code, refused.title) == (409, "sold_out", "Sold out")
        with urlopen(urljoin(api_url, refused.type)) as page:
            assert b"<h1>Sold out</h1>" in page.read()

        listed = list_ids(coupons)
    assert len(set(listed)) == len(listed)
    assert {coupon.id, other.id} <= set(listed)
    sys.stdout.write(json.dumps({"coupon_id": coupon.id, "users": [WINNER, LATE]}))


main(sys.argv[1])
