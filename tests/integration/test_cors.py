"""Only a page of a site of CORS_ORIGINS reads responses, and a preflight needs no credentials."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from redis import Redis

from service.api import plain_requests
from service.api.authorization import permissions
from service.api.plain_issuance import PlainIssuance
from service.api.routes import health
from service.config import Settings
from service.domain.api_key import NewKey
from service.domain.caller import Role
from service.domain.coupon import Coupon
from service.server import guarded_protocol
from tests.fixtures.callers import bearer, head_of, serving, token
from tests.log import Log

SHOP = "https://shop.example"
EXPOSED = "ETag, Link, Location, RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate"
_ROUTES = sorted(permissions(public_docs=False))


@pytest.fixture
def api(with_auth: Settings, real_log: Log, keys: dict[Role, NewKey], redis: Redis) -> Iterator[httpx.Client]:
    """A client of an API that pages of two other sites may call."""
    del real_log, keys, redis  # both are emptied; the keys are read from the database
    origins = f"{SHOP}, http://localhost:3000"
    with serving(with_auth.model_copy(update={"cors_origins": origins, "public_docs": True})) as client:
        yield client


def _path(template: str) -> str:
    for name in ("coupon_id", "dead_letter_id", "user_id"):
        template = template.replace(f"{{{name}}}", "999")
    return template.replace("{request_id}", "x").replace("{name}", "wait.js")


def test_only_a_page_of_an_allowed_site_reads_a_response(api: httpx.Client, keys: dict[Role, NewKey]) -> None:
    """Of every route, whether it succeeds or not; no site may use the browser's own credentials."""
    for method, template in _ROUTES:
        for headers in ({}, bearer(keys[Role.ADMIN].text), bearer(token())):
            for origin, is_allowed in ((SHOP, True), ("http://localhost:3000", True), *_FOREIGN):
                sent = headers if origin is None else {**headers, "Origin": origin}
                response = head_of(api, method, _path(template), headers=sent)
                _assert_shown(response, origin, is_allowed=is_allowed)


_FOREIGN = [
    (origin, False) for origin in ("https://evil.example", f"{SHOP}.evil.example", f"{SHOP}:8443", "null", None)
]


def _assert_shown(response: httpx.Response, origin: str | None, *, is_allowed: bool) -> None:
    headers = response.headers
    assert headers.get("Access-Control-Allow-Origin") == (origin if is_allowed else None), response.request
    assert headers.get("Access-Control-Expose-Headers") == (EXPOSED if origin else None), response.request
    assert "Access-Control-Allow-Credentials" not in headers
    assert "Origin" in headers["Vary"]


def test_the_batch_path_shows_its_responses_to_the_same_pages(
    api: httpx.Client, make_coupon: Callable[..., Coupon], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser's request for a coupon stays on it."""
    taken = []

    class Counted(PlainIssuance):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            taken.append(self)

    monkeypatch.setattr(plain_requests, "PlainIssuance", Counted)
    path = f"/coupons/{make_coupon(quantity=9).id}/issuances"
    origins = [(SHOP, True), *_FOREIGN]
    for user, (origin, is_allowed) in enumerate(origins, 1):
        headers = {"Sec-Fetch-Site": "cross-site"} | ({} if origin is None else {"Origin": origin})
        with_token = {**headers, **bearer(token(str(user)))}
        responses = [api.post(path, json={}, headers=each) for each in (with_token, with_token, headers)]

        assert [response.status_code for response in responses] == [202, 409, 401]
        for response in responses:
            _assert_shown(response, origin, is_allowed=is_allowed)

    assert len(taken) == 3 * len(origins)


def _preflight(origin: str, method: str, names: str = "authorization, content-type") -> dict[str, str]:
    return {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": names}


def test_a_preflight_needs_no_credentials(api: httpx.Client) -> None:
    """Of every route: a browser sends none with it. Nothing of the route runs."""
    for method, template in _ROUTES:
        response = api.options(_path(template), headers=_preflight(SHOP, method))

        assert (response.status_code, response.text) == (200, "OK"), template
        assert response.headers["Access-Control-Allow-Origin"] == SHOP
        assert method in response.headers["Access-Control-Allow-Methods"].split(", ")
        assert response.headers["Access-Control-Max-Age"] == "7200"


def test_what_is_not_allowed_has_no_preflight(api: httpx.Client) -> None:
    """Another site, a page without a site, a method and a header."""
    for headers in (
        _preflight("https://evil.example", "POST"),
        _preflight("null", "POST"),
        _preflight(SHOP, "DELETE"),
        _preflight(SHOP, "POST", "authorization, x-admin"),
    ):
        response = api.options("/coupons", headers=headers)

        assert (response.status_code, response.json()["code"]) == (403, "forbidden"), headers
        assert "Access-Control-Allow-Origin" not in response.headers
        assert "Origin" in response.headers["Vary"]


def test_a_page_may_set_the_headers_that_the_api_reads(api: httpx.Client) -> None:
    for name in ("authorization", "content-type", "if-match", "if-none-match", "idempotency-key", "last-event-id"):
        assert api.options("/coupons", headers=_preflight(SHOP, "POST", name)).status_code == 200, name


def test_only_a_preflight_needs_no_credentials(api: httpx.Client) -> None:
    """OPTIONS without its headers, and another method with them, are as without CORS."""
    preflight = _preflight(SHOP, "GET")
    for name in ("Origin", "Access-Control-Request-Method"):
        without = {header: value for header, value in preflight.items() if header != name}
        assert api.options("/coupons", headers=without).status_code == 405
    for method in ("GET", "POST", "PATCH", "HEAD"):
        assert api.request(method, "/coupons", headers=preflight).status_code in (401, 405)


_HEAD = b"POST /tickets HTTP/1.1\r\nHost: a\r\nOrigin: %b\r\nAuthorization: Bearer %b\r\n"


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        (b"Content-Length: 99999\r\n\r\n", 413),
        (b"X: " + b"x" * 40_000, 431),
        (b"Host: b\r\n\r\n", 400),
        (b"X", 408),
        (b"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{", 408),
    ],
    ids=["body", "head", "host", "slow head", "slow body"],
)
def test_a_page_reads_why_the_server_rejected_its_request(
    api: httpx.Client, monkeypatch: pytest.MonkeyPatch, rest: bytes, status: int
) -> None:
    """If its Origin had arrived."""
    for limit in ("HEAD_TIMEOUT_SECONDS", "BODY_TIMEOUT_SECONDS"):
        monkeypatch.setattr(guarded_protocol, limit, 0.5)
    for origin, is_allowed in ((SHOP.encode(), True), (b"https://evil.example", False)):
        with socket.create_connection((api.base_url.host, api.base_url.port or 0), timeout=10) as connection:
            connection.sendall(_HEAD % (origin, token().encode()) + rest)
            response = b""
            while chunk := connection.recv(65_536):
                response += chunk
        assert response.startswith(b"HTTP/1.1 %d " % status), response
        assert (b"access-control-allow-origin: " + origin in response) is is_allowed
        assert b"vary: Origin\r\n" in response


def test_a_page_reads_the_problem_of_an_unexpected_error(
    api: httpx.Client, keys: dict[Role, NewKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its handler is outside of all others."""

    def fail() -> None:
        raise RuntimeError

    monkeypatch.setattr(health, "render", fail)
    response = api.get("/metrics", headers={**bearer(keys[Role.READ].text), "Origin": SHOP})

    assert (response.status_code, response.json()["code"]) == (500, "internal")
    assert response.headers["Access-Control-Allow-Origin"] == SHOP


def test_without_the_setting_no_page_may_call(with_auth: Settings, real_log: Log, redis: Redis) -> None:
    """There is no answer to a preflight, and no header."""
    del real_log, redis
    with serving(with_auth) as client:
        preflight = client.options("/coupons", headers=_preflight(SHOP, "GET"))
        read = client.get("/healthz", headers={"Origin": SHOP})
        accepted = client.post("/coupons/1/issuances", json={}, headers={"Origin": SHOP, **bearer(token())})

    assert preflight.status_code == 405
    for response in (preflight, read, accepted):
        assert not {name for name in response.headers if name.startswith("access-control-") or name == "vary"}
