"""The ASGI server's limit: a constant 202 response, from a plain FastAPI route or from a bare ASGI function.

`python -m benchmarks.comparators.constant_server fastapi|bare`, with the port in API_PORT. The server is run as
`service.api` runs its own.
"""

import os
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI, Response

from service.api.schemas.issuances import receipt_view
from service.api.server import tune_garbage_collector
from service.domain.request_id import RequestIds
from service.server.responses import encode
from service.usecases.accept import Receipt

_REQUEST_ID = RequestIds([b"constant"]).mint(1, 1, 0)
_BODY = encode(receipt_view(Receipt(_REQUEST_ID, 1, 1, 0)))
_HEADERS = {"Location": f"/issuances/{_REQUEST_ID}"}
_RAW_HEADERS = [
    *((name.lower().encode(), value.encode()) for name, value in _HEADERS.items()),
    (b"content-type", b"application/json"),
    (b"content-length", b"%d" % len(_BODY)),
]
_STATUS_BY_METHOD = {"POST": 202, "GET": 200}

app = FastAPI()


@app.get("/readyz")
async def ready() -> dict[str, str]:
    """Respond 200: the process is always ready."""
    return {"status": "ready"}


@app.post("/coupons/1/issuances")
async def constant() -> Response:
    """Respond with the bytes of a receipt; the request's body is not read."""
    return Response(_BODY, 202, _HEADERS, "application/json")


async def bare_app(scope: Any, _: Any, send: Any) -> None:
    """Respond with the same bytes from a bare ASGI function: 202 to POST, 200 to GET /readyz."""
    if scope["type"] == "http":
        status = _STATUS_BY_METHOD[scope["method"]]
        await send({"type": "http.response.start", "status": status, "headers": _RAW_HEADERS})
        await send({"type": "http.response.body", "body": _BODY})


def serve(application: Any) -> None:
    """Run an ASGI application as `service.api` runs its own."""
    tune_garbage_collector()
    port = int(os.environ["API_PORT"])
    uvicorn.run(application, host="127.0.0.1", port=port, log_config=None, access_log=False, server_header=False)


if __name__ == "__main__":
    serve({"fastapi": app, "bare": bare_app}[sys.argv[1]])
