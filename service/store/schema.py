"""Upgrades the database schema, and checks its revision and that the database accepts writes."""

import re
from collections.abc import Mapping
from importlib import metadata

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from service.domain.errors import Misconfigured
from service.store.engine import in_transaction
from service.store.tables import NAMES

#: an arbitrary number that all migrating processes agree on
_ADVISORY_LOCK = 4_217_001
#: the oldest major version of PostgreSQL that has everything the queries use: 17 has the collation pg_c_utf8
_MIN_POSTGRESQL = 17
#: what the service's role may do with each table besides SELECT and INSERT: it changes no column that the code never
#: changes, no counter, which the triggers change with the rights of the owner, and deletes only rows that are done or
#: have expired
_GRANTS: Mapping[str, str] = {
    "api_keys": "UPDATE (expires_at, last_used_at, revoked_at, revoked_by)",
    "coupon_changes": "UPDATE (published_at)",
    "coupons": "UPDATE (name, quantity, waitlist, opens_at, closes_at, override, version, updated_at, archived_at)",
    "dead_letters": "UPDATE (coupon_id, user_id, request_id, code, attempts, error_type, error_message, state, dead_at,"
    " lease_until, forwarded_at, dlt_partition, dlt_offset)",
    "idempotency_keys": "DELETE",
    "logs": "UPDATE (closed_at)",
    "offsets": "UPDATE (next_offset, advanced_to, watermark, closed)",
    "outbox": "UPDATE (attempts, next_attempt_at, lease_until, delivery_id, failed_at, error), DELETE",
    "request_id_keys": "UPDATE (signs_since, ends_at, late_id_at), DELETE",
    "requests": "UPDATE (state, code, sequence, attempts, decided_at)",
    "retries": "UPDATE (attempts, next_attempt_at, first_error, error_type, error_message), DELETE",
    "write_checks": "UPDATE (written_at)",
}


#: finds requests that cannot be written, with the rights of the caller; the other functions are of triggers
_FUNCTION = "failing_requests(jsonb)"
#: rights that every role has unless they were revoked from PUBLIC, and whether a role has each
_COMMON_RIGHTS = text(
    "SELECT * FROM (VALUES"
    " ('CONNECT', 'DATABASE', current_database(), has_database_privilege(:role, current_database(), 'CONNECT')),"
    " ('TEMPORARY', 'DATABASE', current_database(), has_database_privilege(:role, current_database(), 'TEMPORARY')),"
    " ('USAGE', 'SCHEMA', current_schema(), has_schema_privilege(:role, current_schema(), 'USAGE'))"
    ") AS common(wanted, kind, name, has)"
)
_MISSING = text(
    "SELECT * FROM unnest(CAST(:tables AS text[]), CAST(:columns AS text[]), CAST(:rights AS text[]))"
    " AS needed(table_name, column_name, wanted) WHERE NOT CASE WHEN column_name IS NULL"
    " THEN has_table_privilege(table_name, wanted) ELSE has_column_privilege(table_name, column_name, wanted) END"
)


def migrate(engine: Engine, application_role: str | None = None) -> str:
    """Upgrade to the newest revision, and grant `application_role` what the service needs, in one transaction.

    Return the revision. The tables are in the first schema of the search_path. It notes this version in the database,
    for the message of an older one. Concurrent calls wait for each other. Raises Misconfigured for a PostgreSQL that is
    too old, for a revision that this version does not have, and for a schema or a role that does not exist, and
    Unavailable.
    """
    with in_transaction(engine) as connection:
        _require_version(connection)
        if connection.execute(text("SELECT current_schema()")).scalar() is None:
            search_path = connection.execute(text("SHOW search_path")).scalar()
            raise Misconfigured([f"the search_path ({search_path}) names no schema that exists: create it first"])
        connection.execute(text("SET LOCAL lock_timeout = '30s'"))
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
        _require_known_revision(connection)
        command.upgrade(_config(connection), "head")
        connection.exec_driver_sql(f"COMMENT ON TABLE alembic_version IS 'coupons {metadata.version('coupons')}'")
        if application_role:
            _grant(connection, application_role)
        return str(MigrationContext.configure(connection).get_current_revision())


def _grant(tx: Connection, role: str) -> None:
    """Give a role the rights of _GRANTS and no other; it can change no table, trigger or revision.

    Raises Misconfigured if the role does not exist, or can create objects in the schema all the same.
    """
    if not tx.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}).scalar():
        raise Misconfigured([f"DATABASE_URL: the role {role} does not exist: create it, see deploy/roles.sql"])
    quote = tx.dialect.identifier_preparer.quote
    quoted, schema = quote(role), tx.execute(text("SELECT current_schema()")).scalar_one()
    if role == tx.execute(text("SELECT current_user")).scalar():
        return  # it owns the schema
    for wanted, kind, name, has in tx.execute(_COMMON_RIGHTS, {"role": role}):
        if not has:
            tx.exec_driver_sql(f"GRANT {wanted} ON {kind} {quote(name)} TO {quoted}")
    # The counting functions look into this schema with the owner's rights: others must create nothing there.
    tx.exec_driver_sql(f"REVOKE CREATE ON SCHEMA {quote(schema)} FROM PUBLIC, {quoted}")
    if tx.execute(
        text("SELECT has_schema_privilege(:role, :schema, 'CREATE')"), {"role": role, "schema": schema}
    ).scalar():
        raise Misconfigured([f"DATABASE_URL: the role {role} may create objects in the schema {schema}: revoke CREATE"])
    tx.exec_driver_sql(f"GRANT EXECUTE ON FUNCTION {_FUNCTION} TO {quoted}")
    tables = ", ".join(NAMES.tables)
    tx.exec_driver_sql(f"REVOKE ALL ON {tables}, alembic_version FROM {quoted}")  # what an earlier version granted
    tx.exec_driver_sql(f"GRANT SELECT ON {tables}, alembic_version TO {quoted}")
    tx.exec_driver_sql(f"GRANT INSERT ON {tables} TO {quoted}")
    for table, rights in _GRANTS.items():
        tx.exec_driver_sql(f"GRANT {rights} ON {table} TO {quoted}")


def describe_session(tx: Connection) -> str:
    """Return the version of the server, and the role and database of the connection."""
    query = "SELECT format('PostgreSQL %s, role %s, database %s', version, current_user, current_database())"
    return str(tx.execute(text(f"{query} FROM current_setting('server_version') AS version")).scalar_one())


def missing_rights(tx: Connection) -> list[str]:
    """Return what the role of the connection may not do although the service needs it."""
    needed: list[tuple[str, str | None, str]] = [("alembic_version", None, "SELECT")]
    needed += [(table, None, right) for table in NAMES.tables for right in ("SELECT", "INSERT")]
    for table, granted in _GRANTS.items():
        changed = re.findall(r"\w+", "".join(re.findall(r"\(([^)]*)\)", granted)))
        needed += [(table, column, "UPDATE") for column in changed]
        needed += [(table, None, "DELETE")] if "DELETE" in granted else []
    tables, columns, rights = map(list, zip(*needed, strict=True))
    missing = tx.execute(_MISSING, {"tables": tables, "columns": columns, "rights": rights})
    found = [f"{right} on {table}" + (f" ({column})" if column else "") for table, column, right in missing]
    role = tx.execute(text("SELECT current_user")).scalar_one()
    common = tx.execute(_COMMON_RIGHTS, {"role": role})
    found += [f"{wanted} on {kind.lower()} {name}" for wanted, kind, name, has in common if not has]
    may_execute = text("SELECT has_function_privilege(:function, 'EXECUTE')")
    if not tx.execute(may_execute, {"function": _FUNCTION}).scalar_one():
        found.append(f"EXECUTE on function {_FUNCTION}")
    return found


def require_current(tx: Connection) -> None:
    """Raise Misconfigured unless the database is at the revision this version was written for, and new enough."""
    _require_version(tx)
    _require_known_revision(tx)
    found = MigrationContext.configure(tx).get_current_revision()
    wanted = ScriptDirectory.from_config(_config(tx)).get_current_head()
    if found != wanted:
        fault = f"the database schema is at revision {found}, {wanted} is required: run `coupons migrate`"
        raise Misconfigured([fault])


def require_writable(tx: Connection, process: str) -> None:
    """Write the row of a kind of process, for example "api"; an error means that the database accepts no write.

    The row goes into a page that exists, also on a full disk. A result that does not fit into the memory of a statement
    goes into a temporary file, which needs room.
    """
    tx.execute(text("SET LOCAL work_mem = '64kB'"))
    tx.execute(text("SELECT count(*) FROM generate_series(1, 5000)"))
    tx.execute(
        text(
            "INSERT INTO write_checks (process, written_at) VALUES (:process, clock_timestamp())"
            " ON CONFLICT (process) DO UPDATE SET written_at = excluded.written_at"
        ),
        {"process": process},
    )


def _require_version(tx: Connection) -> None:
    if int(tx.execute(text("SHOW server_version_num")).scalar_one()) < _MIN_POSTGRESQL * 10_000:
        found = tx.execute(text("SHOW server_version")).scalar_one()
        raise Misconfigured([f"PostgreSQL {_MIN_POSTGRESQL} or newer is needed; the server is {found}"])


def _require_known_revision(tx: Connection) -> None:
    """Raise Misconfigured for a revision that is not among ours: it belongs to another version, mostly a newer one."""
    found = MigrationContext.configure(tx).get_current_revision()
    known = {script.revision for script in ScriptDirectory.from_config(_config(tx)).walk_revisions()}
    if found is not None and found not in known:
        noted = tx.execute(text("SELECT obj_description(to_regclass('alembic_version'), 'pg_class')")).scalar()
        fault = (
            f"the database schema is at revision {found}, which this version of coupons does not have"
            f" ({metadata.version('coupons')}): {noted or 'another version'} upgraded it."
            f" Deploy {noted or 'that version'} or a newer one, and do not run `coupons migrate` of this one;"
            " or use another database"
        )
        raise Misconfigured([fault])


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", "service.store:migrations")
    config.attributes["connection"] = connection
    return config
