"""A receiver of notices that checks every signature and remembers what it was told."""

import json
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook


class Receiver:
    """Answers on loopback in a thread; `answer` is the status it gives, 200 unless a test wants another.

    With a `manner` it takes every POST in and then misbehaves: what it was told must come again under the same id.
    """

    def __init__(self, secret: str) -> None:
        self.answer = 200
        self.manner: Callable[[BaseHTTPRequestHandler], None] | None = None
        #: POSTs that got the manner instead of an answer
        self.spoilt = 0
        #: times each (request id, state) was told, counting a repeated POST once
        self.told: Counter[tuple[str, str]] = Counter()
        self.posts: Counter[str] = Counter()
        self.forged = 0
        #: repeats that said something else than the first POST of their id
        self.changed = 0
        self._said: dict[str, object] = {}
        self._lock = threading.Lock()
        self._verifier = Webhook(secret)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}/notices"

    def states(self, request_id: str) -> set[str]:
        """The states that were told of a request."""
        with self._lock:
            return {state for told, state in self.told if told == request_id}

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()

    def take(self, body: bytes, headers: dict[str, str]) -> int:
        """Takes one POST; the status of its answer."""
        try:
            self._verifier.verify(body, headers)
        except Exception:  # noqa: BLE001  # whatever is wrong with it: it is not ours
            self.forged += 1
            return 401
        if self.answer == 200:
            self._remember(headers["webhook-id"], body)
        return self.answer

    def _remember(self, webhook_id: str, body: bytes) -> None:
        data = json.loads(body)["data"]
        with self._lock:
            self.posts[webhook_id] += 1
            if self.posts[webhook_id] == 1:
                self.told.update((event["request_id"], event["state"]) for event in data)
            self.changed += self._said.setdefault(webhook_id, hash(str(data))) != hash(str(data))

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = receiver.take(body, {name.lower(): value for name, value in self.headers.items()})
                if receiver.manner:
                    receiver.spoilt += 1
                    receiver.manner(self)
                    return
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
                """Tests read what was told, not a log."""

        return Handler
