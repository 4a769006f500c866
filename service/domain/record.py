"""A record of the log as it was produced, and what was decoded from it."""

from typing import NamedTuple

from service.domain.failures import Failure
from service.domain.request import LogPosition, Request

Headers = tuple[tuple[str, bytes | None], ...]


class InjectedFault(NamedTuple):
    """A failure that a demo or a test asks for: PostgreSQL raises this SQLSTATE in the first `times` attempts."""

    sqlstate: str
    times: int


class RawRecord(NamedTuple):
    """The bytes of a record, unchanged."""

    log_position: LogPosition
    key: bytes | None
    value: bytes | None
    headers: Headers
    #: the broker's clock (LogAppendTime), milliseconds since 1970 UTC
    appended_at_ms: int


class Record(NamedTuple):
    """A decoded record: either it carries a request, or it is poison."""

    raw: RawRecord
    request: Request | None
    poison: Failure | None = None
    fault: InjectedFault | None = None
    #: fingerprint of the key of REQUEST_ID_KEYS that signed its request id after that key's end; the request is foreign
    ended_key: str | None = None
