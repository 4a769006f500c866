"""A request for a coupon in every form that HTTP allows: plain or odd, it is answered by the same rules."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from service.verification.history import ClientAnswer
from tests.acceptance.test_bad_http import assert_problem
from tests.system import System, told

_JSON = {"content-type": "application/json"}


@contextmanager
def _connected(system: System) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", httpx.URL(system.stack.api_url).port or 0), timeout=10) as connection:
        yield connection


def _ask(system: System, coupon: int, user: int, path: str = "", **request: Any) -> httpx.Response:
    """The answer to a request of some form, written down."""
    answer = system.http.post(path or f"/coupons/{coupon}/issuances", **request)
    system.history.append(told(user, coupon, answer))
    return answer


def _unheard(system: System, coupon: int, *users: int) -> None:
    """Writes down that these users may have heard anything."""
    system.history.extend(ClientAnswer(user, coupon, "unknown") for user in users)


def _posted(coupon: int, user: int, *headers: str, version: str = "1.1") -> bytes:
    body = f'{{"user_id": {user}}}'
    lines = [
        f"POST /coupons/{coupon}/issuances HTTP/{version}",
        "host: here",
        "content-type: application/json",
        f"content-length: {len(body)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", body]).encode()


def _heard(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


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
def test_every_spelling_of_json_is_taken(system: System, headers: dict[str, str]) -> None:
    """A good body is accepted however its type is spelt, and the answer leads to the request."""
    coupon = system.make_coupon(quantity=1)

    answer = _ask(system, coupon, 1, content=b'{"user_id": 1}', headers=headers)

    assert (answer.status_code, answer.headers["content-type"]) == (202, "application/json")
    body = answer.json()
    assert answer.headers["location"] == f"/issuances/{body['request_id']}"
    assert (body["coupon_id"], body["user_id"], body["state"]) == (coupon, 1, "queued")
    assert system.final(body["request_id"])["state"] == "issued"


def test_an_odd_path_names_the_same_coupon_or_none(system: System) -> None:
    """Digits that are percent-encoded and a query change nothing; a slash too many is another path."""
    coupon = system.make_coupon(quantity=3)
    encoded = "".join(f"%{ord(digit):x}" for digit in str(coupon))

    for user, path in ((1, f"/coupons/{encoded}/issuances"), (2, f"/coupons/{coupon}/issuances?user_id=9")):
        assert _ask(system, coupon, user, path, json={"user_id": user}).status_code == 202
    for path in (f"/coupons/{coupon}/issuances/", f"//coupons/{coupon}/issuances", f"/coupons/{coupon}//issuances"):
        assert_problem(system.http.post(path, json={"user_id": 3}), 404, "not_found")


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_another_method_is_refused(system: System, method: str) -> None:
    """The path takes POST only, and says so."""
    answer = system.http.request(method, "/coupons/1/issuances")

    assert_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


def test_a_body_in_pieces_is_one_body(system: System) -> None:
    """Chunks without a length are put together."""
    coupon = system.make_coupon(quantity=1)

    answer = _ask(system, coupon, 1, content=iter([b'{"user', b'_id":', b" 1", b"}"]), headers=_JSON)

    assert answer.status_code == 202


def test_requests_in_one_go_are_answered_in_their_order(system: System) -> None:
    """Pipelined on one connection, each gets its own answer, the last in HTTP/1.0 ends the connection."""
    coupon = system.make_coupon(quantity=2)

    with _connected(system) as connection:
        connection.sendall(
            _posted(coupon, 1) + _posted(coupon, 2) + _posted(coupon, 1) + _posted(coupon, 3, version="1.0")
        )
        heard = _heard(connection)
    _unheard(system, coupon, 1, 2, 3)

    statuses = [part[:3] for part in heard.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"202", b"202", b"409", b"409"]
    assert heard.index(b'"user_id":1') < heard.index(b'"user_id":2') < heard.index(b'"duplicate"')
    assert b'"sold_out"' in heard


@pytest.mark.parametrize("sent", ["nothing", "a part"])
def test_a_body_that_does_not_come_is_not_waited_for(system: System, sent: str) -> None:
    """After a few seconds the request is given up and the connection closed."""
    with _connected(system) as connection:
        connection.sendall(_posted(1, 1)[: -14 if sent == "nothing" else -4])
        heard = _heard(connection)

    assert heard.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in heard.lower()
    assert b'"request_timeout"' in heard


def test_a_body_that_is_cut_off_harms_nothing(system: System) -> None:
    """The user has no place, and asks again."""
    coupon = system.make_coupon(quantity=1)
    with _connected(system) as connection:
        connection.sendall(_posted(coupon, 1)[:-4])

    assert system.http.get(f"/coupons/{coupon}").json()["remaining"] == 1
    assert system.press(coupon, 1).status_code == 202


def test_who_goes_away_keeps_the_place(system: System) -> None:
    """A request that was read is carried out though its user has hung up: the repeat is led to it."""
    coupon = system.make_coupon(quantity=1)
    with _connected(system) as connection:
        connection.sendall(_posted(coupon, 1))
    _unheard(system, coupon, 1)

    system.eventually(lambda: system.http.get(f"/coupons/{coupon}").json()["issued"] == 1)

    repeat = system.ask(coupon, 1)
    assert repeat is not None
    assert_problem(repeat, 409, "duplicate")
    assert system.final(repeat.headers["location"].removeprefix("/issuances/"))["state"] == "issued"
