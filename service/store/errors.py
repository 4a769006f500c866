"""Classifies errors of PostgreSQL, psycopg and SQLAlchemy."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

import psycopg
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.domain.errors import NotPermitted, Unavailable
from service.domain.failures import Failure, FailureClass, classify, describe, register

#: SQLSTATE (PostgreSQL documentation, appendix A) or its two-character class to failure class. What is listed speaks of
#: the row that is written. Every other class speaks of the session, the server, the schema or the statement, so the
#: next record would fail in the same way: SYSTEM, also for a code that PostgreSQL does not define.
SQLSTATES: Mapping[str, FailureClass] = MappingProxyType(
    {
        "09": FailureClass.RECORD,  # a trigger's action refuses this row
        "20": FailureClass.RECORD,  # a routine has no case for a value of this row
        "21": FailureClass.RECORD,  # a value of this row selects more than one row
        "22": FailureClass.RECORD,  # data of this row
        "2200H": FailureClass.SYSTEM,  # a sequence has no more numbers, for any row
        "23": FailureClass.RECORD,  # a constraint that this row violates
        "23505": FailureClass.DECIDE_AGAIN,  # unique violation: another writer decided first
        "38000": FailureClass.RECORD,  # a trigger in another language raised it for this row
        "44": FailureClass.RECORD,  # the check option of a view that this row violates
        "54000": FailureClass.RECORD,  # a value of this row is too long for an index
        "P0": FailureClass.RECORD,  # a trigger in PL/pgSQL raised it for this row
    }
)

#: SQLSTATEs, by prefix, after which a connection is of no further use: its server may be the wrong one, or its session
#: has lost its state. After a failover only a new connection reaches the server that can write.
_CONNECTION_ENDING = (
    "08",  # connection, and what a pooler in between reports
    "25",  # read-only server, or a transaction that the session has no longer
    "26",  # the session does not have the prepared statement
    "28",  # the role may not log in
    "3D",  # the server does not have the database
    "42501",  # no permission
    "42P05",  # the session has the prepared statement of another client
    "57P",  # shutting down, starting, database dropped
    "F0",  # the server's configuration cannot be read
)


#: the role may not log in, or may not do this
_REFUSALS = ("28", "42501")


def class_of_sqlstate(sqlstate: str) -> FailureClass:
    """Return the failure class of an error that the server reported."""
    return SQLSTATES.get(sqlstate) or SQLSTATES.get(sqlstate[:2]) or FailureClass.SYSTEM


def ends_connection(error: BaseException) -> bool:
    """Return whether no further statement may use the connection on which the driver raised this error."""
    return isinstance(error, psycopg.Error) and (error.sqlstate or "").startswith(_CONNECTION_ENDING)


@classify.register
def _classify_driver_error(error: psycopg.Error) -> Failure:
    """Without a SQLSTATE the driver rejected the values itself, or the server's answer never arrived."""
    if error.sqlstate:
        return describe(class_of_sqlstate(error.sqlstate), error)
    rejected = isinstance(error, psycopg.DataError | psycopg.IntegrityError | psycopg.NotSupportedError)
    return describe(FailureClass.RECORD if rejected else FailureClass.SYSTEM, error)


@classify.register
def _classify_wrapped_error(error: StatementError) -> Failure:
    """SQLAlchemy wraps the driver's error; the wrapped one is classified and shown."""
    return classify(error.orig) if error.orig else describe(FailureClass.RECORD, error)


register(FailureClass.SYSTEM, PoolTimeout)


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Raise Unavailable for errors of class SYSTEM, NotPermitted if the server refuses a right."""
    try:
        yield
    except PoolTimeout as error:
        raise Unavailable("A database connection", "all connections of this process are in use") from error
    except DBAPIError as error:
        if classify(error).failure_class is not FailureClass.SYSTEM:
            raise
        refused = (getattr(error.orig, "sqlstate", None) or "").startswith(_REFUSALS)
        raise (NotPermitted if refused else Unavailable)("PostgreSQL", str(error.orig).strip()) from error
