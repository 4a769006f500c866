"""What a user hears who has no place in line: said at once, by the gate."""

from service.domain.errors import CouponsError
from service.domain.request import ReasonCode


class Refused(CouponsError):
    """The request was not accepted, and the reason is final for this moment."""

    def __init__(
        self, code: ReasonCode, *, first_request_id: str | None = None, opens_at_ms: int | None = None
    ) -> None:
        super().__init__(code.value)
        self.code = code
        #: the request that already has the user's seat
        self.first_request_id = first_request_id
        self.opens_at_ms = opens_at_ms
