"""What another user of the machine can do with a local stack, and what the service's own role cannot do."""

import re
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege
from redis import Redis
from redis.exceptions import AuthenticationError
from sqlalchemy import Engine

from service.domain.coupon import Coupon
from service.domain.errors import Misconfigured
from service.store import engine, schema
from service.store.tables import NAMES
from stack.errors import StackError
from stack.local import LocalStack
from stack.server_env import ROOT
from stack.settings import ISOLATED
from stack.startup import SERVERS
from tests.waiting import eventually

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
        "COPY written TO '/tmp/written-by-the-service'",
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

    def owned() -> int:
        with admin.begin() as tx:
            return int(tx.exec_driver_sql(query).scalar_one())

    eventually(lambda: owned() == 0)  # PostgreSQL drops the temporary tables of another test's connection after its end


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE another (id int)",
        "ALTER TABLE requests DISABLE TRIGGER USER",
        "DROP INDEX requests_one_live",
        "TRUNCATE requests",
        "UPDATE coupons SET issued = 0",
        "UPDATE coupons SET held = 0",
        "UPDATE coupons SET standby = 0",
        "DELETE FROM coupons",
        "DELETE FROM coupon_changes",
        "DELETE FROM requests",
        "DELETE FROM dead_letters",
        "DELETE FROM lost_ranges",
        "DELETE FROM offsets",
        "DELETE FROM verifications",
        "ALTER FUNCTION count_inserted_requests() SECURITY INVOKER",
        "CREATE OR REPLACE FUNCTION count_inserted_requests() RETURNS trigger LANGUAGE sql AS 'SELECT 1'",
        "GRANT EXECUTE ON FUNCTION count_inserted_requests() TO coupons",
        "DELETE FROM dead_letter_actions",
        "DELETE FROM failed_attempts",
        "DELETE FROM notices",
        "UPDATE alembic_version SET version_num = 'none'",
        "UPDATE requests SET user_id = 7",
        "UPDATE api_keys SET role = 'admin'",
        "UPDATE coupon_changes SET changed_by = 'another'",
        "UPDATE dead_letter_actions SET acted_by = 'another'",
        "UPDATE logs SET adopted_by = 'another'",
        "UPDATE lost_ranges SET recorded_by = 'another'",
    ],
)
def test_the_services_role_cannot_remove_a_guard_or_change_a_decision_or_an_entry_of_the_audit_trail(
    application: psycopg.Connection, statement: str
) -> None:
    with pytest.raises(InsufficientPrivilege):
        application.execute(statement.encode())


def test_the_services_role_cannot_count_with_a_trigger_of_its_own(application: psycopg.Connection) -> None:
    """P1: on a table of its own the functions, which run with the owner's rights, would count what it inserts there."""
    application.execute("CREATE TEMPORARY TABLE own (LIKE requests)")
    for event, rows in {"INSERT": "NEW TABLE AS new_rows", "UPDATE": "OLD TABLE AS old_rows"}.items():
        function = "count_inserted_requests" if event == "INSERT" else "count_updated_requests"
        with pytest.raises(InsufficientPrivilege, match=f"permission denied for function {function}"):
            application.execute(
                f"CREATE TRIGGER own AFTER {event} ON own REFERENCING {rows} FOR EACH STATEMENT"
                f" EXECUTE FUNCTION {function}()".encode()
            )


def test_only_the_functions_that_count_have_the_owners_rights(admin: Engine) -> None:
    """Their search_path is fixed and looks at temporary tables last; the others run with those of the caller."""
    query = (
        "SELECT proname, proconfig FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef ORDER BY 1"
    )
    with admin.begin() as tx:
        found = {name: list(options) for name, options in tx.exec_driver_sql(query)}

    fixed = ["search_path=pg_catalog, public, pg_temp"]
    assert found == {"count_inserted_requests": fixed, "count_updated_requests": fixed}


def test_a_table_of_the_same_name_is_not_counted_in(
    application: psycopg.Connection, make_coupon: Callable[..., Coupon]
) -> None:
    """P1: neither in a schema of the caller's search_path nor a temporary one."""
    coupon = make_coupon(quantity=2)
    application.execute("CREATE TEMPORARY TABLE coupons (LIKE public.coupons INCLUDING ALL)")
    application.execute(
        "INSERT INTO requests SELECT 1, 0, 0, %s, 7, 'r', 'issued', NULL, 1, 1, now(), now()", [coupon.id]
    )

    counted = application.execute("SELECT issued FROM public.coupons WHERE id = %s", [coupon.id]).fetchone()
    assert counted == (1,)
    application.execute("DROP TABLE pg_temp.coupons")


_CHANGES = {
    "coupons": "name quantity waitlist opens_at closes_at override version updated_at archived_at",
    "coupon_changes": "published_at",
    "requests": "state code sequence attempts decided_at",
    "offsets": "next_offset advanced_to watermark closed",
    "logs": "closed_at",
    "retries": "attempts next_attempt_at first_error error_type error_message",
    "dead_letters": "state code attempts error_type error_message dead_at lease_until forwarded_at dlt_partition"
    " dlt_offset coupon_id user_id request_id",
    "outbox": "attempts next_attempt_at lease_until delivery_id failed_at error",
    "request_id_keys": "signs_since ends_at late_id_at",
    "write_checks": "written_at",
    "api_keys": "expires_at revoked_at revoked_by last_used_at",
}
"""The columns that the service changes, by table."""


def test_the_services_role_changes_only_what_the_service_changes(application: psycopg.Connection) -> None:
    """It reads all rows and adds some; it may delete done work, and keys that have ended or expired."""
    assert _rights(application) == {(table, right) for table in NAMES.tables for right in ("SELECT", "INSERT")} | {
        ("outbox", "DELETE"),
        ("retries", "DELETE"),
        ("request_id_keys", "DELETE"),
        ("idempotency_keys", "DELETE"),
    }
    assert _changeable(application) == {(table, column) for table in _CHANGES for column in _CHANGES[table].split()}


_DOCUMENTED = re.compile(r"^\| `(?P<table>[a-z_]+)` \| (?P<changed>[^|]*) \| (?P<deletes>yes|no) \|$", re.MULTILINE)


def test_the_documented_rights_are_those_of_the_services_role(application: psycopg.Connection) -> None:
    """The table of docs/own-servers.md, for those who grant by hand."""
    found = list(_DOCUMENTED.finditer((ROOT / "docs" / "own-servers.md").read_text()))
    changed = {(row["table"], column) for row in found for column in re.findall("`([a-z_]+)`", row["changed"])}
    deleted = {(row["table"], "DELETE") for row in found if row["deletes"] == "yes"}

    assert [row["table"] for row in found] == sorted(NAMES.tables)
    assert changed == _changeable(application)
    assert deleted == {right for right in _rights(application) if right[1] == "DELETE"}


def test_rights_that_were_revoked_from_everybody_are_granted(
    admin: Engine, application: psycopg.Connection, owner: psycopg.Connection
) -> None:
    """As a hardened server has it; the owner of the database and the schema grants them to the role alone."""
    del owner
    rights = {"CONNECT, TEMPORARY": "DATABASE coupons", "USAGE": "SCHEMA public"}
    with admin.begin() as tx:
        for right, of in rights.items():
            tx.exec_driver_sql(f"REVOKE {right} ON {of} FROM PUBLIC")
        tx.exec_driver_sql("REVOKE EXECUTE ON FUNCTION failing_requests(jsonb) FROM PUBLIC")
    try:
        schema.migrate(admin, "coupons")
        application.execute("CREATE TEMPORARY TABLE own (id int)")
        assert application.execute("SELECT * FROM failing_requests('[]')").fetchall() == []
    finally:
        with admin.begin() as tx:
            for right, of in rights.items():
                tx.exec_driver_sql(f"GRANT {right} ON {of} TO PUBLIC")
                tx.exec_driver_sql(f"REVOKE {right} ON {of} FROM coupons")
            tx.exec_driver_sql("GRANT EXECUTE ON FUNCTION failing_requests(jsonb) TO PUBLIC")


def test_a_migration_takes_back_what_an_earlier_one_granted(
    admin: Engine, application: psycopg.Connection, owner: psycopg.Connection
) -> None:
    """The rights of the role are those of the newest version."""
    before = _rights(application), _changeable(application)
    owner.execute("GRANT UPDATE, DELETE ON requests TO coupons")
    owner.execute("GRANT UPDATE (changed_by) ON coupon_changes TO coupons")

    schema.migrate(admin, "coupons")

    assert (_rights(application), _changeable(application)) == before


def test_an_owner_that_is_also_the_services_role_keeps_its_rights(parts: LocalStack, owner: psycopg.Connection) -> None:
    """MIGRATE_DATABASE_URL may name the role of DATABASE_URL."""
    migrating = engine.build(parts.environment["MIGRATE_DATABASE_URL"], "tests")
    schema.migrate(migrating, "coupons_owner")
    migrating.dispose()

    assert ("requests", "DELETE") in _rights(owner)


def _rights(connection: psycopg.Connection) -> set[tuple[str, str]]:
    """Return the tables and what the role may do with every row and column of them."""
    return {
        (table, right)
        for table in NAMES.tables
        for right in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN")
        if connection.execute("SELECT has_table_privilege(%s, %s)", [table, right]).fetchone() == (True,)
    }


def _changeable(connection: psycopg.Connection) -> set[tuple[str, str]]:
    """Return the tables and columns that the role may change."""
    return {
        (table.name, column.name)
        for table in NAMES.tables.values()
        for column in table.columns
        if connection.execute("SELECT has_column_privilege(%s, %s, 'UPDATE')", [table.name, column.name]).fetchone()
        == (True,)
    }


def test_a_role_that_does_not_exist_is_reported_and_nothing_is_migrated(fresh_database: Engine) -> None:
    with pytest.raises(Misconfigured, match=r"the role stranger does not exist: create it, see deploy/roles\.sql"):
        schema.migrate(fresh_database, "stranger")

    with fresh_database.begin() as tx, pytest.raises(Misconfigured, match="is at revision None"):
        schema.require_current(tx)
