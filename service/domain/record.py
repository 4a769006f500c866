"""A record of the log as it was written, and what could be read from it."""

from typing import NamedTuple

from service.domain.fates import Failure
from service.domain.request import Place, Request

Headers = tuple[tuple[str, bytes | None], ...]


class Fault(NamedTuple):
    """A failure asked for by a demo or a test: this SQLSTATE, in the first `times` attempts."""

    sqlstate: str
    times: int


class Raw(NamedTuple):
    """The bytes of a record, kept as they came."""

    place: Place
    key: bytes | None
    value: bytes | None
    headers: Headers
    #: the broker's clock (LogAppendTime), milliseconds since 1970 UTC
    appended_at_ms: int


class Record(NamedTuple):
    """A record that was read: either it asks for something, or it is poison."""

    raw: Raw
    request: Request | None
    poison: Failure | None = None
    fault: Fault | None = None
