"""The four fates of a failure, and the one table that gives each class of error its fate."""

from enum import StrEnum
from typing import NamedTuple

from service.domain.errors import CouponsError, TryAgain


class Fate(StrEnum):
    """What becomes of a request whose issuing failed."""

    REFUSED = "refused"
    POISON = "poison"
    RECORD = "record"
    SYSTEM = "system"
    DECIDE_AGAIN = "decide_again"


class Poison(CouponsError):
    """The record cannot be read, or can never succeed."""


#: SQLSTATE (PostgreSQL Appendix A) to fate; the longest prefix that matches counts
_SQLSTATE = {
    "08": Fate.SYSTEM,  # connection
    "22": Fate.RECORD,  # data of this row
    "23": Fate.RECORD,  # constraint hit by this row
    "23505": Fate.DECIDE_AGAIN,  # another writer decided first: read, decide anew
    "25P03": Fate.SYSTEM,  # idle in transaction for too long: this process was frozen
    "25P04": Fate.SYSTEM,  # transaction timeout, the same
    "40": Fate.SYSTEM,  # serialization failure, deadlock
    "53": Fate.SYSTEM,  # disk full, out of memory, too many connections
    "55P03": Fate.SYSTEM,  # lock not available
    "57": Fate.SYSTEM,  # cancelled, shutting down
    "58": Fate.SYSTEM,  # the server's disk
    "XX": Fate.SYSTEM,  # the server's own fault
}


class Failure(NamedTuple):
    """An error as it is stored, shown and put into a dead letter's headers."""

    fate: Fate
    #: dotted name of the exception's class
    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


def fate_of(sqlstate: str | None) -> Fate:
    """The fate of a database error; one without a SQLSTATE never reached the server's answer: system."""
    if sqlstate is None:
        return Fate.SYSTEM
    for length in (5, 2):
        if fate := _SQLSTATE.get(sqlstate[:length]):
            return fate
    return Fate.RECORD


def failure_of(error: BaseException) -> Failure:
    """Reads an exception's fate: poison by class, database errors by SQLSTATE, anything unknown is the record's."""
    cause = getattr(error, "orig", None) or error  # SQLAlchemy wraps the driver's errors
    kind = f"{type(cause).__module__}.{type(cause).__qualname__}"
    return Failure(_fate(cause), kind, str(cause).strip()[:2000])


def _fate(error: BaseException) -> Fate:
    if isinstance(error, Poison):
        return Fate.POISON
    if isinstance(error, TryAgain | OSError):
        return Fate.SYSTEM
    if hasattr(error, "sqlstate"):  # psycopg.Error
        return fate_of(error.sqlstate)
    return Fate.RECORD
