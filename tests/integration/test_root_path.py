"""The API below a path of a reverse proxy, which removes the path from requests."""

import re
from collections.abc import Iterator

import httpx
import pytest
from redis import Redis

from service.config import Settings
from service.domain.api_key import NewKey
from service.domain.caller import Role
from tests.fixtures.callers import bearer, serving
from tests.log import Log

_ROOT = "/shop/coupons-api"
_PREFIX = {"X-Forwarded-Prefix": _ROOT}


@pytest.fixture(params=["configured", "forwarded"])
def proxied(
    request: pytest.FixtureRequest, with_auth: Settings, real_log: Log, keys: dict[Role, NewKey], redis: Redis
) -> Iterator[httpx.Client]:
    """An API that its callers reach below a path; the client is the proxy, which has removed it."""
    del real_log, redis  # both are emptied
    is_configured = request.param == "configured"
    values = {"root_path": _ROOT} if is_configured else {"trusted_proxies": "127.0.0.1"}
    with serving(with_auth.model_copy(update={**values, "public_docs": True})) as client:
        client.headers.update(bearer(keys[Role.ADMIN].text) | ({} if is_configured else _PREFIX))
        yield client


def _behind(reference: str) -> str:
    """Return the path that the proxy asks the API for when a client follows a reference."""
    assert reference.startswith(f"{_ROOT}/"), reference
    return reference.removeprefix(_ROOT)


def test_references_lead_back_below_the_path(proxied: httpx.Client) -> None:
    """What was created, the page about a problem, the next page of a list."""
    made = [proxied.post("/coupons", json={"name": "a", "quantity": 1}) for _ in range(2)]
    missing = proxied.get("/coupons/999999")
    first = proxied.get("/coupons?limit=1")

    for one in made:
        assert proxied.get(_behind(one.headers["Location"])).json()["id"] == one.json()["id"]
    assert proxied.get(_behind(missing.json()["type"])).status_code == 200
    assert int(missing.headers["Content-Length"]) == len(missing.content)
    assert first.headers["Link"].startswith("<?")
    for status, response in ((405, proxied.put("/coupons")), (404, proxied.get("/nothing"))):
        assert response.status_code == status
        _behind(response.json()["type"])


def test_the_documentation_works_below_the_path(proxied: httpx.Client) -> None:
    """Its page refers to files beside it, without a scheme and a host, and tells where the API is."""
    redirected = proxied.get("/", follow_redirects=False)
    page = proxied.get(_behind(redirected.headers["Location"]))

    references = re.findall(r"""(?:href|src)="([^"]*)"|url: '([^']*)'""", page.text)
    found = [str(httpx.URL(f"http://proxy{_ROOT}/docs").join(one or other).path) for one, other in references]
    assert len(found) == 4
    for path in found:
        assert proxied.get(_behind(path)).headers["Cache-Control"] == "private, max-age=3600", path
    assert proxied.get("/openapi.json").json()["servers"] == [{"url": _ROOT}]


@pytest.mark.parametrize("path", ["/wait/any", "/dashboard", "/problems", "/problems/sold_out"])
def test_pages_have_relative_references_only(proxied: httpx.Client, path: str) -> None:
    page = re.sub("<!--.*?-->", "", proxied.get(path).text, flags=re.DOTALL)

    references = re.findall(r"""(?:href|src|content)="([^"]*(?:/|\.js|\.css)[^"]*)\"""", page)
    assert references
    for reference in references:
        if not reference.startswith(("#", "image/")):
            found = httpx.URL(f"http://proxy{_ROOT}{path}").join(reference).path
            assert proxied.get(_behind(found)).status_code in (200, 307), reference


def test_the_session_of_an_operator_is_sent_below_the_path_only(
    proxied: httpx.Client, keys: dict[Role, NewKey]
) -> None:
    """Other applications have the same host."""
    body = {"key": keys[Role.READ].text}
    opened = proxied.post("/dashboard/session", json=body, headers={"Sec-Fetch-Site": "same-origin"})

    assert f"Path={_ROOT};" in opened.headers["Set-Cookie"]


def test_head_has_the_headers_of_get(proxied: httpx.Client) -> None:
    """Of a problem, too, whose body became longer."""
    for path in ("/healthz", "/coupons/999999", "/nothing"):
        got, head = proxied.get(path), proxied.head(path)

        assert head.content == b""
        assert head.headers["Content-Length"] == got.headers["Content-Length"]


def test_a_client_that_is_no_trusted_proxy_names_no_path(
    with_auth: Settings, real_log: Log, keys: dict[Role, NewKey]
) -> None:
    """It could lead others to another place."""
    del real_log
    headers = {**bearer(keys[Role.ADMIN].text), **_PREFIX}
    with serving(with_auth.model_copy(update={"trusted_proxies": "10.0.0.0/8"})) as client:
        made = client.post("/coupons", json={"name": "a", "quantity": 1}, headers=headers)
        refused = client.get("/coupons/1", headers=_PREFIX)

    assert made.headers["Location"] == f"/coupons/{made.json()['id']}"
    assert refused.json()["type"] == "/problems/unauthenticated"
