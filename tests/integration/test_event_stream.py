"""The stream of a request sends every state until the final one, and ends when it must."""

import re
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import httpx
import pytest
from sqlalchemy import Engine, text

from service import resources as service_resources
from service.api import app
from service.api.event_stream import progress_event
from service.api.plain_requests import CouponProtocol
from service.config import Settings
from service.domain.api_key import NewKey
from service.domain.caller import Role
from service.domain.coupon import Coupon
from service.domain.drain_rate import RateRange
from service.domain.request_id import RequestIds
from service.domain.ticket import Purpose
from service.limits import MAX_STREAMS_PER_USER
from service.usecases import issuance_events, stream_listener
from service.usecases.gate_fill import GateFiller
from service.usecases.issue import Issuer
from service.usecases.lookup import CLOCK_SKEW_ALLOWANCE_MS
from service.usecases.progress_watch import PartitionProgress
from service.usecases.replay import DeadLetterService
from tests.builders import AT_MS
from tests.event_streams import named, stream
from tests.fixtures.callers import bearer, ticket, token
from tests.gate_client import GateClient, seat
from tests.integration.conftest import Query
from tests.log import Log
from tests.server_thread import ServerThread
from tests.waiting import eventually

MakeCoupon = Callable[..., Coupon]
#: a stream ends within some ticks
_SOON_SECONDS = 5.0


@pytest.fixture
def client(api: httpx.Client, keys: dict[Role, NewKey]) -> httpx.Client:
    """A client that may read the requests of all users."""
    api.headers.update(bearer(keys[Role.READ].text))
    return api


def _events_path(request_id: str) -> str:
    return f"/issuances/{request_id}/events"


def test_events_come_in_order_until_the_final_one(client: httpx.Client, real_log: Log, make_coupon: MakeCoupon) -> None:
    """First the state, then the progress of the partition, then the final state with an id; then the stream ends."""
    name = real_log.append_request(make_coupon().id, 7)
    with stream(client, name) as events:
        first = [next(events) for _ in range(3)]
        real_log.issue()
        rest = list(events)

    status = client.get(f"/issuances/{name}").json()
    assert [event.name for event in first] == ["retry", "state", "progress"]
    assert 1_000 <= first[0].data <= 5_000
    assert first[1].data["state"] == "queued"
    assert first[2].data == {
        "partition": status["partition"],
        "next_offset": status["offset"],
        "records_per_second": None,
    }
    assert first[2].id == str(status["offset"])
    assert {event.name for event in rest[:-1]} <= {"progress"}
    assert rest[-1].name == "final"
    assert rest[-1].data == status
    assert re.fullmatch(r"issued-\d{13}", rest[-1].id or "")


def test_every_change_is_sent(
    client: httpx.Client, real_log: Log, make_coupon: MakeCoupon, exhaust_retries: Callable[[], None]
) -> None:
    """A request that fails is held, then dead; one that waits for its seat is on standby, then issued."""
    coupon = make_coupon(quantity=1)
    failing, waiting = (real_log.append_request(coupon.id, 1, fault="22012 9"), real_log.append_request(coupon.id, 2))
    with stream(client, failing) as of_failing, stream(client, waiting) as of_waiting:
        states = [[named(events, "state").data["state"]] for events in (of_failing, of_waiting)]
        real_log.issue()
        for seen, events in zip(states, (of_failing, of_waiting), strict=True):
            seen.append(named(events, "state").data["state"])
        exhaust_retries()
        finals = [named(events, "final").data for events in (of_failing, of_waiting)]

    assert states == [["queued", "retrying"], ["queued", "standby"]]
    assert [(final["state"], final["code"]) for final in finals] == [("dead", "exhausted"), ("issued", None)]


def test_more_listeners_than_a_transaction_reads_take_turns(
    client: httpx.Client, real_log: Log, make_coupon: MakeCoupon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were not read for longest come first: a held request, which is read in every turn, delays nobody."""
    monkeypatch.setattr(issuance_events, "_MAX_READS", 1)
    monkeypatch.setattr(issuance_events, "_WAKE_BATCH_SIZE", 1)
    coupon_id = make_coupon().id
    names = [real_log.append_request(coupon_id, 1, fault="22012 9")]
    names += [real_log.append_request(coupon_id, user) for user in (2, 3, 4)]
    with ExitStack() as opened:
        held, *others = (opened.enter_context(stream(client, name)) for name in names)
        for events in (held, *others):
            named(events, "state")
        real_log.issue()
        finals = [named(events, "final").data["state"] for events in others]
        of_held = named(held, "state").data["state"]

    assert (of_held, finals) == ("retrying", ["issued"] * 3)


def test_an_outlook_that_changes_is_sent(
    client: httpx.Client,
    real_log: Log,
    make_coupon: MakeCoupon,
    issuer: Issuer,
    gate_client: GateClient,
    gate_filler: GateFiller,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A queued request becomes unlikely to be issued when the coupon is sold out ahead of it; its offset is kept."""
    monkeypatch.setattr(stream_listener, "REREAD_SECONDS", 0.1)
    coupon_id = make_coupon(quantity=1, waitlist=5).id
    names = [real_log.append_request(coupon_id, user) for user in (1, 2, 3)]
    offset = real_log.undecided()[-1].raw.log_position.offset
    gate_filler.fill(coupon_id)
    with stream(client, names[-1]) as events:
        first = named(events, "state").data
        gate_client.record_offset(seat(3, names[-1], coupon_id), offset)
        placed = named(events, "state").data
        real_log.positions |= issuer.issue(real_log.undecided()[:1], real_log.positions).next_offsets
        sold_out = named(events, "state").data
        real_log.issue()
        final = named(events, "final").data

    assert [(state["state"], state["offset"], state["outlook"]) for state in (first, placed, sold_out, final)] == [
        ("queued", None, None),
        ("queued", offset, None),
        ("queued", offset, "unlikely"),
        ("refused", offset, None),
    ]


def test_a_decision_is_sent_although_the_recorded_offset_is_too_large(
    client: httpx.Client,
    real_log: Log,
    make_coupon: MakeCoupon,
    gate_client: GateClient,
    gate_filler: GateFiller,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may be that of a repeat."""
    monkeypatch.setattr(stream_listener, "REREAD_SECONDS", 0.1)
    coupon_id = make_coupon().id
    name = real_log.append_request(coupon_id, 7)
    gate_filler.fill(coupon_id)
    gate_client.record_offset(seat(7, name, coupon_id), 10**6)
    with stream(client, name) as events:
        first = named(events, "state").data
        real_log.issue()
        final = named(events, "final").data

    assert (first["state"], first["offset"], final["state"]) == ("queued", 10**6, "issued")
    assert final["offset"] < 10**6


def test_a_stream_does_not_begin_again_after_the_final_event(
    client: httpx.Client,
    real_log: Log,
    make_coupon: MakeCoupon,
    exhaust_retries: Callable[[], None],
    dead_letter_service: DeadLetterService,
    query: Query,
) -> None:
    """204 for the id of the final event. A dead request that is replayed has another final event with another id."""
    name = real_log.append_request(make_coupon().id, 7, fault="22012 3")
    real_log.issue()
    exhaust_retries()
    with stream(client, name) as events:
        dead = list(events)[-1]
    again = client.get(_events_path(name), headers={"Last-Event-ID": dead.id or ""})
    resumed = client.get(_events_path(name), headers={"Last-Event-ID": "17"})

    dead_letter_service.replay(query("SELECT id FROM dead_letters")[0].id)
    with stream(client, name, **{"Last-Event-ID": dead.id or ""}) as events:
        issued = list(events)[-1]

    assert (again.status_code, again.content) == (204, b"")
    assert (resumed.status_code, "event: final" in resumed.text) == (200, True)
    assert (dead.data["state"], issued.data["state"], issued.name) == ("dead", "issued", "final")
    assert issued.id != dead.id
    assert client.get(_events_path(name), headers={"Last-Event-ID": issued.id or ""}).status_code == 204


def test_a_request_that_is_not_in_the_log_is_unknown(
    client: httpx.Client, ids: RequestIds, make_coupon: MakeCoupon, store: Engine, settings: Settings
) -> None:
    """As soon as it certainly was not accepted the stream says so and ends; the next one is a 404."""
    name = ids.mint(make_coupon().id, 7, AT_MS)
    with stream(client, name) as events:
        named(events, "progress")
        last_ms = AT_MS + settings.produce_timeout_ms + CLOCK_SKEW_ALLOWANCE_MS + 1
        with store.begin() as tx:
            tx.execute(text("UPDATE offsets SET watermark = to_timestamp(:last)"), {"last": last_ms / 1000})
        *_, last = events

    assert (last.name, last.data["code"], last.data["status"]) == ("unknown", "unknown_request", 404)
    assert client.get(_events_path(name)).status_code == 404


def test_what_refuses_a_stream_is_answered_before_it_begins(
    api: httpx.Client, real_log: Log, make_coupon: MakeCoupon
) -> None:
    """A browser takes any status but 200 as the end, so no error is hidden in a stream."""
    name = real_log.append_request(make_coupon().id, 7)
    real_log.issue()
    forged = RequestIds([b"somebody else's key"]).mint(1, 7, AT_MS)

    def status(request_id: str, credentials: str | None) -> int:
        headers = bearer(credentials) if credentials else {}
        return api.get(_events_path(request_id), headers=headers).status_code

    assert status(name, None) == 401
    assert status(name, token("8")) == status(forged, token("7")) == status("x", token("7")) == 404
    assert (
        status(name, token("7"))
        == status(name, ticket(Purpose.STREAM, 7))
        == status(name, ticket(Purpose.ACCEPT, 7))
        == 200
    )
    head = api.head(_events_path(name), headers=bearer(token("7")))
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert head.headers["Cache-Control"] == "no-store, no-transform"
    assert head.headers["X-Accel-Buffering"] == "no"


def test_a_user_has_a_bounded_number_of_streams(client: httpx.Client, real_log: Log, make_coupon: MakeCoupon) -> None:
    """One more is refused, another user's is not; a stream that ends makes room for another one."""
    coupon_id = make_coupon().id
    name, other = real_log.append_request(coupon_id, 7), real_log.append_request(coupon_id, 8)
    with ExitStack() as opened:
        streams = [opened.enter_context(stream(client, name)) for _ in range(MAX_STREAMS_PER_USER)]
        for events in streams:
            named(events, "state")
        refused = client.get(_events_path(name))
        of_other = opened.enter_context(stream(client, other))
        named(of_other, "state")

    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
    assert 5 <= int(refused.headers["Retry-After"]) <= 10
    eventually(partial(_is_open, client, name))


def test_the_streams_of_a_process_are_bounded(
    with_auth: Settings,
    real_log: Log,
    make_coupon: MakeCoupon,
    keys: dict[Role, NewKey],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Streams leave room for the connections of other requests."""
    monkeypatch.setattr("service.status_resources.MAX_STREAMS", 1)
    coupon_id = make_coupon().id
    names = [real_log.append_request(coupon_id, user) for user in (1, 2)]
    server = ServerThread(app.create_app(service_resources.open_resources(with_auth, "tests")), CouponProtocol)
    server.start()
    with httpx.Client(base_url="http://{}:{}".format(*server.address), headers=bearer(keys[Role.READ].text)) as client:
        eventually(lambda: client.get("/coupons").is_success)
        with stream(client, names[0]) as events:
            named(events, "state")
            refused = client.get(_events_path(names[1]))
    server.stop()

    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")


def _is_open(client: httpx.Client, name: str) -> bool:
    with client.stream("GET", _events_path(name)) as response:
        return response.status_code == 200


def test_clients_that_leave_give_their_places_back(
    client: httpx.Client, real_log: Log, make_coupon: MakeCoupon
) -> None:
    """Also before the first byte, and after it; the stream does not wait for the next event to notice."""
    name = real_log.append_request(make_coupon().id, 7)
    lines = (
        f"GET {_events_path(name)} HTTP/1.1",
        "Host: x",
        f"Authorization: {client.headers['Authorization']}",
        "",
        "",
    )
    for _ in range(2 * MAX_STREAMS_PER_USER):
        with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as connection:
            connection.sendall("\r\n".join(lines).encode())
    with stream(client, name) as events:
        named(events, "state")

    eventually(lambda: "coupons_open_streams 0.0" in client.get("/metrics").text, within_seconds=_SOON_SECONDS)


def test_a_stream_ends_with_the_credentials(api: httpx.Client, real_log: Log, make_coupon: MakeCoupon) -> None:
    """The client is told to connect again, and needs other credentials for that."""
    name = real_log.append_request(make_coupon().id, 7)
    began = time.monotonic()
    with stream(api, name, **bearer(ticket(Purpose.STREAM, 7, seconds=2))) as events:
        sent = list(events)

    assert [sent[0].name, sent[-1].name] == ["retry", "retry"]
    assert "final" not in {event.name for event in sent}
    assert time.monotonic() - began < _SOON_SECONDS


def test_a_silent_stream_gets_comments(
    client: httpx.Client, real_log: Log, make_coupon: MakeCoupon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy would take it for dead."""
    monkeypatch.setattr(issuance_events, "HEARTBEAT_SECONDS", 0.5)
    name = real_log.append_request(make_coupon().id, 7)

    with stream(client, name) as events:
        assert named(events, "heartbeat")


def test_a_shutdown_ends_streams_at_once(
    with_auth: Settings, real_log: Log, make_coupon: MakeCoupon, keys: dict[Role, NewKey]
) -> None:
    """Each ends cleanly after a time to connect again, and the server does not wait for its clients."""
    coupon_id = make_coupon().id
    names = [real_log.append_request(coupon_id, user) for user in range(1, 21)]
    server = ServerThread(app.create_app(service_resources.open_resources(with_auth, "tests")), CouponProtocol)
    server.start()
    with httpx.Client(base_url="http://{}:{}".format(*server.address), headers=bearer(keys[Role.READ].text)) as client:
        eventually(lambda: client.get("/coupons").is_success)
        with ExitStack() as opened:
            streams = [opened.enter_context(stream(client, name)) for name in names]
            for events in streams:
                named(events, "state")
            server.uvicorn.should_exit = True
            began = time.monotonic()
            last = [list(events)[-1] for events in streams]
            seconds = time.monotonic() - began
    server.stop()

    assert {event.name for event in last} == {"retry"}
    assert len({event.data for event in last}) > 1
    assert seconds < 5  # the server would wait for fifteen


def test_all_listeners_of_a_partition_send_the_same_bytes() -> None:
    """An event about the progress is encoded once."""
    first, second = (PartitionProgress(3, 2**40, RateRange(9.96, 20.0)) for _ in range(2))

    assert progress_event(first) is progress_event(second)
    assert progress_event(first) == (
        b'event: progress\nid: 1099511627776\ndata: {"partition":3,"next_offset":1099511627776,'
        b'"records_per_second":{"min":10.0,"max":20.0}}\n\n'
    )
