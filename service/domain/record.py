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
    """A decoded record: either it carries a request, or it is poison.

    One flat value, because a batch has thousands. `raw` and `request` make new values; code that runs for every record
    reads the fields.
    """

    partition: int
    offset: int
    #: ids and the requested time are 0 and the request id is empty if the record carries no request
    coupon_id: int
    user_id: int
    request_id: str
    requested_at_ms: int
    #: the broker's clock (LogAppendTime), milliseconds since 1970 UTC
    appended_at_ms: int
    #: as in Request
    accepted: bool
    key: bytes | None
    value: bytes | None
    headers: Headers
    poison: Failure | None = None
    fault: InjectedFault | None = None
    #: fingerprint of the key of REQUEST_ID_KEYS that signed its request id after that key's end; the request is foreign
    ended_key: str | None = None

    @classmethod
    def of(
        cls,
        raw: RawRecord,
        request: Request | None,
        poison: Failure | None = None,
        fault: InjectedFault | None = None,
        ended_key: str | None = None,
    ) -> "Record":
        """Return the record of these bytes and what was decoded from them."""
        (partition, offset), key, value, headers, appended_at_ms = raw
        coupon_id, user_id, request_id, requested_at_ms = request[1:5] if request else (0, 0, "", 0)
        accepted = request is not None and request.accepted
        decoded = (coupon_id, user_id, request_id, requested_at_ms, appended_at_ms, accepted)
        return cls(partition, offset, *decoded, key, value, headers, poison, fault, ended_key)

    @property
    def log_position(self) -> LogPosition:
        """The partition and the offset."""
        return LogPosition(self.partition, self.offset)

    @property
    def raw(self) -> RawRecord:
        """The bytes of the record."""
        return RawRecord(self.log_position, self.key, self.value, self.headers, self.appended_at_ms)

    @property
    def request(self) -> Request | None:
        """The request that the record carries."""
        if not self.request_id:
            return None
        return Request(
            self.log_position,
            self.coupon_id,
            self.user_id,
            self.request_id,
            self.requested_at_ms,
            self.appended_at_ms,
            self.accepted,
        )
