"""Whether the process lives, whether it can do its work, and its numbers."""

import asyncio
from typing import NamedTuple

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool

from service.api.request_parsing import ApiDeps
from service.api.schemas.base import encode
from service.domain.errors import Unavailable
from service.metrics import render
from service.resources import ApiResources
from service.store.engine import in_transaction
from service.usecases import alerts
from service.usecases.alerts import Alert

router = APIRouter(tags=["health"])
_SECONDS = 1.0


@router.get("/healthz")
async def lives() -> dict[str, str]:
    """200 while the process answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def ready(api: ApiDeps) -> Response:
    """503 without Kafka or PostgreSQL; without Redis 200, degraded; an alert needs eyes but stops nothing."""
    kafka, postgresql, redis = await asyncio.gather(
        run_in_threadpool(_kafka, api), run_in_threadpool(_postgresql, api), _redis(api)
    )
    faults = [fault for fault in (kafka, postgresql.fault) if fault]
    body = {"ready": not faults, "faults": faults, "degraded": [redis] if redis else [], "alerts": postgresql.alerts}
    return Response(encode(body), 503 if faults else 200, media_type="application/json")


@router.get("/metrics", include_in_schema=False)
async def metrics() -> Response:
    """The numbers of this process, or of all that share the port, in Prometheus's text form."""
    return Response(await run_in_threadpool(render), media_type=CONTENT_TYPE_LATEST)


def _kafka(api: ApiResources) -> str | None:
    try:
        api.producer.require_reachable(_SECONDS)
    except Unavailable:
        return "kafka"
    return None


class _Database(NamedTuple):
    fault: str | None
    alerts: dict[Alert, str]


def _postgresql(api: ApiResources) -> _Database:
    try:
        with in_transaction(api.engine) as tx:
            died = alerts.count_recent_deaths(tx)
    except Unavailable:
        return _Database("postgresql", {})
    return _Database(None, alerts.active_alerts(api.settings, died))


async def _redis(api: ApiResources) -> str | None:
    try:
        await api.gate.ping()
    except Unavailable:
        return "redis"
    return None
