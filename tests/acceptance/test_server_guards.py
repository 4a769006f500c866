"""The server guards itself: what one client sends, or does not send, costs bounded memory, and ends in seconds."""

import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psutil
import pytest

from service.limits import (
    BODY_TIMEOUT_SECONDS,
    HEAD_TIMEOUT_SECONDS,
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    READ_TIMEOUT_SECONDS,
)
from tests.fixtures.running import KEEP_ALIVE_SECONDS
from tests.raw_http import connected, raw_post, read_response, read_to_end
from tests.system import System

_HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
_POST = b"POST /coupons/1/issuances HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
#: a deadline is compared every half second, and the machine may be busy
_TOLERANCE_SECONDS = 8.0


def _assert_rejected(response: bytes, status: int, code: str) -> None:
    """Assert that the last response is a problem with this status, and that it says that the connection ends."""
    last = re.split(rb"(?=HTTP/1\.1 \d{3} )", response)[-1]
    assert last.startswith(b"HTTP/1.1 %d " % status), response
    assert b"connection: close\r\n" in last
    assert b"content-type: application/problem+json" in last
    assert f'"code":"{code}"'.encode() in last


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * (MAX_HEAD_BYTES // 2) + b"\r\n",
        b"GET /" + b"a" * MAX_HEAD_BYTES + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 4 * MAX_HEAD_BYTES,
    ],
    ids=["long header", "many headers", "long target", "endless header"],
)
def test_a_head_that_is_too_long_is_rejected(system: System, data: bytes) -> None:
    """431 as soon as the limit is passed, also while the head is incomplete."""
    with connected(system) as connection:
        connection.sendall(data)
        response = read_to_end(connection)

    _assert_rejected(response, 431, "request_header_fields_too_large")


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"], ids=["", "expect"])
def test_a_declared_length_over_the_limit_is_rejected(system: System, expect: bytes) -> None:
    """413 before the body is sent, and without `100 Continue`."""
    with connected(system) as connection:
        connection.sendall(_POST + expect + b"Content-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1))
        response = read_to_end(connection)

    _assert_rejected(response, 413, "request_entity_too_large")
    assert b"100 Continue" not in response


@pytest.mark.parametrize("hosts", [b"", b"Host: a\r\nHost: b\r\n"], ids=["none", "two"])
def test_a_request_has_one_host(system: System, hosts: bytes) -> None:
    """A request whose host can be read in two ways is rejected."""
    with connected(system) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n%b\r\n" % hosts)
        response = read_to_end(connection)

    _assert_rejected(response, 400, "bad_request")


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n",
        _POST + b"Content-Length: x\r\n\r\n",
        _POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        _POST + b"Content-Length: 14\r\nTransfer-Encoding: chunked\r\n\r\n",
        _POST + b"Transfer-Encoding: gzip\r\n\r\n",
        _POST + b"Transfer-Encoding: chunked, identity\r\n\r\n",
        _POST + b"Transfer-Encoding: chunked\r\n\r\nx\r\n",
    ],
)
def test_what_is_not_http_is_rejected(system: System, data: bytes) -> None:
    """A request whose end could be read in two ways, and everything else that is malformed, is a 400."""
    with connected(system) as connection:
        connection.sendall(data)
        response = read_to_end(connection)

    _assert_rejected(response, 400, "bad_request")


def test_connect_is_not_implemented(system: System) -> None:
    """The server is no proxy: what follows is not read as a tunnel."""
    with connected(system) as connection:
        connection.sendall(b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n" + _HEALTH)
        response = read_to_end(connection)

    _assert_rejected(response, 501, "not_implemented")
    assert response.count(b"HTTP/1.1 ") == 1


def test_a_rejection_follows_the_responses_to_earlier_requests(system: System) -> None:
    """Responses keep the order of the requests, so that no client takes the rejection for its accepted request."""
    coupon = system.make_coupon(quantity=1)

    with connected(system) as connection:
        connection.sendall(raw_post(coupon, 1) + _HEALTH + b"not HTTP\r\n\r\n")
        response = read_to_end(connection)
    system.record_unknown(coupon, 1)

    assert re.findall(rb"HTTP/1.1 (\d+)", response) == [b"202", b"200", b"400"]
    system.eventually(lambda: system.http.get(f"/coupons/{coupon}").json()["issued"] == 1)


#: what a client sends before it falls silent, the seconds that it has, and the status of the response, if any
_SILENCES = [
    (b"", HEAD_TIMEOUT_SECONDS, None),
    (b"GET /he", HEAD_TIMEOUT_SECONDS, 408),
    (_POST, HEAD_TIMEOUT_SECONDS, 408),
    (_POST + b"Content-Length: 100\r\n\r\n{", BODY_TIMEOUT_SECONDS, 408),
    (_POST.replace(b"json", b"json; charset=utf-8") + b"Content-Length: 9\r\n\r\n{", BODY_TIMEOUT_SECONDS, 408),
    (b"PATCH /coupons/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{", BODY_TIMEOUT_SECONDS, None),
    (
        b"POST /dead-letters/1/replay HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 9\r\n\r\n",
        BODY_TIMEOUT_SECONDS,
        None,
    ),
    (_HEALTH, KEEP_ALIVE_SECONDS, None),
]


def test_connections_that_do_not_go_on_end(system: System) -> None:
    """Fifty of each kind end in seconds, with a 408 where a request waits; another client is served beside them."""
    began = time.monotonic()
    with connections(system, 50 * len(_SILENCES)) as opened:
        kinds = [(connection, *_SILENCES[number % len(_SILENCES)]) for number, connection in enumerate(opened)]
        for connection, data, _, _ in kinds:
            connection.sendall(data)
        assert system.http.get("/healthz").status_code == 200
        for connection, data, seconds, status in kinds:
            response = read_to_end(connection)
            assert seconds * 0.9 < time.monotonic() - began < seconds + _TOLERANCE_SECONDS, data
            if status is not None:
                _assert_rejected(response, status, "request_timeout")


def test_a_slow_client_is_not_kept_by_its_drops(system: System) -> None:
    """The deadline of a head counts from its first byte, however many bytes follow."""
    began = time.monotonic()
    with connected(system) as connection:
        connection.settimeout(0.25)
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        response = b""
        while not response:
            connection.sendall(b"X: a\r\n")
            try:
                response = connection.recv(4096)
            except TimeoutError:
                continue

    assert time.monotonic() - began < HEAD_TIMEOUT_SECONDS + _TOLERANCE_SECONDS
    assert response.startswith(b"HTTP/1.1 408 ")


def test_a_client_that_does_not_read_is_closed(system: System) -> None:
    """Thousands of pipelined requests whose responses nobody reads cost bounded memory, and end."""
    process = api_process(system)
    before = process.memory_info().rss
    with connected(system) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        requests = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200
        deadline = time.monotonic() + 4 * READ_TIMEOUT_SECONDS
        # it drops what follows a request too many, until the client has read no response for READ_TIMEOUT_SECONDS
        while not send_until_refused(connection, requests, 1_000):
            assert time.monotonic() < deadline, "the server reads on"
        grown = process.memory_info().rss - before

    assert grown < 32_000_000


def test_a_closing_connection_that_is_not_read_ends(system: System) -> None:
    """The server does not wait for ever until the client has read the last response."""
    with connected(system) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
        connection.sendall(request * 60 + request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        local = connection.getsockname()[1]
        process = api_process(system)
        system.eventually(lambda: not any(local in (each.raddr or ()) for each in process.net_connections("tcp")))


def test_endless_heads_cost_bounded_memory(system: System) -> None:
    """Of a header, a target, a chunk's extension or a trailer of 26 MB nothing is kept."""
    process = api_process(system)
    before = process.memory_info().rss
    for first in (
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ",
        b"GET /",
        _POST + b"Transfer-Encoding: chunked\r\n\r\n10;",
        _POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ",
    ):
        with connected(system) as connection:
            connection.sendall(first)
            send_until_refused(connection, b"a" * 65_536, 400)

    assert process.memory_info().rss - before < 16_000_000


def test_a_hostile_connection_costs_little_memory(system: System) -> None:
    """Half requests, at most 64 kB each."""
    process = api_process(system)
    with connections(system, 300) as opened:
        before = process.memory_info().rss
        for connection in opened:
            connection.sendall(_POST + b"X: " + b"a" * (MAX_HEAD_BYTES - 200))
        system.http.get("/healthz")
        grown = process.memory_info().rss - before

    assert grown < 300 * 64_000


@contextmanager
def connections(system: System, count: int) -> Iterator[list[socket.socket]]:
    """Open many connections."""
    with ExitStack() as stack:
        yield [stack.enter_context(connected(system)) for _ in range(count)]


def api_process(system: System) -> psutil.Process:
    """Return the process of the API."""
    return psutil.Process(system.stack.pid("api"))


def send_until_refused(connection: socket.socket, data: bytes, times: int) -> bool:
    """Send the data so often; return whether the server ended the connection or did not read on before that."""
    try:
        for _ in range(times):
            connection.sendall(data)
    except OSError:
        return True
    return False


def test_a_keep_alive_connection_is_used_again(system: System) -> None:
    """Several requests on one connection, each answered before the next."""
    with connected(system) as connection:
        for _ in range(3):
            connection.sendall(_HEALTH)
            assert read_response(connection).startswith(b"HTTP/1.1 200 ")
