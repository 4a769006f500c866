"""The tree of errors, divided by what the caller must do."""

from collections.abc import Iterable, Sequence

from service.domain.error_code import ErrorCode
from service.domain.rate_limit import Exceeded
from service.domain.request import ReasonCode


class CouponsError(Exception):
    """Base of every error that this service raises itself."""


class Misconfigured(CouponsError):
    """The settings do not allow a start: correct the environment, then start again."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("the configuration cannot be used:\n" + "\n".join(f"  - {fault}" for fault in faults))
        self.faults = tuple(faults)


class InvalidInput(CouponsError):
    """The input does not have the required form: correct it, then send it again."""


class Unauthenticated(CouponsError):
    """The request has no valid credentials: send a token, a ticket or an API key that is valid."""

    def __init__(self, reason: str, *, absent: bool = False) -> None:
        super().__init__(reason)
        #: there were none at all
        self.absent = absent


class Forbidden(CouponsError):
    """The credentials are valid and do not allow this: use others."""


class NotFound(CouponsError):
    """Nothing has the given id: check the id."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Conflict(CouponsError):
    """The action contradicts the current state: read the state, then choose another action."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Refused(CouponsError):
    """The gate refused the request. The reason is valid at that time only; nothing was accepted."""

    def __init__(
        self, code: ReasonCode, *, first_request_id: str | None = None, opens_in_ms: int | None = None
    ) -> None:
        super().__init__(code.value)
        self.code = code
        #: with code not_open: milliseconds until the coupon opens, by the clock that refused the request
        self.opens_in_ms = opens_in_ms
        #: with code duplicate: the user's earlier request
        self.first_request_id = first_request_id


class RateLimited(CouponsError):
    """A rate limit has no room for the request: send it again later. Nothing was accepted."""

    def __init__(self, exceeded: Exceeded) -> None:
        super().__init__(f"the limit {exceeded.scope} has room in {exceeded.wait_us} µs")
        self.exceeded = exceeded


class PoisonRecord(CouponsError):
    """The record cannot be decoded or can never succeed: it becomes a dead letter at once."""


class UnverifiedRequestId(PoisonRecord):
    """The record carries a request id of this service's form, for its coupon and user, that no key verifies."""


class Retryable(CouponsError):
    """The input is correct and the system cannot serve it now: try again later."""


class Unavailable(Retryable):
    """PostgreSQL, Kafka, Redis or another component, named in `part`, cannot serve requests now."""

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(f"{part} is unavailable: {reason}")
        self.part = part


class UnsupportedConnection(Misconfigured, Unavailable):
    """PostgreSQL answers through something that does not keep what the service needs: change the settings.

    A process does not start then. To one that runs already it means that the database is unavailable.
    """

    def __init__(self, fault: str) -> None:
        CouponsError.__init__(self, fault)
        self.part = "PostgreSQL"
        self.faults = (fault,)


class CreationUnconfirmed(Unavailable):
    """The database did not confirm the creation, which it may have stored: a repeat may create a second one."""

    def __init__(self, part: str, reason: str) -> None:
        CouponsError.__init__(self, f"{part} did not confirm the creation: {reason}")
        self.part = part


class BacklogFull(Unavailable):
    """So many records wait for a decision that no request is accepted. Nothing was accepted."""

    def __init__(self) -> None:
        super().__init__("The issuer", "too many records wait for its decision")


class NotPermitted(Unavailable):
    """A component answers and refuses a right that the service needs: grant it, or correct the credentials."""

    def __init__(self, part: str, reason: str) -> None:
        CouponsError.__init__(self, f"{part} refuses a right that the service needs, so grant it: {reason}")
        self.part = part


class KeyMissing(Unavailable):
    """This process lacks a key that signs request ids elsewhere: add it to REQUEST_ID_KEYS and restart the process."""

    def __init__(self, reason: str) -> None:
        CouponsError.__init__(self, reason)
        self.part = "A key of request ids"


class KeyEnded(Unavailable):
    """A key that signs request ids here has ended: put another key first in REQUEST_ID_KEYS and restart the process."""

    def __init__(self, fingerprint: str) -> None:
        CouponsError.__init__(
            self,
            f"the key {fingerprint} of REQUEST_ID_KEYS has ended: put another key first and restart the process, see"
            " docs/key-rotation.md",
        )
        self.part = "A key of request ids"


class NotProduced(Unavailable):
    """This attempt to append did not reach the log and will not. On the first attempt the seat can be released."""


class ProduceUnconfirmed(Unavailable):
    """The broker did not confirm the record, so it may be in the log: keep the seat."""


class TooBusy(Retryable):
    """The service does as much of this work as it does at the same time: repeat the call after some seconds.

    retry_after_seconds: when to repeat it at the earliest.
    """

    def __init__(self, reason: str, retry_after_seconds: int) -> None:
        super().__init__(reason)
        self.retry_after_seconds = retry_after_seconds


class TooManyStreams(TooBusy):
    """The user or the process has as many open streams as it may: close one, or open another after some seconds."""


class Cancelled(CouponsError):
    """The caller has gone, so the work was ended: nobody receives this error."""


class Fenced(Retryable):
    """Another issuer advanced these partitions: drop their records and start from the offset in the database."""

    def __init__(self, partitions: Iterable[int]) -> None:
        super().__init__(f"partitions {sorted(partitions)} were advanced by another issuer")
        self.partitions = frozenset(partitions)
