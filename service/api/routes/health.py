"""Routes for liveness, readiness, alerts and metrics."""

import asyncio

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool

from service.api.authorization import CallerDep
from service.api.request_parsing import JSON, ApiDeps
from service.api.schemas.alerts import alerts_view
from service.api.schemas.health import LivenessView, readiness_view
from service.metrics import Exporter
from service.scrape import render
from service.server.responses import encode
from service.usecases.readiness import readiness_values

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def lives() -> Response:
    """Return 200 while the process answers."""
    return Response(encode(LivenessView("ok")), media_type=JSON)


@router.get("/readyz")
async def ready(api: ApiDeps, caller: CallerDep) -> Response:
    """Return 503 without Kafka, or without both PostgreSQL and Redis; 200 otherwise.

    Without one of PostgreSQL and Redis the API is ready but degraded. An alert does not change readiness; it requires
    action by an operator. Alerts and reasons are shown to operators only.
    """
    readiness = await api.readiness.check()
    body = encode(readiness_view(readiness, caller))
    return Response(body, 503 if readiness.faults else 200, media_type=JSON)


@router.get("/alerts")
async def alerts(api: ApiDeps) -> Response:
    """Return the active alerts of the whole system, with their causes in words.

    This process observes the system every two seconds, and an alert is active within 15 seconds of its cause. The names
    are those of Prometheus's rules, which leave out effects in the same way. `observed_at` is the time of the last
    observation; older than six seconds, the state is not known.
    """
    return Response(encode(alerts_view(api.system_alerts.active(), api.system_alerts.observed_at)), media_type=JSON)


@router.get("/metrics")
async def metrics(api: ApiDeps) -> Response:
    """Return the metrics of all processes that share this port in Prometheus's text format.

    Metrics of a part that does not answer within a second are absent.
    """
    readiness, values = await asyncio.gather(api.readiness.check(), run_in_threadpool(api.system_values.read))
    text = await run_in_threadpool(render, {**values, **readiness_values(readiness)}, Exporter.API)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
