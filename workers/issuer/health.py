"""What the issuer tells of itself on a small port: whether it can issue, why not, and its numbers."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

#: a turn of the issuing thread that lasts longer hangs in a part that says nothing; above the statements' own limit
_TURN_SECONDS = 8.0


class Health:
    """Why the issuer cannot do all its work at the moment, by subject."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {"issuer": "it is not in its group yet"}
        self._alerts: dict[str, str] = {}
        self._turned = time.monotonic()

    def record_progress(self) -> None:
        """The issuing thread has come round again."""
        self._turned = time.monotonic()

    def set_unready(self, subject: str, reason: str) -> None:
        """The subject is in trouble."""
        self._reasons[subject] = reason

    def set_ready(self, subject: str) -> None:
        """The subject is well."""
        self._reasons.pop(subject, None)

    def set_alert(self, subject: str, why: str | None) -> None:
        """The subject needs an operator's eyes, or does no more; that alone makes nothing unready."""
        if why:
            self._alerts[subject] = why
        else:
            self._alerts.pop(subject, None)

    @property
    def alerts(self) -> dict[str, str]:
        """Every alert, by subject."""
        return dict(self._alerts)

    @property
    def reasons(self) -> dict[str, str]:
        """Every trouble, by subject; empty when ready."""
        reasons = dict(self._reasons)
        if (stuck := time.monotonic() - self._turned) > _TURN_SECONDS:
            reasons.setdefault("issuer", f"it waits for an answer since {stuck:.0f} s")
        return reasons


def serve(health: Health, host: str, port: int) -> ThreadingHTTPServer:
    """Starts answering /healthz, /readyz and /metrics in a thread; raises OSError when the port is in use."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, body = _answer(self.path, health)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
            """Health checks are not worth a line each."""

    server = ThreadingHTTPServer((host, port), Handler)
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server


def _answer(path: str, health: Health) -> tuple[int, str, bytes]:
    reasons = health.reasons
    if path == "/healthz":
        return 200, "application/json", b'{"status":"ok"}'
    if path == "/readyz":
        return (
            503 if reasons else 200,
            "application/json",
            json.dumps({"ready": not reasons, "faults": reasons, "alerts": health.alerts}).encode(),
        )
    if path == "/metrics":
        return 200, CONTENT_TYPE_LATEST, generate_latest()
    return 404, "application/json", b'{"code":"not_found"}'
