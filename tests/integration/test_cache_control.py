"""No cache that others use stores what changes or is somebody's: every response says so."""

import re
from collections.abc import Callable

import httpx
import pytest

from service.api.authorization import DOCUMENTATION, permissions
from service.domain.api_key import NewKey
from service.domain.caller import Role
from service.domain.coupon import Coupon
from service.server.problems import PROBLEMS_PATH
from tests.fixtures.callers import bearer, token

_BODIES = {
    "/coupons": {"name": "a coupon", "quantity": 5},
    "/coupons/{coupon_id}": {"quantity": 6},
    "/tickets": {"purpose": "accept"},
    "/dead-letters/replay": {"dry_run": True},
}
_ROUTES = permissions(public_docs=False)
#: paths of pages that are the same for everybody
_PAGES = {
    PROBLEMS_PATH: PROBLEMS_PATH,
    f"{PROBLEMS_PATH}/{{code}}": f"{PROBLEMS_PATH}/sold_out",
    "/wait/{request_id}": "/wait/any",
    "/wait-page/{name}": "/wait-page/wait.css",
    "/dashboard": "/dashboard",
    "/dashboard/assets/{name}": "/dashboard/assets/dashboard.css",
}
#: a stream, of which tests/integration/test_dashboard_stream.py checks the header
_STREAM = ("GET", "/dashboard/events")
#: no coupon, request or dead letter of the test has these
_ABSENT = {"request_id": "A" * 60, "dead_letter_id": "1", "user_id": "7", "code": "unknown", "name": "unknown"}


@pytest.mark.parametrize(
    ("method", "path"), sorted(_ROUTES.keys() - DOCUMENTATION - {_STREAM} - {("GET", path) for path in _PAGES})
)
def test_no_response_of_a_route_is_stored(
    api: httpx.Client, keys: dict[Role, NewKey], make_coupon: Callable[..., Coupon], method: str, path: str
) -> None:
    """Neither a success nor a problem, with credentials and without."""
    url = path.format_map({**_ABSENT, "coupon_id": str(make_coupon().id)})
    for credentials in (keys[Role.ADMIN].text, token("7"), "a.b.c"):
        response = api.request(method, url, json=_BODIES.get(path), headers=bearer(credentials))

        assert response.headers.get_list("Cache-Control") == ["no-store"], response.text


@pytest.mark.parametrize("path", _PAGES.values())
def test_a_page_for_everybody_is_stored_for_a_while(api: httpx.Client, path: str) -> None:
    read = api.get(path)

    assert read.status_code == 200
    assert re.fullmatch("public, max-age=[1-9][0-9]*", read.headers["Cache-Control"])


@pytest.mark.parametrize(("method", "path"), sorted(DOCUMENTATION))
def test_the_documentation_is_stored_by_those_who_may_read_it(
    api: httpx.Client, keys: dict[Role, NewKey], method: str, path: str
) -> None:
    """For an hour, and by no cache that others use; its refusal is stored by nobody."""
    read = api.request(method, path, headers=bearer(keys[Role.READ].text))
    refused = api.request(method, path)

    assert (read.is_error, read.headers["Cache-Control"]) == (False, "private, max-age=3600")
    assert (refused.status_code, refused.headers["Cache-Control"]) == (401, "no-store")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nothing"), ("PUT", "/coupons"), ("HEAD", "/healthz"), ("GET", "/docs/")]
)
def test_what_is_no_route_is_not_stored(api: httpx.Client, method: str, path: str) -> None:
    assert api.request(method, path).headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("query", ["", "?a=b"], ids=["batch path", "route"])
def test_an_accepted_request_is_not_stored(api: httpx.Client, make_coupon: Callable[..., Coupon], query: str) -> None:
    """Its id shows the state of the request."""
    response = api.post(f"/coupons/{make_coupon().id}/issuances{query}", json={}, headers=bearer(token("7")))

    assert response.status_code == 202
    assert response.headers["Cache-Control"] == "no-store"
