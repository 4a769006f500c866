"""The page of a waiting user during a real sale, in a real browser."""

import re
from itertools import product

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.fixtures.browser import NARROW, WIDE, assert_usable, view
from tests.system import System

_VIEWS = [*product((WIDE, NARROW), ("light", "dark"), ("en-US", "ko-KR"))]
_IN_LINE = {"en": "You are in line", "ko": "순서를 기다리고 있습니다"}
_AHEAD = {"en": r"requests? (is|are) ahead of you", "ko": "건의 신청이 앞에 있습니다"}
_ISSUED = {
    "en": ("You got the coupon", "Yours is number 1."),
    "ko": ("쿠폰이 발급되었습니다", "1번째로 발급받으셨습니다."),
}
_SOLD_OUT = {
    "en": ("Sold out", "All coupons went to requests that came before yours."),
    "ko": ("쿠폰이 모두 소진되었습니다", "먼저 도착한 신청에 모두 발급되었습니다."),
}


@pytest.mark.timeout(180)
def test_the_page_shows_the_place_in_line_and_then_the_result(system: System, browser: Browser) -> None:
    """Wide and narrow, light and dark, in both languages: each page follows a request of its own."""
    others = 5
    coupon = system.make_coupon(quantity=1, waitlist=others + len(_VIEWS))
    system.stack.freeze("issuer")
    try:
        accepted = [system.request_until_answered(coupon, user) for user in range(1, others + len(_VIEWS) + 1)]
        request_ids = [response.json()["request_id"] for response in accepted]
        followed = [request_ids[0], *request_ids[others + 1 :]]
        pages = [_open(system, browser, request_id, *one) for request_id, one in zip(followed, _VIEWS, strict=True)]
        for place, (request_id, page) in enumerate(zip(followed[1:], pages[1:], strict=True), others + 1):
            assert system.read_status(request_id)["position"] == place
            language = _language(page)
            expect(page.locator("h1")).to_have_text(_IN_LINE[language])
            expect(page.locator("#ahead-number")).to_have_text(str(place))
            expect(page.locator("#ahead-label")).to_have_text(re.compile(_AHEAD[language]))
            assert_usable(page)
    finally:
        system.stack.thaw("issuer")
    for page in pages:
        heading, detail = (_ISSUED if page is pages[0] else _SOLD_OUT)[_language(page)]
        expect(page.locator("h1")).to_have_text(heading, timeout=60_000)
        expect(page.locator("#detail")).to_have_text(detail)
        expect(page.locator("#announcement")).to_contain_text(heading)
        expect(page).to_have_title(heading)
        assert_usable(page)
        page.context.close()


def _open(system: System, browser: Browser, request_id: str, width: int, scheme: str, language: str) -> Page:
    page = browser.new_context(**view(width, scheme, language)).new_page()
    page.goto(f"{system.stack.api_url}/wait/{request_id}")
    return page


def _language(page: Page) -> str:
    return str(page.locator("html").get_attribute("lang"))
