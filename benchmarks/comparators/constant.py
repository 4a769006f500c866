"""The server's limit: the ASGI server as the product runs it, answering a constant from a plain FastAPI route."""

import os

import uvicorn
from fastapi import FastAPI, Response

from service.api.bodies.form import encode
from service.api.bodies.issuances import receipt_view
from service.domain.request_id import RequestIds
from service.usecases.accept import Receipt

_NAME = RequestIds([b"constant"]).mint(1, 1, 0)
_BODY = encode(receipt_view(Receipt(_NAME, 1, 1, 0)))
_HEADERS = {"Location": f"/issuances/{_NAME}"}

app = FastAPI()


@app.get("/readyz")
async def ready() -> dict[str, str]:
    """Always."""
    return {"status": "ready"}


@app.post("/coupons/1/issuances")
async def constant() -> Response:
    """A receipt's bytes; the body is not read."""
    return Response(_BODY, 202, _HEADERS, "application/json")


def serve(application: FastAPI) -> None:
    """Runs an application as `service.api` runs its own."""
    port = int(os.environ["API_PORT"])
    uvicorn.run(application, host="127.0.0.1", port=port, log_config=None, access_log=False, server_header=False)


if __name__ == "__main__":
    serve(app)
