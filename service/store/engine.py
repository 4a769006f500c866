"""Builds the engines, one per process, with the limits that let a frozen process's locks end by themselves."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from psycopg import Connection as Driver
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.domain.errors import Unavailable
from service.domain.fates import Fate, fate_of

#: a frozen process's transaction ends by then, so that its successor can go on
IDLE_IN_TRANSACTION_SECONDS = 5
LOCK_SECONDS = 3
STATEMENT_SECONDS = 5


def build(database_url: str, name: str, connections: int = 5) -> Engine:
    """An engine that connects when first used; `name` is what PostgreSQL shows of the process."""
    limits = (
        f"-c lock_timeout={LOCK_SECONDS}s -c statement_timeout={STATEMENT_SECONDS}s"
        f" -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_SECONDS}s -c timezone=UTC"
    )
    return create_engine(
        database_url,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=3,
        pool_pre_ping=True,
        connect_args={"application_name": name, "options": limits, "connect_timeout": 3, **_KEEPALIVE},
    )


_KEEPALIVE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}


@contextmanager
def answering(engine: Engine) -> Iterator[Connection]:
    """A transaction for a caller who waits; raises Unavailable when the database is away or overloaded."""
    try:
        with engine.begin() as connection:
            yield connection
    except PoolTimeout as error:
        raise Unavailable("PostgreSQL", "every connection is in use") from error
    except DBAPIError as error:
        if fate_of(getattr(error.orig, "sqlstate", None)) is Fate.SYSTEM:
            raise Unavailable("PostgreSQL", str(error.orig).strip()) from error
        raise


def driver(connection: Connection) -> Driver:
    """The psycopg connection underneath, for COPY."""
    underneath = connection.connection.driver_connection
    assert isinstance(underneath, Driver)
    return underneath


def moment(at_ms: int) -> datetime:
    """Milliseconds since 1970 as the database wants them."""
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def milliseconds(at: datetime) -> int:
    """The reverse of moment, rounded to the millisecond."""
    return round(at.timestamp() * 1000)
