"""Coupons over HTTP, for callers who work on them at the same time."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from service.domain.api_key import NewKey
from service.domain.caller import Role
from service.domain.coupon import Coupon
from tests.fixtures.callers import bearer

Change = Callable[..., httpx.Response]


@pytest.fixture
def coupon_id(make_coupon: Callable[..., Coupon]) -> int:
    """The id of a coupon that nobody has changed."""
    return make_coupon(quantity=9).id


@pytest.fixture
def change(api: httpx.Client, keys: dict[Role, NewKey], coupon_id: int) -> Change:
    """Change the coupon, with an If-Match header: `change('"0"', quantity=5)`."""
    headers = bearer(keys[Role.ADMIN].text)

    def send(tag: str, **values: Any) -> httpx.Response:
        return api.patch(f"/coupons/{coupon_id}", json=values, headers={**headers, "If-Match": tag})

    return send


def test_of_two_changes_of_the_same_version_one_is_refused(
    api: httpx.Client, keys: dict[Role, NewKey], coupon_id: int, change: Change
) -> None:
    """The other one is made, whichever comes first; its response and a read have the new tag."""
    read = api.get(f"/coupons/{coupon_id}", headers=bearer(keys[Role.READ].text))
    with ThreadPoolExecutor(2) as pool:
        responses = list(pool.map(lambda quantity: change(read.headers["ETag"], quantity=quantity), (20, 30)))

    made, refused = sorted(responses, key=lambda response: response.status_code)
    assert (made.status_code, refused.status_code) == (200, 412)
    assert refused.json()["code"] == "precondition_failed"
    again = api.get(f"/coupons/{coupon_id}", headers=bearer(keys[Role.READ].text))
    assert again.headers["ETag"] == made.headers["ETag"] != read.headers["ETag"]
    assert again.json()["quantity"] == made.json()["quantity"]


@pytest.mark.parametrize(
    ("tag", "status"),
    [
        ('"0"', 200),
        ("*", 200),
        ('"7", "0"', 200),
        ('"1"', 412),
        ('W/"0"', 412),
        ("0", 412),
        ("", 412),
        ('"' + "9" * 5000 + '"', 412),
    ],
    ids=lambda value: str(value)[:10],
)
def test_a_tag_is_compared_as_rfc_9110_says(change: Change, tag: str, status: int) -> None:
    assert change(tag, quantity=10).status_code == status
