"""What a receiver may do wrong: each ends in time, is told as unavailable, and earns it a rest."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from service.domain.errors import Unavailable
from service.domain.request import Decision, ReasonCode, RequestState
from service.webhooks.sender import WebhookSender
from tests.fixtures.parts import WEBHOOK_SECRET
from tests.receiver import Receiver

_WITHIN_SECONDS = 1.0
Serve = Callable[[Callable[[socket.socket], None]], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A receiver whose every connection is treated as a function says; its URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def start(treat: Callable[[socket.socket], None]) -> str:
        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=_treated, args=(treat, connection), daemon=True).start()

        threading.Thread(target=run, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"

    yield start
    listener.close()


def _treated(treat: Callable[[socket.socket], None], connection: socket.socket) -> None:
    """Treats one request; what the client may still send is read, or the end would reach it before the answer."""
    with connection:
        try:
            connection.recv(65_536)
            treat(connection)
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


def _answer(text: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(b"HTTP/1.1 " + text + b"content-length: 0\r\n\r\n")


@pytest.mark.parametrize(
    "treat",
    [
        _hang,
        _dribble,
        _flood,
        lambda connection: connection.close(),
        _answer(b"500 No\r\n"),
        _answer(b"301 Elsewhere\r\nlocation: http://127.0.0.1:9/\r\n"),
        _answer(b"410 Gone\r\n"),
        lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"),
    ],
    ids=["hangs", "dribbles", "floods", "closes", "500", "redirects", "410", "stops halfway"],
)
def test_a_bad_receiver_costs_no_more_than_was_said(serve: Serve, treat: Callable[[socket.socket], None]) -> None:
    """Step 8: within its time, whatever the receiver does; no redirect is followed."""
    sender = WebhookSender(serve(treat), WEBHOOK_SECRET, _WITHIN_SECONDS)
    began = time.monotonic()

    with pytest.raises(Unavailable):
        sender.send("id", [])

    assert time.monotonic() - began < _WITHIN_SECONDS + 1
    assert sender.circuit_breaker.open_seconds > 0
    sender.close()


class Hearing(Receiver):
    """Keeps what it was sent, to the byte."""

    def __init__(self, secret: str) -> None:
        super().__init__(secret)
        self.bodies: list[bytes] = []

    def take(self, body: bytes, headers: dict[str, str]) -> int:
        """Takes one POST; the status of its answer."""
        self.bodies.append(body)
        return super().take(body, headers)


def test_a_notice_is_told_in_the_words_of_its_contract() -> None:
    """Step 8: names, order and form of what a receiver reads."""
    receiver = Hearing(WEBHOOK_SECRET)
    sender = WebhookSender(receiver.url, WEBHOOK_SECRET, _WITHIN_SECONDS)
    at = datetime(2026, 11, 27, 12, 0, 0, 123_000, tzinfo=UTC)

    sender.send("id", [Decision("r", 7, 42, RequestState.REFUSED, ReasonCode.SOLD_OUT, None, at)])

    assert receiver.bodies[-1].endswith(
        b'"data":[{"request_id":"r","coupon_id":7,"user_id":42,"state":"refused","code":"sold_out","sequence":null,'
        b'"decided_at":"2026-11-27T12:00:00.123000Z"}]}'
    )
    sender.close()
    receiver.close()


def test_a_receiver_that_asks_for_time_gets_it(serve: Serve) -> None:
    """Step 8: 429 with Retry-After."""
    sender = WebhookSender(serve(_answer(b"429 Slowly\r\nretry-after: 30\r\n")), WEBHOOK_SECRET, _WITHIN_SECONDS)

    with pytest.raises(Unavailable):
        sender.send("id", [])

    assert 29 < sender.circuit_breaker.open_seconds <= 30
    sender.close()


def test_a_good_receiver_is_posted_to_again_at_once(serve: Serve) -> None:
    """Step 8: 2xx is all that counts."""
    sender = WebhookSender(serve(_answer(b"204 Thanks\r\nconnection: close\r\n")), WEBHOOK_SECRET, _WITHIN_SECONDS)

    sender.send("id", [])
    sender.send("another", [])

    assert sender.circuit_breaker.open_seconds == 0
    sender.close()
