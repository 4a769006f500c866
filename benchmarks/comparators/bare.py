"""The server's limit: a constant answered by a bare ASGI function, with nothing around it."""

from typing import Any

from benchmarks.comparators.constant import BODY, HEADERS, serve

_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
_FIELDS = [*_HEADERS, (b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]
_STATUS = {"POST": 202, "GET": 200}


async def application(scope: Any, _: Any, send: Any) -> None:
    """A receipt's bytes for whatever is posted, which is not read; ready when it is asked."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": _STATUS[scope["method"]], "headers": _FIELDS})
        await send({"type": "http.response.body", "body": BODY})


if __name__ == "__main__":
    serve(application)
