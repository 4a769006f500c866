"""Routes for liveness, readiness and metrics."""

import asyncio

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool

from service.api.request_parsing import JSON, ApiDeps
from service.api.schemas.base import encode
from service.domain.errors import Unavailable
from service.metrics import render
from service.usecases import alerts

router = APIRouter(tags=["health"])
_KAFKA_TIMEOUT_SECONDS = 1.0


@router.get("/healthz")
async def lives() -> dict[str, str]:
    """Return 200 while the process answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def ready(api: ApiDeps) -> Response:
    """Return 503 without Kafka or PostgreSQL, and 200 otherwise.

    Without Redis the API is ready but degraded. An alert does not change readiness; it requires action by an
    operator.
    """
    kafka, postgresql, redis = await asyncio.gather(
        run_in_threadpool(api.producer.require_reachable, _KAFKA_TIMEOUT_SECONDS),
        run_in_threadpool(alerts.check_database, api.settings, api.engine, api.undecided, api.log_watch),
        api.gate.ping(),
        return_exceptions=True,
    )
    for result in (kafka, postgresql, redis):
        if isinstance(result, BaseException) and not isinstance(result, Unavailable):
            raise result
    required = {"kafka": kafka, "postgresql": postgresql}
    faults = [part for part, result in required.items() if isinstance(result, Unavailable)]
    if api.log_watch.fault:
        faults.append("log")
    body = {
        "ready": not faults,
        "faults": faults,
        "degraded": ["redis"] if isinstance(redis, Unavailable) else [],
        "alerts": {} if isinstance(postgresql, BaseException) else postgresql,
    }
    return Response(encode(body), 503 if faults else 200, media_type=JSON)


@router.get("/metrics", include_in_schema=False)
async def metrics() -> Response:
    """Return the metrics of all processes that share this port in Prometheus's text format."""
    return Response(await run_in_threadpool(render), media_type=CONTENT_TYPE_LATEST)
