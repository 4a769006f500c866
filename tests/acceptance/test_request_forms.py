"""Issuance requests in every form that HTTP allows: common or unusual, the same rules apply."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from service.verification.history import ClientAnswer
from tests.acceptance.test_bad_http import assert_problem
from tests.system import System, client_answer

_JSON = {"content-type": "application/json"}


@contextmanager
def _connected(system: System) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", httpx.URL(system.stack.api_url).port or 0), timeout=10) as connection:
        yield connection


def _ask(system: System, coupon: int, user: int, path: str = "", **request: Any) -> httpx.Response:
    """Send a request in some form, and add its answer to the history."""
    answer = system.http.post(path or f"/coupons/{coupon}/issuances", **request)
    system.history.append(client_answer(user, coupon, answer))
    return answer


def _record_unknown(system: System, coupon: int, *users: int) -> None:
    """Add an unknown answer of these users to the history."""
    system.history.extend(ClientAnswer(user, coupon, "unknown") for user in users)


def _raw_post(coupon: int, user: int, *headers: str, version: str = "1.1") -> bytes:
    body = f'{{"user_id": {user}}}'
    lines = [
        f"POST /coupons/{coupon}/issuances HTTP/{version}",
        "host: here",
        "content-type: application/json",
        f"content-length: {len(body)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", body]).encode()


def _read_to_end(connection: socket.socket) -> bytes:
    """Read until the server closes the connection."""
    chunks = []
    while chunk := connection.recv(65536):
        chunks.append(chunk)
    return b"".join(chunks)


@pytest.mark.parametrize(
    "headers",
    [
        _JSON,
        {"content-type": "application/json; charset=utf-8"},
        {"content-type": "Application/JSON"},
        {**_JSON, "expect": "100-continue"},
    ],
    ids=lambda headers: " ".join(headers.values()),
)
def test_every_spelling_of_the_json_content_type_is_accepted(system: System, headers: dict[str, str]) -> None:
    """A valid body is accepted with any spelling of its type, and the answer links to the request."""
    coupon = system.make_coupon(quantity=1)

    answer = _ask(system, coupon, 1, content=b'{"user_id": 1}', headers=headers)

    assert (answer.status_code, answer.headers["content-type"]) == (202, "application/json")
    body = answer.json()
    assert answer.headers["location"] == f"/issuances/{body['request_id']}"
    assert (body["coupon_id"], body["user_id"], body["state"]) == (coupon, 1, "queued")
    assert system.wait_until_final(body["request_id"])["state"] == "issued"


def test_unusual_paths(system: System) -> None:
    """Percent-encoded digits and a query change nothing; an additional slash is another path."""
    coupon = system.make_coupon(quantity=3)
    encoded = "".join(f"%{ord(digit):x}" for digit in str(coupon))

    for user, path in ((1, f"/coupons/{encoded}/issuances"), (2, f"/coupons/{coupon}/issuances?user_id=9")):
        assert _ask(system, coupon, user, path, json={"user_id": user}).status_code == 202
    for path in (f"/coupons/{coupon}/issuances/", f"//coupons/{coupon}/issuances", f"/coupons/{coupon}//issuances"):
        assert_problem(system.http.post(path, json={"user_id": 3}), 404, "not_found")


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_another_method_is_refused(system: System, method: str) -> None:
    """The path allows POST only, as the Allow header says."""
    answer = system.http.request(method, "/coupons/1/issuances")

    assert_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


def test_a_chunked_body_is_accepted(system: System) -> None:
    """Chunks without a content length are joined."""
    coupon = system.make_coupon(quantity=1)

    answer = _ask(system, coupon, 1, content=iter([b'{"user', b'_id":', b" 1", b"}"]), headers=_JSON)

    assert answer.status_code == 202


def test_pipelined_requests_are_answered_in_order(system: System) -> None:
    """Each request on one connection gets its own answer; the last, in HTTP/1.0, ends the connection."""
    coupon = system.make_coupon(quantity=2)

    with _connected(system) as connection:
        connection.sendall(
            _raw_post(coupon, 1) + _raw_post(coupon, 2) + _raw_post(coupon, 1) + _raw_post(coupon, 3, version="1.0")
        )
        response = _read_to_end(connection)
    _record_unknown(system, coupon, 1, 2, 3)

    statuses = [part[:3] for part in response.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"202", b"202", b"409", b"409"]
    assert response.index(b'"user_id":1') < response.index(b'"user_id":2') < response.index(b'"duplicate"')
    assert b'"sold_out"' in response


@pytest.mark.parametrize("sent", ["nothing", "a part"])
def test_an_incomplete_body_times_out(system: System, sent: str) -> None:
    """After a few seconds the request is answered with 408 and the connection is closed."""
    with _connected(system) as connection:
        connection.sendall(_raw_post(1, 1)[: -14 if sent == "nothing" else -4])
        response = _read_to_end(connection)

    assert response.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in response.lower()
    assert b'"request_timeout"' in response


def test_a_truncated_body_has_no_effect(system: System) -> None:
    """The user has no seat, and can send the request again."""
    coupon = system.make_coupon(quantity=1)
    with _connected(system) as connection:
        connection.sendall(_raw_post(coupon, 1)[:-4])

    assert system.http.get(f"/coupons/{coupon}").json()["remaining"] == 1
    assert system.request_until_answered(coupon, 1).status_code == 202


def test_a_client_that_disconnects_keeps_its_request(system: System) -> None:
    """A request that was read completely is executed after a disconnect; the repeat links to it."""
    coupon = system.make_coupon(quantity=1)
    with _connected(system) as connection:
        connection.sendall(_raw_post(coupon, 1))
    _record_unknown(system, coupon, 1)

    system.eventually(lambda: system.http.get(f"/coupons/{coupon}").json()["issued"] == 1)

    repeat = system.request_issuance(coupon, 1)
    assert repeat is not None
    assert_problem(repeat, 409, "duplicate")
    assert system.wait_until_final(repeat.headers["location"].removeprefix("/issuances/"))["state"] == "issued"
