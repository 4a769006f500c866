"""A request for a coupon from the socket to its response: no ASGI scope, task or future for each."""

from service.api.errors import error_response
from service.api.plain_exchange import EXCHANGE_SLOTS, PlainExchange
from service.api.routes.issuances import accepted_response
from service.api.schemas.base import decode
from service.api.schemas.issuances import NewIssuance
from service.domain.caller import Caller
from service.domain.errors import BacklogFull, Forbidden, InvalidInput, RateLimited, Refused, Unauthenticated
from service.log import bound_contextvars
from service.server.guarded_protocol import GuardedProtocol
from service.usecases.accept import Receipt
from service.usecases.append_tracker import PendingRequest

#: what callers cause, as often as they like
_UNLOGGED = (Refused, RateLimited, BacklogFull, InvalidInput, Unauthenticated, Forbidden)


class PlainIssuance(PendingRequest, PlainExchange):
    """One object for the connection, the gate, the log and the response."""

    __slots__ = EXCHANGE_SLOTS

    def __init__(self, protocol: GuardedProtocol, coupon_id: int, *, keep_alive: bool) -> None:
        super().__init__(coupon_id, 0)
        self.begin(protocol, keep_alive=keep_alive)

    def submit(self, protocol: GuardedProtocol, caller: Caller) -> None:
        """Put the request into the next batch; raise InvalidInput, Forbidden, and what the acceptor raises."""
        self.user_id = caller.choose_user(decode(self.body, NewIssuance).user)
        api = protocol.app_state["api"]
        if api.client_addresses:
            self.address = api.client_addresses.find(protocol.client, protocol.headers)
        api.acceptor.submit(self)

    def on_accepted(self, position: int | None) -> None:
        """Send the 202."""
        self.respond(accepted_response(Receipt(self.request_id, self.coupon_id, self.user_id, position)))

    def on_failed(self, error: Exception) -> None:
        """Send problem details."""
        if isinstance(error, _UNLOGGED):
            self.respond(error_response(error))
            return
        with bound_contextvars(request_id=self.request_id, coupon_id=self.coupon_id):
            self.respond(error_response(error))
