"""Builds the engines, one per process: a frozen process's locks end by themselves, plans are for the rows there are."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from psycopg import Connection as Driver
from psycopg import Cursor
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.domain.errors import Unavailable
from service.domain.failures import FailureClass, classify

#: a frozen process's transaction ends by then, so that its successor can go on
IDLE_IN_TRANSACTION_SECONDS = 5
LOCK_SECONDS = 3
STATEMENT_SECONDS = 5

#: a plan is made for the rows there are: one kept from a quiet day, when the table was a page, reads all of it for each
#: request once the sale has filled it. What is read lies in memory: pages out of order cost little more.
#: A plan that is used once is not worth compiling.
_PLANS = "-c plan_cache_mode=force_custom_plan -c random_page_cost=1.1 -c jit=off"


def build(database_url: str, name: str, connections: int = 5) -> Engine:
    """An engine that connects when first used; `name` is what PostgreSQL shows of the process."""
    options = (
        f"-c lock_timeout={LOCK_SECONDS}s -c statement_timeout={STATEMENT_SECONDS}s"
        f" -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_SECONDS}s -c timezone=UTC {_PLANS}"
    )
    built = create_engine(
        database_url,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=3,
        pool_pre_ping=True,
        connect_args={"application_name": name, "options": options, "connect_timeout": 3, **_KEEPALIVE},
    )
    event.listen(built, "do_executemany", _one_after_another)
    return built


def _one_after_another(cursor: Cursor, statement: Any, parameters: Sequence[Any], _: object) -> bool:
    """Executes for many rows without the driver's pipeline.

    A pipeline ends with a Flush, and PostgreSQL does not end a transaction that idles after one: the locks of a process
    that is frozen then would stay for as long as it is.
    """
    for row in parameters:
        cursor.execute(statement, row)
    return True


_KEEPALIVE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}


@contextmanager
def in_transaction(engine: Engine) -> Iterator[Connection]:
    """A transaction for a caller who waits; raises Unavailable when the database is away or overloaded."""
    try:
        with engine.begin() as connection:
            yield connection
    except PoolTimeout as error:
        raise Unavailable("PostgreSQL", "every connection is in use") from error
    except DBAPIError as error:
        if classify(error).failure_class is FailureClass.SYSTEM:
            raise Unavailable("PostgreSQL", str(error.orig).strip()) from error
        raise


@contextmanager
def savepoint(tx: Connection) -> Iterator[None]:
    """A part of a transaction that leaves nothing behind when it raises, its savepoint neither.

    SQLAlchemy's own leaves the savepoint open: the next would lie within it, and the deeper they lie, the longer
    PostgreSQL takes for every row it looks at.
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
    """The database's clock: the one that decisions and delays go by, whichever process writes them."""
    at: datetime = tx.execute(text("SELECT clock_timestamp()")).scalar_one()
    return at


def driver_connection(connection: Connection) -> Driver:
    """The psycopg connection underneath, for COPY."""
    underneath = connection.connection.driver_connection
    assert isinstance(underneath, Driver)
    return underneath


def to_datetime(at_ms: int) -> datetime:
    """Milliseconds since 1970 as the database wants them."""
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def to_milliseconds(at: datetime) -> int:
    """The reverse of moment, rounded to the millisecond."""
    return round(at.timestamp() * 1000)
