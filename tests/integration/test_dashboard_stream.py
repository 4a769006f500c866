"""The stream of the dashboard: what it shows, to whom, and when it ends."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from redis import Redis
from sqlalchemy import Engine, text

from service import dashboard_resources
from service import resources as service_resources
from service.api import app
from service.api.plain_requests import CouponProtocol
from service.config import Settings
from service.domain.api_key import NewKey
from service.domain.caller import Role
from service.domain.coupon import Coupon
from service.domain.errors import Unavailable
from service.limits import MAX_DASHBOARD_COUPONS
from service.usecases import overview_feed, system_values
from service.usecases.api_keys import ApiKeyService
from tests.event_streams import Event, named, read_events
from tests.fixtures.callers import bearer, serving, token
from tests.log import Log
from tests.server_thread import ServerThread
from tests.waiting import eventually

_PATH = "/dashboard/events"


@pytest.fixture
def client(api: httpx.Client, keys: dict[Role, NewKey]) -> httpx.Client:
    """A client with the key of an operator who may only read."""
    api.headers.update(bearer(keys[Role.READ].text))
    return api


@contextmanager
def _watching(client: httpx.Client) -> Iterator[Iterator[Event]]:
    with client.stream("GET", _PATH) as response:
        assert response.status_code == 200, response.read()
        yield read_events(response)


def _overview_with(client: httpx.Client, is_wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return the first overview that is wanted."""
    with _watching(client) as events:
        return next(event.data for event in events if event.name == "overview" and is_wanted(event.data))


def test_the_overview_shows_the_line_and_the_coupons(
    client: httpx.Client, real_log: Log, make_coupon: Callable[..., Coupon]
) -> None:
    """The lag of each partition in requests, and of each coupon the counters; nothing has been decided."""
    coupon = make_coupon(quantity=5)
    for user in range(1, 8):
        real_log.append_request(coupon.id, user)

    overview = _overview_with(client, lambda one: sum(part["lag"] or 0 for part in one["partitions"]) == 7)

    shown = {
        field: overview["coupons"][0][field] for field in ("id", "quantity", "remaining", "issued", "held", "standby")
    }
    assert shown == {"id": coupon.id, "quantity": 5, "remaining": 5, "issued": 0, "held": 0, "standby": 0}
    assert (overview["issued"], overview["dead"], overview["retrying"]) == (0, {}, {"1": 0, "2": 0})
    assert overview["waits_ms"] == {"p50": None, "p99": None, "decisions": 0}
    assert overview["proof"] == {"ok": None, "age_seconds": None}
    assert {"postgresql": True, "redis": True, "kafka": True}.items() <= overview["parts"].items()


def test_the_alerts_have_the_time_of_their_observation(client: httpx.Client) -> None:
    """Null before the first one; the page takes alerts that are older than six seconds for unknown."""
    overview = _overview_with(client, lambda one: one["alerts_observed_at"] is not None)
    listed = client.get("/alerts").json()

    for observed_at in (overview["alerts_observed_at"], listed["observed_at"]):
        assert abs((datetime.now(UTC) - datetime.fromisoformat(observed_at)).total_seconds()) < 30
    assert listed["observed_at"] >= overview["alerts_observed_at"]


def test_records_that_are_appended_count_as_accepted(
    client: httpx.Client, real_log: Log, make_coupon: Callable[..., Coupon]
) -> None:
    """Whichever process has accepted them: the log knows."""
    coupon_id = make_coupon().id
    with _watching(client) as events:
        named(events, "overview")
        for user in range(1, 41):
            real_log.append_request(coupon_id, user)
        peak = next(event.data for event in events if event.name == "overview" and event.data["accepts"]["peak"] > 0)

    assert 1 <= peak["accepts"]["peak"] <= 80


def test_the_coupons_on_sale_are_sent_each_second(
    client: httpx.Client, make_coupon: Callable[..., Coupon], admin: Engine
) -> None:
    """However many newer ones there are that are not on sale. The page lists the others with the public API."""
    on_sale, opens_soon, paused, sold_out, closed, opens_later, archived = (make_coupon().id for _ in range(7))
    others = [make_coupon().id for _ in range(MAX_DASHBOARD_COUPONS)]
    changes = {
        opens_soon: "opens_at = now() + interval '10 minutes'",
        paused: "override = 'paused', opens_at = now() - interval '1 hour'",
        on_sale: "opens_at = now() - interval '30 days'",
        opens_later: "opens_at = now() + interval '1 day'",
        sold_out: "issued = quantity, opens_at = now() - interval '1 minute'",
        closed: "override = 'closed'",
        archived: "override = 'closed', archived_at = now()",
    }
    with admin.begin() as tx:  # counters are changed by triggers only
        for coupon_id, change in changes.items():
            tx.execute(text(f"UPDATE coupons SET {change} WHERE id = {coupon_id}"))
        tx.execute(text(f"UPDATE coupons SET closes_at = now() WHERE id >= {others[0]}"))

    shown = [one["id"] for one in _overview_with(client, lambda _: True)["coupons"]]

    assert shown == [opens_soon, paused, on_sale, opens_later, sold_out, *others[::-1]][:MAX_DASHBOARD_COUPONS]


def test_what_a_part_does_not_answer_is_null(
    with_auth: Settings, real_log: Log, redis: Redis, keys: dict[Role, NewKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither 0 nor empty; the other parts are shown all the same."""
    del real_log, redis

    def fail(*_: object) -> None:
        raise Unavailable("PostgreSQL", "it is away")

    monkeypatch.setattr(dashboard_resources, "read_board", fail)
    monkeypatch.setattr(system_values, "read_database", fail)
    with serving(with_auth) as client:
        client.headers.update(bearer(keys[Role.READ].text))
        overview = _overview_with(client, lambda _: True)

    of_database = (
        "coupons",
        "waits_ms",
        "issued",
        "held",
        "standby",
        "partitions",
        "retrying",
        "dead",
        "work",
        "proof",
    )
    assert {overview[name] for name in (*of_database, "dead_last_minute", "connections")} == {None}
    assert overview["parts"]["kafka"]


def test_only_operators_watch(api: httpx.Client, keys: dict[Role, NewKey]) -> None:
    for headers, status in (({}, 401), (bearer(token()), 403), (bearer(keys[Role.ON_BEHALF].text), 403)):
        with api.stream("GET", _PATH, headers=headers) as response:
            assert response.status_code == status


def test_no_proxy_keeps_the_stream(client: httpx.Client) -> None:
    with client.stream("GET", _PATH) as response:
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert response.headers["Cache-Control"] == "no-store, no-transform"
        assert next(read_events(response)).name == "retry"
    assert client.head(_PATH).status_code == 200


def test_a_stream_ends_when_its_key_is_revoked(client: httpx.Client, keys: dict[Role, NewKey], store: Engine) -> None:
    """It ends cleanly, so that the page connects again and finds out why."""
    with _watching(client) as events:
        named(events, "overview")
        ApiKeyService(store, "tests").revoke(keys[Role.READ].prefix)
        assert {event.name for event in events} <= {"overview"}
    assert client.get("/dashboard/session").status_code == 401


def test_another_viewer_is_refused_above_the_limit(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until one has gone."""
    monkeypatch.setattr(overview_feed, "MAX_DASHBOARD_STREAMS", 1)
    with _watching(client) as events:
        named(events, "overview")
        refused = client.get(_PATH)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
    eventually(lambda: client.head(_PATH).status_code == 200 and _is_admitted(client))


def _is_admitted(client: httpx.Client) -> bool:
    with client.stream("GET", _PATH) as response:
        return response.status_code == 200


def test_a_shutdown_does_not_wait_for_viewers(with_auth: Settings, real_log: Log, keys: dict[Role, NewKey]) -> None:
    """Each stream ends cleanly."""
    del real_log
    server = ServerThread(app.create_app(service_resources.open_resources(with_auth, "tests")), CouponProtocol)
    server.start()
    with httpx.Client(base_url="http://{}:{}".format(*server.address), headers=bearer(keys[Role.READ].text)) as client:
        eventually(lambda: client.get("/coupons").is_success)
        with _watching(client) as events:
            named(events, "overview")
            server.uvicorn.should_exit = True
            began = time.monotonic()
            list(events)
            seconds = time.monotonic() - began
    server.stop()

    assert seconds < 5  # the server would wait for fifteen
