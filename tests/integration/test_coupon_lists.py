"""Lists of coupons: what they show, in which order, and which part of them a caller asks for."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, event, text

from service.domain.api_key import NewKey
from service.domain.caller import Role
from service.domain.coupon import Coupon, CouponFilter, CouponState, Override
from service.usecases.coupons import CouponService
from tests.builders import AT_MS
from tests.fixtures.callers import bearer

MakeCoupon = Callable[..., Coupon]
List = Callable[..., httpx.Response]
#: one of each combination; a time in seconds is relative to AT_MS
_INSERT_COMBINATIONS = """
INSERT INTO coupons (name, quantity, issued, opens_at, closes_at, override)
SELECT 'a coupon', 5, issued, to_timestamp(:now + opens), to_timestamp(:now + closes), override
FROM unnest(ARRAY[0, 4, 5]) AS issued,
     unnest(ARRAY[NULL, -1, 0, 1]) AS opens,
     unnest(ARRAY[NULL, -0.5, 0, 0.001, 2]) AS closes,
     unnest(ARRAY['none', 'paused', 'closed']) AS override
WHERE (closes > opens) IS NOT FALSE
"""


@pytest.fixture
def listed(api: httpx.Client, keys: dict[Role, NewKey]) -> List:
    """Ask for a list of coupons: `listed(name="a")`."""
    return lambda **query: api.get("/coupons", params=query, headers=bearer(keys[Role.READ].text))


@pytest.fixture
def named(coupon_service: CouponService) -> dict[str, int]:
    """Ids of coupons, by name."""
    names = ("Coffee 50%", "COFFEE 5_0", "Café", "치킨 쿠폰", "tea \\ /")
    return {name: coupon_service.create(name, 5, 0, None, None).id for name in names}


def _ids(response: httpx.Response) -> list[int]:
    assert response.status_code == 200, response.text
    return [coupon["id"] for coupon in response.json()["coupons"]]


def test_a_list_by_state_has_the_coupons_that_show_this_state(admin: Engine, coupon_service: CouponService) -> None:
    """The query and the domain have one rule, at each boundary of the window."""
    with admin.begin() as tx:
        tx.execute(text(_INSERT_COMBINATIONS), {"now": AT_MS / 1000})
    everything = coupon_service.list_page(CouponFilter(), 0, 1_000)

    found = {
        state: [coupon.id for coupon in coupon_service.list_page(CouponFilter(None, state, None, AT_MS), 0, 1_000)]
        for state in CouponState
    }

    assert len(everything) > 100
    assert found == {
        state: [coupon.id for coupon in everything if coupon.state(AT_MS) is state] for state in CouponState
    }
    assert all(found.values())


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("coffee", ["Coffee 50%", "COFFEE 5_0"]),
        ("0%", ["Coffee 50%"]),
        ("5_", ["COFFEE 5_0"]),
        ("CAFÉ", ["Café"]),
        ("쿠폰", ["치킨 쿠폰"]),
        (" ", ["Coffee 50%", "COFFEE 5_0", "치킨 쿠폰", "tea \\ /"]),
        ("\\", ["tea \\ /"]),
        ("/", ["tea \\ /"]),
        ("cocoa", []),
        ("'; DROP TABLE coupons; --", []),
    ],
)
def test_a_search_finds_a_part_of_a_name(listed: List, named: dict[str, int], part: str, names: list[str]) -> None:
    """In upper or lower case of any script. Characters that mean something in a pattern of SQL mean themselves."""
    assert _ids(listed(name=part)) == [named[name] for name in names]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"name": ""}, "name must have 1 to 200 characters."),
        ({"name": "x" * 201}, "name must have 1 to 200 characters."),
        ({"name": "a\x00"}, "name must not contain U+0000"),
        ({"name": "a\u202e"}, "name must not contain U+202E"),
        ({"name": "\ufffd"}, "name must be UTF-8."),
        ({"state": "OPEN"}, "state must be one of scheduled, open, paused, sold_out, closed."),
        ({"state": ""}, "state must be one of"),
        ({"archived": "yes"}, "archived must be one of false, true, all."),
        ({"limit": "0"}, "limit must be a decimal number from 1 to 500"),
        ({"cursor": "x"}, "cursor must be a decimal number"),
        (
            {"status": "open"},
            "The query has the parameter `status`. It may have archived, cursor, limit, name, state.",
        ),
    ],
    ids=str,
)
def test_an_invalid_query_is_refused_and_named(listed: List, query: dict[str, str], words: str) -> None:
    response = listed(**query)

    assert (response.status_code, response.json()["code"]) == (422, "invalid")
    assert response.json()["detail"].startswith(words)


def test_a_filtered_list_is_read_page_by_page(listed: List, make_coupon: MakeCoupon) -> None:
    """A page has as many coupons as were asked for, whatever lies between them; the last one has no cursor."""
    coupons = [make_coupon(quantity=5, closes_at_ms=1_000 if number % 3 else None).id for number in range(20)]
    wanted, query = coupons[::3], {"state": "open", "limit": "2"}

    pages = [listed(**query)]
    while cursor := pages[-1].json()["next"]:
        pages.append(listed(**query, cursor=cursor))

    assert [_ids(page) for page in pages] == [wanted[0:2], wanted[2:4], wanted[4:6], wanted[6:]]
    assert "Link" not in pages[-1].headers


def test_a_link_leads_to_the_next_page(
    listed: List, api: httpx.Client, keys: dict[Role, NewKey], make_coupon: MakeCoupon
) -> None:
    """It is relative to the page's address, with the other parameters as they were sent, whatever their characters."""
    ids = [make_coupon().id for _ in range(3)]

    first = listed(limit="1", name="a coupon", archived="all")
    assert first.headers["Link"] == f'<?limit=1&name=a+coupon&archived=all&cursor={ids[0]}>; rel="next"'
    second = api.get(first.url.join(first.links["next"]["url"]), headers=bearer(keys[Role.READ].text))
    third = api.get(second.url.join(second.links["next"]["url"]), headers=bearer(keys[Role.READ].text))

    assert [_ids(page) for page in (first, second, third)] == [ids[:1], ids[1:2], ids[2:]]
    assert third.links == {}


def test_a_link_keeps_a_name_that_has_characters_of_its_own(listed: List, coupon_service: CouponService) -> None:
    """Neither a bracket nor a quote of the name ends the link."""
    name = '>; rel="x", <쿠폰&cursor=1'
    for _ in range(2):
        coupon_service.create(name, 1, 0, None, None)

    first = listed(limit="1", name=name)

    assert first.links["next"]["url"].startswith("?limit=1&name=%3E%3B+rel%3D%22x%22%2C+%3C%EC%BF%A0")
    assert len(_ids(listed(**dict(httpx.URL(first.links["next"]["url"]).params)))) == 1


def test_archived_coupons_are_listed_only_if_asked_for(
    listed: List, named: dict[str, int], coupon_service: CouponService
) -> None:
    ids = list(named.values())
    coupon_service.change(ids[1], {"override": Override.CLOSED, "archived_at_ms": AT_MS})

    assert _ids(listed()) == _ids(listed(archived="false")) == [ids[0], *ids[2:]]
    assert _ids(listed(archived="true")) == [ids[1]]
    assert _ids(listed(archived="all")) == ids
    assert _ids(listed(archived="all", state="closed", name="COFFEE")) == [ids[1]]


def test_the_default_list_does_not_read_what_is_archived(
    store: Engine, admin: Engine, coupon_service: CouponService
) -> None:
    """The first page is as fast after years of archived coupons."""
    with admin.begin() as tx:
        tx.execute(
            text(
                "INSERT INTO coupons (name, quantity, override, archived_at)"
                " SELECT 'old', 1, 'closed', now() FROM generate_series(1, 5000)"
            )
        )
        tx.execute(text("ANALYZE coupons"))
    executed: list[tuple[str, Any]] = []
    event.listen(store, "before_cursor_execute", lambda _, __, *what: executed.append(what[:2]))
    coupon_service.list_page(CouponFilter(archived=False), 0, 51)
    statement, values = next(what for what in executed if "FROM coupons" in what[0])

    with store.begin() as tx:
        plan = list(tx.exec_driver_sql(f"EXPLAIN {statement}", values).scalars())

    assert "coupons_unarchived" in " ".join(plan)
