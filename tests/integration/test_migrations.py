"""The schema's revisions: equal to the table definitions, reversible, and safe to apply concurrently."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import Connection, Engine, inspect, text

from service.domain.errors import Misconfigured
from service.store import engine, schema
from service.store.migrations import versions
from service.store.tables import NAMES
from stack.local import LocalStack
from stack.servers.postgres import APPLICATION


@pytest.fixture
def connection(fresh_database: Engine) -> Iterator[Connection]:
    """A transaction in an empty database."""
    with fresh_database.begin() as tx:
        yield tx


def test_the_revisions_create_the_tables_of_the_models(connection: Connection) -> None:
    """Models and migrations must not differ."""
    config = schema._config(connection)
    command.upgrade(config, "head")

    command.check(config)


_SHAPES = (
    (
        "SELECT table_name, column_name, data_type, is_nullable, column_default, identity_generation"
        " FROM information_schema.columns WHERE table_schema = '{schema}'"
    ),
    "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = '{schema}'::regnamespace",
    "SELECT indexname, replace(indexdef, '{schema}.', '') FROM pg_indexes WHERE schemaname = '{schema}'",
)


def _shape(connection: Connection, schema_name: str) -> set[str]:
    """Return columns, constraints and indexes of a schema, as the database describes them."""
    rows = [row for query in _SHAPES for row in connection.execute(text(query.format(schema=schema_name)))]
    return {str(row).replace(f"{schema_name}.", "") for row in rows if "alembic_version" not in str(row)}


def test_the_revisions_create_the_checks_and_defaults_of_the_models(connection: Connection) -> None:
    """What Alembic does not compare is compared with tables created from the models alone."""
    command.upgrade(schema._config(connection), "head")
    connection.execute(text("CREATE SCHEMA models"))
    connection.execute(text("SET LOCAL search_path = models"))
    NAMES.create_all(connection)
    connection.execute(text("SET LOCAL search_path = public"))

    assert _shape(connection, "models") == _shape(connection, "public")


def test_every_revision_can_be_downgraded_and_applied_again(connection: Connection) -> None:
    """A downgrade leaves nothing behind, and an upgrade after it creates the same schema."""
    config = schema._config(connection)
    command.upgrade(config, "head")

    command.downgrade(config, "base")

    remaining = set(inspect(connection).get_table_names()) - {"alembic_version"}
    assert remaining == set()
    assert connection.execute(text("SELECT count(*) FROM pg_proc WHERE proname LIKE '%requests'")).scalar() == 0
    command.upgrade(config, "head")
    schema.require_current(connection)


def test_nobody_but_the_owner_creates_objects_in_the_schema(parts: LocalStack, admin: Engine) -> None:
    """The counting functions look into it with the owner's rights. Older servers let everybody create there."""
    may_create = text("SELECT has_schema_privilege(:role, 'public', 'CREATE')")
    owner = engine.build(parts.environment["MIGRATE_DATABASE_URL"], "tests migration")
    with admin.begin() as tx:
        tx.execute(text("GRANT CREATE ON SCHEMA public TO PUBLIC"))

    schema.migrate(owner, APPLICATION)

    owner.dispose()
    with admin.begin() as tx:
        assert tx.execute(may_create, {"role": APPLICATION}).scalar_one() is False


#: a revision that was released is frozen: a change of its files is a new revision
_HASHES = {
    "0001": "671e2ab5d47496cea7b4725f13b82bea71e2d89d52ae42e8320b4a356063c5cf",
    "0002": "fcee43638697063b5a1338c3b84026cc901e8d00546d4ea045581960f5be0d15",
}


def test_a_released_revision_never_changes() -> None:
    """A database that was upgraded by a revision would differ from one that is upgraded by its edited files."""
    digests: dict[str, hashlib._Hash] = {}
    for path in sorted(Path(versions.__path__[0]).glob("[0-9]*")):
        number = path.name.partition("_")[0]
        digests.setdefault(number, hashlib.sha256()).update(path.name.encode() + b"\0" + path.read_bytes())

    assert {number: digest.hexdigest() for number, digest in digests.items()} == _HASHES


def test_concurrent_migrations_succeed(fresh_database: Engine) -> None:
    """P7: processes that start together may all migrate."""
    with ThreadPoolExecutor(4) as pool:
        for migration in [pool.submit(schema.migrate, fresh_database) for _ in range(4)]:
            migration.result()

    with fresh_database.begin() as tx:
        schema.require_current(tx)


def test_a_database_without_the_schema_is_refused(connection: Connection) -> None:
    """The message names the command that helps."""
    with pytest.raises(Misconfigured, match=r"is at revision None, .* is required: run `coupons migrate`"):
        schema.require_current(connection)


@pytest.mark.parametrize("revision", ["0001", "0008", "0999_later"])
def test_a_database_of_another_version_is_refused(fresh_database: Engine, revision: str) -> None:
    """Neither a process nor `migrate` works on a schema that this version does not have; both say what to do."""
    with fresh_database.begin() as tx:
        tx.execute(text("CREATE TABLE alembic_version (version_num varchar(32) NOT NULL)"))
        tx.execute(text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": revision})

    for operation in (schema.migrate, _require_current):
        with pytest.raises(Misconfigured, match=f"at revision {revision}, which this version of coupons does not have"):
            operation(fresh_database)


def test_a_database_of_a_newer_version_names_that_version(fresh_database: Engine) -> None:
    """The operator of an older program hears which one to deploy, and not to migrate with this one."""
    schema.migrate(fresh_database)
    with fresh_database.begin() as tx:
        tx.execute(text("COMMENT ON TABLE alembic_version IS 'coupons 99.1.0'"))
        tx.execute(text("UPDATE alembic_version SET version_num = '0999_later'"))

    for operation in (schema.migrate, _require_current):
        with pytest.raises(
            Misconfigured, match=r"Deploy coupons 99\.1\.0 or a newer one, and do not run `coupons migrate`"
        ):
            operation(fresh_database)


def test_an_older_postgresql_is_refused(fresh_database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start, and not when a query uses what it lacks."""
    monkeypatch.setattr(schema, "_MIN_POSTGRESQL", 99)

    for operation in (schema.migrate, _require_current):
        with pytest.raises(Misconfigured, match=r"PostgreSQL 99 or newer is needed; the server is \d"):
            operation(fresh_database)


def _require_current(engine: Engine) -> None:
    with engine.begin() as tx:
        schema.require_current(tx)
