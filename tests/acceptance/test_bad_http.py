"""Invalid HTTP requests: problem details with the right status and code, and no effect on anything else."""

import re
import socket
from urllib.parse import urljoin

import httpx
import pytest

from tests.system import System

_JSON = {"content-type": "application/json"}
_BAD_USERS = [
    b'{"user_id": "1"}',
    b'{"user_id": true}',
    b'{"user_id": 1.5}',
    b'{"user_id": 0}',
    b'{"user_id": -1}',
    b'{"user_id": 9007199254740992}',
    b'{"user_id": 9223372036854775808}',
    b'{"user_id": ' + b"9" * 150 + b"}",
    b'{"user_id": NaN}',
    b'{"user_id": Infinity}',
    b'{"user_id": 1e999}',
    b'{"user_id": null}',
    b'{"user_id": 1, "admin": true}',
    b"{}",
    b"[]",
    b"[1]",
    b"",
    b"{",
    b'{"user_id": 1',
    b'{"user_id": 1} x',
    b'"\\ud800"',
    b'{"user_id": "\\u0000"}',
    b"[" * 5_000,
    b"\xff\xfe",
    b"\xef\xbb\xbf{",
    b'{"user_id": 1, "user_id": 2}',
    b'{"user_id": 1, "user\\u005fid": 1}',
]
_BAD_IDS = [
    "0",
    "-1",
    "+1",
    "1_000",
    "01",
    "1.0",
    "%201",
    "1%20",
    "1%0A",
    "9223372036854775808",
    "9" * 5_000,
    "x",
    "%00",
    "١",
]
_BAD_COUPONS = [
    {"name": "", "quantity": 1},
    {"name": "x" * 201, "quantity": 1},
    {"name": "a\u0000b", "quantity": 1},
    {"name": "a\n", "quantity": 1},
    {"name": "x", "quantity": 0},
    {"name": "x", "quantity": -5},
    {"name": "x", "quantity": 2**31},
    {"name": "x", "quantity": "1"},
    {"name": "x", "quantity": 1, "waitlist": -1},
    {"name": "x", "quantity": 1, "issued": 5},
    {"name": "x", "quantity": 1, "opens_at": "2030-01-01T00:00:00"},
    {"name": "x", "quantity": 1, "opens_at": "tomorrow"},
    {"name": "x", "quantity": 1, "opens_at": "2030-01-02T00:00:00Z", "closes_at": "2030-01-01T00:00:00Z"},
]


def test_bad_bodies_are_problems(system: System) -> None:
    """Each invalid body of an issuance request is refused as invalid; the coupon is unchanged."""
    coupon = system.make_coupon(quantity=1)

    for body in _BAD_USERS:
        assert_problem(system.http.post(f"/coupons/{coupon}/issuances", content=body, headers=_JSON), 422, "invalid")

    assert system.http.get(f"/coupons/{coupon}").json()["remaining"] == 1


@pytest.mark.parametrize("coupon_id", _BAD_IDS)
def test_only_plain_decimal_ids_are_valid(system: System, coupon_id: str) -> None:
    """Any other form of an id in the path is refused without a look-up."""
    answer = system.http.post(f"/coupons/{coupon_id}/issuances", json={"user_id": 1})

    assert_problem(answer, 422, "invalid")


def test_bad_coupons_are_problems(system: System) -> None:
    """An invalid coupon is refused, and none is created."""
    before = system.count("SELECT count(*) FROM coupons")

    for body in _BAD_COUPONS:
        assert_problem(system.http.post("/coupons", json=body), 422, "invalid")

    assert system.count("SELECT count(*) FROM coupons") == before


def test_bad_pages_are_problems(system: System) -> None:
    """An invalid cursor or limit is refused."""
    for query in ("limit=0", "limit=501", "limit=x", "cursor=", "cursor=-1"):
        assert_problem(system.http.get(f"/coupons?{query}"), 422, "invalid")


def test_pages_list_every_coupon_once(system: System) -> None:
    """Following `next` from the first page returns each coupon once, in id order."""
    made = [system.make_coupon(quantity=1) for _ in range(5)]
    found: list[int] = []
    cursor: str | None = None
    while True:
        page = system.http.get("/coupons", params={"limit": "2"} | ({"cursor": cursor} if cursor else {})).json()
        found += [coupon["id"] for coupon in page["coupons"]]
        cursor = page["next"]
        if cursor is None:
            break

    assert found == sorted(set(found))
    assert set(made) <= set(found)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_another_content_type_is_refused(system: System, content_type: str) -> None:
    """A body without the JSON content type is answered with 415."""
    headers = {"content-type": content_type} if content_type else {}

    answer = system.http.post("/coupons/1/issuances", content=b'{"user_id": 1}', headers=headers)

    assert_problem(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate, gzip", "identity, gzip"])
def test_an_encoded_body_is_refused(system: System, encoding: str) -> None:
    """The bytes would be read as something else than was meant."""
    headers = _JSON | {"content-encoding": encoding}

    answer = system.http.post("/coupons/1/issuances", content=b'{"user_id": 1}', headers=headers)

    assert_problem(answer, 415, "unsupported_media_type")


def test_a_body_that_is_too_large_is_refused(system: System) -> None:
    """A megabyte is answered with 413, with a content length and in chunks without one."""
    large = b'{"user_id": 1, "x": "' + b"x" * 1_000_000 + b'"}'

    whole = system.http.post("/coupons/1/issuances", content=large, headers=_JSON)
    chunked = system.http.post("/coupons/1/issuances", content=iter([large[:500_000], large[500_000:]]), headers=_JSON)

    assert_problem(whole, 413, "request_entity_too_large")
    assert_problem(chunked, 413, "request_entity_too_large")


@pytest.mark.parametrize("request_id", ["x", "A" * 60, "%00", "-" * 60, "é"])
def test_a_forged_request_id_is_unknown(system: System, request_id: str) -> None:
    """A request id that was not made with our key is answered with 404."""
    assert_problem(system.http.get(f"/issuances/{request_id}"), 404, "unknown_request")


def test_an_unknown_coupon_is_refused(system: System) -> None:
    """A coupon that was never created is answered with 404, requested or read."""
    for _ in range(2):
        answer = system.request_issuance(2**62, 1)
        assert answer is not None
        assert_problem(answer, 404, "unknown_coupon")
    assert_problem(system.http.get(f"/coupons/{2**62}"), 404, "unknown_coupon")


def test_unknown_paths_and_methods_are_problems(system: System) -> None:
    """Routing errors have the same form as all other problems."""
    assert_problem(system.http.get("/nothing"), 404, "not_found")
    assert_problem(system.http.delete("/coupons"), 405, "method_not_allowed")


def test_non_http_data_does_no_harm(system: System) -> None:
    """Data that is not HTTP gets an answer or a closed connection, and the next request is served."""
    port = httpx.URL(system.stack.api_url).port or 0
    for data in (
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /coupons HTTP/1.1\r\ncontent-length: x\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1024):
                pass

    assert system.http.get("/healthz").status_code == 200


def test_the_docs_load_and_describe_the_bodies(system: System) -> None:
    """Swagger UI's page and all its assets come from this service, and the schema has the limits of the decoder."""
    page = system.http.get("/docs").text
    assets = [urljoin(f"{system.stack.api_url}/docs", url) for url in re.findall(r'(?:src|href)="([^"]+)"', page)]
    assert len(assets) >= 3
    assert all(url.startswith(system.stack.api_url) and system.http.get(url).is_success for url in assets)
    document = system.http.get("/openapi.json").json()
    user_id = document["components"]["schemas"]["NewIssuance"]["properties"]["user_id"]
    assert (user_id["minimum"], user_id["maximum"]) == (1, 2**53 - 1)


def assert_problem(answer: httpx.Response, status: int, code: str) -> None:
    """Assert that the answer is problem details with this status and code, and contains no stack trace."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    body = answer.json()
    assert (body["status"], body["code"]) == (status, code)
    assert body["problem_id"]
    assert "Traceback" not in answer.text
