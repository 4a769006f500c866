"""Requests that the server answers itself, before any route sees them."""

from http import HTTPStatus

from service.limits import MAX_BODY_BYTES, MAX_HEAD_BYTES
from service.server.responses import RenderedResponse, problem_response


class Rejection(Exception):
    """A request that the server answers itself; the connection ends."""

    def __init__(self, status: HTTPStatus, detail: str, code: str = "", *headers: tuple[bytes, bytes]) -> None:
        """`code` is that of the problem; default: the name of the status."""
        super().__init__(detail)
        self.status = status
        self.code = code or status.name.lower()
        self.headers = headers

    def response(self) -> RenderedResponse:
        """Render problem details that end the connection."""
        return problem_response(self.status, self.code, str(self), [*self.headers, (b"connection", b"close")])


def too_long() -> Rejection:
    """Return the rejection of a request line and headers beyond their limit."""
    detail = f"The request line and headers must not exceed {MAX_HEAD_BYTES} bytes."
    return Rejection(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail)


def too_large() -> Rejection:
    """Return the rejection of a body beyond its limit."""
    return Rejection(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body must not exceed {MAX_BODY_BYTES} bytes.")
