"""The AS-IS system's API: a plain FastAPI route with one Lua call that checks and queues a request."""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, HTTPException, Path
from pydantic import BaseModel, Field
from redis.asyncio import Redis

from benchmarks.comparators.as_is_queue import ENQUEUE_SCRIPT, issued_key, quantity_key, queue_key
from benchmarks.comparators.constant_server import ready, serve

_MAX_ID = 2**63 - 1
_redis = Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1"))
_enqueue = _redis.register_script(ENQUEUE_SCRIPT)


class IssuanceRequest(BaseModel):
    """Body of a request for a coupon."""

    user_id: int = Field(ge=1, le=_MAX_ID)


@asynccontextmanager
async def _lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield
    await _redis.aclose()


app = FastAPI(lifespan=_lifespan)
app.get("/readyz")(ready)


@app.post("/coupons/{coupon_id}/issuances", status_code=202)
async def request_issuance(
    coupon_id: Annotated[int, Path(ge=1, le=_MAX_ID)], body: IssuanceRequest
) -> dict[str, object]:
    """Queue the request, or refuse it with 409 and the reason."""
    keys = [queue_key(coupon_id), issued_key(coupon_id), quantity_key(coupon_id)]
    verdict: bytes = await _enqueue(keys=keys, args=[body.user_id, int(time.time() * 1000)])
    if verdict != b"queued":
        raise HTTPException(409, verdict.decode())
    return {"coupon_id": coupon_id, "user_id": body.user_id, "state": "queued"}


if __name__ == "__main__":
    serve(app)
