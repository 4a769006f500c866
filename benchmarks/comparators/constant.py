"""A constant answered from a plain FastAPI route, by the ASGI server as the product runs it."""

import os
from typing import Any

import uvicorn
from fastapi import FastAPI, Response

from service.api.schemas.base import encode
from service.api.schemas.issuances import receipt_view
from service.api.server import tune_garbage_collector
from service.domain.request_id import RequestIds
from service.usecases.accept import Receipt

_NAME = RequestIds([b"constant"]).mint(1, 1, 0)
BODY = encode(receipt_view(Receipt(_NAME, 1, 1, 0)))
HEADERS = {"Location": f"/issuances/{_NAME}"}

app = FastAPI()


@app.get("/readyz")
async def ready() -> dict[str, str]:
    """Always."""
    return {"status": "ready"}


@app.post("/coupons/1/issuances")
async def constant() -> Response:
    """A receipt's bytes; the body is not read."""
    return Response(BODY, 202, HEADERS, "application/json")


def serve(application: Any) -> None:
    """Runs an ASGI application as `service.api` runs its own."""
    tune_garbage_collector()
    port = int(os.environ["API_PORT"])
    uvicorn.run(application, host="127.0.0.1", port=port, log_config=None, access_log=False, server_header=False)


if __name__ == "__main__":
    serve(app)
