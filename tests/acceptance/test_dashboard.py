"""The operators' page in a real browser, beside the running system."""

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from sqlalchemy import text

from tests.acceptance.test_dead_letters import make_dead
from tests.fixtures.browser import NARROW, WIDE, assert_usable, view
from tests.system import System

_VIEWS = [*product((WIDE, NARROW), ("light", "dark"))]
#: the overview is read once a second, and a part may need a second to answer
_SOON_MS = 10_000


@contextmanager
def _opened(
    system: System, browser: Browser, fragment: str, width: int = WIDE, scheme: str = "light"
) -> Iterator[Page]:
    """Open a page of the dashboard; an error of a script, or of the page's policy, fails the test."""
    context = browser.new_context(**view(width, scheme, "en-US"))
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "console", lambda message: errors.append(message.text) if "Content Security Policy" in message.text else None
    )
    page.goto(f"{system.stack.api_url}/dashboard{fragment}")
    expect(page.locator("#connection")).to_have_text("Live", timeout=_SOON_MS)
    yield page
    context.close()
    assert errors == []


def _numbers_of_the_database(system: System, coupon: int) -> dict[str, Any]:
    with system.store.begin() as tx:
        row = tx.execute(
            text(
                "SELECT issued, held, standby, quantity - issued - held AS remaining, quantity,"
                " (SELECT sum(issued) FROM coupons) AS issued_in_all,"
                " (SELECT count(*) FROM dead_letters WHERE state = 'new') AS dead,"
                " (SELECT count(*) FROM retries WHERE next_attempt_at IS NOT NULL) AS retrying"
                " FROM coupons WHERE id = :id"
            ),
            {"id": coupon},
        ).one()
    return row._asdict()


def _cells(page: Page, coupon: int) -> Locator:
    """Return the cells of a coupon's row in the overview, after its name."""
    return page.get_by_role("region", name="Coupons, on sale first").locator(f'tr[data-key="{coupon}"] td')


def _numbers_of_the_page(page: Page, coupon: int) -> dict[str, Any]:
    cells = _cells(page, coupon).all_inner_texts()
    names = ("remaining", "held", "standby", "issued", "quantity")
    tiles = {"issued_in_all": "issued", "dead": "dead", "retrying": "retrying"}
    texts = dict(zip(names, cells[1:], strict=True)) | {
        name: page.locator(f"#tile-{tile} strong").inner_text() for name, tile in tiles.items()
    }
    return {name: int(shown.replace(",", "")) for name, shown in texts.items()}


@pytest.mark.timeout(120)
def test_the_overview_shows_the_numbers_of_the_database_during_a_sale(system: System, browser: Browser) -> None:
    """Wide and narrow, light and dark: counters of the coupon, totals, what waits for a decision, and why."""
    coupon = system.make_coupon(quantity=1_000)
    make_dead(system, coupon, 1)
    system.request_many_until_answered(coupon, range(2, 42))
    system.wait_until_idle()
    system.stack.freeze("issuer")
    try:
        system.request_many_until_answered(coupon, range(42, 67))
        for width, scheme in _VIEWS:
            with _opened(system, browser, "", width, scheme) as page:
                expect(page.locator("#tile-undecided strong")).to_have_text("25", timeout=_SOON_MS)
                assert _numbers_of_the_page(page, coupon) == _numbers_of_the_database(system, coupon)
                assert_usable(page)
        with _opened(system, browser, "", NARROW) as page:
            expect(page.locator(".alerts li")).to_contain_text("issuer", timeout=20_000)
            assert_usable(page)
            page.get_by_role("link", name="Runbook of CouponsIssuerFrozen").click()
            expect(page.get_by_role("heading", name="What to do")).to_be_visible()
            assert_usable(page)
            page.get_by_role("link", name="All runbooks").click()
            assert_usable(page)
            page.get_by_role("link", name="Coupons", exact=True).click()
            system.stack.thaw("issuer")
            expect(_cells(page, coupon).nth(4)).to_have_text("65", timeout=60_000)
            expect(page.get_by_role("heading", name="All is well")).to_be_visible(timeout=30_000)
            assert page.locator("#tile-wait strong").inner_text() != "–"
            peak = page.locator("#tile-issues small").inner_text()
            assert re.fullmatch("peak [1-9][0-9,]*", peak), peak
    finally:
        system.stack.thaw("issuer")


@pytest.mark.timeout(120)
def test_the_overview_names_the_workers_that_run(system: System, browser: Browser) -> None:
    """One that is frozen is late, one that has stopped is gone, and its messages wait."""
    with _opened(system, browser, "", NARROW) as page:
        workers = page.get_by_role("region", name="Celery's workers").locator("tbody tr")
        messages = page.get_by_role("region", name="Celery's queues").locator('tr[data-key="maintenance"] td')
        expect(workers).to_have_count(1, timeout=_SOON_MS)
        expect(workers).to_contain_text(f"celery@{socket.gethostname()}")
        expect(workers).not_to_contain_text("late")
        system.stack.freeze("worker")
        try:
            expect(workers).to_contain_text(re.compile("[0-9] s ago, late$"), timeout=30_000)
            assert_usable(page)
        finally:
            system.stack.thaw("worker")
        expect(workers).not_to_contain_text("late", timeout=_SOON_MS)
        system.stack.stop("worker")
        try:
            expect(workers).to_have_count(0, timeout=_SOON_MS)
            expect(messages.nth(1)).to_have_text(re.compile(r"^[2-9]\.[0-9] s$"), timeout=_SOON_MS)
        finally:
            system.stack.start("worker")
        expect(workers).to_have_count(1, timeout=30_000)


_OF_POSTGRESQL = ("wait", "undecided", "issued", "retrying", "dead", "outbox", "proof")
_TABLES_OF_POSTGRESQL = (
    "Coupons, on sale first",
    "Lag by partition",
    "Work that waits for Celery",
    "Processes with connections to PostgreSQL",
)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("part", "tiles", "tables"),
    [
        ("postgres", _OF_POSTGRESQL, _TABLES_OF_POSTGRESQL),
        ("kafka", ("undecided",), ()),
        ("valkey", ("sweep",), ("Celery's queues", "Celery's workers")),
    ],
)
def test_what_a_part_does_not_answer_is_not_known(
    system: System, browser: Browser, part: str, tiles: tuple[str, ...], tables: tuple[str, ...]
) -> None:
    """It is neither 0 nor "never" nor "none": an outage must not look like a quiet hour. Then it is known again."""
    with _opened(system, browser, "", NARROW) as page:
        figures = {tile: page.locator(f"#tile-{tile}") for tile in tiles}
        shown = [page.get_by_role("region", name=table) for table in tables]
        system.stack.freeze(part)
        try:
            for figure in figures.values():
                expect(figure.locator("small")).to_have_text("not known", timeout=_SOON_MS)
                expect(figure.locator("strong")).to_have_text("–")
            for table in shown:
                expect(table).to_contain_text("Not known")
                expect(table.locator("tbody tr")).to_have_count(0)
            assert_usable(page)
        finally:
            system.stack.thaw(part)
        for figure in figures.values():
            expect(figure.locator("small")).not_to_have_text("not known", timeout=30_000)


@pytest.mark.timeout(120)
def test_a_page_without_data_says_since_when_nothing_is_known(system: System, browser: Browser) -> None:
    """It is grey, and no light stays green; when the API answers again, so does the page."""
    with _opened(system, browser, "") as page:
        expect(page.get_by_role("heading", name="All is well")).to_be_visible(timeout=30_000)
        system.stack.freeze("api")
        try:
            unknown = page.get_by_role("heading", name=re.compile("^Not known since [0-9:]{8}$"))
            expect(unknown).to_be_visible(timeout=5_000)
            expect(page.locator(".status")).to_have_attribute("data-light", "unknown")
            expect(page.locator("main")).to_have_class("old")
            assert_usable(page)
            page.get_by_role("link", name="All coupons").click()
            page.get_by_role("link", name="Overview").click()
            expect(unknown).to_be_visible()
        finally:
            system.stack.thaw("api")
        expect(page.locator("main")).not_to_have_class("old", timeout=_SOON_MS)
        expect(unknown).to_be_hidden()


@pytest.mark.timeout(120)
def test_a_dead_letter_is_dry_run_and_replayed_by_clicking(system: System, browser: Browser) -> None:
    """The dry run changes nothing. The replay does what it has shown, and not more: one that has died since then waits.

    It keeps the place in the log, and the audit trail names who did it.
    """
    coupon = system.make_coupon(quantity=5)
    (name,) = make_dead(system, coupon, 7)
    offset = system.read_status(name)["offset"]
    with _opened(system, browser, "#/dead-letters", NARROW, "dark") as page:
        page.get_by_label("Coupon", exact=True).fill(str(coupon))
        page.get_by_role("button", name="Show").click()
        expect(page.locator("tbody tr")).to_have_count(1)
        page.get_by_role("button", name="Dry run of the new ones").click()
        expect(page.locator(".outcome")).to_have_text("Dry run, nothing is changed: 1 issued.")
        assert system.read_status(name)["state"] == "dead"
        assert_usable(page)

        (later,) = make_dead(system, coupon, 8)
        page.get_by_role("button", name="Replay them").click()
        assert_usable(page)
        page.get_by_role("dialog").get_by_role("button", name="Replay").click()
        expect(page.locator(".outcome")).to_have_text("Replayed: 1 issued.")
        assert (system.read_status(name)["state"], system.read_status(name)["offset"]) == ("issued", offset)
        assert system.read_status(later)["state"] == "dead"

        page.get_by_role("region", name="Result for each").get_by_role("link").click()
        expect(page.get_by_role("region", name="Who did what").locator("tbody tr")).to_have_count(1)
        expect(page.get_by_role("button", name="Replay")).to_be_hidden()
        assert_usable(page)


@pytest.mark.timeout(120)
def test_an_operator_reads_discards_and_replays_one_dead_letter(system: System, browser: Browser) -> None:
    """Its record and its errors are shown in full."""
    coupon = system.make_coupon(quantity=5)
    make_dead(system, coupon, 7, 8)
    dead_letters = system.http.get("/dead-letters", params={"coupon_id": coupon}).json()["dead_letters"]
    for dead_letter, action, result in zip(
        dead_letters, ("Replay", "Discard"), ("Replayed: the request is issued.", "Discarded."), strict=True
    ):
        with _opened(system, browser, f"#/dead-letters/{dead_letter['id']}") as page:
            expect(page.locator("main")).to_contain_text("psycopg.errors.DivisionByZero")
            expect(page.locator("main")).to_contain_text(f'"couponId":{coupon}')
            assert_usable(page)
            page.get_by_role("button", name="Dry run").click()
            expect(page.locator(".outcome")).to_have_text("Dry run, nothing is changed: the request would be issued.")
            page.get_by_role("button", name=action, exact=True).click()
            page.get_by_role("dialog").get_by_role("button", name=action).click()
            expect(page.locator(".outcome")).to_have_text(result)
    states = {
        one["id"]: one["state"]
        for one in system.http.get("/dead-letters", params={"coupon_id": coupon}).json()["dead_letters"]
    }
    assert states == {dead_letters[0]["id"]: "replayed", dead_letters[1]["id"]: "discarded"}


@pytest.mark.timeout(120)
def test_a_request_shows_what_happened_to_it(system: System, browser: Browser) -> None:
    """Found by its id: each failed attempt with its error, then the dead letter, its notice and its replay."""
    coupon = system.make_coupon(quantity=1)
    (name,) = make_dead(system, coupon, 7)
    dead_letter = system.http.get("/dead-letters", params={"coupon_id": coupon}).json()["dead_letters"][0]["id"]
    assert system.http.post(f"/dead-letters/{dead_letter}/replay").json()["state"] == "issued"
    system.eventually(lambda: set(system.receiver.states(name)) == {"dead", "issued"})
    for width, scheme in _VIEWS:
        with _opened(system, browser, "#/requests", width, scheme) as page:
            page.get_by_label("Request id").fill(name)
            page.get_by_role("button", name="Show").click()
            events = page.locator(".timeline li")
            expect(events.locator("strong").last).to_have_text("Notice delivered")
            shown = [str(event.get_attribute("data-kind")) for event in events.all()]
            recorded = [event["kind"] for event in system.http.get(f"/issuances/{name}/history").json()["events"]]
            assert shown == recorded
            assert (shown[:2], shown.count("attempt_failed")) == (["requested", "appended"], 3)
            assert {"decided", "replayed", "notice_delivered"} < set(shown)
            expect(events.filter(has_text="Attempt failed").first).to_contain_text("DivisionByZero: an injected fault")
            expect(page.get_by_role("link", name=str(dead_letter)).first).to_have_attribute(
                "href", f"#/dead-letters/{dead_letter}"
            )
            assert_usable(page)


@pytest.mark.timeout(120)
def test_a_request_is_read_again_after_a_failure_and_after_it_is_final(system: System, browser: Browser) -> None:
    """What follows its final state is shown without a reload: here a replay, and the notice about it."""
    coupon = system.make_coupon(quantity=1)
    (name,) = make_dead(system, coupon, 7)
    dead_letter = system.http.get("/dead-letters", params={"coupon_id": coupon}).json()["dead_letters"][0]["id"]
    with _opened(system, browser, "#/requests") as page:
        page.route(f"**/issuances/{name}", lambda route: route.abort(), times=1)
        page.get_by_label("Request id").fill(name)
        page.get_by_role("button", name="Show").click()
        expect(page.locator(".outcome")).to_have_text("The API does not answer.")
        expect(page.locator(".facts").first).to_contain_text("dead")
        assert system.http.post(f"/dead-letters/{dead_letter}/replay").json()["state"] == "issued"
        expect(page.locator('.timeline li[data-kind="replayed"]')).to_be_visible()
        notices = page.locator('.timeline li[data-kind="replayed"] ~ li[data-kind="notice_delivered"]')
        expect(notices).to_have_count(1, timeout=30_000)


@pytest.mark.timeout(120)
def test_a_coupon_shows_what_is_refused_after_the_sell_out(system: System, browser: Browser) -> None:
    """No counter of it changes then; the report is read again all the same."""
    coupon = system.make_coupon(quantity=1)
    system.wait_until_final(system.request_until_answered(coupon, 1).json()["request_id"])
    with _opened(system, browser, f"#/coupons/{coupon}") as page:
        refused = page.locator("dt", has_text="Refused after acceptance").locator("+ dd")
        expect(refused).to_have_text("none", timeout=_SOON_MS)
        expect(page.locator("#counter-issued strong")).to_have_text("1")
        with page.expect_response(lambda response: response.url.endswith("/report"), timeout=_SOON_MS):
            pass
        system.produce(coupon, b'{"userId":2,"couponId":%d,"requestTimeMillis":1767225600000}' % coupon)
        expect(refused).to_have_text("1 sold out", timeout=15_000)


@pytest.mark.timeout(120)
def test_a_coupon_shows_its_curve_and_is_changed_with_the_consequences_shown_before(
    system: System, browser: Browser
) -> None:
    """Sold out, then raised and paused by clicking."""
    coupon = system.make_coupon(quantity=20)
    accepted = system.request_many_until_answered(coupon, range(1, 21))
    for width, scheme in _VIEWS:
        with _opened(system, browser, f"#/coupons/{coupon}", width, scheme) as page:
            expect(page.locator("#counter-issued strong")).to_have_text("20", timeout=_SOON_MS)
            expect(page.locator("svg.curve")).to_have_attribute(
                "aria-label", re.compile("^20 accepted and 20 of 20 issued .*sold out after"), timeout=15_000
            )
            assert_usable(page)
    with _opened(system, browser, f"#/coupons/{coupon}") as page:
        expect(page.locator("#counter-issued strong")).to_have_text("20")
        page.get_by_role("button", name="Change quantity").click()
        page.get_by_label("New quantity").fill("19")
        expect(page.locator("#consequences")).to_contain_text("This is refused: 20 are issued")
        page.get_by_label("New quantity").fill("30")
        expect(page.locator("#consequences")).to_contain_text("10 more can be issued.")
        expect(page.locator("#consequences")).to_contain_text("It is not sold out any more")
        assert_usable(page)
        page.get_by_role("dialog").get_by_role("button", name="Change").click()
        expect(page.locator("#counter-quantity strong")).to_have_text("30")
        page.get_by_role("button", name="Pause").click()
        page.get_by_role("dialog").get_by_role("button", name="Pause").click()
        expect(page.locator("main")).to_contain_text("The coupon is paused.")
    shown = system.http.get(f"/coupons/{coupon}").json()
    assert (shown["quantity"], shown["state"]) == (30, "paused")
    assert len(accepted) == 20
