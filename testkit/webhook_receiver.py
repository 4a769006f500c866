"""Webhook receiver on loopback: verifies signatures, counts decisions, and misbehaves on request."""

import json
import secrets
import threading
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from standardwebhooks import Webhook

Misbehaviour = Callable[[BaseHTTPRequestHandler], None]


def new_secret() -> str:
    """Return a random signing secret in the form of Standard Webhooks."""
    return f"whsec_{b64encode(secrets.token_bytes(32)).decode()}"


class WebhookReceiver:
    """Receives notices in a thread of its own while the `with` block runs.

    `secret` is the key that verifies signatures; without one, a random key is made.
    """

    def __init__(self, secret: str | None = None) -> None:
        self.secret = secret or new_secret()
        #: status of the response to a signed POST; a POST answered with an error is not counted
        self.response_status: int = HTTPStatus.NO_CONTENT
        #: responds instead of the receiver, after the POST was counted: the sender has to repeat it under the same id
        self.misbehave: Misbehaviour | None = None
        #: POSTs that were answered by `misbehave`
        self.misbehaved = 0
        #: deliveries of each (request id, state); a repeated POST is not counted
        self.decisions: Counter[tuple[str, str]] = Counter()
        #: POSTs by webhook-id, repeats included
        self.posts: Counter[str] = Counter()
        #: the header `traceparent` of the POSTs that had one, by webhook-id
        self.traceparents: dict[str, str] = {}
        #: repeats whose content differs from the first POST of their webhook-id
        self.changed_repeats = 0
        #: POSTs without a valid signature
        self.forged = 0
        self._content_hashes: dict[str, int] = {}
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self._server.serve_forever, name="webhook receiver", daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()

    @property
    def url(self) -> str:
        """Address for `WEBHOOK_URL`."""
        assert self._server, "the receiver listens inside its `with` block only"
        return f"http://127.0.0.1:{self._server.server_port}/notices"

    @property
    def repeats(self) -> int:
        """Count POSTs that repeat an earlier webhook-id."""
        return self.posts.total() - len(self.posts)

    def states(self, request_id: str) -> list[str]:
        """Return the states delivered for a request, each once, in the order of their first delivery."""
        with self._lock:
            return [state for delivered, state in self.decisions if delivered == request_id]

    def receive(self, body: bytes, headers: Mapping[str, str]) -> int:
        """Verify and count one POST; return the status to respond with."""
        with self._lock:
            try:
                Webhook(self.secret).verify(body, dict(headers))
            except Exception:  # noqa: BLE001  # any failure means that the service did not sign it
                self.forged += 1
                return HTTPStatus.UNAUTHORIZED
            if self.response_status < HTTPStatus.MULTIPLE_CHOICES:
                lower = {name.lower(): value for name, value in headers.items()}
                webhook_id = lower["webhook-id"]
                if "traceparent" in lower:
                    self.traceparents[webhook_id] = lower["traceparent"]
                self._count(webhook_id, json.loads(body)["data"])
            return self.response_status

    def _count(self, webhook_id: str, events: list[dict[str, str]]) -> None:
        self.posts[webhook_id] += 1
        if self.posts[webhook_id] == 1:
            self.decisions.update((event["request_id"], event["state"]) for event in events)
        content_hash = hash(str(events))
        self.changed_repeats += self._content_hashes.setdefault(webhook_id, content_hash) != content_hash


def _handler(receiver: WebhookReceiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # the sender keeps its connection

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = receiver.receive(body, dict(self.headers.items()))
            if receiver.misbehave:
                receiver.misbehaved += 1
                receiver.misbehave(self)
                return
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name in the base class
            """Write no access log."""

    return Handler
