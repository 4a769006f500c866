"""What another user of the machine can do with a local stack, and what the service's own role cannot do."""

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege
from redis import Redis
from redis.exceptions import AuthenticationError
from sqlalchemy import Engine

from service.domain.errors import Misconfigured
from service.store import schema
from service.store.tables import NAMES
from stack.errors import StackError
from stack.local import LocalStack
from stack.settings import ISOLATED
from stack.startup import SERVERS

_ROLES = ("postgres", "coupons_owner", "coupons")


@pytest.fixture
def application(parts: LocalStack) -> Iterator[psycopg.Connection]:
    """A connection of the service's role."""
    with psycopg.connect(parts.database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def owner(parts: LocalStack) -> Iterator[psycopg.Connection]:
    """A connection of the migration's role."""
    with psycopg.connect(parts.environment["MIGRATE_DATABASE_URL"], autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize("role", _ROLES)
def test_postgresql_refuses_every_role_without_its_password(parts: LocalStack, role: str) -> None:
    port = urlsplit(parts.database_url).port
    for password in ("", "guessed"):
        with pytest.raises(psycopg.OperationalError, match=r"no password supplied|password authentication failed"):
            psycopg.connect(host="127.0.0.1", port=port, user=role, password=password, dbname="coupons")


def test_valkey_refuses_a_client_without_the_password(parts: LocalStack) -> None:
    with Redis(port=urlsplit(parts.redis_url).port or 0) as stranger, pytest.raises(AuthenticationError):
        stranger.ping()


def test_no_other_user_can_read_a_file_of_the_stack(tmp_path: Path) -> None:
    """Data, logs, secrets and the file `env`; directories of an earlier version that others could enter are closed."""
    (tmp_path / "log").mkdir(mode=0o755)
    (tmp_path / "kafka").mkdir(mode=0o755)
    with LocalStack(tmp_path, SERVERS, ISOLATED):
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}

    assert {"log", "secrets", "kafka", "postgres", "valkey", "env"} <= modes.keys()
    assert {name: oct(mode) for name, mode in modes.items() if mode & 0o077} == {}


def test_a_server_creates_files_for_its_user_only(parts: LocalStack) -> None:
    """Also below a directory that is closed: a copy or an archive keeps the mode of each file."""
    files = [path for name in ("kafka", "valkey") for path in (parts.directory / name).rglob("*")]

    assert len(files) > 10
    assert [path for path in files if path.stat().st_mode & 0o077] == []


def test_no_secret_is_in_the_arguments_of_a_process(parts: LocalStack) -> None:
    """Every user of the machine can read them."""
    servers = [psutil.Process(parts.pid(name)) for name in SERVERS]
    processes = [process for server in servers for process in (server, *server.children(recursive=True))]
    arguments = " ".join(word for process in processes for word in process.cmdline())

    assert "valkey" in arguments
    assert [name for name, secret in vars(parts.credentials).items() if secret in arguments] == []


def test_data_that_was_created_with_other_passwords_is_reported(tmp_path: Path) -> None:
    """Not a timeout: PostgreSQL runs, and nothing but the passwords is wrong."""
    with LocalStack(tmp_path, ("postgres",), ISOLATED):
        pass
    shutil.rmtree(tmp_path / "secrets")

    with pytest.raises(StackError, match="was created with other passwords than those in the stack's secrets: "):
        LocalStack(tmp_path, ("postgres",), ISOLATED).up()


@pytest.mark.parametrize("role", ["coupons_owner", "coupons"])
def test_no_role_of_the_service_may_administer_the_server(admin: Engine, role: str) -> None:
    """Neither is a superuser or a member of another role."""
    query = (
        "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls"
        " OR EXISTS (SELECT FROM pg_auth_members WHERE member = pg_roles.oid) FROM pg_roles WHERE rolname = %s"
    )
    with admin.begin() as tx:
        assert tx.exec_driver_sql(query, (role,)).scalar_one() is False


@pytest.mark.parametrize(
    "statement",
    [
        "COPY written FROM PROGRAM 'id'",
        "COPY written FROM '/etc/hostname'",
        f"COPY written TO '/tmp/written-by-{os.getpid()}'",
        "INSERT INTO written SELECT pg_read_file('/etc/hostname')",
        "ALTER SYSTEM SET archive_command = 'id'",
    ],
)
def test_no_role_of_the_service_reaches_files_or_programs(
    application: psycopg.Connection, owner: psycopg.Connection, statement: str
) -> None:
    """Through a superuser any program would run as the user of the server."""
    for connection in (application, owner):
        connection.execute("CREATE TEMPORARY TABLE written (line text)")
        with pytest.raises(InsufficientPrivilege):
            connection.execute(statement.encode())


def test_the_services_role_owns_nothing(admin: Engine) -> None:
    """The counters, constraints and triggers are the owner's: the service cannot switch them off."""
    query = "SELECT count(*) FROM pg_shdepend WHERE deptype = 'o' AND refobjid = 'coupons'::regrole"
    with admin.begin() as tx:
        assert tx.exec_driver_sql(query).scalar_one() == 0


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE another (id int)",
        "ALTER TABLE requests DISABLE TRIGGER USER",
        "DROP INDEX requests_one_live",
        "TRUNCATE requests",
        "DELETE FROM requests",
        "DELETE FROM dead_letter_actions",
        "UPDATE alembic_version SET version_num = 'none'",
    ],
)
def test_the_services_role_cannot_remove_a_guard_or_a_decision(application: psycopg.Connection, statement: str) -> None:
    with pytest.raises(InsufficientPrivilege):
        application.execute(statement.encode())


def test_the_services_role_may_use_the_rows_of_every_table(application: psycopg.Connection) -> None:
    """A new table needs no grant of its own; only done work and keys that nothing uses any more may be deleted."""
    rights = {
        (table, right)
        for table in NAMES.tables
        for right in ("SELECT", "INSERT", "UPDATE", "DELETE")
        if application.execute("SELECT has_table_privilege(%s, %s)", [table, right]).fetchone() == (True,)
    }

    assert rights == {(table, right) for table in NAMES.tables for right in ("SELECT", "INSERT", "UPDATE")} | {
        ("outbox", "DELETE"),
        ("retries", "DELETE"),
        ("request_id_keys", "DELETE"),
    }


def test_a_role_that_does_not_exist_is_reported_and_nothing_is_migrated(fresh_database: Engine) -> None:
    with pytest.raises(Misconfigured, match=r"the role stranger does not exist: create it, see deploy/roles\.sql"):
        schema.migrate(fresh_database, "stranger")

    with fresh_database.begin() as tx, pytest.raises(Misconfigured, match="is at revision None"):
        schema.require_current(tx)
