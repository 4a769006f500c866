"""The application's own processes, in the order in which they start."""

import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from redis import Redis

from service.domain.errors import Unavailable
from service.gate.gate_admin import GateAdmin
from stack import logs
from stack.health import answers_200
from stack.part import Part, healthy_at_once
from stack.parts.surroundings import LOOPBACK, ROOT

PING_SECONDS = 10.0
SWEPT_WITHIN_SECONDS = 3.0
STOP_TIMEOUT_SECONDS = 20.0  # more than the API gives its requests and the worker its tasks


def migrate(environment: Mapping[str, str]) -> Part:
    """Brings tables and topics up to date, then ends."""
    return _process("migrate", environment, "service.cli", "migrate")


def api(environment: Mapping[str, str]) -> Part:
    """The HTTP API, ready once it reaches Kafka and PostgreSQL."""
    port = int(environment["API_PORT"])
    return _process("api", environment, "service.api", healthy=partial(answers_200, LOOPBACK, port, "/readyz"))


def issuer(environment: Mapping[str, str], name: str = "issuer") -> Part:
    """The issuer, ready while no partition is paused; a second one needs a name, port and instance of its own."""
    port = int(environment["ISSUER_PORT"])
    return _process(name, environment, "workers.issuer", healthy=partial(answers_200, LOOPBACK, port, "/readyz"))


def worker(environment: Mapping[str, str], log: Path) -> Part:
    """Celery's worker, ready once it answers a ping or, where the broker carries none, says so in its log."""
    pings = environment["CELERY_BROKER_URL"].startswith("redis")
    healthy = partial(_answers_ping, environment) if pings else partial(_has_said, log, " ready.")
    return _celery("worker", environment, "worker", "--loglevel=info", healthy=healthy)


def beat(environment: Mapping[str, str]) -> Part:
    """Celery's clock, ready once a sweep that it started has run."""
    return _celery("beat", environment, "beat", "--loglevel=info", healthy=partial(_has_swept, environment))


def flower(environment: Mapping[str, str]) -> Part:
    """Flower, the view on Celery's tasks."""
    port = int(environment["FLOWER_PORT"])
    arguments = ("flower", f"--address={LOOPBACK}", f"--port={port}")
    return _celery("flower", environment, *arguments, healthy=partial(answers_200, LOOPBACK, port, "/healthcheck"))


def _celery(name: str, environment: Mapping[str, str], *arguments: str, healthy: Callable[[], bool]) -> Part:
    return _process(name, environment, "celery", "-A", "workers", *arguments, healthy=healthy)


def _process(
    name: str,
    environment: Mapping[str, str],
    module: str,
    *arguments: str,
    healthy: Callable[[], bool] = healthy_at_once,
) -> Part:
    argv = (sys.executable, "-m", module, *arguments)
    return Part(
        name=name, argv=argv, env=environment, cwd=ROOT, healthy=healthy, stop_timeout_seconds=STOP_TIMEOUT_SECONDS
    )


def _has_swept(environment: Mapping[str, str]) -> bool:
    try:
        with Redis.from_url(environment["REDIS_URL"]) as redis:
            since = GateAdmin(redis).seconds_since_sweep()
    except Unavailable:
        return False
    return since is not None and since < SWEPT_WITHIN_SECONDS


def _has_said(log: Path, words: str) -> bool:
    return words in logs.since_start(log)


def _answers_ping(environment: Mapping[str, str]) -> bool:
    command = [sys.executable, "-m", "celery", "-A", "workers", "inspect", "ping"]
    named = ["--timeout=1", f"--destination=celery@{socket.gethostname()}"]  # named, it does not wait for others
    try:
        return not subprocess.run(
            [*command, *named], env=environment, cwd=ROOT, capture_output=True, timeout=PING_SECONDS, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        return False
