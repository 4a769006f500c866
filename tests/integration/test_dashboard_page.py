"""The operators' page with authentication: login, roles, the end of a session, and what tabs share."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from sqlalchemy import Engine

from service.domain.api_key import NewKey
from service.domain.caller import Role
from service.domain.coupon import Coupon
from service.usecases.api_keys import ApiKeyService
from tests.event_streams import named, read_events
from tests.fixtures.browser import NARROW, WIDE, assert_usable, view
from tests.fixtures.callers import bearer
from tests.waiting import eventually

_HIDE = "Object.defineProperty(document, 'hidden', {configurable: true, get: () => true});"
_SHOW = "delete document.hidden;"
_CHANGED = "document.dispatchEvent(new Event('visibilitychange'))"


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser with its own cookies; an error of a script in any of its tabs fails the test."""
    opened = browser.new_context(**view(WIDE, "light", "en-US"))
    errors: list[str] = []
    opened.on("weberror", lambda error: errors.append(str(error.error)))
    yield opened
    opened.close()
    assert errors == []


def _open(api: httpx.Client, context: BrowserContext, fragment: str = "") -> Page:
    page = context.new_page()
    page.goto(f"{api.base_url}/dashboard{fragment}")
    return page


def _log_in(page: Page, key: str) -> None:
    page.get_by_label("API key of an operator").fill(key)
    page.get_by_role("button", name="Log in").click()


def test_the_page_is_the_same_for_everybody_and_runs_only_its_own_files(api: httpx.Client) -> None:
    """It cannot be framed: a click on it would be an operator's."""
    response = api.get("/dashboard")

    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["Content-Security-Policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    assert api.get("/dashboard", headers={"If-None-Match": response.headers["ETag"]}).status_code == 304
    for path in re.findall('(?:href|src)="(dashboard/assets/[^"]+)"', response.text):
        assert api.get(f"/{path}").headers["Cache-Control"] == "public, max-age=300"
    for path in (
        "/dashboard/",
        "/dashboard/assets/",
        "/dashboard/assets/dashboard.html",
        "/dashboard/assets/..%2Fapp.py",
    ):
        assert api.get(path).status_code == 404, path


def test_an_operator_logs_in_and_out(api: httpx.Client, keys: dict[Role, NewKey], context: BrowserContext) -> None:
    """A wrong key says so. Scripts cannot read the session, and after a reload the operator is still logged in."""
    page = _open(api, context)
    for width, scheme in ((WIDE, "light"), (NARROW, "dark")):
        page.set_viewport_size({"width": width, "height": 844})
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        assert_usable(page)
    _log_in(page, "ck_wrong")
    expect(page.get_by_role("alert")).to_have_text("The API key is not valid.")

    _log_in(page, keys[Role.READ].text)
    for _ in range(2):
        expect(page.locator("#caller-name")).to_have_text(f"key {keys[Role.READ].prefix} (the read caller)")
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        expect(page.locator("#connection")).to_have_text("Live")
        assert page.evaluate("document.cookie") == ""
        page.reload()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    assert context.cookies() == []


def test_the_read_role_sees_no_buttons(
    api: httpx.Client, keys: dict[Role, NewKey], make_coupon: Callable[..., Coupon], context: BrowserContext
) -> None:
    """An operator sees those of the state, an administrator all."""
    coupon = make_coupon(quantity=5)
    seen = {}
    for role in (Role.READ, Role.OPERATE, Role.ADMIN):
        context.clear_cookies()
        page = _open(api, context, f"#/coupons/{coupon.id}")
        _log_in(page, keys[role].text)
        expect(page.locator("#counter-quantity strong")).to_have_text("5")
        seen[role] = page.locator("main button:visible").all_inner_texts()
        page.get_by_role("link", name="Dead letters").click()
        expect(page.get_by_role("heading", name="Dead letters")).to_be_visible()
        assert page.get_by_role("button", name="Dry run").is_visible() == (role is not Role.READ)
        page.close()

    assert seen == {
        Role.READ: [],
        Role.OPERATE: ["Pause", "Open", "Close"],
        Role.ADMIN: ["Pause", "Open", "Close", "Change quantity"],
    }


def test_the_session_ends_when_the_key_is_revoked(
    api: httpx.Client, keys: dict[Role, NewKey], store: Engine, context: BrowserContext
) -> None:
    """The page says so by itself, in every tab."""
    pages = [_open(api, context)]
    _log_in(pages[0], keys[Role.OPERATE].text)
    expect(pages[0].locator("#connection")).to_have_text("Live")
    pages.append(_open(api, context, "#/dead-letters"))
    expect(pages[1].locator("#connection")).to_have_text("Live")

    ApiKeyService(store, "tests").revoke(keys[Role.OPERATE].prefix)

    for page in pages:
        expect(page.get_by_role("heading", name="Log in")).to_be_visible(timeout=20_000)


def test_a_log_out_ends_the_page_in_every_tab(
    api: httpx.Client, keys: dict[Role, NewKey], context: BrowserContext
) -> None:
    """Also where the stream is open, and in a hidden tab: whoever looks at the screen next is not logged in."""
    following, sharing, hidden = (_open(api, context, fragment) for fragment in ("", "#/dead-letters", "#/coupons"))
    _log_in(following, keys[Role.OPERATE].text)
    expect(following.locator("#connection")).to_have_text("Live")
    for page in (sharing, hidden):
        page.reload()
        expect(page.locator("#connection")).to_have_text("Live")
    hidden.evaluate(_HIDE + _CHANGED)
    sharing.get_by_role("button", name="Log out").click()

    for page in (following, sharing, hidden):
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        expect(page.locator("#connection")).to_have_text("Logged out")


def test_tabs_share_one_stream_and_a_hidden_one_gives_it_back(
    api: httpx.Client, keys: dict[Role, NewKey], context: BrowserContext
) -> None:
    """The visible ones go on."""
    opened: list[str] = []
    context.on("request", lambda request: opened.append(request.url) if request.url.endswith("/events") else None)
    first = _open(api, context)
    _log_in(first, keys[Role.READ].text)
    expect(first.locator("#connection")).to_have_text("Live")
    second = _open(api, context)
    expect(second.locator("#connection")).to_have_text("Live")
    assert len(opened) == 1

    first.evaluate(_HIDE + _CHANGED)
    expect(first.locator("#connection")).to_have_text("Paused while the page is hidden")
    expect(first.locator("main")).to_have_class("old")  # who comes back sees that the figures are not of now
    expect(second.locator("#connection")).to_have_text("Live")
    eventually(lambda: (second.evaluate("0"), len(opened) == 2)[1])  # the browser's events come with a call of it
    first.evaluate(_SHOW + _CHANGED)
    expect(first.locator("#connection")).to_have_text("Live")
    assert len(opened) == 2


def test_a_list_says_of_when_it_is_and_is_read_again_by_a_click(
    api: httpx.Client, keys: dict[Role, NewKey], make_coupon: Callable[..., Coupon], context: BrowserContext
) -> None:
    """It does not change by itself: what an operator is about to click would move."""
    page = _open(api, context, "#/coupons")
    _log_in(page, keys[Role.READ].text)
    expect(page.get_by_text(re.compile(r"^As of [0-9:]{8}\.$"))).to_be_visible()
    expect(page.locator("tbody tr")).to_have_count(0)
    make_coupon(quantity=5)
    page.get_by_role("button", name="Refresh").click()

    expect(page.locator("tbody tr")).to_have_count(1)
    page.route("**/coupons?*", lambda route: route.abort())
    page.get_by_role("button", name="Refresh").click()
    failed = re.compile(r"^The API does not answer\. The list is as of [0-9:]{8}\.$")
    expect(page.get_by_text(failed)).to_be_visible()
    expect(page.locator("tbody tr")).to_have_count(1)


@pytest.mark.parametrize(
    ("seconds", "heading"), [(0, "All is well"), (5, "All is well"), (7, "Not known since "), (None, "Not known")]
)
def test_alerts_that_were_not_observed_lately_are_not_known(
    api: httpx.Client, keys: dict[Role, NewKey], context: BrowserContext, seconds: int | None, heading: str
) -> None:
    """What derives them may hang while the figures arrive: then none of them does not mean that all is well."""
    page = _open(api, context)
    _log_in(page, keys[Role.READ].text)
    expect(page.locator("#connection")).to_have_text("Live")
    with api.stream("GET", "/dashboard/events", headers=bearer(keys[Role.READ].text)) as response:
        overview = named(read_events(response), "overview").data
    at = datetime.fromisoformat(overview["at"])
    observed_at = None if seconds is None else (at - timedelta(seconds=seconds)).isoformat()
    body = json.dumps({**overview, "alerts": [], "alerts_observed_at": observed_at})
    page.route(
        "**/dashboard/events",
        lambda route: route.fulfill(content_type="text/event-stream", body=f"event: overview\ndata: {body}\n\n"),
    )
    page.reload()

    expect(page.locator("#alerts-heading")).to_contain_text(heading)
    expect(page.locator(".status")).to_have_attribute("data-light", "green" if seconds in {0, 5} else "unknown")


class _OtherPage(BaseHTTPRequestHandler):
    """A page on another port of the same host: for a browser the same site, so it sends the cookie."""

    def do_GET(self) -> None:
        """Answer with an empty page."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>another page</title>")

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def test_another_page_cannot_write_with_the_session(
    api: httpx.Client, keys: dict[Role, NewKey], context: BrowserContext
) -> None:
    """Neither one of another site, to which no cookie is sent, nor one of the same site."""
    page = _open(api, context)
    _log_in(page, keys[Role.ADMIN].text)
    expect(page.locator("#connection")).to_have_text("Live")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _OtherPage)
    Thread(target=server.serve_forever, daemon=True).start()
    answers: dict[str, int] = {}
    page.on("response", lambda response: answers.update({response.request.method: response.status}))
    try:
        statuses = []
        for host in ("127.0.0.1", "localhost"):
            page.goto(f"http://{host}:{server.server_port}/")
            page.evaluate(
                "url => fetch(url, {method: 'POST', mode: 'no-cors', credentials: 'include'}).catch(() => {})",
                f"{api.base_url}/dead-letters/1/discard",
            )
            statuses.append(answers["POST"])
    finally:
        server.shutdown()
        server.server_close()

    assert statuses == [403, 401]
