"""Readiness of the API: whether Kafka, PostgreSQL and Redis can do what the API's work needs of them."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, NamedTuple, TypeVar

from sqlalchemy import Engine

from service.config import Settings
from service.domain.errors import Unavailable
from service.domain.system_observation import Part
from service.gate.async_gate import AsyncGate
from service.metrics import ALERT_ACTIVE, PART_READY, ByLabels, Metric, Values
from service.store import schema
from service.store.engine import in_transaction
from service.stream.producer import RequestProducer
from service.stream.readiness import LogReadiness
from service.usecases import alerts
from service.usecases.key_register import KeyRegister
from service.usecases.log_watch import LogWatch
from service.usecases.undecided import UndecidedPartitions

#: a part is checked at most this often, however many probes ask
_INTERVAL_SECONDS = 1.0
#: a part that has not answered after this time is unavailable
_TIMEOUT_SECONDS = 1.0
#: the parts that are checked, by the label `part` of metrics
PARTS = ("kafka", "postgresql", "redis")

Result = TypeVar("Result")


class Readiness(NamedTuple):
    """Whether the API can accept requests, and what is wrong otherwise."""

    #: parts without which no request can be accepted
    faults: list[str]
    #: parts without which requests are accepted, in a slower way or for some coupons only
    degraded: list[str]
    #: active alerts with their reasons; none while PostgreSQL is unavailable
    alerts: dict[str, str]
    #: what is wrong with each part in faults or degraded
    reasons: dict[str, str]


def readiness_values(readiness: Readiness) -> Values:
    """Return which parts do what accepts need, and which alerts are active, for a scrape.

    The alerts are absent while PostgreSQL is unavailable: they are not known then.
    """
    values: dict[Metric, ByLabels] = {PART_READY: {(part,): float(part not in readiness.reasons) for part in PARTS}}
    if Part.POSTGRESQL not in readiness.reasons:
        values[ALERT_ACTIVE] = {(alert,): float(alert in readiness.alerts) for alert in alerts.Alert}
    return values


class ReadinessCheck:
    """Checks every part over the clients with which the API works."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        gate: AsyncGate,
        producer: RequestProducer,
        log: LogReadiness,
        log_watch: LogWatch,
        undecided: UndecidedPartitions,
        key_register: KeyRegister,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._producer = producer
        self._log = log
        self._log_watch = log_watch
        self._undecided = undecided
        self._key_register = key_register
        self._kafka = _RepeatedCheck("Kafka", lambda: asyncio.to_thread(self._check_kafka))
        self._postgresql = _RepeatedCheck("PostgreSQL", lambda: asyncio.to_thread(self._check_postgresql))
        self._redis = _RepeatedCheck("Redis", gate.require_writable)

    async def check(self) -> Readiness:
        """Check all parts at the same time.

        Kafka is required, and its topic must be the open log. Of PostgreSQL and Redis one is enough: the gate accepts
        requests for the coupons that it has without the database, and the database decides about admission without the
        gate.
        """
        kafka, postgresql, redis = await asyncio.gather(
            self._kafka.result(), self._postgresql.result(), self._redis.result()
        )
        results = dict(zip(PARTS, (kafka, postgresql, redis), strict=True))
        reasons = {part: str(result) for part, result in results.items() if isinstance(result, Unavailable)}
        faults = [part for part in reasons if part == "kafka" or {"postgresql", "redis"} <= reasons.keys()]
        if other_log := self._log_watch.fault:
            faults.append("log")
            reasons["log"] = other_log
        degraded = [part for part in reasons if part not in faults]
        return Readiness(faults, degraded, {} if isinstance(postgresql, Unavailable) else postgresql, reasons)

    def _check_kafka(self) -> None:
        # half of the time after which a record without an acknowledgement counts as failed
        self._producer.require_acknowledging(self._settings.produce_timeout_ms / 2000)
        self._log.require_appendable(_TIMEOUT_SECONDS)

    def _check_postgresql(self) -> dict[str, str]:
        with in_transaction(self._engine) as tx:
            schema.require_writable(tx, "api")
        active = alerts.check_database(
            self._settings, self._engine, self._undecided, self._log_watch, self._key_register
        )
        return {alert.value: why for alert, why in active.items()}


class _RepeatedCheck(Generic[Result]):
    """Runs one check at a time; a result counts for one second, and callers share the check that is running."""

    def __init__(self, part: str, check: Callable[[], Awaitable[Result]]) -> None:
        self._part = part
        self._check = check
        self._began = 0.0
        self._running: asyncio.Future[Result] | None = None

    async def result(self) -> Result | Unavailable:
        """Return the check's result, or why the part is unavailable; raise what else the check raises.

        A check that does not end is not started again: each would hold another connection of the pool.
        """
        if self._running is None or (self._running.done() and time.monotonic() > self._began + _INTERVAL_SECONDS):
            self._began = time.monotonic()
            self._running = asyncio.ensure_future(self._check())
        await asyncio.wait([self._running], timeout=_TIMEOUT_SECONDS)
        if not self._running.done():
            return Unavailable(self._part, f"no answer for {time.monotonic() - self._began:.1f} s")
        try:
            return self._running.result()
        except Unavailable as error:
            return error
