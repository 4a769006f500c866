"""A plain request and its response on a connection: it takes the place of uvicorn's `RequestResponseCycle`."""

from typing import Final

from service.api.cors import RawHeaders
from service.domain.caller import ANYONE, Caller
from service.domain.errors import CouponsError
from service.server.guarded_protocol import GuardedProtocol
from service.server.responses import RenderedResponse
from service.server.root_path import below
from service.tracing import RequestTrace

EXCHANGE_SLOTS: Final = (
    "_protocol", "body", "caller", "cross_origin", "disconnected", "keep_alive", "message_event", "more_body",
    "response_complete", "response_started", "root_path",
)  # fmt: skip
"""The attributes of PlainExchange, for `__slots__` of its subclasses; `trace` is one of PendingRequest's, too."""

_NO_SLOTS: tuple[str, ...] = ()  # a type checker would refuse the attributes of a class with literally none


class _NobodyWaits:
    """Takes the place of the event that wakes a request's application."""

    def set(self) -> None:
        """Do nothing."""


_NOBODY_WAITS = _NobodyWaits()


class PlainExchange:
    """The part of a plain request that the connection uses, with the names of `RequestResponseCycle`.

    It has no slots of its own, because one of its subclasses has another base class with slots.
    """

    __slots__ = _NO_SLOTS

    _protocol: GuardedProtocol | None
    keep_alive: bool
    #: who calls, or why the caller is refused once the request has arrived
    caller: Caller | CouponsError
    #: headers of the response for a page of another site
    cross_origin: RawHeaders
    #: the path below which the caller reaches the server
    root_path: str
    body: bytes
    more_body: bool
    disconnected: bool
    response_started: bool
    response_complete: bool
    message_event: _NobodyWaits
    #: None: the request is not traced
    trace: RequestTrace | None

    def begin(self, protocol: GuardedProtocol, *, keep_alive: bool) -> None:
        """Set the attributes: the request's head is complete."""
        self._protocol = protocol
        self.keep_alive = keep_alive
        self.caller = ANYONE
        self.cross_origin = ()
        self.root_path = ""
        self.body = b""
        self.more_body = True
        self.disconnected = self.response_started = self.response_complete = False
        self.message_event = _NOBODY_WAITS
        self.trace = None

    def submit(self, protocol: GuardedProtocol, caller: Caller) -> None:
        """Act on the request, which is complete; respond() follows. Raises what is wrong with it."""
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """Respond with problem details."""
        raise NotImplementedError

    def respond(self, response: RenderedResponse) -> None:
        """Write the response, and let the connection go on."""
        protocol, self._protocol = self._protocol, None  # a connection and its last request must not keep each other
        if protocol is None:
            return
        self.response_started = self.response_complete = True
        if self.trace is not None:
            self.trace.end(response.status)
        if self.disconnected or protocol.transport.is_closing():
            return
        if self.root_path:
            response = below(response, self.root_path)
        if self.cross_origin:
            response.headers.extend(self.cross_origin)
        default_headers = protocol.server_state.default_headers
        protocol.transport.write(response.to_http1(default_headers, keep_alive=self.keep_alive))
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()
