"""The webhook's receiver: verifies every notice's signature and counts what it was told."""

import secrets
import threading
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError


class Receiver:
    """What came in; a delivery made again under its webhook-id is counted as a repeat and not summed."""

    def __init__(self) -> None:
        self.secret = f"whsec_{b64encode(secrets.token_bytes(32)).decode()}"
        #: how often each request was told to be in each state
        self.told: Counter[tuple[str, str]] = Counter()
        self.deliveries: set[str] = set()
        self.repeats = 0
        self.forged = 0
        self._lock = threading.Lock()

    def take(self, headers: Mapping[str, str], body: bytes) -> HTTPStatus:
        """Takes one POST in and gives the status to answer with."""
        with self._lock:
            try:
                notice = Webhook(self.secret).verify(body, dict(headers))
            except WebhookVerificationError:
                self.forged += 1
                return HTTPStatus.UNAUTHORIZED
            self._count({name.lower(): value for name, value in headers.items()}["webhook-id"], notice["data"])
            return HTTPStatus.NO_CONTENT

    def heard(self, request_id: str) -> list[str]:
        """The states that it was told of a request, in the order in which it first was."""
        return [state for name, state in self.told if name == request_id]

    def _count(self, webhook_id: str, events: list[dict[str, str]]) -> None:
        if webhook_id in self.deliveries:
            self.repeats += 1
            return
        self.deliveries.add(webhook_id)
        self.told.update((event["request_id"], event["state"]) for event in events)


@contextmanager
def listening(receiver: Receiver) -> Iterator[str]:
    """Takes notices on a free port of loopback; gives the URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(receiver)) as server:
        thread = threading.Thread(target=server.serve_forever, name="receiver", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/notices"
        finally:
            server.shutdown()
            thread.join()


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # the sender keeps its connection

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(receiver.take(dict(self.headers.items()), body))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
            """What matters is counted."""

    return Handler
