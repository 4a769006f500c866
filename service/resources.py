"""Builds the clients and use cases of every process; nothing connects on import."""

import getpass
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from time import monotonic_ns, sleep

from sqlalchemy import Engine

from service.clock import jitter, now_ms, shift_ms
from service.config import Settings
from service.domain.errors import CouponsError, Misconfigured, NotPermitted, Unavailable
from service.domain.rate_limit import LimitScope, LocalLimiter
from service.domain.request_id import RequestIds
from service.domain.retry import backoff_seconds
from service.domain.ticket import Tickets
from service.gate.async_gate import AsyncGate
from service.gate.client import build_async_client, build_client
from service.gate.gate_admin import GateAdmin
from service.identity import tokens
from service.identity.key_set import KeySet
from service.identity.tokens import TokenVerifier
from service.log import get_logger
from service.log_events import LogEvent
from service.report_resources import ReportResources, open_reports
from service.server.client_address import ClientAddresses
from service.status_resources import open_status_readers
from service.store import engine, logs, schema
from service.store.logs import Log
from service.stream import clients, topics
from service.stream.codec import RecordReader
from service.stream.producer import RequestProducer
from service.stream.readiness import LogReadiness
from service.stream.topics import Topic
from service.usecases.accept import IssuanceAcceptor
from service.usecases.api_keys import ApiKeyCache, ApiKeyService
from service.usecases.append_tracker import AppendTracker
from service.usecases.authenticate import Authenticator
from service.usecases.backlog import Backlog
from service.usecases.coupon_ids import CouponIds
from service.usecases.coupon_report import CouponReporter
from service.usecases.coupons import CouponService
from service.usecases.fill_pool import FillPool
from service.usecases.gate_fallback import DatabaseGate
from service.usecases.gate_fill import GateFiller
from service.usecases.issuance_events import IssuanceEvents
from service.usecases.issuance_export import IssuanceExporter
from service.usecases.key_register import KeyRegister, KeyWatch
from service.usecases.key_removal import KeyAdministration
from service.usecases.log_recovery import LogRecovery
from service.usecases.log_watch import LogWatch
from service.usecases.lookup import Lookup
from service.usecases.operator_work import BoundedThreads, ExclusiveWork
from service.usecases.readiness import ReadinessCheck
from service.usecases.recover import Recoverer
from service.usecases.replay import DeadLetterService
from service.usecases.status_reader import StatusReader
from service.usecases.undecided import UndecidedPartitions
from service.usecases.user_requests import UserRequests
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
    key_register: KeyRegister

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
    authenticator: Authenticator
    gate: AsyncGate
    acceptor: IssuanceAcceptor
    #: None: requests are not limited by address
    client_addresses: ClientAddresses | None
    statuses: StatusReader
    #: the open event streams
    events: IssuanceEvents
    user_requests: UserRequests
    coupons: CouponService
    dead_letters: DeadLetterService
    verifier: Verifier
    readiness: ReadinessCheck
    operators: BoundedThreads
    #: lists that users may read: however many they read, operators do not wait
    user_lists: BoundedThreads
    verifications: ExclusiveWork
    #: replays of many dead letters
    replays: ExclusiveWork
    reports: ReportResources


def migrate(settings: Settings) -> None:
    """Upgrade the database schema, create the missing topics, open the first log; raise Misconfigured or Unavailable.

    With MIGRATE_DATABASE_URL the role of DATABASE_URL is granted what the service needs. A topic that was created again
    is not adopted: `coupons log adopt` does that.
    """
    store = engine.build(settings.migrate_database_url or settings.database_url, "migrate", connections=1)
    schema.migrate(store, engine.role_of(settings.database_url) if settings.migrate_database_url else None)
    topics.create_missing(settings)
    _open_first_log(settings, store)


def open_resources(settings: Settings, name: str, connections: int = 5) -> Resources:
    """Connect to PostgreSQL and Kafka, check schema, topics and Redis, and build the clients.

    PostgreSQL shows `name` for the connections. Raises Misconfigured, also if a key that signs request ids is missing,
    or Unavailable. If the topic is not the open log, the processes start all the same and report it.
    """
    with suppress(Unavailable), build_client(settings.redis_url) as redis:  # without Redis, readiness checks it later
        try:
            GateAdmin(redis).require_no_eviction()
        except NotPermitted as error:
            _log.warning(LogEvent.GATE_POLICY_UNKNOWN, reason=str(error))
    store = engine.build(settings.database_url, name, connections)
    ids = RequestIds(settings.mac_keys)
    key_register = KeyRegister(ids)
    with engine.in_transaction(store) as tx:
        schema.require_current(tx)
        key_register.compare(tx)
        log = logs.find_open(tx)
    if key_register.fault:
        raise Misconfigured([key_register.fault])
    if log is None:
        log = _open_first_log(settings, store)
    watch = LogWatch(settings, store, log)
    watch.compare()
    if watch.fault is None:
        topics.check(settings)
    reader = RecordReader(ids, settings.topic_partitions, faults=settings.fault_injection)
    return Resources(settings, store, watch, reader, GateAdmin(build_client(settings.redis_url)), key_register)


def _open_first_log(settings: Settings, store: Engine) -> Log:
    topic = topics.describe(topics.build_admin(settings), Topic.ISSUE_COUPON)
    with engine.in_transaction(store) as tx:
        return logs.ensure_first(tx, Topic.ISSUE_COUPON, topic.id, "migrate")


def wait_for_signing_resources(
    settings: Settings, name: str, connections: int = 5, *, announce_keys: bool = False
) -> Resources:
    """Call open_signing_resources until PostgreSQL and Kafka answer and the process may sign, and log why it waits.

    Raises Misconfigured.
    """
    attempts = 0
    while True:
        try:
            return open_signing_resources(settings, name, connections, announce_keys=announce_keys)
        except Unavailable as error:
            attempts += 1
            _log.warning(LogEvent.START_WAITING, reason=str(error))
            sleep(backoff_seconds(attempts, initial_seconds=0.5, max_seconds=5, jitter=jitter()))


def open_signing_resources(settings: Settings, name: str, connections: int, *, announce_keys: bool) -> Resources:
    """Open the resources of a process that signs request ids, and register its keys.

    announce_keys: whether it is an issuer, as in KeyRegister.register. Raises Misconfigured and Unavailable, also
    KeyMissing while the process may not sign.
    """
    opened = open_resources(settings, name, connections)
    try:
        with engine.in_transaction(opened.engine) as tx:
            opened.key_register.register(tx, announce=announce_keys)
    except CouponsError:
        opened.close()
        raise
    return opened


@asynccontextmanager
async def open_api_resources(resources: Resources) -> AsyncIterator[ApiResources]:
    """Open the API's own clients, and close them in reverse order at the end; `resources` are closed as well."""
    settings = resources.settings
    if settings.auth == "off":
        _log.warning(LogEvent.AUTHENTICATION_OFF)
    ids = resources.key_register.ids
    filler = gate_filler(resources)
    addresses = ClientAddresses(settings.trusted_proxy_header, settings.proxy_networks)
    # each thread takes at most one of the process's ten connections
    operators, user_lists = BoundedThreads("calls of operators", 3), BoundedThreads("lists of users", 2)
    verifications, replays = ExclusiveWork("verification"), ExclusiveWork("replay of many dead letters")
    async with AsyncExitStack() as opened:
        opened.callback(resources.close)
        # Calls that wait for a connection must not make PostgreSQL look unavailable.
        readiness_engine = opened.enter_context(_open_engine(settings, "api readiness"))
        # A verification keeps its connection for as long as it reads the log: one at a time.
        verification_engine = opened.enter_context(_open_engine(settings, "api verification"))
        for watch in (resources.log_watch, KeyWatch(resources.engine, resources.key_register)):
            watch.start()
            opened.callback(watch.close)
        authenticator = opened.enter_context(open_authenticator(settings, "api keys"))
        for threads in (operators, user_lists, replays, verifications):
            opened.callback(threads.close)
        redis = build_async_client(settings.redis_url)
        opened.push_async_callback(redis.aclose)
        gate = AsyncGate(redis, settings.rate_limits, shift_ms)
        producer = RequestProducer(clients.build_producer(settings))
        lookup = Lookup(settings, resources.engine, ids, resources.key_register, filler, resources.gate_admin)
        statuses, events = await opened.enter_async_context(open_status_readers(lookup, gate))
        yield ApiResources(
            settings,
            authenticator,
            gate,
            await opened.enter_async_context(_open_acceptor(resources, gate, producer, filler)),
            addresses if LimitScope.ADDRESS in settings.rate_limits else None,
            statuses,
            events,
            UserRequests(resources.engine),
            coupon_service(resources),
            dead_letter_service(resources),
            verifier(resources, verification_engine),
            _readiness_check(resources, readiness_engine, gate, producer),
            operators,
            user_lists,
            verifications,
            replays,
            opened.enter_context(open_reports(settings, resources.log_watch)),
        )


@asynccontextmanager
async def _open_acceptor(
    resources: Resources, gate: AsyncGate, producer: RequestProducer, filler: GateFiller
) -> AsyncIterator[IssuanceAcceptor]:
    """Build what accepts requests; at the end it answers those in progress, and `producer` is closed as well."""
    settings = resources.settings
    backlog = Backlog(settings.max_undecided, lambda: resources.log_watch.log.id)
    fill_pool = FillPool(filler)
    acceptor = IssuanceAcceptor(
        gate,
        DatabaseGate(resources.engine, LocalLimiter(settings.rate_limits, lambda: monotonic_ns() // 1000)),
        CouponIds(resources.engine),
        fill_pool,
        AppendTracker(gate, producer, settings.topic_partitions, backlog),
        resources.key_register.ids,
        resources.log_watch,
        now_ms,
    )
    try:
        yield acceptor
    finally:
        await acceptor.drain()
        if unacknowledged := producer.close(_FLUSH_TIMEOUT_SECONDS):
            _log.error(LogEvent.PRODUCER_UNACKNOWLEDGED, records=unacknowledged)
        fill_pool.close()
        await acceptor.close()


def _readiness_check(
    resources: Resources, readiness_engine: Engine, gate: AsyncGate, producer: RequestProducer
) -> ReadinessCheck:
    settings = resources.settings
    return ReadinessCheck(
        settings,
        readiness_engine,
        gate,
        producer,
        LogReadiness(topics.build_admin(settings), settings.topic_min_insync_replicas),
        resources.log_watch,
        UndecidedPartitions(settings, readiness_engine, resources.log_watch),
        resources.key_register,
    )


@contextmanager
def _open_engine(settings: Settings, name: str) -> Iterator[Engine]:
    """Build an engine with a single connection, which is closed at the end; PostgreSQL shows `name` for it."""
    built = engine.build(settings.database_url, name, connections=1)
    try:
        yield built
    finally:
        built.dispose()


@contextmanager
def open_authenticator(settings: Settings, name: str) -> Iterator[Authenticator]:
    """Build what finds out who calls, with threads and a connection to PostgreSQL, which shows `name` for it."""
    is_on = settings.auth == "on"
    with ExitStack() as opened:
        api_keys = ApiKeyCache(opened.enter_context(_open_engine(settings, name)))
        key_set = KeySet(settings.jwt_jwks_url)
        for thread in (api_keys, key_set) if is_on else ():
            thread.start()
            opened.callback(thread.close)
        yield Authenticator(
            api_keys,
            Tickets(settings.ticket_mac_keys),
            TokenVerifier(settings, key_set.find),
            settings.ticket_seconds,
            lambda: now_ms() / 1000,
            enabled=is_on,
        )


def sign_token(settings: Settings, user_id: int, valid_seconds: int) -> str:
    """Return a token for a user; raise Misconfigured without JWT_SECRET."""
    return tokens.sign(settings, user_id, valid_seconds)


def coupon_service(resources: Resources) -> CouponService:
    """Build the use cases on coupons."""
    return CouponService(
        resources.settings,
        resources.engine,
        resources.gate_admin,
        gate_filler(resources),
        recoverer(resources),
        user_of_process(),
    )


def recoverer(resources: Resources) -> Recoverer:
    """Build the use case that decides held and standby requests."""
    return Recoverer(resources.engine, resources.reader, notices=bool(resources.settings.webhook_url))


def dead_letter_service(resources: Resources) -> DeadLetterService:
    """Build the use cases on dead letters."""
    notices = bool(resources.settings.webhook_url)
    by = user_of_process()
    return DeadLetterService(resources.engine, resources.reader, resources.gate_admin, notices=notices, acted_by=by)


def verifier(resources: Resources, store: Engine | None = None) -> Verifier:
    """Build the verifier of the promises; it uses `store` instead of the process's engine, if given."""
    return Verifier(
        resources.settings,
        store or resources.engine,
        resources.key_register.ids,
        resources.reader,
    )


def coupon_reporter(resources: Resources) -> CouponReporter:
    """Build the use case that reports how a coupon was sold."""
    return CouponReporter(resources.settings, resources.engine, resources.log_watch)


def issuance_exporter(resources: Resources) -> IssuanceExporter:
    """Build the use case that exports the requests of a coupon."""
    return IssuanceExporter(resources.engine)


def log_recovery(resources: Resources) -> LogRecovery:
    """Build the use cases of `coupons log`."""
    return LogRecovery(
        resources.settings,
        resources.engine,
        resources.key_register.ids,
        resources.reader,
        resources.gate_admin,
    )


@contextmanager
def open_key_administration(settings: Settings) -> Iterator[KeyAdministration]:
    """Connect to PostgreSQL, and build the use cases of `coupons request-id-keys`; `remove` reads Redis and Kafka."""
    with _open_store(settings, "request id keys") as store, build_client(settings.redis_url) as redis:
        yield KeyAdministration(settings, store, GateAdmin(redis))


@contextmanager
def open_api_keys(settings: Settings) -> Iterator[ApiKeyService]:
    """Connect to PostgreSQL only, and build the use cases of `coupons keys`."""
    with _open_store(settings, "api keys") as store:
        yield ApiKeyService(store, user_of_process())


@contextmanager
def _open_store(settings: Settings, name: str) -> Iterator[Engine]:
    """Connect to PostgreSQL; raise Unavailable, or Misconfigured if the schema is not current."""
    with _open_engine(settings, name) as store:
        with engine.in_transaction(store) as tx:
            schema.require_current(tx)
        yield store


def gate_filler(resources: Resources) -> GateFiller:
    """Build the use case that fills the gate for a coupon."""
    return GateFiller(resources.settings, resources.engine, resources.reader, resources.gate_admin)


def user_of_process() -> str:
    """Return the operating system's user, under whose name commands act; the API acts under its callers' names."""
    try:
        return f"user {getpass.getuser()}"
    except (KeyError, OSError):  # a container's user without a name
        return f"user {os.getuid()}"
