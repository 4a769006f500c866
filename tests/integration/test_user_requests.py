"""The list of a user's requests: for all coupons, newest first, page by page, and only that of the caller."""

from collections.abc import Callable

import httpx
import pytest
from sqlalchemy import Engine, text

from service.domain.api_key import NewKey
from service.domain.caller import Role
from service.domain.coupon import Coupon
from service.domain.request_id import RequestIds
from service.domain.ticket import Purpose
from service.limits import MAX_ID
from tests.builders import AT_MS
from tests.fixtures.callers import bearer, ticket, token
from tests.log import Log

_PATH = "/users/7/issuances"
#: no test coupon has this id
_ABSENT = 2**60


@pytest.fixture
def user_has_requests(real_log: Log, make_coupon: Callable[..., Coupon], ids: RequestIds, store: Engine) -> list[str]:
    """Requests of user 7 for four coupons, and one of another user; return the user's request ids, oldest first."""
    coupons = [make_coupon(quantity=1) for _ in range(4)]
    names = [ids.mint(coupon.id, 7, AT_MS + number // 2) for number, coupon in enumerate(coupons)]
    real_log.append_request(coupons[3].id, 8)  # takes the only one
    for coupon, name in zip(coupons, names, strict=True):
        real_log.append(coupon.id, 7, name)
    real_log.append(_ABSENT, 7, None)  # of another producer, for a coupon that does not exist
    real_log.issue()
    order = (
        "SELECT request_id FROM requests WHERE user_id = 7 AND coupon_id < :absent"
        ' ORDER BY requested_at, log_id, partition, "offset"'
    )
    with store.begin() as tx:
        return list(tx.execute(text(order), {"absent": _ABSENT}).scalars())


def _pages(api: httpx.Client, limit: int, credentials: str) -> list[httpx.Response]:
    """Return all pages, by following Link."""
    pages = [api.get(_PATH, params={"limit": limit}, headers=bearer(credentials))]
    while link := pages[-1].links.get("next"):
        pages.append(api.get(pages[-1].url.join(link["url"]), headers=bearer(credentials)))
    return pages


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 500])
def test_a_user_pages_through_the_own_requests(api: httpx.Client, user_has_requests: list[str], limit: int) -> None:
    """Each is there once, newest first, also those of the same millisecond; `next` is the cursor in Link."""
    pages = _pages(api, limit, token())

    listed = [one["request_id"] for page in pages for one in page.json()["issuances"]]
    assert listed == user_has_requests[::-1]
    assert [len(page.json()["issuances"]) for page in pages[:-1]] == [limit] * (len(pages) - 1)
    for page in pages:
        assert page.status_code == 200
        assert page.headers["Cache-Control"] == "no-store"
        linked = httpx.URL(page.links["next"]["url"]).params.get("cursor") if page.links else None
        assert page.json()["next"] == linked


def test_each_request_is_shown_as_by_itself_with_the_name_of_its_coupon(
    api: httpx.Client, user_has_requests: list[str]
) -> None:
    """Each coupon's own; a record of another producer for a coupon that does not exist is not in the list."""
    del user_has_requests
    listed = api.get(_PATH, headers=bearer(token())).json()["issuances"]

    states = sorted((one["state"], one["code"] or "", one.pop("coupon_name")) for one in listed)
    assert states == [
        *3 * [("issued", "", "a coupon")],
        ("refused", "sold_out", "a coupon"),
    ]
    for one in listed:
        assert one == api.get(f"/issuances/{one['request_id']}", headers=bearer(token())).json()


def test_the_list_of_another_user_does_not_exist(
    api: httpx.Client, keys: dict[Role, NewKey], user_has_requests: list[str]
) -> None:
    """Whether that user has requests or not; back ends and operators read every list."""
    for credentials in (token("8"), ticket(Purpose.ACCEPT, 8), ticket(Purpose.STREAM, 8)):
        for path in (_PATH, "/users/9/issuances"):
            response = api.get(path, headers=bearer(credentials))
            assert (response.status_code, response.json()["code"]) == (404, "not_found")
    for credentials in (token("7"), ticket(Purpose.STREAM), keys[Role.ON_BEHALF].text, keys[Role.READ].text):
        assert len(api.get(_PATH, headers=bearer(credentials)).json()["issuances"]) == len(user_has_requests)
    empty = api.get("/users/9/issuances", headers=bearer(keys[Role.READ].text))
    assert (empty.status_code, empty.json()) == (200, {"issuances": [], "next": None})


def test_callers_for_all_users_read_lists_of_users_whom_other_producers_name(
    api: httpx.Client, keys: dict[Role, NewKey], real_log: Log, make_coupon: Callable[..., Coupon]
) -> None:
    """Their ids have 64 bits; the service's own users have ids that JavaScript holds."""
    real_log.append(make_coupon().id, MAX_ID, request_id=None)
    real_log.issue()
    path = f"/users/{MAX_ID}/issuances"

    for role in (Role.ON_BEHALF, Role.READ):
        (one,) = api.get(path, headers=bearer(keys[role].text)).json()["issuances"]
        assert (one["user_id"], one["state"]) == (MAX_ID, "issued")
    assert api.get(path, headers=bearer(token())).status_code == 404


def test_what_is_no_page_is_refused(api: httpx.Client) -> None:
    cursors = ("", "1", "1-2-3", "1-2-3-4-5", "-1-2-3-4", "1-2-3-" + "9" * 19, "٣-2-3-4", "1-2-3-4\n")
    for query in ({"limit": "0"}, {"limit": "501"}, *({"cursor": cursor} for cursor in cursors)):
        response = api.get(_PATH, params=query, headers=bearer(token()))

        assert (response.status_code, response.json()["code"]) == (422, "invalid"), query


def test_every_cursor_of_the_right_form_is_a_position(api: httpx.Client) -> None:
    """Also one that no page has."""
    for cursor in ("0-0-0-0", f"{'9' * 15}-{'9' * 4}-{'9' * 9}-{'9' * 18}"):
        assert api.get(_PATH, params={"cursor": cursor}, headers=bearer(token())).json()["issuances"] == []
