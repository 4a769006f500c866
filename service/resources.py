"""Builds the clients and use cases of every process; nothing connects on import."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import sleep

from sqlalchemy import Engine

from service.clock import jitter, now_ms
from service.config import Settings
from service.domain.errors import Unavailable
from service.domain.request_id import RequestIds
from service.domain.retry import backoff_seconds
from service.gate.async_gate import AsyncGate
from service.gate.client import build_async_client, build_client
from service.gate.gate_admin import GateAdmin
from service.log import get_logger
from service.log_events import LogEvent
from service.store import engine, logs, schema
from service.store.logs import Log
from service.stream import clients, topics
from service.stream.codec import RecordReader
from service.stream.producer import RequestProducer
from service.stream.readiness import LogReadiness
from service.stream.topics import Topic
from service.usecases.accept import IssuanceAcceptor
from service.usecases.append_tracker import AppendTracker
from service.usecases.coupon_ids import CouponIds
from service.usecases.coupons import CouponService
from service.usecases.fill_pool import FillPool
from service.usecases.gate_fallback import DatabaseGate
from service.usecases.gate_fill import GateFiller
from service.usecases.log_recovery import LogRecovery
from service.usecases.log_watch import LogWatch
from service.usecases.lookup import Lookup
from service.usecases.readiness import ReadinessCheck
from service.usecases.recover import Recoverer
from service.usecases.replay import DeadLetterService
from service.usecases.undecided import UndecidedPartitions
from service.verification.verify import Verifier

_log = get_logger(__name__)
_FLUSH_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Resources:
    """What every process uses: the database, the open log, the decoder of records and the gate's admin client."""

    settings: Settings
    engine: Engine
    #: started by the processes that accept or decide; elsewhere it holds the open log as of the start
    log_watch: LogWatch
    reader: RecordReader
    gate_admin: GateAdmin

    @property
    def log_id(self) -> int:
        """The id of the open log."""
        return self.log_watch.log.id

    def close(self) -> None:
        """Close the database connections."""
        self.engine.dispose()


@dataclass(frozen=True, slots=True)
class ApiResources:
    """What the API's routes use."""

    settings: Settings
    gate: AsyncGate
    acceptor: IssuanceAcceptor
    lookup: Lookup
    coupons: CouponService
    dead_letters: DeadLetterService
    verifier: Verifier
    readiness: ReadinessCheck


def migrate(settings: Settings) -> None:
    """Upgrade the database schema, create the missing topics, open the first log; raise Misconfigured or Unavailable.

    A topic that was created anew is not adopted: `coupons log adopt` does that.
    """
    store = engine.build(settings.database_url, "migrate", connections=1)
    schema.migrate(store)
    topics.create_missing(settings)
    _open_first_log(settings, store)


def open_resources(settings: Settings, name: str, connections: int = 5) -> Resources:
    """Connect to PostgreSQL and Kafka, check schema and topics, and build the clients.

    PostgreSQL shows `name` for the connections. Raises Misconfigured or Unavailable. If the topic is not the open log,
    the processes start all the same and report it.
    """
    store = engine.build(settings.database_url, name, connections)
    with engine.in_transaction(store) as tx:
        schema.require_current(tx)
        log = logs.find_open(tx)
    if log is None:
        log = _open_first_log(settings, store)
    watch = LogWatch(settings, store, log)
    watch.compare()
    if watch.fault is None:
        topics.check(settings)
    reader = RecordReader(request_ids(settings), settings.topic_partitions, faults=settings.fault_injection)
    return Resources(settings, store, watch, reader, GateAdmin(build_client(settings.redis_url)))


def _open_first_log(settings: Settings, store: Engine) -> Log:
    topic = topics.describe(topics.build_admin(settings), Topic.ISSUE_COUPON)
    with engine.in_transaction(store) as tx:
        return logs.ensure_first(tx, Topic.ISSUE_COUPON, topic.id, "migrate")


def wait_for_resources(settings: Settings, name: str, connections: int = 5) -> Resources:
    """Call open_resources until PostgreSQL and Kafka answer, and log what is missing; raise Misconfigured."""
    attempts = 0
    while True:
        try:
            return open_resources(settings, name, connections)
        except Unavailable as error:
            attempts += 1
            _log.warning(LogEvent.START_WAITING, reason=str(error))
            sleep(backoff_seconds(attempts, initial_seconds=0.5, max_seconds=5, jitter=jitter()))


@asynccontextmanager
async def open_api_resources(resources: Resources) -> AsyncIterator[ApiResources]:
    """Open the API's own clients, and close them in reverse order at the end; `resources` are closed as well."""
    settings = resources.settings
    redis = build_async_client(settings.redis_url)
    producer = RequestProducer(clients.build_producer(settings))
    gate = AsyncGate(redis)
    ids = request_ids(settings)
    filler = gate_filler(resources)
    fill_pool = FillPool(filler)
    acceptor = IssuanceAcceptor(
        gate,
        DatabaseGate(resources.engine),
        CouponIds(resources.engine),
        fill_pool,
        AppendTracker(gate, producer, settings.topic_partitions),
        ids,
        resources.log_watch,
        now_ms,
    )
    # A verification keeps its connection for as long as it reads the log, so it gets a pool of its own: one at a time.
    verification_engine = engine.build(settings.database_url, "api verification", connections=1)
    _log.warning(LogEvent.AUTHENTICATION_OFF)
    resources.log_watch.start()
    try:
        yield ApiResources(
            settings,
            gate,
            acceptor,
            Lookup(settings, resources.engine, ids, filler, resources.gate_admin),
            coupon_service(resources),
            dead_letter_service(resources, "api"),
            verifier(resources, verification_engine),
            ReadinessCheck(
                settings,
                resources.engine,
                gate,
                producer,
                LogReadiness(topics.build_admin(settings), settings.topic_min_insync_replicas),
                resources.log_watch,
                UndecidedPartitions(settings, resources.engine, resources.log_watch),
            ),
        )
    finally:
        await acceptor.drain()
        if unacknowledged := producer.close(_FLUSH_TIMEOUT_SECONDS):
            _log.error(LogEvent.PRODUCER_UNACKNOWLEDGED, records=unacknowledged)
        fill_pool.close()
        await acceptor.close()
        await redis.aclose()
        resources.log_watch.close()
        verification_engine.dispose()
        resources.close()


def coupon_service(resources: Resources) -> CouponService:
    """Build the use cases on coupons."""
    return CouponService(
        resources.settings,
        resources.engine,
        resources.gate_admin,
        gate_filler(resources),
        recoverer(resources),
    )


def recoverer(resources: Resources) -> Recoverer:
    """Build the use case that decides held and standby requests."""
    return Recoverer(resources.engine, resources.reader, notices=bool(resources.settings.webhook_url))


def dead_letter_service(resources: Resources, via: str) -> DeadLetterService:
    """Build the use cases on dead letters; the audit trail records `via`: api or cli."""
    notices = bool(resources.settings.webhook_url)
    return DeadLetterService(resources.engine, resources.reader, resources.gate_admin, notices=notices, via=via)


def verifier(resources: Resources, store: Engine | None = None) -> Verifier:
    """Build the verifier of the promises; it uses `store` instead of the process's engine, if given."""
    return Verifier(
        resources.settings,
        store or resources.engine,
        request_ids(resources.settings),
        resources.reader,
    )


def log_recovery(resources: Resources) -> LogRecovery:
    """Build the use cases of `coupons log`."""
    return LogRecovery(
        resources.settings,
        resources.engine,
        request_ids(resources.settings),
        resources.reader,
        resources.gate_admin,
    )


def gate_filler(resources: Resources) -> GateFiller:
    """Build the use case that fills the gate for a coupon."""
    return GateFiller(resources.settings, resources.engine, resources.reader, resources.gate_admin)


def request_ids(settings: Settings) -> RequestIds:
    """Build the encoder and decoder of request ids."""
    return RequestIds(settings.mac_keys)
