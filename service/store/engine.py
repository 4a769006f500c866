"""Builds the engines of a process: their timeouts, their planner settings, and transactions."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from typing import Any

from psycopg import Connection as Driver
from psycopg import Cursor
from psycopg import Error as DriverError
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import QueuePool

from service.cancellation import Cancellation
from service.config import database_url
from service.domain.errors import Unavailable, UnsupportedConnection
from service.store.errors import ends_connection, mapped_errors

#: after this the transaction of a frozen process ends and releases its locks, so that another process can continue
IDLE_IN_TRANSACTION_SECONDS = 5
LOCK_SECONDS = 3
STATEMENT_SECONDS = 5
#: for a statement that reads all rows of a coupon, which may be tens of millions
LONG_STATEMENT_SECONDS = 60
_CANCEL_SECONDS = 3
_CLOSE_SECONDS, _CLOSE_POLL_SECONDS = 1.0, 0.01
#: a connection is replaced after this time, also one that only reads from a server that is no longer the primary
MAX_CONNECTION_SECONDS = 300
_READ_WRITE = "read-write"

#: settings of every session that promises depend on: nobody can set them otherwise
_REQUIRED: dict[str, str] = {
    "lock_timeout": f"{LOCK_SECONDS}s",
    "statement_timeout": f"{STATEMENT_SECONDS}s",
    "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_SECONDS}s",
    "synchronous_commit": "on",  # what was answered is not taken back by a crash of the server
    "timezone": "UTC",
}
#: Plan every statement on execution. A plan cached for a small table would scan the whole table later. The pages read
#: are in memory, so random access costs little more than sequential access. A plan that is used once is not worth
#: compiling. The URL may set them otherwise.
_PLANS: Mapping[str, str] = {"plan_cache_mode": "force_custom_plan", "random_page_cost": "1.1", "jit": "off"}
#: a connection that drops all packets fails; the URL may set them otherwise
_CONNECTION: Mapping[str, int] = {
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
#: the driver prepares a statement when a connection executes it once more than so many times
_PREPARE_AFTER = 5
#: what PgBouncer and Amazon's RDS Proxy answer to `options`
_REFUSED_BY_POOLER = ("unsupported startup parameter", "command-line options")
_POOLER_REMEDY = "set DATABASE_POOLER=true for all processes, or connect to PostgreSQL itself (docs/own-servers.md)"
_SET_FOR_TRANSACTION = text(
    "SELECT current_setting('transaction_read_only') = 'on', count(set_config(name, value, true))"
    " FROM unnest(CAST(:names AS text[]), CAST(:values AS text[])) AS setting(name, value)"
)
#: which settings did not come from the connection; settings of extensions that are not loaded are not listed
_LOST_SETTINGS = (
    "SELECT pg_backend_pid(), array(SELECT name FROM pg_settings WHERE lower(name) = ANY(%s) AND source <> 'client')"
)


def build(
    url: str,
    name: str,
    connections: int = 5,
    *,
    pooler: bool = False,
    prepare: bool = True,
    variable: str = "DATABASE_URL",
) -> Engine:
    """Return an engine that connects at first use; PostgreSQL shows `name` as application_name.

    What the URL sets is kept: settings of the session beside those of _REQUIRED, and an application_name before `name`.
    It connects only to a server that accepts writes, unless the URL sets target_session_attrs. After an error that
    ends_connection() names, none of its connections is used again: the others have the same server.

    pooler: the URL leads to a connection pooler, which may give each transaction another session of the server. Then
    each transaction begins with a statement that sets what is otherwise set for the session. Without it, a connection
    that leads to a pooler, or that lacks a setting, raises UnsupportedConnection.
    prepare: whether statements that are repeated on a connection are prepared.
    variable: what has set the URL, for messages.
    """
    given = database_url.parse(url)
    wanted_session = given.option("target_session_attrs")
    settings = {**_PLANS, **given.session_settings, **_REQUIRED}
    built = create_engine(
        given.url,
        isolation_level="READ COMMITTED",  # the database or the role may have another default
        pool_size=connections,
        max_overflow=0,
        pool_timeout=3,
        pool_pre_ping=True,
        pool_recycle=MAX_CONNECTION_SECONDS,
        connect_args={
            **{option: value for option, value in _CONNECTION.items() if given.option(option) is None},
            **given.hosts,
            "application_name": " ".join(filter(None, (given.option("application_name"), name))),
            "options": "" if pooler else _as_options(settings),
            # a pooler says what its first server was, so that is asked in each transaction
            "target_session_attrs": wanted_session or ("any" if pooler else _READ_WRITE),
            "prepare_threshold": _PREPARE_AFTER if prepare else None,
        },
    )
    event.listen(built, "do_executemany", _execute_one_by_one)
    event.listen(built, "handle_error", partial(_end_connections, variable))
    must_write = wanted_session in {None, _READ_WRITE}
    if pooler:
        event.listen(built, "begin", lambda tx: _begin_over_pooler(tx, settings, must_write=must_write))
        return built
    event.listen(built, "connect", lambda driver, _: _require_settings(driver, settings, variable))
    if must_write:
        event.listen(built, "checkout", _require_writable)
    return built


def _as_options(settings: Mapping[str, str]) -> str:
    """Return the settings as `options` of libpq, in which a space and a backslash are escaped."""
    escaped = {name: re.sub(r"([\s\\])", r"\\\1", value) for name, value in settings.items()}
    return " ".join(f"-c {name}={value}" for name, value in escaped.items())


def close(engine: Engine) -> None:
    """Close the connections. One that a thread still uses is closed as well, if it is returned within a second."""
    pool, deadline = engine.pool, time.monotonic() + _CLOSE_SECONDS
    while isinstance(pool, QueuePool) and pool.checkedout() and time.monotonic() < deadline:
        time.sleep(_CLOSE_POLL_SECONDS)
    engine.dispose()


def role_of(url: str) -> str | None:
    """Return the name of the role in a URL."""
    return database_url.parse(url).url.username


def _begin_over_pooler(tx: Connection, settings: Mapping[str, str], *, must_write: bool) -> None:
    """Set for this transaction what no session keeps, before it has a lock; raise Unavailable on a read-only server."""
    values = {"names": list(settings), "values": list(settings.values())}
    read_only, _ = tx.execute(_SET_FOR_TRANSACTION, values).one()
    if must_write and read_only:
        tx.invalidate()
        raise Unavailable("PostgreSQL", "session is read-only")


def _require_settings(driver: Driver, settings: Mapping[str, str], variable: str) -> None:
    """Raise UnsupportedConnection if the server did not take a setting, or if a pooler answers in its place.

    A pooler gives a client another process id than that of the server, because it forwards cancel requests itself.
    """
    driver.autocommit = True
    try:
        ((server_pid, lost),) = driver.execute(_LOST_SETTINGS, [list(settings)]).fetchall()
    except DriverError:
        driver.close()
        raise
    driver.autocommit = False
    if lost or server_pid != driver.info.backend_pid:
        driver.close()
        found = f"the server did not take the settings {', '.join(lost)}" if lost else "a connection pooler answers"
        raise UnsupportedConnection(f"{variable}: {found}: {_POOLER_REMEDY}")


def _require_writable(driver: Driver, *_: object) -> None:
    """Replace every connection of the pool if the server has become read-only since this one was made.

    The server reports that with its answer to the pool's ping. Without this check a connection that only reads would
    show the old primary's data until it is recycled.
    """
    if "on" in map(driver.info.parameter_status, ("default_transaction_read_only", "in_hot_standby")):
        raise InvalidatePoolError


def _end_connections(variable: str, context: ExceptionContext) -> BaseException | None:
    """Let the pool replace this connection, and every other one when it is next requested.

    Returns the error to raise instead, if there is a better one.
    """
    if ends_connection(context.original_exception):
        context.is_disconnect = True
    reason = str(context.original_exception)
    if any(words in reason for words in _REFUSED_BY_POOLER):
        return UnsupportedConnection(f"{variable}: a connection pooler answers ({reason}): {_POOLER_REMEDY}")
    return None


def _execute_one_by_one(cursor: Cursor, statement: Any, parameters: Sequence[Any], _: object) -> bool:
    """Execute for many rows without the driver's pipeline mode.

    A pipeline ends with a Flush message, and PostgreSQL does not time out a transaction that is idle after one: the
    locks of a process that is frozen then would remain.
    """
    for row in parameters:
        cursor.execute(statement, row)
    return True


@contextmanager
def in_transaction(engine: Engine) -> Iterator[Connection]:
    """Run the block in a transaction; raise Unavailable when the database is away or overloaded."""
    with mapped_errors(), engine.begin() as connection:
        yield connection


@contextmanager
def repeatable_read(engine: Engine) -> Iterator[Connection]:
    """Run the block in a transaction whose statements all read the same snapshot; raise Unavailable as above."""
    with mapped_errors(), engine.connect() as connection:
        connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            yield connection


@contextmanager
def savepoint(tx: Connection) -> Iterator[None]:
    """Roll back the block's changes when it raises, and release its savepoint in any case.

    SQLAlchemy's begin_nested leaves the savepoint open after a rollback. Later savepoints would nest in it, and with
    each level PostgreSQL takes longer for every row it examines.
    """
    tx.exec_driver_sql("SAVEPOINT part")
    try:
        yield
    except Exception:
        if not tx.invalidated:
            tx.exec_driver_sql("ROLLBACK TO SAVEPOINT part")
            tx.exec_driver_sql("RELEASE SAVEPOINT part")
        raise
    tx.exec_driver_sql("RELEASE SAVEPOINT part")


def database_now(tx: Connection) -> datetime:
    """Return the database's clock, which all processes use for decisions and delays."""
    at: datetime = tx.execute(text("SELECT clock_timestamp()")).scalar_one()
    return at


@contextmanager
def cancellable(tx: Connection, cancellation: Cancellation) -> Iterator[None]:
    """Cancel the statement in progress when the cancellation is requested. The block then raises Cancelled."""
    with cancellation.interrupting(partial(cancel_statement, driver_connection(tx))):
        yield


@contextmanager
def long_read(tx: Connection, cancellation: Cancellation) -> Iterator[None]:
    """Make the transaction read-only, and give each statement the time that all rows of a large coupon need.

    As in `cancellable`, the cancellation cancels the statement in progress.
    """
    tx.execute(text("SET TRANSACTION READ ONLY"))
    tx.execute(text(f"SET LOCAL statement_timeout = '{LONG_STATEMENT_SECONDS}s'"))
    with cancellable(tx, cancellation):
        yield


def driver_connection(connection: Connection) -> Driver:
    """Return the psycopg connection, for COPY."""
    underneath = connection.connection.driver_connection
    assert isinstance(underneath, Driver)
    return underneath


def cancel_statement(driver: Driver) -> None:
    """Let the server cancel the statement that another thread executes on the connection, if there is one."""
    with suppress(DriverError):  # without the server the statement fails by itself
        driver.cancel_safe(timeout=_CANCEL_SECONDS)
