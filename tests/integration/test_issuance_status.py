"""The state of a request for clients that ask again and again: tags, positions that never grow, and the outlook."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import httpx
import pytest
from redis import Redis

from service.domain.api_key import NewKey
from service.domain.caller import Role
from service.domain.coupon import Coupon, Override
from service.gate.keys import PROGRESS_KEY
from service.usecases.coupons import CouponService
from service.usecases.issue import Issuer
from tests.fixtures.callers import bearer
from tests.gate_client import GateClient, seat
from tests.log import Log
from tests.waiting import eventually

MakeCoupon = Callable[..., Coupon]


@pytest.fixture
def client(api: httpx.Client, keys: dict[Role, NewKey]) -> httpx.Client:
    """A client that calls for all users."""
    api.headers.update(bearer(keys[Role.ON_BEHALF].text))
    return api


def _request(client: httpx.Client, coupon_id: int, user_id: int) -> str:
    response = client.post(f"/coupons/{coupon_id}/issuances", json={"user_id": user_id})
    assert response.status_code == HTTPStatus.ACCEPTED, response.text
    return str(response.json()["request_id"])


def _read(client: httpx.Client, request_id: str) -> dict[str, Any]:
    response = client.get(f"/issuances/{request_id}")
    assert response.status_code == HTTPStatus.OK, response.text
    return dict(response.json())


def _decide(real_log: Log, issuer: Issuer, records: int) -> None:
    """Decide the next records of the log."""
    real_log.positions |= issuer.issue(real_log.undecided()[:records], real_log.positions).next_offsets


def test_nothing_is_sent_again_while_nothing_has_changed(
    client: httpx.Client, real_log: Log, make_coupon: MakeCoupon
) -> None:
    """304 for the tag of the last state, with the headers of a 200 (RFC 9110); another tag for another state."""
    name = real_log.append_request(make_coupon().id, 7)
    path = f"/issuances/{name}"
    queued = client.get(path)
    unchanged = client.get(path, headers={"If-None-Match": f'"x", {queued.headers["ETag"]}'})
    real_log.issue()
    issued = client.get(path, headers={"If-None-Match": queued.headers["ETag"]})
    final = client.get(path, headers={"If-None-Match": issued.headers["ETag"]})

    assert (unchanged.status_code, unchanged.content) == (304, b"")
    for name in ("ETag", "Cache-Control"):
        assert unchanged.headers[name] == queued.headers[name]
    assert queued.headers["Cache-Control"] == "private, no-cache"
    assert 1 <= queued.json()["refresh_after_seconds"] <= 30
    assert (issued.status_code, issued.json()["state"], issued.json()["refresh_after_seconds"]) == (200, "issued", None)
    assert final.status_code == 304


def test_a_position_is_exact_and_never_grows(
    client: httpx.Client,
    real_log: Log,
    make_coupon: MakeCoupon,
    issuer: Issuer,
    gate_client: GateClient,
    redis: Redis,
) -> None:
    """Repeats, a progress in Redis that is out of date, and the loss of Redis's data make it null at most."""
    coupon_id = make_coupon(quantity=5).id
    names = [_request(client, coupon_id, user) for user in range(1, 6)]
    last = names[-1]
    eventually(lambda: _read(client, last)["position"] == 4)
    assert [_read(client, name)["position"] for name in names] == [0, 1, 2, 3, 4]

    _decide(real_log, issuer, 2)
    redis.hset(PROGRESS_KEY, mapping=dict.fromkeys(map(str, range(6)), "0"))
    after_two = _read(client, last)
    assert client.post(f"/coupons/{coupon_id}/issuances", json={"user_id": 5}).status_code == HTTPStatus.CONFLICT
    gate_client.record_offset(seat(5, last, coupon_id), after_two["offset"] + 1_000)  # it was appended once more
    repeated = _read(client, last)
    redis.flushall()
    lost = _read(client, last)
    repeat = client.post(f"/coupons/{coupon_id}/issuances", json={"user_id": 5})
    refilled = _read(client, last)
    real_log.issue()
    decided = _read(client, last)

    assert (after_two["position"], repeated["position"]) == (2, 2)
    assert (lost["state"], lost["position"], lost["offset"]) == ("queued", None, None)
    assert repeat.headers["Location"] == f"/issuances/{last}"
    assert refilled["position"] is None
    assert (decided["state"], decided["position"], decided["offset"]) == ("issued", None, after_two["offset"])


def test_the_offset_of_another_request_is_not_shown(
    client: httpx.Client, real_log: Log, make_coupon: MakeCoupon, redis: Redis
) -> None:
    """The gate keeps one offset for a user: that of the request which has the seat."""
    coupon_id = make_coupon().id
    name = real_log.append_request(coupon_id, 7)
    redis.hset(f"gate:{coupon_id}:seats", "7", "another request")
    redis.hset(f"gate:{coupon_id}:offsets", "7", "5")

    assert _read(client, name)["offset"] is None


def test_the_outlook_is_told_as_far_as_it_is_known(
    client: httpx.Client, real_log: Log, make_coupon: MakeCoupon, issuer: Issuer, coupon_service: CouponService
) -> None:
    """Likely with seats for all, unknown with a waitlist, unlikely when nothing remains or the coupon is closed."""
    ample, scarce = make_coupon(quantity=2), make_coupon(quantity=1, waitlist=2)
    first = _request(client, ample.id, 1)
    names = [_request(client, scarce.id, user) for user in (1, 2, 3)]
    eventually(lambda: _read(client, names[0])["offset"] is not None)
    queued = [_read(client, name)["outlook"] for name in (first, *names)]

    coupon_service.change(ample.id, {"override": Override.CLOSED})
    closed = _read(client, first)["outlook"]
    while _read(client, names[0])["state"] == "queued":
        _decide(real_log, issuer, 1)
    sold = [_read(client, name)["outlook"] for name in names]

    assert queued[0] == "likely"
    assert queued[-1] is None
    assert closed == "unlikely"
    assert sold == [None, "unlikely", "unlikely"]


def test_a_request_on_standby_is_unlikely_to_be_issued(
    client: httpx.Client, real_log: Log, make_coupon: MakeCoupon
) -> None:
    """It gets a seat only if the one that is held is given up."""
    coupon = make_coupon(quantity=1)
    names = [real_log.append_request(coupon.id, 1, fault="22012 1"), real_log.append_request(coupon.id, 2)]
    real_log.issue()

    found = [_read(client, name) for name in names]

    assert [(each["state"], each["outlook"]) for each in found] == [("retrying", "likely"), ("standby", "unlikely")]
    assert {each["position"] for each in found} == {None}
