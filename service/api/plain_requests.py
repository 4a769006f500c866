"""Accepts plain requests for coupons straight from the HTTP parser: no ASGI scope, task or future for each.

A request is plain if its method, path and content type are those of an issuance, its body has a declared length, no
header is repeated, and nothing in it needs the framework. Every other request goes to FastAPI's route, which calls the
same use case and renders the same response.
"""

import re
from typing import Any

from service.api.authorization import authorize, permissions
from service.api.cors import RawHeaders, cross_origin_headers
from service.api.errors import error_response
from service.api.request_parsing import JSON, is_json
from service.api.routes.issuances import accepted_response
from service.api.schemas.base import decode
from service.api.schemas.issuances import NewIssuance
from service.domain.caller import ANYONE, Caller
from service.domain.errors import (
    BacklogFull,
    CouponsError,
    Forbidden,
    InvalidInput,
    RateLimited,
    Refused,
    Unauthenticated,
)
from service.limits import MAX_ID
from service.log import bound_contextvars
from service.server.guarded_protocol import GuardedProtocol
from service.server.responses import RenderedResponse
from service.usecases.accept import Receipt
from service.usecases.append_tracker import PendingRequest

_PATH = re.compile(rb"/coupons/([1-9][0-9]{0,18})/issuances")
#: what the route of this path requires, read once
_NEEDED = permissions(public_docs=False)["POST", "/coupons/{coupon_id}/issuances"]
_PLAIN_CONTENT_TYPE = JSON.encode()
#: headers that need the framework, or a part of the server that knows them
_NOT_PLAIN = frozenset((b"transfer-encoding", b"content-encoding", b"expect", b"fault"))


#: what callers cause, as often as they like
_UNLOGGED = (Refused, RateLimited, BacklogFull, InvalidInput, Unauthenticated, Forbidden)


class _NobodyWaits:
    """Takes the place of the event that wakes a request's application."""

    def set(self) -> None:
        """Do nothing."""


_NOBODY_WAITS = _NobodyWaits()


class PlainRequest(PendingRequest):
    """A plain request from the socket to its response; a connection uses it as uvicorn's `RequestResponseCycle`."""

    __slots__ = (
        "_protocol", "body", "caller", "cross_origin", "disconnected", "keep_alive", "message_event", "more_body",
        "response_complete", "response_started",
    )  # fmt: skip

    def __init__(self, protocol: "CouponProtocol", coupon_id: int, *, keep_alive: bool) -> None:
        super().__init__(coupon_id, 0)
        self._protocol: CouponProtocol | None = protocol
        self.keep_alive = keep_alive
        #: who calls, or why the caller is refused once the request has arrived
        self.caller: Caller | CouponsError = ANYONE
        #: headers of the response for a page of another site
        self.cross_origin: RawHeaders = ()
        self.body = b""
        self.more_body = True
        self.disconnected = self.response_started = self.response_complete = False
        self.message_event = _NOBODY_WAITS

    def on_accepted(self, position: int | None) -> None:
        """Send the 202."""
        self._respond(accepted_response(Receipt(self.request_id, self.coupon_id, self.user_id, position)))

    def on_failed(self, error: Exception) -> None:
        """Send problem details."""
        if isinstance(error, _UNLOGGED):
            self._respond(error_response(error))
            return
        with bound_contextvars(request_id=self.request_id, coupon_id=self.coupon_id):
            self._respond(error_response(error))

    def _respond(self, response: RenderedResponse) -> None:
        protocol, self._protocol = self._protocol, None  # a connection and its last request must not keep each other
        if protocol is None:
            return
        self.response_started = self.response_complete = True
        if self.disconnected or protocol.transport.is_closing():
            return
        if self.cross_origin:
            response.headers.extend(self.cross_origin)
        default_headers = protocol.server_state.default_headers
        protocol.transport.write(response.to_http1(default_headers, keep_alive=self.keep_alive))
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()


class CouponProtocol(GuardedProtocol):
    """One connection to the API."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        settings = self.app_state["api"].settings
        self.host_names = settings.host_names
        self._allowed_origins = settings.allowed_origins
        self._cross_origin = cross_origin_headers(settings.allowed_origins)

    def shutdown(self) -> None:
        """End the streams of the process at once: the server waits for its connections before the lifespan ends."""
        self.app_state["api"].events.close()
        super().shutdown()

    def begin_request(self, fields: dict[bytes, bytes]) -> None:
        """Make a plain request the `cycle`; start the application for any other."""
        content_type = fields.get(b"content-type", b"")
        if (
            (match := _PATH.fullmatch(self.url)) is not None
            and (coupon_id := int(match[1])) <= MAX_ID
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and len(fields) == len(self.headers)
            and b"content-length" in fields
            and (content_type == _PLAIN_CONTENT_TYPE or is_json(content_type.decode("latin-1")))
            and _NOT_PLAIN.isdisjoint(fields)
            and not self.pipeline
            and (self.cycle is None or self.cycle.response_complete)
            and not self.flow.write_paused
        ):
            request = PlainRequest(self, coupon_id, keep_alive=self.parser.should_keep_alive())
            request.caller = self._find_caller(fields)
            if self._cross_origin is not None:
                request.cross_origin = self._cross_origin.of(fields)
            self.cycle = request  # type: ignore[assignment]
        else:
            super().begin_request(fields)

    def _find_caller(self, fields: dict[bytes, bytes]) -> Caller | CouponsError:
        """Return the caller of a plain request; or why it is refused, once its body has arrived."""
        try:
            return authorize(self.app_state["api"].authenticator, fields, "POST", _NEEDED, self._allowed_origins)
        except CouponsError as error:
            return error

    def end_request(self) -> None:
        """Submit a plain request, whose body is complete."""
        request: Any = self.cycle
        if type(request) is not PlainRequest:
            return
        try:
            if isinstance(request.caller, CouponsError):
                raise request.caller
            request.user_id = request.caller.choose_user(decode(request.body, NewIssuance).user)
        except Exception as error:  # noqa: BLE001  # rendered as the application's exception handlers do
            request.fail(error)
            return
        api = self.app_state["api"]
        if api.client_addresses:
            request.address = api.client_addresses.find(self.client, self.headers)
        api.acceptor.submit(request)

    def rejection_headers(self) -> RawHeaders:
        """Let a page of an allowed site read why its request was rejected, if its Origin has arrived."""
        return () if self._cross_origin is None else self._cross_origin.of(dict(self.headers or ()))
