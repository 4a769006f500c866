"""The four fates of a failure, and the one place that gives each class of error its fate."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from service.domain.errors import CouponsError


class FailureClass(StrEnum):
    """What becomes of a request whose issuing failed."""

    REFUSED = "refused"
    POISON = "poison"
    RECORD = "record"
    SYSTEM = "system"
    DECIDE_AGAIN = "decide_again"


class PoisonRecord(CouponsError):
    """The record cannot be read, or can never succeed."""


#: class of exception to fate: the first of an exception's classes that stands here counts; none: the record's
CLASSES: Mapping[str, FailureClass] = MappingProxyType(
    {
        "service.domain.failures.PoisonRecord": FailureClass.POISON,
        "msgspec.DecodeError": FailureClass.POISON,  # not JSON, or JSON of another shape
        "builtins.UnicodeDecodeError": FailureClass.POISON,
        "service.domain.errors.Retryable": FailureClass.SYSTEM,
        "builtins.OSError": FailureClass.SYSTEM,  # sockets, files, timeouts
        "builtins.MemoryError": FailureClass.SYSTEM,
        "sqlalchemy.exc.TimeoutError": FailureClass.SYSTEM,  # the pool has no free connection
        "redis.exceptions.RedisError": FailureClass.SYSTEM,
        "psycopg.DataError": FailureClass.RECORD,  # without a SQLSTATE: the driver rejected the values
        "psycopg.IntegrityError": FailureClass.RECORD,
        "psycopg.NotSupportedError": FailureClass.RECORD,
        "psycopg.Error": FailureClass.SYSTEM,  # without a SQLSTATE: the server's answer never came
    }
)

#: SQLSTATE (PostgreSQL Appendix A) to fate; the longest prefix that matches counts, none: the record's
SQLSTATES: Mapping[str, FailureClass] = MappingProxyType(
    {
        "08": FailureClass.SYSTEM,  # connection
        "0A": FailureClass.SYSTEM,  # feature not supported: no record asks for one, a statement does
        "22": FailureClass.RECORD,  # data of this row
        "23": FailureClass.RECORD,  # constraint hit by this row
        "23505": FailureClass.DECIDE_AGAIN,  # another writer decided first: read, decide anew
        "25": FailureClass.SYSTEM,  # state of the transaction: ended while frozen, or the server only lets read
        "28": FailureClass.SYSTEM,  # not let in
        "3D": FailureClass.SYSTEM,  # no such database
        "3F": FailureClass.SYSTEM,  # no such schema
        "40": FailureClass.SYSTEM,  # serialization failure, deadlock
        "42": FailureClass.SYSTEM,  # the statement does not fit the schema: a migration is missing
        "53": FailureClass.SYSTEM,  # disk full, out of memory, too many connections
        "55": FailureClass.SYSTEM,  # lock not available, object in use
        "57": FailureClass.SYSTEM,  # cancelled, shutting down
        "58": FailureClass.SYSTEM,  # the server's disk
        "F0": FailureClass.SYSTEM,  # the server's configuration
        "XX": FailureClass.SYSTEM,  # the server's own fault
    }
)

#: librdkafka's names of errors that are the record's own; every other error is the system's
KAFKA_RECORD = frozenset({"MSG_SIZE_TOO_LARGE", "INVALID_RECORD", "INVALID_MSG", "INVALID_MSG_SIZE"})


class Failure(NamedTuple):
    """An error as it is stored, shown and put into a dead letter's headers."""

    failure_class: FailureClass
    #: dotted name of the exception's class
    error_type: str
    message: str

    def __str__(self) -> str:
        return f"{self.error_type}: {self.message}"


def class_of_sqlstate(sqlstate: str) -> FailureClass:
    """The fate of an error that the database answered."""
    return SQLSTATES.get(sqlstate) or SQLSTATES.get(sqlstate[:2]) or FailureClass.RECORD


def classify(error: BaseException) -> Failure:
    """Reads an exception's fate; SQLAlchemy's wrapping of the driver's errors is taken off first."""
    cause = getattr(error, "orig", None) or error
    return Failure(_fate(cause), _name(type(cause)), str(cause).strip()[:2000])


def _fate(error: BaseException) -> FailureClass:
    if sqlstate := getattr(error, "sqlstate", None):
        return class_of_sqlstate(sqlstate)
    if _name(type(error)) == "cimpl.KafkaException":
        return FailureClass.RECORD if error.args[0].name() in KAFKA_RECORD else FailureClass.SYSTEM
    return next((CLASSES[name] for name in map(_name, type(error).__mro__) if name in CLASSES), FailureClass.RECORD)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
