"""Specifications of the application's own processes: migrate, API, issuer, Celery's worker and beat, Flower."""

import socket
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from service.domain.errors import Unavailable
from service.gate.client import build_client
from service.gate.gate_admin import GateAdmin
from stack import logs
from stack.files import create_private_directory
from stack.process_spec import ProcessSpec, always_healthy, http_ok
from stack.server_env import LOOPBACK, ROOT
from workers.redis_broker import connection_settings

PING_SECONDS = 1.0
MAX_SWEEP_AGE_SECONDS = 3.0
STOP_TIMEOUT_SECONDS = 20.0  # longer than the API waits for its requests and the worker for its tasks


def migrate(environment: Mapping[str, str]) -> ProcessSpec:
    """Create or update tables and topics, then exit."""
    return _python("migrate", environment, "service.cli", "migrate")


def api(environment: Mapping[str, str]) -> ProcessSpec:
    """The HTTP API, healthy once its readiness endpoint returns 200."""
    port = int(environment["API_PORT"])
    return _python("api", environment, "service.api", healthy=partial(http_ok, LOOPBACK, port, "/readyz"))


def issuer(environment: Mapping[str, str], name: str = "issuer") -> ProcessSpec:
    """The issuer, healthy while no partition is paused.

    A second issuer needs its own name, and its own ISSUER_PORT and ISSUER_INSTANCE in `environment`.
    """
    port = int(environment["ISSUER_PORT"])
    return _python(name, environment, "workers.issuer", healthy=partial(http_ok, LOOPBACK, port, "/readyz"))


def worker(environment: Mapping[str, str], log: Path) -> ProcessSpec:
    """Celery's worker, healthy once it answers a ping or, over Kafka, once its log contains the ready line."""
    if environment["CELERY_BROKER_URL"].startswith("redis"):
        healthy = partial(_answers_ping, environment)
    else:
        healthy = partial(_log_contains, log, " ready.")
    return _celery("worker", environment, "worker", "--loglevel=info", healthy=healthy)


def beat(environment: Mapping[str, str]) -> ProcessSpec:
    """Celery beat, healthy once a sweep that it scheduled has run."""
    return _celery("beat", environment, "beat", "--loglevel=info", healthy=partial(_has_swept, environment))


def flower(environment: Mapping[str, str], directory: Path) -> ProcessSpec:
    """Flower, the web view of Celery's tasks; what it shows survives a restart in `directory`."""
    create_private_directory(directory)
    port = int(environment["FLOWER_PORT"])
    arguments = ("flower", f"--address={LOOPBACK}", f"--port={port}")
    healthy = partial(http_ok, LOOPBACK, port, "/healthcheck")
    return _celery("flower", {"FLOWER_DB": str(directory / "state"), **environment}, *arguments, healthy=healthy)


def _celery(name: str, environment: Mapping[str, str], *arguments: str, healthy: Callable[[], bool]) -> ProcessSpec:
    return _python(name, environment, "celery", "-A", "workers", *arguments, healthy=healthy)


def _python(
    name: str,
    environment: Mapping[str, str],
    module: str,
    *arguments: str,
    healthy: Callable[[], bool] = always_healthy,
) -> ProcessSpec:
    argv = (sys.executable, "-m", module, *arguments)
    return ProcessSpec(
        name=name, argv=argv, env=environment, cwd=ROOT, healthy=healthy, stop_timeout_seconds=STOP_TIMEOUT_SECONDS
    )


def _has_swept(environment: Mapping[str, str]) -> bool:
    try:
        with build_client(environment["REDIS_URL"]) as redis:
            age_seconds = GateAdmin(redis).seconds_since_sweep()
    except Unavailable:
        return False
    return age_seconds is not None and age_seconds < MAX_SWEEP_AGE_SECONDS


def _log_contains(log: Path, text: str) -> bool:
    return text in logs.since_start(log)


def _answers_ping(environment: Mapping[str, str]) -> bool:
    """Ping from this process: starting one for each ping would take a second from the worker that is starting."""
    broker = connection_settings(environment["CELERY_BROKER_URL"])
    with Celery("stack", broker=broker.url, set_as_current=False) as celery:
        celery.conf.update(broker_use_ssl=broker.use_ssl, broker_transport_options=broker.transport_options)
        try:
            # without a destination the ping waits for other workers too
            return bool(celery.control.ping(destination=[f"celery@{socket.gethostname()}"], timeout=PING_SECONDS))
        except (OperationalError, RedisError):  # the broker does not answer
            return False
