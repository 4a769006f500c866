"""The `type` of every problem leads to a page about it."""

from urllib.parse import urljoin

import httpx

from service.domain.error_code import ErrorCode
from service.server.problems import PROBLEMS


def test_the_type_of_a_problem_leads_to_its_page(api: httpx.Client) -> None:
    """The reference is resolved against the URL of the request, and everyone may read the page."""
    refused = api.get("/coupons/7/verification")
    url = urljoin(str(refused.url), refused.json()["type"])

    page = httpx.get(url)

    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "<h1>Unauthenticated</h1>" in page.text
    assert "<code>WWW-Authenticate</code>" in page.text


def test_the_pages_run_nothing_and_their_links_lead_somewhere(api: httpx.Client) -> None:
    """Their policy forbids scripts, frames and forms; the only style is their own."""
    seen = set()
    for path in ("/problems", *(f"/problems/{code}" for code in PROBLEMS)):
        page = api.get(path)
        assert page.status_code == 200
        assert page.headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
        assert "<script" not in page.text
        seen |= {urljoin(str(page.url), part.partition('"')[0]) for part in page.text.split('href="')[1:]}

    assert len(seen) == 1 + len(PROBLEMS)
    assert {api.head(url).status_code for url in seen} == {200}


def test_there_is_no_page_about_anything_else(api: httpx.Client) -> None:
    """Not about the codes of commands either."""
    for code in ("", "x", "Sold_out", ErrorCode.IN_USE):
        answer = api.get(f"/problems/{code}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), code
