"""A record of the log as it was written, and what could be read from it."""

from typing import NamedTuple

from service.domain.failures import Failure
from service.domain.request import LogPosition, Request

Headers = tuple[tuple[str, bytes | None], ...]


class InjectedFault(NamedTuple):
    """A failure asked for by a demo or a test: this SQLSTATE, in the first `times` attempts."""

    sqlstate: str
    times: int


class RawRecord(NamedTuple):
    """The bytes of a record, kept as they came."""

    log_position: LogPosition
    key: bytes | None
    value: bytes | None
    headers: Headers
    #: the broker's clock (LogAppendTime), milliseconds since 1970 UTC
    appended_at_ms: int


class Record(NamedTuple):
    """A record that was read: either it asks for something, or it is poison."""

    raw: RawRecord
    request: Request | None
    poison: Failure | None = None
    fault: InjectedFault | None = None
