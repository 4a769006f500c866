"""Builds the clients and use cases of every process; nothing connects on import."""

import getpass
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from time import sleep
from typing import NamedTuple

from sqlalchemy import Engine

from service.clock import jitter, now_ms
from service.config import Settings
from service.domain.errors import CouponsError, Misconfigured, NotPermitted, Unavailable
from service.domain.request_id import RequestIds
from service.domain.retry import backoff_seconds
from service.domain.session import Sessions
from service.domain.ticket import Tickets
from service.gate import celery_broker
from service.gate.client import build_client
from service.gate.gate_admin import GateAdmin
from service.gate.server_check import RedisServerCheck
from service.identity import tokens
from service.identity.key_set import KeySet
from service.identity.tokens import TokenVerifier
from service.log import get_logger
from service.log_events import LogEvent
from service.store import engine, logs, schema
from service.store.logs import Log
from service.stream import topics
from service.stream.codec import RecordReader
from service.stream.topics import Topic, TopicState
from service.usecases.api_keys import ApiKeyCache, ApiKeyService
from service.usecases.authenticate import Authenticator
from service.usecases.coupon_report import CouponReporter
from service.usecases.coupons import CouponService
from service.usecases.doctor import Doctor
from service.usecases.gate_fill import GateFiller
from service.usecases.issuance_export import IssuanceExporter
from service.usecases.key_register import KeyRegister
from service.usecases.key_removal import KeyAdministration
from service.usecases.log_recovery import LogRecovery
from service.usecases.log_watch import LogWatch
from service.usecases.lookup import Lookup
from service.usecases.recover import Recoverer
from service.usecases.replay import DeadLetterService
from service.usecases.request_history import RequestHistoryReader
from service.verification.verify import Verifier

_log = get_logger(__name__)


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
        engine.close(self.engine)


class Migration(NamedTuple):
    """What `migrate` left: the revision of the schema, and the topics that it created."""

    revision: str
    created_topics: Sequence[Topic]


def migrate(settings: Settings) -> Migration:
    """Upgrade the database schema, create the missing topics, open the first log; raise Misconfigured or Unavailable.

    With MIGRATE_DATABASE_URL the role of DATABASE_URL is granted what the service needs. A topic that was created again
    is not adopted: `coupons log adopt` does that.
    """
    store = _build_engine(settings, "migrate", 1, migrates=True)
    try:
        role = engine.role_of(settings.database_url) if settings.migrate_database_url else None
        revision = schema.migrate(store, role)
        created = topics.create_missing(settings)
        _open_first_log(settings, store)
        return Migration(revision, created)
    finally:
        engine.close(store)


def create_topics(settings: Settings) -> None:
    """Create the missing topics; raise Misconfigured, Unavailable, or NotPermitted if one must not be created."""
    topics.create_missing(settings)


def topic_states(settings: Settings) -> list[TopicState]:
    """Return every topic as it is, and what differs from the settings; raise Unavailable."""
    return topics.states(settings)


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
    store = _build_engine(settings, name, connections)
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
    settings: Settings,
    name: str,
    connections: int = 5,
    *,
    announce_keys: bool = False,
    on_waiting: Callable[[str], None] = lambda _: None,
) -> Resources:
    """Call open_signing_resources until PostgreSQL and Kafka answer and the process may sign, and log why it waits.

    `on_waiting` is called with the reason as well. Raises Misconfigured.
    """
    attempts = 0
    while True:
        try:
            return open_signing_resources(settings, name, connections, announce_keys=announce_keys)
        except Misconfigured:
            raise
        except Unavailable as error:
            attempts += 1
            _log.warning(LogEvent.START_WAITING, reason=str(error))
            on_waiting(str(error))
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


def _build_engine(settings: Settings, name: str, connections: int, *, migrates: bool = False) -> Engine:
    """Build an engine; `migrates`: as the role that owns the schema, if it has a URL of its own."""
    as_owner = migrates and settings.migrate_database_url
    return engine.build(
        as_owner or settings.database_url,
        name,
        connections,
        pooler=settings.database_pooler,
        prepare=settings.prepares_statements,
        variable="MIGRATE_DATABASE_URL" if as_owner else "DATABASE_URL",
    )


@contextmanager
def open_engine(settings: Settings, name: str, connections: int = 1) -> Iterator[Engine]:
    """Build an engine whose connections are closed at the end; PostgreSQL shows `name` for them."""
    built = _build_engine(settings, name, connections)
    try:
        yield built
    finally:
        engine.close(built)


@contextmanager
def open_authenticator(settings: Settings, name: str) -> Iterator[Authenticator]:
    """Build what finds out who calls, with threads and a connection to PostgreSQL, which shows `name` for it."""
    is_on = settings.auth == "on"
    with ExitStack() as opened:
        api_keys = ApiKeyCache(opened.enter_context(open_engine(settings, name)))
        key_set = KeySet(settings.jwt_jwks_url, settings.jwt_jwks_ca)
        for thread in (api_keys, key_set) if is_on else ():
            thread.start()
            opened.callback(thread.close)
        yield Authenticator(
            api_keys,
            Sessions(settings.mac_keys),
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


def lookup(resources: Resources) -> Lookup:
    """Build the use case that finds the state of requests."""
    register = resources.key_register
    return Lookup(
        resources.settings, resources.engine, register.ids, register, gate_filler(resources), resources.gate_admin
    )


def request_histories(resources: Resources) -> RequestHistoryReader:
    """Build the use case that tells what happened to a request."""
    return RequestHistoryReader(resources.settings, resources.engine, resources.reader)


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
def open_doctor(settings: Settings) -> Iterator[Doctor]:
    """Build the use case that examines a set-up; nothing needs to answer for that."""
    with ExitStack() as opened:
        store = opened.enter_context(open_engine(settings, "doctor"))
        redis = opened.enter_context(build_client(settings.redis_url))
        broker = None
        if not settings.celery_over_kafka:
            client = opened.enter_context(build_client(settings.celery_broker_url))
            broker = RedisServerCheck(client, celery_broker.PART)
        register = KeyRegister(RequestIds(settings.mac_keys))
        yield Doctor(settings, store, GateAdmin(redis), RedisServerCheck(redis), broker, register)


@contextmanager
def _open_store(settings: Settings, name: str) -> Iterator[Engine]:
    """Connect to PostgreSQL; raise Unavailable, or Misconfigured if the schema is not current."""
    with open_engine(settings, name) as store:
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
