"""Builds what the API's routes use, and closes it in reverse order."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from time import monotonic_ns

from sqlalchemy import Engine

from service import tracing
from service.clock import now_ms, shift_ms
from service.config import Settings
from service.dashboard_resources import DashboardResources, open_dashboard
from service.domain.rate_limit import LimitScope, LocalLimiter
from service.gate.async_gate import AsyncGate
from service.gate.client import build_async_client
from service.load_sampler import LoadSampler
from service.log import get_logger
from service.log_events import LogEvent
from service.report_resources import ReportResources, open_reports
from service.resources import (
    Resources,
    coupon_service,
    dead_letter_service,
    gate_filler,
    lookup,
    open_authenticator,
    open_engine,
    request_histories,
    verifier,
)
from service.scrape import open_system_values
from service.server.client_address import ClientAddresses
from service.status_resources import open_status_readers
from service.stream import clients, topics
from service.stream.producer import RequestProducer
from service.stream.readiness import LogReadiness
from service.usecases.accept import IssuanceAcceptor
from service.usecases.append_tracker import AppendTracker
from service.usecases.authenticate import Authenticator
from service.usecases.backlog import Backlog
from service.usecases.coupon_ids import CouponIds
from service.usecases.coupons import CouponService
from service.usecases.fill_pool import FillPool
from service.usecases.gate_fallback import DatabaseGate
from service.usecases.gate_fill import GateFiller
from service.usecases.issuance_events import IssuanceEvents
from service.usecases.key_register import KeyWatch
from service.usecases.operator_work import BoundedThreads, ExclusiveWork
from service.usecases.readiness import ReadinessCheck
from service.usecases.replay import DeadLetterService
from service.usecases.request_history import RequestHistoryReader
from service.usecases.status_reader import StatusReader
from service.usecases.system_alerts import SystemAlerts
from service.usecases.system_values import SystemValues
from service.usecases.undecided import UndecidedPartitions
from service.usecases.user_requests import UserRequests
from service.verification.verify import Verifier

_log = get_logger(__name__)
_FLUSH_TIMEOUT_SECONDS = 10.0


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
    histories: RequestHistoryReader
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
    system_values: SystemValues
    system_alerts: SystemAlerts
    dashboard: DashboardResources

    def close_streams(self) -> None:
        """End all streams, and every stream that is opened later, at once. A second call has no effect."""
        self.events.close()
        self.dashboard.feed.close()


@asynccontextmanager
async def open_api_resources(common: Resources) -> AsyncIterator[ApiResources]:
    """Open the API's own clients, and close them in reverse order at the end; `common` is closed as well."""
    settings = common.settings
    if settings.auth == "off":
        _log.warning(LogEvent.AUTHENTICATION_OFF)
    filler = gate_filler(common)
    addresses = ClientAddresses(settings.trusted_proxy_header, settings.proxy_networks)
    # each thread takes at most one of the process's ten connections
    operators, user_lists = BoundedThreads("calls of operators", 3), BoundedThreads("lists of users", 2)
    verifications, replays = ExclusiveWork("verification"), ExclusiveWork("replay of many dead letters")
    async with AsyncExitStack() as opened:
        opened.callback(tracing.close)
        opened.callback(common.close)
        # Calls that wait for a connection must not make PostgreSQL look unavailable.
        readiness_engine = opened.enter_context(open_engine(settings, "api readiness"))
        # A verification keeps its connection for as long as it reads the log: one at a time.
        verification_engine = opened.enter_context(open_engine(settings, "api verification"))
        system_values = opened.enter_context(open_system_values(settings, "api metrics"))
        opened.callback(LoadSampler(common.engine).close)
        for watch in (common.log_watch, KeyWatch(common.engine, common.key_register)):
            watch.start()
            opened.callback(watch.close)
        authenticator = opened.enter_context(open_authenticator(settings, "api keys"))
        for threads in (operators, user_lists, replays, verifications):
            opened.push_async_callback(threads.close)
        redis = build_async_client(settings.redis_url)
        opened.push_async_callback(redis.aclose)
        gate = AsyncGate(redis, settings.rate_limits, shift_ms)
        producer = RequestProducer(clients.build_producer(settings))
        statuses, events = await opened.enter_async_context(open_status_readers(lookup(common), gate))
        reports = await opened.enter_async_context(open_reports(settings, common.log_watch))
        readiness = _readiness_check(common, readiness_engine, gate, producer)
        system_alerts = SystemAlerts(readiness, system_values)
        system_alerts.start()
        opened.push_async_callback(system_alerts.stop)
        dashboard = await opened.enter_async_context(open_dashboard(settings, addresses, system_alerts, system_values))
        # opened last, so closed first: the requests in progress are answered before anything else is waited for
        acceptor = await opened.enter_async_context(_open_acceptor(common, gate, producer, filler))
        yield ApiResources(
            settings,
            authenticator,
            gate,
            acceptor,
            addresses if LimitScope.ADDRESS in settings.rate_limits else None,
            statuses,
            events,
            request_histories(common),
            UserRequests(common.engine),
            coupon_service(common),
            dead_letter_service(common),
            verifier(common, verification_engine),
            readiness,
            operators,
            user_lists,
            verifications,
            replays,
            reports,
            system_values,
            system_alerts,
            dashboard,
        )


@asynccontextmanager
async def _open_acceptor(
    common: Resources, gate: AsyncGate, producer: RequestProducer, filler: GateFiller
) -> AsyncIterator[IssuanceAcceptor]:
    """Build what accepts requests; at the end it answers those in progress, and `producer` is closed as well."""
    settings = common.settings
    backlog = Backlog(settings.max_undecided, lambda: common.log_watch.log.id)
    fill_pool = FillPool(filler)
    acceptor = IssuanceAcceptor(
        gate,
        DatabaseGate(common.engine, LocalLimiter(settings.rate_limits, lambda: monotonic_ns() // 1000)),
        CouponIds(common.engine),
        fill_pool,
        AppendTracker(gate, producer, settings.topic_partitions, backlog, settings.request_id_in),
        common.key_register.ids,
        common.log_watch,
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
    common: Resources, readiness_engine: Engine, gate: AsyncGate, producer: RequestProducer
) -> ReadinessCheck:
    settings = common.settings
    return ReadinessCheck(
        settings,
        readiness_engine,
        gate,
        producer,
        LogReadiness(topics.build_admin(settings), settings.topic_min_insync_replicas),
        common.log_watch,
        UndecidedPartitions(settings, readiness_engine, common.log_watch),
        common.key_register,
    )
