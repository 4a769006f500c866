"""The session of an operator in a browser: how it begins and ends, what it may do, and from where."""

import re
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import httpx
import pytest
from redis import Redis
from sqlalchemy import Engine

from service.api.authorization import SESSION_COOKIE
from service.config import Settings
from service.domain.api_key import NewKey
from service.domain.caller import Role
from service.domain.coupon import Coupon
from service.domain.session import Session, Sessions
from service.limits import FAILED_LOGINS_PER_ADDRESS, MAX_SESSION_SECONDS
from service.usecases.api_keys import ApiKeyService
from tests.fixtures.callers import bearer, serving, token
from tests.log import Log
from tests.waiting import eventually

_OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}
#: no limit on logins is reached by the tests that do not mean to
_ADDRESSES = (f"10.0.0.{number}" for number in range(1, 255))


@pytest.fixture
def api(with_auth: Settings, real_log: Log, keys: dict[Role, NewKey], redis: Redis) -> Iterator[httpx.Client]:
    """A client of an API behind a proxy, one page of another site may call; it keeps no cookies."""
    del real_log, keys, redis  # both are emptied; the keys are read from the database
    settings = {"trusted_proxies": "127.0.0.1", "trusted_proxy_header": "x-forwarded-for"}
    with serving(with_auth.model_copy(update={**settings, "cors_origins": "https://shop.example"})) as client:
        yield client


def _log_in(api: httpx.Client, key: str, **headers: str) -> httpx.Response:
    sent = {**_OWN_PAGE, "X-Forwarded-For": next(_ADDRESSES), **headers}
    response = api.post("/dashboard/session", json={"key": key}, headers=sent)
    api.cookies.clear()
    return response


def _cookie(response: httpx.Response) -> dict[str, str]:
    """Return the header with the session of a login."""
    assert response.status_code == 204, response.text
    session, _, _ = response.headers["Set-Cookie"].partition(";")
    return {"Cookie": session}


def test_a_session_says_who_is_logged_in(api: httpx.Client, keys: dict[Role, NewKey]) -> None:
    """With the permissions of its key."""
    for role in (Role.READ, Role.OPERATE, Role.ADMIN):
        shown = api.get("/dashboard/session", headers=_cookie(_log_in(api, keys[role].text))).json()

        assert shown["name"] == f"key {keys[role].prefix} (the {role} caller)"
        assert ("operate" in shown["permissions"]) == (role is not Role.READ)
        assert ("administer" in shown["permissions"]) == (role is Role.ADMIN)


@pytest.mark.parametrize(
    ("origin", "is_secure"), [("http://coupons.example", False), ("https://coupons.example", True)]
)
def test_no_script_and_no_other_site_gets_the_cookie(
    api: httpx.Client, keys: dict[Role, NewKey], origin: str, is_secure: bool
) -> None:
    """It is sent over TLS only if the page came so: a proxy ends TLS, and the browser names the page."""
    response = _log_in(api, keys[Role.READ].text, Origin=origin)
    attributes = {part.strip().lower() for part in response.headers["Set-Cookie"].split(";")[1:]}

    assert {"httponly", "samesite=strict", "path=/"} <= attributes
    assert ("secure" in attributes) == is_secure
    assert any(re.fullmatch("max-age=[1-9][0-9]*", one) for one in attributes)
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("key", ["", "x", "ck_", "ck_" + 43 * "x", 16_000 * "x"])
def test_no_session_is_opened_with_another_key(api: httpx.Client, key: str) -> None:
    response = _log_in(api, key)

    assert (response.status_code, response.json()["code"]) == (401, "unauthenticated")
    assert "Set-Cookie" not in response.headers


def test_only_operators_log_in(api: httpx.Client, keys: dict[Role, NewKey]) -> None:
    """Not a back end, and not a user."""
    assert _log_in(api, keys[Role.ON_BEHALF].text).status_code == 403
    assert _log_in(api, token()).status_code == 401


@pytest.mark.parametrize(
    ("content", "status"), [(b"", 422), (b"{}", 422), (b'{"key": 7}', 422), (b'{"key": "a", "role": "admin"}', 422)]
)
def test_a_malformed_login_is_refused(api: httpx.Client, content: bytes, status: int) -> None:
    headers = {"Content-Type": "application/json", **_OWN_PAGE}
    response = api.post("/dashboard/session", content=content, headers=headers)

    assert (response.status_code, response.json()["code"]) == (status, "invalid")
    assert api.post("/dashboard/session", data={"key": "ck_"}).status_code == 415


def test_failed_logins_are_limited_by_address(api: httpx.Client, keys: dict[Role, NewKey]) -> None:
    """Another address goes on, and a valid key is taken from any: strangers cannot lock operators out."""
    stranger, other = {"X-Forwarded-For": "192.0.2.7"}, {"X-Forwarded-For": "192.0.2.8"}
    responses = [_log_in(api, "ck_wrong", **stranger) for _ in range(FAILED_LOGINS_PER_ADDRESS)]
    limited = _log_in(api, "ck_wrong", **stranger)

    assert {response.status_code for response in responses} == {401}
    assert (limited.status_code, limited.json()["code"]) == (429, "rate_limited")
    assert int(limited.headers["Retry-After"]) >= 1
    assert _log_in(api, keys[Role.ON_BEHALF].text, **stranger).status_code == 429
    assert _log_in(api, "ck_wrong", **other).status_code == 401
    _cookie(_log_in(api, keys[Role.ADMIN].text, **stranger))


def test_logins_that_succeed_are_not_limited(api: httpx.Client, keys: dict[Role, NewKey]) -> None:
    """A whole team may be behind one address."""
    for _ in range(FAILED_LOGINS_PER_ADDRESS + 2):
        _cookie(_log_in(api, keys[Role.READ].text, **{"X-Forwarded-For": "192.0.2.9"}))


@pytest.mark.parametrize(
    ("headers", "is_allowed"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Sec-Fetch-Site": "same-origin, cross-site"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://{host}"}, False),
        ({"Origin": "http://{host}"}, True),
        ({"Origin": "http://{host}.evil.example"}, False),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "https://shop.example"}, False),
        ({"Origin": "null"}, False),
        ({}, False),
    ],
    ids=str,
)
def test_a_write_with_a_session_comes_from_a_page_of_this_address(
    api: httpx.Client,
    keys: dict[Role, NewKey],
    make_coupon: Callable[..., Coupon],
    headers: dict[str, str],
    is_allowed: bool,
) -> None:
    """A page of CORS_ORIGINS may not use the session of an operator either; what names no page may not."""
    coupon = make_coupon(quantity=5)
    sent = {name: value.format(host=api.base_url.netloc.decode()) for name, value in headers.items()}
    sent |= _cookie(_log_in(api, keys[Role.ADMIN].text))

    changed = api.patch(f"/coupons/{coupon.id}", json={"quantity": 6}, headers=sent)
    ended = api.post("/dashboard/session/end", headers=sent)

    assert changed.status_code == (200 if is_allowed else 403), changed.text
    assert ended.status_code == (204 if is_allowed else 403)
    quantity = api.get(f"/coupons/{coupon.id}", headers=bearer(keys[Role.READ].text)).json()["quantity"]
    assert quantity == (6 if is_allowed else 5)


def test_another_site_logs_nobody_in_or_out(api: httpx.Client, keys: dict[Role, NewKey]) -> None:
    """Neither with the session that the browser has, nor without one: the operator would act as somebody else."""
    foreign = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    key = {"key": keys[Role.ADMIN].text}

    for cookie in ({}, {"Cookie": "coupons_session=" + 44 * "A"}, _cookie(_log_in(api, keys[Role.READ].text))):
        assert api.post("/dashboard/session", json=key, headers={**foreign, **cookie}).status_code == 403
        assert api.post("/dashboard/session/end", headers={**foreign, **cookie}).status_code == 403


def test_a_session_does_what_its_key_may_and_names_it(
    api: httpx.Client, keys: dict[Role, NewKey], make_coupon: Callable[..., Coupon], store: Engine
) -> None:
    """The read role writes nothing, and no operator requests a coupon, on the batch path as on the route."""
    path = f"/coupons/{make_coupon(quantity=5).id}"
    sessions = {
        role: _cookie(_log_in(api, keys[role].text)) | _OWN_PAGE for role in (Role.READ, Role.OPERATE, Role.ADMIN)
    }

    paused = {
        role: api.patch(path, json={"state": "paused"}, headers=cookie).status_code for role, cookie in sessions.items()
    }
    raised = {
        role: api.patch(path, json={"quantity": 6}, headers=cookie).status_code for role, cookie in sessions.items()
    }
    replays = {
        role: api.post("/dead-letters/replay", json={"dry_run": True}, headers=cookie).status_code
        for role, cookie in sessions.items()
    }

    assert paused == {Role.READ: 403, Role.OPERATE: 200, Role.ADMIN: 200}
    assert raised == {Role.READ: 403, Role.OPERATE: 403, Role.ADMIN: 200}
    assert replays == {Role.READ: 403, Role.OPERATE: 200, Role.ADMIN: 200}
    for cookie in sessions.values():
        for query in ("", "?a=b"):
            assert api.post(f"{path}/issuances{query}", json={"user_id": 7}, headers=cookie).status_code == 403
    with store.connect() as tx:
        by = tx.exec_driver_sql("SELECT changed_by FROM coupon_changes ORDER BY version DESC LIMIT 1").scalar_one()
    assert by == f"key {keys[Role.ADMIN].prefix} (the admin caller)"


def test_an_authorization_header_is_stronger_than_a_session(api: httpx.Client, keys: dict[Role, NewKey]) -> None:
    """A program that also has a cookie is who it says it is, and needs no page."""
    cookie = _cookie(_log_in(api, keys[Role.ADMIN].text))

    assert (
        api.post(
            "/dead-letters/replay", json={"dry_run": True}, headers=cookie | bearer(keys[Role.READ].text)
        ).status_code
        == 403
    )
    assert (
        api.post(
            "/dead-letters/replay", json={"dry_run": True}, headers=cookie | bearer(keys[Role.ADMIN].text)
        ).status_code
        == 200
    )
    assert api.get("/coupons", headers=cookie | bearer("ck_wrong")).status_code == 401


def test_a_session_ends_with_its_key(api: httpx.Client, keys: dict[Role, NewKey], store: Engine) -> None:
    """Within seconds after it was revoked; the sessions of other keys go on."""
    ended, other = (_cookie(_log_in(api, keys[role].text)) for role in (Role.OPERATE, Role.READ))
    assert api.get("/dead-letters", headers=ended).status_code == 200

    ApiKeyService(store, "tests").revoke(keys[Role.OPERATE].prefix)

    eventually(lambda: api.get("/dead-letters", headers=ended).status_code == 401)
    assert api.get("/dashboard/session", headers=ended).status_code == 401
    assert api.get("/dead-letters", headers=other).status_code == 200


def test_nobody_makes_a_session_of_a_prefix(api: httpx.Client, keys: dict[Role, NewKey], with_auth: Settings) -> None:
    """The prefix is shown in lists and logs. A key of the MAC without the key's digest is not enough."""
    opened = Session(keys[Role.ADMIN].prefix, int(time.time()) + 60)
    valid = Sessions(with_auth.mac_keys).sign(opened, keys[Role.ADMIN].digest)
    forged = Sessions(with_auth.mac_keys).sign(opened, b"")

    statuses = [
        api.get("/coupons", headers={"Cookie": f"{SESSION_COOKIE}={text}"}).status_code for text in (valid, forged)
    ]

    assert statuses == [200, 401]


def test_a_session_that_has_expired_is_none(api: httpx.Client, keys: dict[Role, NewKey], with_auth: Settings) -> None:
    """Although its key is valid: the browser may send the cookie all the same."""
    ended = Session(keys[Role.ADMIN].prefix, int(time.time()) - 1)
    text = Sessions(with_auth.mac_keys).sign(ended, keys[Role.ADMIN].digest)

    assert api.get("/coupons", headers={"Cookie": f"{SESSION_COOKIE}={text}"}).status_code == 401


def test_a_session_ends_after_a_working_day_or_with_the_validity_of_its_key(
    api: httpx.Client, keys: dict[Role, NewKey], store: Engine
) -> None:
    """Whichever comes first; the browser forgets the cookie then."""
    short = ApiKeyService(store, "tests").create("for an hour", Role.READ, timedelta(hours=1))
    eventually(lambda: api.get("/coupons", headers=bearer(short.text)).status_code == 200)

    for key, seconds in ((keys[Role.READ], MAX_SESSION_SECONDS), (short, 3600)):
        found = re.search("Max-Age=([0-9]+)", _log_in(api, key.text).headers["Set-Cookie"])
        assert found is not None
        assert seconds - 20 < int(found[1]) <= seconds


@pytest.mark.parametrize("value", ["", "x", 44 * "A", 44 * "-", 45 * "A", "é", '"quoted"'])
def test_a_cookie_that_is_no_session_is_none(api: httpx.Client, value: str) -> None:
    """401, and the page, its files and a login are there all the same."""
    cookie = {b"Cookie": f"a=b; coupons_session={value}; c=d".encode("latin-1")}

    assert api.get("/coupons", headers=cookie).status_code == 401
    assert api.get("/dashboard", headers=cookie).status_code == 200


def test_a_log_out_deletes_the_cookie(api: httpx.Client, keys: dict[Role, NewKey]) -> None:
    """Also one that is not valid any more."""
    for cookie in (_cookie(_log_in(api, keys[Role.READ].text)), {"Cookie": "coupons_session=" + 44 * "A"}):
        response = api.post("/dashboard/session/end", headers=cookie | _OWN_PAGE)

        assert response.status_code == 204
        assert "max-age=0" in response.headers["Set-Cookie"].lower()


def test_without_authentication_there_is_no_login(settings: Settings, real_log: Log, redis: Redis) -> None:
    """Everybody may do everything, and the page says so."""
    del real_log, redis
    with serving(settings) as client:
        shown = client.get("/dashboard/session").json()

        assert (shown["name"], shown["authentication"]) == ("authentication off", False)
        assert "administer" in shown["permissions"]
        assert client.post("/dashboard/session", json={"key": "ck_"}).status_code == 404
