"""The issuer's small HTTP server: whether it can issue, why not, and its metrics."""

import json
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

#: an iteration of the loop that lasts longer is stuck in a call; above the time limit of database statements
_MAX_ITERATION_SECONDS = 8.0


class Health:
    """The reasons why the issuer is not ready, and its alerts, each by subject."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {"issuer": "the issuer has not joined its consumer group yet"}
        self._alerts: dict[str, str] = {}
        self._stalled: Mapping[int, str] = {}
        self._last_iteration = time.monotonic()

    def record_iteration(self) -> None:
        """Record that the loop has begun another iteration."""
        self._last_iteration = time.monotonic()

    def set_unready(self, subject: str, reason: str) -> None:
        """Add or replace the reason of a subject."""
        self._reasons[subject] = reason

    def set_ready(self, subject: str) -> None:
        """Remove the reason of a subject."""
        self._reasons.pop(subject, None)

    def set_stalled(self, reasons: Mapping[int, str]) -> None:
        """Replace the partitions that nobody decides, with the reasons."""
        self._stalled = reasons

    def set_alert(self, subject: str, why: str | None) -> None:
        """Raise an alert that needs an operator, or clear it with None; an alert alone does not make it unready."""
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
        """Every reason for not being ready, by subject; empty when ready.

        The issuer's own reason for a partition says more than that nobody decides it.
        """
        reasons = {f"partition {partition}": why for partition, why in self._stalled.items()} | self._reasons
        if (stuck := time.monotonic() - self._last_iteration) > _MAX_ITERATION_SECONDS:
            reasons.setdefault("issuer", f"the issuer loop has made no progress for {stuck:.0f} s")
        return reasons


def serve(health: Health, host: str, port: int) -> ThreadingHTTPServer:
    """Serve /healthz, /readyz and /metrics in a thread; raises OSError when the port is in use."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, content_type, reasons = 200, "application/json", health.reasons
            match self.path:
                case "/healthz":
                    body = b'{"status":"ok"}'
                case "/readyz":
                    status = 503 if reasons else 200
                    body = json.dumps({"ready": not reasons, "faults": reasons, "alerts": health.alerts}).encode()
                case "/metrics":
                    content_type, body = CONTENT_TYPE_LATEST, generate_latest()
                case _:
                    status, body = 404, b'{"code":"not_found"}'
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
            """Log nothing: health checks come every few seconds."""

    server = ThreadingHTTPServer((host, port), Handler)
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server
