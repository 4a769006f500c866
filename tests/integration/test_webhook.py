"""The webhook sender and receivers that misbehave: each failure ends in time and opens the circuit breaker."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine

from service.domain.errors import Unavailable
from service.domain.request import Decision, ReasonCode, RequestState
from service.usecases.notify import deliver_notices
from service.webhooks.sender import WebhookOutcome, WebhookSender
from testkit.webhook_receiver import WebhookReceiver
from tests.fixtures.parts import WEBHOOK_SECRET
from tests.integration.conftest import Query, StartSale

_TIMEOUT_SECONDS = 1.0
Serve = Callable[[Callable[[socket.socket], None]], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a receiver that calls a function with each connection; returns its URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def start(respond: Callable[[socket.socket], None]) -> str:
        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=_respond_once, args=(respond, connection), daemon=True).start()

        threading.Thread(target=run, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"

    yield start
    listener.close()


def _respond_once(respond: Callable[[socket.socket], None], connection: socket.socket) -> None:
    """Respond to one request and read what the client still sends, so that the end does not overtake the response."""
    with connection:
        try:
            connection.recv(65_536)
            respond(connection)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65_536):
                pass
        except OSError:
            return


def _dribble(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"x-slow: 1\r\n")
        time.sleep(0.1)


def _flood(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + b"x" * 65_536 + b"\r\n")


def _hang(connection: socket.socket) -> None:
    connection.recv(1)


def _stay_silent(connection: socket.socket) -> None:
    while connection.recv(65_536):
        """Wait until the client closes the connection."""


def _status(text: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(b"HTTP/1.1 " + text + b"content-length: 0\r\n\r\n")


@pytest.mark.parametrize(
    "respond",
    [
        _hang,
        _dribble,
        _flood,
        lambda connection: connection.close(),
        _status(b"500 No\r\n"),
        _status(b"301 Elsewhere\r\nlocation: http://127.0.0.1:9/\r\n"),
        _status(b"410 Gone\r\n"),
        lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"),
    ],
    ids=["hangs", "dribbles", "floods", "closes", "500", "redirects", "410", "stops halfway"],
)
def test_a_bad_receiver_costs_no_more_than_the_timeout(serve: Serve, respond: Callable[[socket.socket], None]) -> None:
    """Whatever the receiver does, send() ends in time; no redirect is followed."""
    sender = WebhookSender(serve(respond), WEBHOOK_SECRET, _TIMEOUT_SECONDS)
    began = time.monotonic()

    with pytest.raises(Unavailable):
        sender.send("id", [])

    assert time.monotonic() - began < _TIMEOUT_SECONDS + 4  # some of them would never end
    assert sender.circuit_breaker.open_seconds > 0
    sender.close()


@pytest.mark.parametrize(
    ("respond", "outcome", "failure"),
    [
        (_status(b"204 Thanks\r\n"), WebhookOutcome.ACCEPTED, None),
        (_status(b"410 Gone away\r\n"), WebhookOutcome.REJECTED, "it answered 410 Gone"),
        (_status(b"599 Unheard of\r\n"), WebhookOutcome.REJECTED, "it answered 599"),
        (_stay_silent, WebhookOutcome.UNREACHABLE, "no answer within 1 s"),
    ],
    ids=["accepted", "rejected", "rejected with an unknown status", "unreachable"],
)
def test_every_attempt_is_told_with_its_outcome_and_why_it_failed(
    serve: Serve, respond: Callable[[socket.socket], None], outcome: WebhookOutcome, failure: str | None
) -> None:
    """The alert on a failing receiver needs them."""
    told: list[tuple[WebhookOutcome, str | None]] = []
    sender = WebhookSender(serve(respond), WEBHOOK_SECRET, _TIMEOUT_SECONDS, lambda *attempt: told.append(attempt))

    with suppress(Unavailable):
        sender.send("id", [])

    assert told == [(outcome, failure)]
    sender.close()


@pytest.mark.parametrize(
    ("headers", "body", "words"),
    [
        (b"", b"maintenance", ' and said "maintenance"'),
        (b"", b"<p>\n  back at\t12:00\n", ' and said "<p> back at 12:00"'),
        (b"", b"\x1b[2J\x00bad", ' and said "\\x1b[2J\\x00bad"'),
        (b"", b"Cannot POST /hooks/t0ken-1?key=s3cret%2F2", ' and said "Cannot POST …"'),
        (b"", b"Cannot POST /t0ken-1", ' and said "Cannot POST /…"'),
        (b"", b"key s3cret/2 (s3cret%2F2) is invalid", ' and said "key … (…) is invalid"'),
        (b"", rb'{"path": "\/hooks\/t0ken-1"}', ' and said "{"path": "…"}"'),
        (b"", f"whsec_ is not the key, {WEBHOOK_SECRET} is".encode(), ' and said "whsec_ is not the key, … is"'),
        (b"", b"x" * 5_000, f' and said "{"x" * 100}…"'),
        (b"content-encoding: gzip\r\n", b"not shown", ""),
        (b"", b" \n", ""),
    ],
    ids=[
        "text",
        "one line",
        "control characters",
        "its own URL",
        "a part of it",
        "a value of its query",
        "JSON",
        "the key",
        "long",
        "encoded",
        "nothing",
    ],
)
def test_a_failure_has_the_receivers_words(serve: Serve, headers: bytes, body: bytes, words: str) -> None:
    """Cut and escaped: they are foreign. A receiver that repeats a secret does not spread it."""
    length = b"content-length: %d\r\n\r\n" % len(body)
    url = serve(lambda connection: connection.sendall(b"HTTP/1.1 503 No\r\n" + headers + length + body))
    sender = WebhookSender(f"{url}hooks/t0ken-1?key=s3cret%2F2", WEBHOOK_SECRET, _TIMEOUT_SECONDS)

    with pytest.raises(Unavailable) as raised:
        sender.send("id", [])

    expected = f"the webhook's receiver is unavailable: it answered 503 Service Unavailable{words}"
    assert str(raised.value) == expected
    sender.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_receiver_that_is_away_is_told_by_the_systems_error(host: str) -> None:
    """Not by that of the HTTP client, which says that attempts failed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    sender = WebhookSender(f"http://{host}:{port}/", WEBHOOK_SECRET, _TIMEOUT_SECONDS)

    with pytest.raises(Unavailable, match=r"ConnectionRefusedError: \[Errno \d+\]"):
        sender.send("id", [])

    sender.close()


class RecordingReceiver(WebhookReceiver):
    """Keeps the body of every POST."""

    def __init__(self, secret: str) -> None:
        super().__init__(secret)
        self.bodies: list[bytes] = []

    def receive(self, body: bytes, headers: Mapping[str, str]) -> int:
        """Keep the body, then verify and count it."""
        self.bodies.append(body)
        return super().receive(body, headers)


def test_the_body_of_a_notice_follows_its_contract() -> None:
    """Names, order and form of the fields that a receiver reads."""
    at = datetime(2026, 11, 27, 12, 0, 0, 123_000, tzinfo=UTC)

    with RecordingReceiver(WEBHOOK_SECRET) as receiver:
        sender = WebhookSender(receiver.url, WEBHOOK_SECRET, _TIMEOUT_SECONDS)
        sender.send("id", [Decision("r", 7, 42, RequestState.REFUSED, ReasonCode.SOLD_OUT, None, at)])
        sender.close()

    assert receiver.bodies[-1].endswith(
        b'"data":[{"request_id":"r","coupon_id":7,"user_id":42,"state":"refused","code":"sold_out","sequence":null,'
        b'"decided_at":"2026-11-27T12:00:00.123000Z"}]}'
    )


def test_retry_after_opens_the_circuit_breaker_for_that_long(serve: Serve) -> None:
    """429 with Retry-After."""
    sender = WebhookSender(serve(_status(b"429 Slowly\r\nretry-after: 30\r\n")), WEBHOOK_SECRET, _TIMEOUT_SECONDS)

    with pytest.raises(Unavailable):
        sender.send("id", [])

    assert 20 < sender.circuit_breaker.open_seconds <= 30
    sender.close()


def test_no_process_asks_a_receiver_again_before_the_time_that_it_asked_for(
    serve: Serve, start_sale: StartSale, store: Engine, query: Query
) -> None:
    """The circuit breaker is one process's, the rows are due for all of them; the error is recorded."""
    start_sale(3, range(1, 4), {})
    sender = WebhookSender(serve(_status(b"429 Slowly\r\nretry-after: 120\r\n")), WEBHOOK_SECRET, _TIMEOUT_SECONDS)

    with pytest.raises(Unavailable):
        deliver_notices(store, sender, 7.5)

    (row,) = query("SELECT next_attempt_at - failed_at AS pause, error FROM outbox WHERE kind = 'notify'")
    assert 110 < row.pause.total_seconds() <= 120
    assert "429" in row.error
    sender.close()


def test_after_a_success_the_next_post_is_made_at_once(serve: Serve) -> None:
    """Any 2xx is a success."""
    sender = WebhookSender(serve(_status(b"204 Thanks\r\nconnection: close\r\n")), WEBHOOK_SECRET, _TIMEOUT_SECONDS)

    sender.send("id", [])
    sender.send("another", [])

    assert sender.circuit_breaker.open_seconds == 0
    sender.close()
