"""Coupons over HTTP, for callers who work on them at the same time."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import httpx
import pytest

from service.domain.api_key import NewKey
from service.domain.caller import Role
from service.domain.coupon import Coupon
from tests.fixtures.callers import bearer, token
from tests.integration.conftest import Query

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


def test_a_repeat_of_a_change_whose_answer_was_lost_succeeds(
    api: httpx.Client, keys: dict[Role, NewKey], coupon_id: int, change: Change
) -> None:
    """It has the tag of before: the coupon has the wanted values already, and nothing more is changed."""
    tag = api.get(f"/coupons/{coupon_id}", headers=bearer(keys[Role.READ].text)).headers["ETag"]
    first, repeat = change(tag, quantity=20), change(tag, quantity=20)

    assert (first.status_code, repeat.status_code) == (200, 200)
    assert first.headers["ETag"] == repeat.headers["ETag"] != tag
    assert change(tag, quantity=30).status_code == 412


def test_a_coupon_is_renamed(change: Change, api: httpx.Client, keys: dict[Role, NewKey], query: Query) -> None:
    """Its version and `updated_at` move; what it was called before is recorded with who changed it."""
    made = change('"0"', name="치킨 🍗")

    assert (made.status_code, made.json()["name"], made.headers["ETag"]) == (200, "치킨 🍗", '"1"')
    assert _time(made, "updated_at") > _time(made, "created_at")
    again = api.get(f"/coupons/{made.json()['id']}", headers=bearer(keys[Role.READ].text))
    assert again.json() == made.json()
    changes = query("SELECT name, changed_by FROM coupon_changes ORDER BY version")
    assert changes == [("a coupon", "tests"), ("치킨 🍗", f"key {keys[Role.ADMIN].prefix} (the admin caller)")]
    assert change("*", name="치킨 🍗").json() == made.json()


@pytest.mark.parametrize("values", [{"name": " "}, {"name": "a\u202eb"}, {"name": None}, {"archived": None}], ids=str)
def test_an_invalid_change_is_refused(change: Change, values: dict[str, Any]) -> None:
    """A new name must be as readable as the first one."""
    response = change("*", **values)

    assert (response.status_code, response.json()["code"]) == (422, "invalid")


def _time(response: httpx.Response, field: str) -> datetime:
    return datetime.fromisoformat(response.json()[field])


def test_only_a_closed_coupon_can_be_archived_and_it_stays_closed(change: Change) -> None:
    """So no list leaves out a coupon that can be requested."""
    refused = change("*", archived=True)
    archived = change("*", archived=True, state="closed")
    repeated = change("*", archived=True)
    reopened = change("*", state="open")

    assert (refused.status_code, refused.json()["code"]) == (409, "not_closed")
    assert (archived.status_code, archived.json()["state"], archived.headers["ETag"]) == (200, "closed", '"1"')
    assert _time(archived, "archived_at") >= _time(archived, "created_at")
    assert repeated.json() == archived.json()
    assert (reopened.status_code, reopened.json()["code"]) == (409, "not_closed")
    taken_out = change('"1"', archived=False, state="open")
    assert (taken_out.status_code, taken_out.json()["state"], taken_out.json()["archived_at"]) == (200, "open", None)


def test_a_coupon_whose_window_has_ended_can_be_archived(change: Change) -> None:
    """It is closed. Its window cannot be moved to a time at which it was archived."""
    assert change("*", closes_at="2026-01-01T00:00:00Z").json()["state"] == "closed"

    assert change("*", archived=True).status_code == 200
    assert change("*", closes_at="2025-01-01T00:00:00Z").status_code == 200
    for values in ({"closes_at": None}, {"closes_at": "2100-01-01T00:00:00Z"}):
        assert change("*", **values).json()["code"] == "not_closed"


def test_a_request_for_an_archived_coupon_is_refused_as_closed(
    change: Change, api: httpx.Client, coupon_id: int
) -> None:
    change("*", archived=True, state="closed")

    response = api.post(f"/coupons/{coupon_id}/issuances", json={}, headers=bearer(token("7")))

    assert (response.status_code, response.json()["code"]) == (409, "closed")


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
