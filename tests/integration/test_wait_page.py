"""The page of a waiting user as the API serves it: its headers, the ticket in its address, and who may frame it."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx
import pytest
from playwright.sync_api import Page, expect
from redis import Redis

from service.config import Settings
from service.domain.api_key import NewKey
from service.domain.caller import Role
from service.domain.ticket import Purpose
from tests.fixtures.browser import assert_usable
from tests.fixtures.callers import serving, ticket
from tests.log import Log

_FILES = ("wait.css", "wait.js", "wait_follow.js", "wait_texts.js", "wait.svg")


class _Shop:
    """A site with one page, which frames another page."""

    def __init__(self) -> None:
        self.html = ""
        shop = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.end_headers()
                self.wfile.write(shop.html.encode())

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, daemon=True).start()

    def frame(self, url: str) -> None:
        """Frame a page, and keep its messages in `heard`."""
        self.html = (
            "<!doctype html><script>heard = []; addEventListener('message', (event) => heard.push([event.origin,"
            f" event.data]))</script><iframe src='{url}'></iframe>"
        )


@pytest.fixture
def shop() -> Iterator[_Shop]:
    """A site of CORS_ORIGINS."""
    opened = _Shop()
    yield opened
    opened.server.shutdown()
    opened.server.server_close()


@pytest.fixture
def api(
    with_auth: Settings, real_log: Log, keys: dict[Role, NewKey], redis: Redis, shop: _Shop
) -> Iterator[httpx.Client]:
    """A client of an API whose page the shop may frame."""
    del real_log, keys, redis  # both are emptied; the keys are read from the database
    with serving(with_auth.model_copy(update={"cors_origins": shop.origin})) as client:
        yield client


def test_the_page_is_the_same_for_every_request_and_runs_only_its_own_files(api: httpx.Client, shop: _Shop) -> None:
    """No id is in it, whatever the id is; a browser asks for it again with its tag."""
    pages = [api.get(f"/wait/{name}") for name in ("a", "b" * 60, "%3Cscript%3E", "%EC%BF%A0")]

    assert len({response.content for response in pages}) == 1
    for response in pages:
        headers = response.headers
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert headers["Content-Security-Policy"] == (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
            f" base-uri 'none'; form-action 'none'; frame-ancestors 'self' {shop.origin}"
        )
        assert (headers["X-Content-Type-Options"], headers["Referrer-Policy"]) == ("nosniff", "no-referrer")
    again = api.get("/wait/a", headers={"If-None-Match": f'"x", W/{pages[0].headers["ETag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["Content-Security-Policy"] == pages[0].headers["Content-Security-Policy"]
    assert api.get("/wait/a", headers={"If-None-Match": '"x"'}).status_code == 200
    for path in ("/wait/", "/wait/a%2Fb", "/wait/a/b", "/wait-page/wait.html", "/wait-page/..%2Fapp.py"):
        assert api.get(path).status_code == 404, path


def test_each_file_of_the_page_is_cached_for_minutes(api: httpx.Client) -> None:
    """Then a browser asks for it with its tag."""
    for name in _FILES:
        response = api.get(f"/wait-page/{name}")

        assert (response.status_code, response.headers["Cache-Control"]) == (200, "public, max-age=300")
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert api.get(f"/wait-page/{name}", headers={"If-None-Match": response.headers["ETag"]}).status_code == 304


def test_the_ticket_leaves_the_address_and_is_sent_in_a_header(api: httpx.Client, page: Page) -> None:
    """It survives a reload; with one that is not valid the page says so and asks no more."""
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    page.goto(f"{api.base_url}/wait/{60 * 'A'}?lang=en#ticket={ticket(Purpose.STREAM)}")

    for _ in range(2):
        expect(page.locator("h1")).to_have_text("This request is not known")
        assert page.evaluate("location.hash") == ""
        page.reload()
    page.goto(f"{api.base_url}/wait/{60 * 'A'}?lang=en#ticket=x.y.z")
    expect(page.locator("h1")).to_have_text("Please open this page from the shop again")
    assert_usable(page)
    assert not [url for url in sent if "ticket" in url.partition("#")[0]]


def test_a_shop_frames_the_page_and_gets_its_state(api: httpx.Client, page: Page, shop: _Shop) -> None:
    """Another site does neither."""
    shop.frame(f"{api.base_url}/wait/{60 * 'A'}?lang=en#ticket={ticket(Purpose.STREAM)}")

    page.goto(shop.origin)
    expect(page.frame_locator("iframe").locator("h1")).to_have_text("This request is not known")
    origin = str(api.base_url).rstrip("/")
    assert page.evaluate("heard") == [[origin, {"type": "coupon-request", "state": "absent"}]]

    page.goto(shop.origin.replace("127.0.0.1", "localhost"))
    page.wait_for_load_state("networkidle")
    assert page.evaluate("heard") == []
    assert page.frames[-1].url == "chrome-error://chromewebdata/"
