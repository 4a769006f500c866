"""Classifies errors of PostgreSQL, psycopg and SQLAlchemy."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

import psycopg
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.domain.errors import Unavailable
from service.domain.failures import Failure, FailureClass, classify, describe, register

#: SQLSTATE (PostgreSQL documentation, appendix A) or its two-character class to failure class; others are the record's
SQLSTATES: Mapping[str, FailureClass] = MappingProxyType(
    {
        "08": FailureClass.SYSTEM,  # connection
        "0A": FailureClass.SYSTEM,  # feature not supported: the statement asks for it, never the record
        "22": FailureClass.RECORD,  # data of this row
        "23": FailureClass.RECORD,  # a constraint that this row violates
        "23505": FailureClass.DECIDE_AGAIN,  # unique violation: another writer decided first
        "25": FailureClass.SYSTEM,  # transaction state: ended while the process was frozen, or a read-only server
        "28": FailureClass.SYSTEM,  # authorization
        "3D": FailureClass.SYSTEM,  # no such database
        "3F": FailureClass.SYSTEM,  # no such schema
        "40": FailureClass.SYSTEM,  # serialization failure, deadlock
        "42": FailureClass.SYSTEM,  # the statement does not fit the schema: a migration is missing
        "53": FailureClass.SYSTEM,  # disk full, out of memory, too many connections
        "55": FailureClass.SYSTEM,  # lock not available, object in use
        "57": FailureClass.SYSTEM,  # cancelled, shutting down
        "58": FailureClass.SYSTEM,  # I/O error of the server
        "F0": FailureClass.SYSTEM,  # server configuration
        "XX": FailureClass.SYSTEM,  # internal error of the server
    }
)


def class_of_sqlstate(sqlstate: str) -> FailureClass:
    """Return the failure class of an error that the server reported."""
    return SQLSTATES.get(sqlstate) or SQLSTATES.get(sqlstate[:2]) or FailureClass.RECORD


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
    """Raise Unavailable for errors of class SYSTEM."""
    try:
        yield
    except PoolTimeout as error:
        raise Unavailable("PostgreSQL", "the pool has no free connection") from error
    except DBAPIError as error:
        if classify(error).failure_class is FailureClass.SYSTEM:
            raise Unavailable("PostgreSQL", str(error.orig).strip()) from error
        raise
