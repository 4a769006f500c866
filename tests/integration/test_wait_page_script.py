"""What the page of a waiting user shows of each answer of the API, and what it does when the API does not answer.

The browser gives the answers, because the API rarely gives some of them.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from playwright.sync_api import Page, Route, expect
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api.routes import wait_page
from service.domain.request import ReasonCode
from tests.fixtures.browser import assert_usable
from tests.server_thread import ServerThread

_VIEW = {
    "request_id": "a-request",
    "coupon_id": 7,
    "user_id": 42,
    "state": "queued",
    "code": None,
    "partition": 3,
    "offset": 5000,
    "position": 4000,
    "eta_seconds": None,
    "outlook": None,
    "refresh_after_seconds": 3,
    "sequence": None,
    "attempts": 0,
    "requested_at": "2026-01-01T12:00:00Z",
    "decided_at": None,
}
_FINAL = {"decided_at": "2026-01-01T12:01:00Z", "position": None, "refresh_after_seconds": None}


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """Serve the page without the rest of the API."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        yield {"api": SimpleNamespace(settings=SimpleNamespace(allowed_origins=()))}

    application = FastAPI(lifespan=lifespan)
    application.include_router(wait_page.router)
    server = ServerThread(application, HttpToolsProtocol)
    server.start()
    yield "http://{}:{}".format(*server.address)
    server.stop()


def _events(*events: tuple[str, Mapping[str, Any]], retry_ms: int = 10_000_000) -> dict[str, Any]:
    """Return the answer to a request for the stream: events, and when to come back."""
    text = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events)
    return {"status": 200, "content_type": "text/event-stream", "body": f"{text}retry: {retry_ms}\n\n"}


def _answer(page: Page, *answers: Mapping[str, Any]) -> list[tuple[str, dict[str, str]]]:
    """Answer the requests of the page's script in this order, then the last one again and again.

    Returns the list of the requests, which grows: the end of the path, and the headers.
    """
    requests: list[tuple[str, dict[str, str]]] = []

    def handle(route: Route) -> None:
        requests.append((route.request.url.rpartition("/")[2], route.request.headers))
        route.fulfill(**answers[min(len(requests), len(answers)) - 1])

    page.route("**/issuances/**", handle)
    return requests


_SHOWN = [
    ({}, "You are in line", "순서를 기다리고 있습니다"),
    ({"position": None, "offset": None}, "You are in line", "순서를 기다리고 있습니다"),
    ({"position": 0}, "It is your turn", "곧 결과가 나옵니다"),
    ({"state": "retrying"}, "Your request is being tried again", "다시 처리하고 있습니다"),
    ({"state": "standby", "outlook": "unlikely"}, "You are on standby", "예비 순번으로 대기 중입니다"),
    ({"state": "issued", "sequence": 1234, **_FINAL}, "You got the coupon", "쿠폰이 발급되었습니다"),
    ({"state": "refused", "code": "sold_out", **_FINAL}, "Sold out", "쿠폰이 모두 소진되었습니다"),
    ({"state": "refused", "code": "of later", **_FINAL}, "You did not get the coupon", "쿠폰을 받지 못하셨습니다"),
]


@pytest.mark.parametrize(("fields", "english", "korean"), _SHOWN, ids=lambda value: str(value)[:40])
def test_each_state_is_said_in_both_languages(
    site: str, page: Page, fields: dict[str, Any], english: str, korean: str
) -> None:
    """The button changes the language, and a reload keeps it."""
    name = "final" if "decided_at" in fields else "state"
    _answer(page, _events((name, {**_VIEW, **fields})))
    page.goto(f"{site}/wait/a-request")

    expect(page.locator("h1")).to_have_text(english)
    page.locator("#language").press("Enter")
    expect(page.locator("h1")).to_have_text(korean)
    page.reload()
    expect(page.locator("h1")).to_have_text(korean)


def test_a_warning_can_be_read_in_the_light_and_in_the_dark(site: str, page: Page) -> None:
    """That a coupon is unlikely."""
    _answer(page, _events(("state", {**_VIEW, "outlook": "unlikely"})))
    page.goto(f"{site}/wait/{60 * 'a'}")

    expect(page.locator("#outlook")).to_be_visible()
    assert_usable(page)
    page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    assert_usable(page)


def test_every_code_has_words_of_its_own(site: str, page: Page) -> None:
    """But that of other producers' records, which no page follows."""
    page.goto(f"{site}/wait/a-request")
    for language in ("en", "ko"):
        ended = page.evaluate(f"import('/wait-page/wait_texts.js').then(({{ texts }}) => texts.{language}.ended)")

        assert ended.keys() == set(ReasonCode) - {ReasonCode.FOREIGN}


_WAITS = [
    ((1, 8), "It takes a few seconds.", "몇 초 안에 결과가 나옵니다."),
    ((20, 60), "It takes less than a minute.", "1분 안에 결과가 나옵니다."),
    ((20, 61), "It takes up to 2 minutes.", "예상 대기 시간은 최대 2분입니다."),
    ((70, 100), "It takes about 2 minutes.", "예상 대기 시간은 약 2분입니다."),
    ((125, 301), "It takes about 2 to 6 minutes.", "예상 대기 시간은 약 2~6분입니다."),
    ((3700, 9000), "It takes about 1 to 3 hours.", "예상 대기 시간은 약 1~3시간입니다."),
]


def test_a_wait_is_a_range_in_words(site: str, page: Page) -> None:
    page.goto(f"{site}/wait/a-request")
    for (least, most), english, korean in _WAITS:
        for language, expected in (("en", english), ("ko", korean)):
            wait = f"texts.{language}.wait({{ min: {least}, max: {most} }})"
            assert page.evaluate(f"import('/wait-page/wait_texts.js').then(({{ texts }}) => {wait})") == expected


def test_an_unknown_wait_is_said(site: str, page: Page) -> None:
    _answer(page, _events(("state", _VIEW)))
    page.goto(f"{site}/wait/a-request")

    expect(page.locator("#wait")).to_have_text("How long it takes is not known yet.")


def test_the_position_follows_the_partition_and_never_grows(site: str, page: Page) -> None:
    """Of the progress of its own partition; the wait follows from its rate."""
    rate = {"min": 10, "max": 20}
    for next_offset, shown in ((2600, "2,400"), (2500, "2,400"), (4999, "1")):
        progress: list[tuple[str, Mapping[str, Any]]] = [
            ("progress", {"partition": 9, "next_offset": 5000, "records_per_second": None}),
            ("progress", {"partition": 3, "next_offset": 2600, "records_per_second": rate}),
            ("progress", {"partition": 3, "next_offset": next_offset, "records_per_second": rate}),
        ]
        _answer(page, _events(("state", _VIEW), *progress))
        page.goto(f"{site}/wait/a-request")

        expect(page.locator("#ahead-number")).to_have_text(shown)
        expected = "It takes a few seconds." if shown == "1" else "It takes about 2 to 4 minutes."
        expect(page.locator("#wait")).to_have_text(expected)


def test_a_stream_that_ends_is_opened_again_where_it_ended(site: str, page: Page) -> None:
    """After the time that the server named, with the id of the last event."""
    _stop_clock(page)
    _note_requests(page)
    progress = {"partition": 3, "next_offset": 1500, "records_per_second": None}
    first = _events(("state", _VIEW), ("progress", progress), retry_ms=9_000)
    first["body"] = first["body"].replace("event: progress", "id: 1500\nevent: progress")
    final = _events(("final", {**_VIEW, **_FINAL, "state": "issued", "sequence": 3}))
    requests = _answer(page, first, final)
    page.goto(f"{site}/wait/a-request")

    _run_until(page, lambda: page.locator("#connection").inner_text() == "Connection lost, trying again")
    expect(page.locator("#ahead-number")).to_have_text("3,500")
    _run_until(page, lambda: page.locator("h1").inner_text() == "You got the coupon", step_ms=100)
    assert _pauses_ms(page)[0] >= 9_000
    assert [(path, headers.get("last-event-id")) for path, headers in requests] == [
        ("events", None),
        ("events", "1500"),
    ]
    page.clock.run_for(1_000_000)
    assert len(requests) == 2


def test_where_streams_fail_the_page_asks_again_and_again(site: str, page: Page) -> None:
    """After three of them, with the tag of what it has, when the service says."""
    _stop_clock(page)
    _note_requests(page)
    busy = {"status": 503, "headers": {"Retry-After": "20"}}
    shown = {"status": 200, "headers": {"ETag": '"a"'}, "json": _VIEW}
    final = {"status": 200, "json": {**_VIEW, **_FINAL, "state": "issued", "sequence": 3}}
    requests = _answer(page, busy, {"status": 429}, busy, shown, {"status": 304}, busy, final)
    page.goto(f"{site}/wait/a-request")

    _run_until(page, lambda: len(requests) == 4, step_ms=100)
    _run_until(page, lambda: page.locator("#connection").inner_text() == "Updated every few seconds")
    expect(page.locator("#ahead-number")).to_have_text("4,000")
    _run_until(page, lambda: page.locator("h1").inner_text() == "You got the coupon", step_ms=100)
    pauses_ms = _pauses_ms(page)
    assert pauses_ms[2] >= 20_000  # Retry-After of the third answer
    assert pauses_ms[3] >= 3_000  # refresh_after_seconds of what it shows
    assert pauses_ms[5] >= 20_000  # Retry-After of the sixth answer
    assert [path for path, _ in requests] == [*3 * ["events"], *4 * ["a-request"]]
    assert [headers.get("if-none-match") for _, headers in requests] == [*4 * [None], *3 * ['"a"']]


def _stop_clock(page: Page) -> None:
    """Let time pass only by `page.clock.run_for`."""
    page.clock.install(time=0)
    page.clock.pause_at(1)


def _note_requests(page: Page) -> None:
    """Let the page note by its own clock when each of its requests begins, for `_pauses_ms`."""
    page.add_init_script(
        """
        const send = window.fetch;
        window.requestTimes = [];
        window.fetch = (...request) => (window.requestTimes.push(Date.now()), send(...request));
        """
    )


def _pauses_ms(page: Page) -> list[int]:
    """Return the time between each request of the page and the next."""
    times: list[int] = page.evaluate("window.requestTimes")
    return [after - before for before, after in pairwise(times)]


def _run_until(page: Page, condition: Callable[[], bool], step_ms: int = 20) -> None:
    """Let time pass until the condition is true; the page paints in that time only."""
    for _ in range(1_000):
        if condition():
            return
        page.clock.run_for(step_ms)
    raise AssertionError("the page does nothing")


@pytest.mark.parametrize(
    ("status", "english", "korean"),
    [
        (401, "Please open this page from the shop again", "판매처에서 이 페이지를 다시 열어 주세요"),
        (403, "Please open this page from the shop again", "판매처에서 이 페이지를 다시 열어 주세요"),
        (404, "This request is not known", "확인할 수 없는 신청입니다"),
    ],
)
def test_the_page_stops_where_it_may_not_ask(site: str, page: Page, status: int, english: str, korean: str) -> None:
    page.clock.install()
    requests = _answer(page, {"status": status})
    page.goto(f"{site}/wait/a-request")

    expect(page.locator("h1")).to_have_text(english)
    page.locator("#language").click()
    expect(page.locator("h1")).to_have_text(korean)
    page.clock.run_for(1_000_000)
    assert len(requests) == 1
