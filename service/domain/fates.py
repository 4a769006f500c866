"""The four fates of a failure, and the one place that gives each class of error its fate."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from service.domain.errors import CouponsError


class Fate(StrEnum):
    """What becomes of a request whose issuing failed."""

    REFUSED = "refused"
    POISON = "poison"
    RECORD = "record"
    SYSTEM = "system"
    DECIDE_AGAIN = "decide_again"


class Poison(CouponsError):
    """The record cannot be read, or can never succeed."""


#: class of exception to fate: the first of an exception's classes that stands here counts; none: the record's
CLASSES: Mapping[str, Fate] = MappingProxyType(
    {
        "service.domain.fates.Poison": Fate.POISON,
        "msgspec.DecodeError": Fate.POISON,  # not JSON, or JSON of another shape
        "builtins.UnicodeDecodeError": Fate.POISON,
        "service.domain.errors.TryAgain": Fate.SYSTEM,
        "builtins.OSError": Fate.SYSTEM,  # sockets, files, timeouts
        "builtins.MemoryError": Fate.SYSTEM,
        "sqlalchemy.exc.TimeoutError": Fate.SYSTEM,  # every connection of the pool is in use
        "redis.exceptions.RedisError": Fate.SYSTEM,
        "psycopg.DataError": Fate.RECORD,  # these three without a SQLSTATE: the driver refused the values itself
        "psycopg.IntegrityError": Fate.RECORD,
        "psycopg.NotSupportedError": Fate.RECORD,
        "psycopg.Error": Fate.SYSTEM,  # without a SQLSTATE: the server's answer never came
    }
)

#: SQLSTATE (PostgreSQL Appendix A) to fate; the longest prefix that matches counts, none: the record's
SQLSTATES: Mapping[str, Fate] = MappingProxyType(
    {
        "08": Fate.SYSTEM,  # connection
        "0A": Fate.SYSTEM,  # feature not supported: no record asks for one, a statement does
        "22": Fate.RECORD,  # data of this row
        "23": Fate.RECORD,  # constraint hit by this row
        "23505": Fate.DECIDE_AGAIN,  # another writer decided first: read, decide anew
        "25": Fate.SYSTEM,  # state of the transaction: ended while frozen, or the server only lets read
        "28": Fate.SYSTEM,  # not let in
        "3D": Fate.SYSTEM,  # no such database
        "3F": Fate.SYSTEM,  # no such schema
        "40": Fate.SYSTEM,  # serialization failure, deadlock
        "42": Fate.SYSTEM,  # the statement does not fit the schema: a migration is missing, every record would fail
        "53": Fate.SYSTEM,  # disk full, out of memory, too many connections
        "55": Fate.SYSTEM,  # lock not available, object in use
        "57": Fate.SYSTEM,  # cancelled, shutting down
        "58": Fate.SYSTEM,  # the server's disk
        "F0": Fate.SYSTEM,  # the server's configuration
        "XX": Fate.SYSTEM,  # the server's own fault
    }
)

#: librdkafka's names of errors that are the record's own; every other error is the system's
KAFKA_RECORD = frozenset({"MSG_SIZE_TOO_LARGE", "INVALID_RECORD", "INVALID_MSG", "INVALID_MSG_SIZE"})


class Failure(NamedTuple):
    """An error as it is stored, shown and put into a dead letter's headers."""

    fate: Fate
    #: dotted name of the exception's class
    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


def fate_of(sqlstate: str) -> Fate:
    """The fate of an error that the database answered."""
    return SQLSTATES.get(sqlstate) or SQLSTATES.get(sqlstate[:2]) or Fate.RECORD


def failure_of(error: BaseException) -> Failure:
    """Reads an exception's fate; SQLAlchemy's wrapping of the driver's errors is taken off first."""
    cause = getattr(error, "orig", None) or error
    return Failure(_fate(cause), _name(type(cause)), str(cause).strip()[:2000])


def _fate(error: BaseException) -> Fate:
    if sqlstate := getattr(error, "sqlstate", None):
        return fate_of(sqlstate)
    if _name(type(error)) == "cimpl.KafkaException":
        return Fate.RECORD if error.args[0].name() in KAFKA_RECORD else Fate.SYSTEM
    return next((CLASSES[name] for name in map(_name, type(error).__mro__) if name in CLASSES), Fate.RECORD)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
