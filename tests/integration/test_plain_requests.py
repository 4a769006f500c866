"""A plain request gets the same response as one that takes the way through FastAPI: byte for byte."""

import asyncio
import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from redis import Redis

from service import api_resources
from service import resources as service_resources
from service.api import app, cors, errors, plain_requests
from service.api.plain_issuance import PlainIssuance
from service.api.plain_lookup import PlainLookup
from service.api.plain_requests import CouponProtocol
from service.api.routes import issuances
from service.config import Settings
from service.domain import request_id
from service.domain.api_key import NewKey
from service.domain.caller import Role
from service.domain.coupon import Coupon
from service.domain.request_id import RequestIds
from service.domain.ticket import Purpose
from service.gate import async_gate
from service.gate.gate_admin import GateAdmin
from service.limits import MAX_BODY_BYTES, MAX_ID, MAX_PIPELINED, MAX_SAFE_ID
from service.resources import Resources
from service.server import guarded_protocol, responses
from service.server.guarded_protocol import GuardedProtocol
from service.server.root_path import root_paths
from tests.builders import AT_MS
from tests.fixtures.callers import ticket, token
from tests.gate_client import admit_script_at
from tests.log import Log
from tests.server_thread import ServerThread
from tests.waiting import eventually

#: no test coupon has this id
_ABSENT = 2**62
_LINE = b"POST /coupons/%d/issuances HTTP/1.1\r\n"
_LAST = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_HEAD = b"Host: localhost\r\nContent-Type: application/json\r\n"


class _Coupons(NamedTuple):
    """A coupon of each kind that has a verdict of its own."""

    open: int
    sold_out: int
    scheduled: int
    closed: int


def _post(coupon: int, body: bytes = b'{"user_id":7}', head: bytes = _HEAD, line: bytes = _LINE) -> bytes:
    return (line % coupon if b"%d" in line else line) + head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def _headers(coupon: int, *headers: bytes) -> bytes:
    return _post(coupon, head=_HEAD + b"".join(header + b"\r\n" for header in headers))


def _inputs(coupons: _Coupons) -> dict[str, bytes]:
    """What a client sends on one connection before the request that ends it, by name."""
    plain, body = _post(coupons.open), b'{"user_id":7}'
    chunked = _LINE % coupons.open + _HEAD + b"Transfer-Encoding: chunked\r\n\r\nd\r\n" + body + b"\r\n0\r\n\r\n"
    encoded = b"".join(b"%%%x" % digit for digit in b"%d" % coupons.open)
    bodies = [
        b"",
        b"{",
        b"{}",
        b"[]",
        b"[" * 5_000,
        b'{"user_id":"1"}',
        b'{"user_id":true}',
        b'{"user_id":1.5}',
        b'{"user_id":0}',
        b'{"user_id":-1}',
        b'{"user_id":%d}' % (MAX_SAFE_ID + 1),
        b'{"user_id":%d}' % MAX_SAFE_ID,
        b'{"user_id":NaN}',
        b'{"user_id":null}',
        b'{"user_id":1,"admin":true}',
        b'{"user_id":1,"user_id":2}',
        b'{"user_id":1} x',
        b' {"user_id" : 8 } ',
        b'{"user_id":1e3}',
        b'"\\ud800"',
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"x" * MAX_BODY_BYTES,
        b"x" * (MAX_BODY_BYTES + 1),
    ]
    targets = [
        b"/coupons/0%d/issuances",
        b"/coupons/-%d/issuances",
        b"/coupons/%d/issuances/",
        b"/coupons/%d/issuances?a=b",
        b"/coupons/%d/issuances#a",
        b"//coupons/%d/issuances",
        b"http://here/coupons/%d/issuances",
        b"*%d",
        b"/coupons/%d/ISSUANCES",
        b"/coupons/%d;a/issuances",
        b"/./coupons/%d/issuances",
        b"/coupons/%d/x/../issuances",
    ]
    aliases = [b"%b%%2Fissuances", b"%b%%0a/issuances", b"%b%%00/issuances", b"%b/%%69ssuances", b"%b%%/issuances"]
    ids = [b"0", b"x", b"1_0", b"%d" % MAX_ID, b"%d" % (MAX_ID + 1), b"9" * 19, b"9" * 20, encoded, "١".encode()]
    lines = [
        *(b"POST " + target % coupons.open + b" HTTP/1.1\r\n" for target in targets),
        *(b"POST " + alias % (b"/coupons/%d" % coupons.open) + b" HTTP/1.1\r\n" for alias in aliases),
        *(b"POST /coupons/" + each + b"/issuances HTTP/1.1\r\n" for each in ids),
        *(
            _LINE.replace(b"POST", method) % coupons.open
            for method in (b"GET", b"PUT", b"HEAD", b"post", b"QUERY", b"M")
        ),
        *(_LINE.replace(b"1.1", version) % coupons.open for version in (b"1.0", b"0.9", b"2.0", b"1.2")),
    ]
    headers = [
        b"Authorization: Bearer a.b.c",
        b"Forwarded: for=1.2.3.4",
        b"X-Forwarded-For: 1.2.3.4",
        b"X-Forwarded-For: a, b\r\nX-Forwarded-For: [::1]:80, 1.2.3.4:80",
        b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        b"Connection: close",
        b"Connection: keep-alive",
        b"Expect: 100-continue",
        b"Expect: something",
        b"Content-Encoding: gzip",
        b"TE: trailers",
        b"Upgrade: h2c",
        b"Connection: Upgrade\r\nUpgrade: h2c",
        b"Connection: close, upgrade\r\nUpgrade: websocket",
        b"Content-Length: 13",
        b"Transfer-Encoding: chunked",
        b"Host: there",
        b"Content-Type: text/plain",
        b"X: \xe9",
        b"X : a",
        b"X",
        b"X: a\r\n b",
        b"X: a\x00",
        b"Cookie: a=b\r\nCookie: c=d",
        b"Accept: text/html",
        b"Content-Type:",
    ]
    types = [
        b"application/json; charset=utf-8",
        b"Application/JSON",
        b"application/json;",
        b" application/json ",
        b"text/json",
        b"application/json, text/plain",
        b"",
        b"application/problem+json",
    ]
    return {
        "plain": plain,
        "repeated": plain + plain,
        "pipelined": b"".join(_post(coupons.open, b'{"user_id":%d}' % user) for user in range(1, 51)),
        "after another": b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n" + plain,
        "before another": plain + b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n" + plain,
        "too many of one user": plain * 12,
        "too many of one address": b"".join(
            _post(coupons.open, b'{"user_id":%d}' % user, _HEAD + b"X-Forwarded-For: 192.0.2.1\r\n")
            for user in range(1, 66)
        ),
        "before garbage": plain + b"garbage\r\n\r\n",
        "another type first": plain.replace(b"Content-Type", b"Content-Type: text/plain\r\nContent-Type"),
        "chunked": chunked,
        "no length": _LINE % coupons.open + _HEAD + b"\r\n" + body,
        "no host": plain.replace(b"Host: localhost\r\n", b""),
        "cut body": plain[:-1],
        "cut head": plain[:60],
        "nothing": b"",
        "empty lines first": b"\r\n\r\n" + plain,
        "bare line feeds": plain.replace(b"\r\n", b"\n"),
        "unknown coupon": _post(_ABSENT),
        **{f"{name} coupon": _post(number) for name, number in coupons._asdict().items()},
        **{f"body {body[:40]!r} of {len(body)} bytes": _post(coupons.open, body) for body in bodies},
        **{f"line {line!r}": _post(coupons.open, line=line) for line in lines},
        **{f"header {header!r}": _headers(coupons.open, header) for header in headers},
        **{f"type {kind!r}": plain.replace(b"application/json", kind) for kind in types},
    }


class _Server(ServerThread):
    """The API with one protocol class."""

    def __init__(self, common: Resources, protocol: type[asyncio.Protocol]) -> None:
        application = cors.allow_origins(app.create_app(common), common.settings.allowed_origins)
        super().__init__(application, protocol, server_header=False, date_header=False, timeout_graceful_shutdown=5)

    def respond(self, *segments: bytes, stops_sending: bool = False) -> bytes:
        """Return all that the server sends before it closes the connection; each segment is read by itself."""
        with socket.create_connection(self.address, timeout=15) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for number, segment in enumerate(segments):
                if number:
                    self.respond(_LAST)
                connection.sendall(segment)
            if stops_sending:
                connection.shutdown(socket.SHUT_WR)
            received = b""
            while chunk := connection.recv(65536):
                received += chunk
            return received


class _Counted(PlainIssuance):
    """A plain request for a coupon that is counted."""

    count = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        _Counted.count += 1


class _CountedLookup(PlainLookup):
    """A plain look-up that is counted."""

    count = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        _CountedLookup.count += 1


class _Servers(NamedTuple):
    """The API with the batch path, and without."""

    batch: _Server
    ordinary: _Server


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, log_id: int) -> Iterator[Callable[[Settings], _Servers]]:
    """Start both servers on the same parts; clock and randomness stand still."""
    del log_id  # the open log is read from the database
    for module in (service_resources, api_resources, issuances):
        monkeypatch.setattr(module, "now_ms", lambda: AT_MS)
    monkeypatch.setattr(async_gate, "ADMIT", admit_script_at(AT_MS))
    for module in (errors, responses, issuances):
        monkeypatch.setattr(module, "jitter", float)
    monkeypatch.setattr(request_id, "urandom", bytes)
    monkeypatch.setattr(responses, "getrandbits", lambda _: 0)
    monkeypatch.setattr(plain_requests, "PlainIssuance", _Counted)
    monkeypatch.setattr(plain_requests, "PlainLookup", _CountedLookup)
    for limit in ("HEAD_TIMEOUT_SECONDS", "BODY_TIMEOUT_SECONDS", "IDLE_TIMEOUT_SECONDS"):
        monkeypatch.setattr(guarded_protocol, limit, 1.0)
    started: list[_Server] = []

    class OrdinaryProtocol(GuardedProtocol):
        host_names: frozenset[str] | None
        keep_alive_seconds = 1.0

    def start_both(settings: Settings) -> _Servers:
        OrdinaryProtocol.host_names = settings.host_names
        OrdinaryProtocol.root_paths = root_paths(settings.root_path, settings.trusted_proxies)
        settings = settings.model_copy(update={"keep_alive_seconds": 1})
        for protocol in (CouponProtocol, OrdinaryProtocol):
            started.append(_Server(service_resources.open_resources(settings, protocol.__name__), protocol))
            started[-1].start()
        return _Servers(*started)

    yield start_both
    for server in started:
        server.stop()


@pytest.fixture
def servers(settings: Settings, start: Callable[[Settings], _Servers]) -> _Servers:
    """Both servers without authentication."""
    return start(settings.model_copy(update={"rate_limit_address": "60/60", "trusted_proxies": "127.0.0.1"}))


@pytest.fixture
def secured(with_auth: Settings, keys: dict[Role, NewKey], start: Callable[[Settings], _Servers]) -> _Servers:
    """Both servers with authentication, reached under a name; they have read the API keys."""
    del keys
    both = start(with_auth.model_copy(update={"allowed_hosts": "coupons.example, www.coupons.example"}))
    unknown = _headers(_ABSENT, _bearer("ck_" + 43 * "x"))
    for server in both:
        eventually(lambda server=server: _statuses(server.respond(unknown + _LAST))[0] == 401)  # type: ignore[misc]
    return both


@pytest.fixture
def reset(redis: Redis, gate_admin: GateAdmin, make_coupon: Callable[..., Coupon]) -> Callable[[], _Coupons]:
    """Create the coupons; each call empties their seats and the rate limits."""
    made = [
        make_coupon(quantity=20),
        make_coupon(quantity=1),
        make_coupon(opens_at_ms=AT_MS + 90_000),
        make_coupon(closes_at_ms=AT_MS),
    ]

    def empty() -> _Coupons:
        for key in redis.scan_iter("gate:limit:*"):
            redis.delete(key)
        for coupon in made:
            gate_admin.evict(coupon.id)
            gate_admin.fill(coupon, [(9, "x" * 60)] if coupon.quantity == 1 else [])
        return _Coupons(*(coupon.id for coupon in made))

    return empty


def test_the_same_bytes_have_the_same_response(servers: _Servers, reset: Callable[[], _Coupons]) -> None:
    """Status, headers and body, for every form of a request and for what is none."""
    different, before, inputs = {}, _Counted.count, _inputs(reset())
    for name, data in inputs.items():
        batch = servers.batch.respond(data + _LAST)
        reset()
        ordinary = servers.ordinary.respond(data + _LAST)
        reset()
        if batch != ordinary:
            different[name] = batch, ordinary

    assert different == {}
    assert _Counted.count - before > len(inputs) / 3, "the batch path was hardly used"


def test_the_same_credentials_have_the_same_response(
    secured: _Servers, reset: Callable[[], _Coupons], keys: dict[Role, NewKey]
) -> None:
    """Of every kind, once, twice and malformed; with the user in the body, without one, and with another user."""
    bodies = (b'{"user_id":7}', b"{}", b'{"user_id":8}')
    user, back_end, unknown, other = (202, 202, 403), (202, 422, 202), 3 * (401,), 3 * (403,)
    by_token, by_ticket = (_bearer(text) for text in (token(), ticket(Purpose.ACCEPT)))
    fields = {
        by_token: user,
        by_ticket: user,
        **{_bearer(key.text): back_end if role is Role.ON_BEHALF else other for role, key in keys.items()},
        _bearer(ticket(Purpose.STREAM)): other,
        by_token.replace(b"Authorization: Bearer", b"authorization: bearer"): user,
        by_token.replace(b" Bearer", b"  Bearer ") + b"  ": user,
        by_token + b"\r\nSec-Fetch-Site: cross-site\r\nOrigin: https://evil.example": user,
        b"X: a": unknown,
        b"Authorization:": unknown,
        b"Authorization: Bearer": unknown,
        by_token.replace(b"Bearer", b"Basic"): unknown,
        by_token.replace(b"Bearer ", b""): unknown,
        _bearer("\xe9"): unknown,
        by_token + b"x": unknown,
        _bearer(ticket(Purpose.ACCEPT, seconds=-int(time.time()))): unknown,
        by_token + b"\r\n" + by_token: unknown,
        by_token + b"\r\n" + by_ticket: unknown,
    }
    coupon, different, before = reset().open, {}, _Counted.count
    for field, statuses in fields.items():
        for body, status in zip(bodies, statuses, strict=True):
            data = _post(coupon, body, _HEAD + field + b"\r\n")
            batch = secured.batch.respond(data + _LAST)
            reset()
            ordinary = secured.ordinary.respond(data + _LAST)
            reset()
            if batch != ordinary or _statuses(batch)[0] != status:
                different[field, body] = batch, ordinary

    assert different == {}
    assert _Counted.count - before == (len(fields) - 2) * len(bodies), "the batch path was hardly used"


def test_the_same_look_up_has_the_same_response(
    secured: _Servers, real_log: Log, make_coupon: Callable[..., Coupon], ids: RequestIds, keys: dict[Role, NewKey]
) -> None:
    """Of a request in each state, by each kind of caller, with and without the tag of the last response."""
    coupon_id = make_coupon(quantity=1).id
    decided = [real_log.append_request(coupon_id, user) for user in (7, 8)]
    real_log.issue()
    names = [*decided, real_log.append_request(make_coupon().id, 7), ids.mint(coupon_id, 7, AT_MS), 60 * "x", 59 * "x"]
    own, other = _bearer(token()) + b"\r\n", _bearer(keys[Role.READ].text) + b"\r\n"
    inputs = [_get(name, credentials) for name in names for credentials in (own, other)]
    tag = re.findall(rb"etag: (.*)\r\n", secured.ordinary.respond(_get(names[0], own) + _LAST))[0]
    conditions = (
        b"If-None-Match: " + tag,
        b"If-None-Match: " + tag[2:],
        b"If-None-Match: *",
        b'If-None-Match: "x", ' + tag,
        b'If-None-Match: "x"',
        b"If-None-Match:",
        b'If-None-Match: "x"\r\nIf-None-Match: ' + tag,
        b"Connection: close",
        b"Range: bytes=0-1",
        b"Accept: text/html",
        b"Content-Length: 0",
        b"Upgrade: h2c\r\nConnection: Upgrade",
        b"Expect: 100-continue",
    )
    inputs += [_get(names[0], own + condition + b"\r\n") for condition in conditions]
    first = _get(names[0], own)
    inputs += [first.replace(b"GET", method) for method in (b"HEAD", b"POST", b"get")]
    inputs += [first.replace(b" HTTP", more + b" HTTP") for more in (b"/", b"?a=b", b"?", b"%0a", b"#a")]
    inputs += [first.replace(b"1.1", b"1.0"), first.replace(b"/issuances/", b"/%69ssuances/"), 3 * first]
    post = _post(_ABSENT, head=_HEAD + own)
    inputs += [first + post, post + first]
    inputs += [_get(names[0], field + b"\r\n") for field in (b"X: a", own[:-2] + b"x", _bearer(ticket(Purpose.STREAM)))]

    before = _CountedLookup.count
    different = {}
    for data in inputs:
        batch, ordinary = (server.respond(data + _LAST) for server in secured)
        if batch != ordinary:
            different[data] = batch, ordinary

    assert different == {}
    assert _CountedLookup.count - before > len(inputs) / 2, "the way without FastAPI was hardly used"


def _get(request_id: str, headers: bytes) -> bytes:
    return b"GET /issuances/%b HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % (request_id.encode(), headers)


def test_a_page_of_another_site_has_the_same_response(
    settings: Settings, start: Callable[[Settings], _Servers], reset: Callable[[], _Coupons]
) -> None:
    """From a site that may call and from one that may not; accepted, refused and malformed."""
    servers = start(settings.model_copy(update={"cors_origins": "https://shop.example, http://localhost:3000"}))
    coupons, different, before = reset(), {}, _Counted.count
    origins = (
        b"X: a",
        b"Origin: https://shop.example",
        b"origin:  https://shop.example ",
        b"Origin: http://localhost:3000",
        b"Origin: https://evil.example",
        b"Origin: https://SHOP.example",
        b"Origin: null",
        b"Origin:",
        b"Origin: https://shop.example\r\nOrigin: https://evil.example",
    )
    for origin in origins:
        head = _HEAD + origin + b"\r\n"
        for data in (
            _post(coupons.open, head=head),
            _post(coupons.closed, head=head),
            _post(1, b"{", head=head),
            _get(60 * "x", origin + b"\r\n"),
        ):
            batch = servers.batch.respond(data + _LAST)
            reset()
            ordinary = servers.ordinary.respond(data + _LAST)
            reset()
            assert b"vary: Origin\r\n" in batch
            if batch != ordinary:
                different[data] = batch, ordinary

    assert different == {}
    assert _Counted.count - before == 3 * (len(origins) - 1), "the batch path was hardly used"
    assert _CountedLookup.count >= len(origins) - 1


def test_the_same_path_of_a_proxy_has_the_same_response(
    settings: Settings, start: Callable[[Settings], _Servers], reset: Callable[[], _Coupons]
) -> None:
    """What refers to the API begins with the path, that of the proxy or the configured one; accepted and refused."""
    servers = start(settings.model_copy(update={"root_path": "/shop/api", "trusted_proxies": "127.0.0.1"}))
    coupons, different, before = reset(), {}, _Counted.count
    paths = {
        b"X: a": b"/shop/api",
        b"X-Forwarded-Prefix: /other": b"/other",
        b"x-forwarded-prefix: /other/": b"/other",
        b"X-Forwarded-Prefix: /outer, /inner": b"/outer/inner",
        b"X-Forwarded-Prefix: /": b"",
        b"X-Forwarded-Prefix: //evil.example": b"/shop/api",
        b"X-Forwarded-Prefix: https://evil.example": b"/shop/api",
        b"X-Forwarded-Prefix: /a/../b": b"/shop/api",
        b"X-Forwarded-Prefix: /" + 300 * b"a": b"/shop/api",
    }
    for header, path in paths.items():
        head = _HEAD + header + b"\r\n"
        accepted, duplicate = _post(coupons.open, head=head), _post(coupons.sold_out, b'{"user_id":9}', head=head)
        kinds = (accepted, duplicate, _post(coupons.closed, head=head), _post(1, b"{", head=head))
        for data in (*kinds, _get(60 * "x", header + b"\r\n"), accepted[:30] + b"no HTTP\r\n\r\n"):
            batch = servers.batch.respond(data + _LAST)
            reset()
            ordinary = servers.ordinary.respond(data + _LAST)
            reset()
            if batch != ordinary:
                different[data] = batch, ordinary
            if data == accepted:
                assert b"location: %b/issuances/" % path in batch
            elif data in kinds:
                assert b'{"type":"%b/problems/' % path in batch

    assert different == {}
    assert _Counted.count - before == 4 * len(paths), "the batch path was hardly used"


def _bearer(credentials: str) -> bytes:
    return b"Authorization: Bearer %b" % credentials.encode("latin-1")


def test_the_same_host_has_the_same_response(secured: _Servers, reset: Callable[[], _Coupons]) -> None:
    """Only the names of ALLOWED_HOSTS and of loopback are the API's."""
    coupon, authorization = reset().open, _bearer(token()) + b"\r\n"
    for host, status in (
        (b"coupons.example", 202),
        (b"Coupons.Example:8000", 202),
        (b"www.coupons.example", 202),
        (b"localhost", 202),
        (b"[::1]:80", 202),
        (b"example", 421),
        (b"coupons.example.evil.example", 421),
        (b"evil.example:80", 421),
        (b"coupons.example:80:80", 421),
        (b"", 421),
    ):
        data = _post(coupon, head=_HEAD.replace(b"localhost", host) + authorization)
        batch = secured.batch.respond(data + _LAST)
        reset()

        assert _statuses(batch)[0] == status, host
        assert secured.ordinary.respond(data + _LAST) == batch, host
        reset()


@pytest.mark.parametrize("requests", [1, 2])
def test_a_client_that_stops_sending_has_the_same_response(
    servers: _Servers, reset: Callable[[], _Coupons], requests: int
) -> None:
    """The end of the client's side arrives before Kafka's acknowledgement."""
    data = _post(reset().open) * requests
    batch = servers.batch.respond(data, stops_sending=True)
    reset()

    assert servers.ordinary.respond(data, stops_sending=True) == batch
    assert batch.startswith(b"HTTP/1.1 202 ")


def test_a_request_has_one_response_however_it_is_split(servers: _Servers, reset: Callable[[], _Coupons]) -> None:
    """At every byte, with an offer of another protocol and without."""
    coupon = reset().open
    for data in (_post(coupon), _headers(coupon, b"Connection: Upgrade", b"Upgrade: h2c")):
        reset()
        expected = servers.batch.respond(data + _LAST)
        assert expected.startswith(b"HTTP/1.1 202 ")
        for at in range(1, len(data)):
            reset()
            assert servers.batch.respond(data[:at], data[at:] + _LAST) == expected, at


def test_what_real_clients_send_is_a_plain_request(servers: _Servers, reset: Callable[[], _Coupons]) -> None:
    """Authorization, a proxy's headers, a trace, an offer of HTTP/2, a charset, and a body in a segment of its own."""
    coupon = reset().open
    request = _headers(
        coupon,
        b"Connection: Upgrade, HTTP2-Settings",
        b"Upgrade: h2c",
        b"HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAA",
        b"Authorization: Bearer a.b.c",
        b"Forwarded: for=1.2.3.4;proto=https",
        b"X-Forwarded-For: 1.2.3.4",
        b"X-Forwarded-Proto: https",
        b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        b"User-Agent: Java-http-client/17",
    ).replace(b"application/json", b"application/json; charset=utf-8")
    head, separator, body = request.partition(b"\r\n\r\n")
    before = _Counted.count

    response = servers.batch.respond(head + separator, body + _LAST)

    assert response.startswith(b"HTTP/1.1 202 ")
    assert _Counted.count == before + 1


def _statuses(response: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", response)]


@pytest.mark.parametrize("batch", [True, False], ids=["batch", "ordinary"])
def test_every_complete_request_has_one_response_in_its_place(
    servers: _Servers, reset: Callable[[], _Coupons], batch: bool
) -> None:
    """Whatever follows it on the connection: an offer, a part of a request, garbage, or too many requests."""
    server = servers.batch if batch else servers.ordinary
    coupon = reset().open
    plain, other = _post(coupon), _post(coupon, b'{"user_id":8}')
    offer = b"Connection: Upgrade\r\nUpgrade: h2c"
    offering = _post(coupon, b'{"user_id":8}', head=_HEAD + offer + b"\r\n")
    closing = _headers(coupon, offer.replace(b"Upgrade\r", b"close, Upgrade\r"))
    old = _post(coupon, head=_HEAD + offer + b"\r\n", line=_LINE.replace(b"1.1", b"1.0"))
    get = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for data, stops_sending, statuses in (
        (plain + offering + _LAST, False, [202, 202, 404]),
        (closing, False, [202]),
        (old, False, [202]),
        (plain + other[:-1], True, [202]),
        (plain + other[:30], True, [202]),
        (plain + b"garbage\r\n\r\n", True, [202, 400]),
        (plain + get * (MAX_PIPELINED + 10), False, [202, *[404] * MAX_PIPELINED, 429]),
    ):
        reset()
        assert _statuses(server.respond(data, stops_sending=stops_sending)) == statuses, data[:400]


def test_an_exceeded_limit_is_answered_with_its_headers(servers: _Servers, reset: Callable[[], _Coupons]) -> None:
    """429 names the limit, and when it has room again; the address is that which the trusted proxy has seen."""
    coupon = reset().open
    proxied = b"".join(
        _post(coupon, b'{"user_id":%d}' % user, _HEAD + b"X-Forwarded-For: 198.51.100.%d, 192.0.2.1\r\n" % user)
        for user in range(1, 62)
    )

    by_user = servers.batch.respond(_post(coupon) * 11 + _LAST)
    reset()
    by_address = servers.batch.respond(proxied + _LAST)

    assert _statuses(by_user) == [202, *[409] * 9, 429, 404]
    assert b'ratelimit-policy: "user";q=10;w=2\r\nratelimit: "user";r=0;t=1\r\nretry-after: 1\r\n' in by_user
    assert _statuses(by_address) == [*[202] * 20, *[409] * 40, 429, 404]
    assert b'ratelimit-policy: "address";q=60;w=60\r\n' in by_address
