"""Builds every client of a process, in one place; nothing connects on import."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import sleep
from typing import Any

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from sqlalchemy import Engine

from service.clock import jitter, now_ms
from service.config import Settings
from service.domain.errors import Unavailable
from service.domain.request_id import RequestIds
from service.domain.retry import backoff_seconds
from service.gate.async_gate import AsyncGate
from service.gate.gate_admin import GateAdmin
from service.store import checkpoints, engine, schema
from service.stream import clients, topics
from service.stream.codec import RecordReader
from service.stream.producer import RequestProducer
from service.stream.topics import Topic
from service.usecases.accept import IssuanceAcceptor
from service.usecases.append_tracker import AppendTracker
from service.usecases.coupons import CouponService
from service.usecases.gate_fallback import DatabaseGate
from service.usecases.gate_fill import GateFiller
from service.usecases.lookup import Lookup
from service.usecases.recover import Recoverer
from service.usecases.replay import DeadLetterService
from service.verification.verify import Verifier

_log = logging.getLogger(__name__)
_REDIS_SECONDS = 1.0
_FLUSH_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Resources:
    """What every process has: the database, the log's number in it, the reader of records, the gate's upkeep."""

    settings: Settings
    engine: Engine
    log_id: int
    reader: RecordReader
    gate_admin: GateAdmin

    def close(self) -> None:
        """Gives the connections back."""
        self.engine.dispose()


@dataclass(frozen=True, slots=True)
class ApiResources:
    """What the API's handlers use."""

    settings: Settings
    engine: Engine
    gate: AsyncGate
    acceptor: IssuanceAcceptor
    lookup: Lookup
    gate_filler: GateFiller
    coupons: CouponService
    dead_letters: DeadLetterService
    verifier: Verifier
    producer: RequestProducer


def open_resources(settings: Settings, name: str, connections: int = 5) -> Resources:
    """Connects to the database and to Kafka's metadata once; raises Misconfigured or Unavailable when it cannot."""
    store = engine.build(settings.database_url, name, connections)
    with engine.in_transaction(store) as tx:
        schema.require_current(tx)
    topics.ensure_topics(settings)
    life = topics.topic_id(settings, Topic.ISSUE_COUPON)
    with engine.in_transaction(store) as tx:
        log = checkpoints.ensure_log(tx, Topic.ISSUE_COUPON, life)
    reader = RecordReader(request_ids(settings), settings.topic_partitions, faults=settings.fault_injection)
    return Resources(settings, store, log, reader, GateAdmin(Redis.from_url(settings.redis_url, **_redis_options())))


def wait_for_resources(settings: Settings, name: str, connections: int = 5) -> Resources:
    """build_common, once the database and Kafka are there; says what it waits for. Raises Misconfigured."""
    attempts = 0
    while True:
        try:
            return open_resources(settings, name, connections)
        except Unavailable as error:
            attempts += 1
            _log.warning("waiting: %s", error)
            sleep(backoff_seconds(attempts, initial_seconds=0.5, max_seconds=5, jitter=jitter()))


@asynccontextmanager
async def open_api_resources(resources: Resources) -> AsyncIterator[ApiResources]:
    """The API's clients, opened for as long as it runs and closed in mirror order."""
    settings = resources.settings
    redis = AsyncRedis.from_url(settings.redis_url, **_redis_options())
    writer = RequestProducer(clients.build_producer(settings))
    gate = AsyncGate(redis)
    ids = request_ids(settings)
    filler = gate_filler(resources)
    acceptor = IssuanceAcceptor(
        gate,
        DatabaseGate(resources.engine),
        filler,
        AppendTracker(gate, writer, settings.topic_partitions),
        ids,
        now_ms,
    )
    lookup = Lookup(settings, resources.engine, resources.log_id, ids, filler, resources.gate_admin)
    one_proof = engine.build(settings.database_url, "api proof", connections=1)
    _log.warning("authentication is off: every caller may do everything")
    try:
        yield ApiResources(
            settings,
            resources.engine,
            gate,
            acceptor,
            lookup,
            filler,
            CouponService(settings, resources.engine, resources.log_id, resources.gate_admin, recoverer(resources)),
            dead_letter_service(resources, "api"),
            verifier(resources, one_proof),
            writer,
        )
    finally:
        if left := writer.close(_FLUSH_SECONDS):
            _log.error("%s records were not acknowledged before the end; their callers got no 202", left)
        await redis.aclose()
        one_proof.dispose()
        resources.close()


def recoverer(resources: Resources) -> Recoverer:
    """Decides what is held or on standby."""
    return Recoverer(resources.engine, resources.reader, notices=bool(resources.settings.webhook_url))


def dead_letter_service(resources: Resources, via: str) -> DeadLetterService:
    """Deals with dead letters; `via` is the door: api or cli."""
    return DeadLetterService(resources.engine, resources.reader, notices=bool(resources.settings.webhook_url), via=via)


def verifier(resources: Resources, store: Engine | None = None) -> Verifier:
    """Proves the promises; a proof takes a connection for as long as the log is, so an API gives it a `store` apart."""
    return Verifier(
        resources.settings,
        store or resources.engine,
        resources.log_id,
        request_ids(resources.settings),
        resources.reader,
    )


def gate_filler(resources: Resources) -> GateFiller:
    """Fills cold gates."""
    return GateFiller(resources.settings, resources.engine, resources.log_id, resources.reader, resources.gate_admin)


def request_ids(settings: Settings) -> RequestIds:
    """The mint of request ids."""
    return RequestIds(settings.mac_keys)


def _redis_options() -> dict[str, Any]:
    return {
        "socket_timeout": _REDIS_SECONDS,
        "socket_connect_timeout": _REDIS_SECONDS,
        "socket_keepalive": True,
        "health_check_interval": 10,
    }
