"""Answers plain requests straight from the HTTP parser: requests for coupons, and look-ups of their states.

A request is plain if its method and path, and the content type of an issuance, are the usual ones, its body has a
declared length, no header is repeated, and nothing in it needs the framework. Every other request goes to FastAPI's
route, which calls the same use case and renders the same response.
"""

import re
from collections.abc import Mapping
from typing import Any

from service import tracing
from service.api.authorization import authorize, permissions
from service.api.cors import cross_origin_headers
from service.api.plain_exchange import PlainExchange
from service.api.plain_issuance import PlainIssuance
from service.api.plain_lookup import PlainLookup
from service.api.request_parsing import JSON, is_json
from service.domain.caller import Caller
from service.domain.errors import CouponsError
from service.limits import MAX_ID
from service.server.guarded_protocol import GuardedProtocol
from service.server.responses import RenderedResponse
from service.server.root_path import root_paths

_ISSUANCES = re.compile(rb"/coupons/([1-9][0-9]{0,18})/issuances")
#: the form of every request id
_ISSUANCE = re.compile(rb"/issuances/([A-Za-z0-9_-]{60})")
#: the routes of these paths, by method
_ROUTES = {b"POST": "/coupons/{coupon_id}/issuances", b"GET": "/issuances/{request_id}"}
_PERMISSIONS = permissions(public_docs=False)
#: what they require, by method
_NEEDED = {method: _PERMISSIONS[method.decode(), route] for method, route in _ROUTES.items()}
_TRACEPARENT = tracing.TRACEPARENT.encode()
_PLAIN_CONTENT_TYPE = JSON.encode()
#: headers that need the framework, or a part of the server that knows them
_NOT_PLAIN = frozenset((b"transfer-encoding", b"content-encoding", b"expect", b"fault"))


class CouponProtocol(GuardedProtocol):
    """One connection to the API."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        settings = self.app_state["api"].settings
        self.host_names = settings.host_names
        self.root_paths = root_paths(settings.root_path, settings.trusted_proxies)
        self.keep_alive_seconds = settings.keep_alive_seconds
        self._allowed_origins = settings.allowed_origins
        self._cross_origin = cross_origin_headers(settings.allowed_origins)
        self._tracer = tracing.active_tracer()

    def shutdown(self) -> None:
        """End the streams of the process at once: the server waits for its connections before the lifespan ends."""
        self.app_state["api"].close_streams()
        super().shutdown()

    def begin_request(self, fields: dict[bytes, bytes]) -> None:
        """Make a plain request the `cycle`; start the application for any other."""
        exchange = self._plain_exchange(fields)
        if exchange is None:
            super().begin_request(fields)
            return
        exchange.caller = self._find_caller(fields)
        exchange.root_path = self.find_root_path(fields)
        if self._cross_origin is not None:
            exchange.cross_origin = self._cross_origin.of(fields)
        if self._tracer is not None:
            method = self.parser.get_method()
            exchange.trace = self._tracer.begin_request(fields.get(_TRACEPARENT), method, _ROUTES[method], self.url)
        self.cycle = exchange  # type: ignore[assignment]

    def _plain_exchange(self, fields: dict[bytes, bytes]) -> PlainExchange | None:
        """Return what answers the request if it is plain, and alone on its connection."""
        if (
            self.parser.get_http_version() != "1.1"
            or len(fields) != len(self.headers)
            or not _NOT_PLAIN.isdisjoint(fields)
            or self.pipeline
            or (self.cycle is not None and not self.cycle.response_complete)
            or self.flow.write_paused
        ):
            return None
        method, has_body = self.parser.get_method(), b"content-length" in fields
        if method == b"POST" and has_body and (match := _ISSUANCES.fullmatch(self.url)):
            content_type = fields.get(b"content-type", b"")
            is_plain = content_type == _PLAIN_CONTENT_TYPE or is_json(content_type.decode("latin-1"))
            if is_plain and (coupon_id := int(match[1])) <= MAX_ID:
                return PlainIssuance(self, coupon_id, keep_alive=self.parser.should_keep_alive())
        elif method == b"GET" and not has_body and (match := _ISSUANCE.fullmatch(self.url)):
            tags = fields.get(b"if-none-match")
            if_none_match = None if tags is None else tags.decode("latin-1")
            return PlainLookup(self, match[1].decode(), if_none_match, keep_alive=self.parser.should_keep_alive())
        return None

    def _find_caller(self, fields: dict[bytes, bytes]) -> Caller | CouponsError:
        """Return the caller of a plain request; or why it is refused, once its body has arrived."""
        method = self.parser.get_method()
        try:
            return authorize(
                self.app_state["api"].authenticator, fields, method.decode(), _NEEDED[method], self._allowed_origins
            )
        except CouponsError as error:
            return error

    def end_request(self) -> None:
        """Submit a plain request, whose body is complete."""
        exchange: Any = self.cycle
        if not isinstance(exchange, PlainExchange):
            return
        try:
            if isinstance(exchange.caller, CouponsError):
                raise exchange.caller
            exchange.submit(self, exchange.caller)
        except Exception as error:  # noqa: BLE001  # rendered as the application's exception handlers do
            exchange.fail(error)

    def complete_rejection(self, response: RenderedResponse, fields: Mapping[bytes, bytes]) -> RenderedResponse:
        """Let a page of an allowed site read why its request was rejected, if its Origin has arrived."""
        completed = super().complete_rejection(response, fields)
        if self._cross_origin is not None:
            completed.headers.extend(self._cross_origin.of(fields))
        return completed
