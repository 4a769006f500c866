"""Bodies of the dashboard: a session, and the snapshot that every viewer gets once a second."""

from datetime import UTC, datetime

from msgspec import Struct

from service import metrics
from service.api.schemas.alerts import AlertView, alert_views
from service.api.schemas.base import Count, SafeId, Time
from service.domain.caller import Caller, Permission
from service.domain.coupon import Coupon, CouponState
from service.metrics import Metric
from service.timestamps import to_datetime, to_optional_datetime
from service.usecases.overview import Overview, Rate


class NewSession(Struct, frozen=True, forbid_unknown_fields=True):
    """The API key of an operator."""

    key: str


class SessionView(Struct, frozen=True):
    """Who is logged in, and what this caller may do; `expires_at` is null without an end."""

    name: str
    permissions: list[Permission]
    authentication: bool
    expires_at: Time | None


class RateView(Struct, frozen=True):
    """Events in a second: now (null: not known yet), and in the fastest second."""

    now: float | None
    peak: float


class WaitsView(Struct, frozen=True):
    """Milliseconds from the request to its decision, of the latest decisions; null without any in the last minute."""

    p50: Count | None
    p99: Count | None
    decisions: Count


class PartitionView(Struct, frozen=True):
    """How far a partition is behind: in requests (null: not known), and by the age of the oldest one."""

    partition: int
    lag: Count | None
    lag_seconds: float | None


class WorkView(Struct, frozen=True):
    """Rows that wait for Celery, by kind of work, and the age of the oldest one."""

    kind: str
    rows: Count
    oldest_seconds: float


class QueueView(Struct, frozen=True):
    """Messages of Celery's broker that no worker has taken, and the age of the oldest one (null: not known)."""

    name: str
    messages: Count
    oldest_seconds: float | None


class WorkerView(Struct, frozen=True):
    """A Celery worker, and how long ago it sent its last heartbeat."""

    name: str
    seen_seconds_ago: float


class ProofView(Struct, frozen=True):
    """The last proof of all coupons; null before the first one."""

    ok: bool | None
    age_seconds: float | None


class OverviewCouponView(Struct, frozen=True):
    """A coupon with its counters."""

    id: SafeId
    name: str
    state: CouponState
    quantity: Count
    remaining: Count
    held: Count
    standby: Count
    issued: Count
    opens_at: Time | None


class OverviewView(Struct, frozen=True):
    """The state of the system. What a part did not answer is null, never 0 or empty."""

    at: Time
    watched_since: Time
    #: when the alerts were observed (null: not yet); older than six seconds, they are not known
    alerts_observed_at: Time | None
    alerts: list[AlertView]
    parts: dict[str, bool]
    accepts: RateView
    issues: RateView
    waits_ms: WaitsView | None
    #: all coupons together, archived ones included
    issued: Count | None
    held: Count | None
    standby: Count | None
    partitions: list[PartitionView] | None
    #: held requests by the number of attempts that were made
    retrying: dict[str, Count] | None
    #: dead letters that no operator has replayed or discarded, by reason code
    dead: dict[str, Count] | None
    dead_last_minute: Count | None
    work: list[WorkView] | None
    queues: list[QueueView] | None
    #: those that have sent a heartbeat in the last minute and have not stopped
    workers: list[WorkerView] | None
    #: seconds since a Celery worker last ran the sweep
    sweep_age_seconds: float | None
    proof: ProofView | None
    #: connections to PostgreSQL by the process, or part of one, that has them
    connections: dict[str, Count] | None
    coupons: list[OverviewCouponView] | None


def session_view(caller: Caller, *, authentication: bool) -> SessionView:
    """Render who is logged in."""
    expires_at = None if caller.expires_at is None else datetime.fromtimestamp(caller.expires_at, UTC)
    return SessionView(caller.name, sorted(caller.permissions), authentication, expires_at)


def overview_view(overview: Overview) -> OverviewView:
    """Render the snapshot."""
    board, at_ms = overview.board, overview.at_ms
    return OverviewView(
        at=to_datetime(at_ms),
        watched_since=to_datetime(overview.watched_since_ms),
        alerts_observed_at=overview.alerts_observed_at,
        alerts=alert_views(overview.alerts),
        parts={part: available > 0 for part, available in overview.by_label(metrics.PART_AVAILABLE).items()},
        accepts=_rate(overview.accepts),
        issues=_rate(overview.issues),
        waits_ms=None if board is None else WaitsView(*(board.waits or (None, None, 0))),
        issued=_count(overview, metrics.ISSUED_REQUESTS),
        held=_count(overview, metrics.HELD_REQUESTS),
        standby=_count(overview, metrics.STANDBY_REQUESTS),
        partitions=_partitions(overview),
        retrying=_counts(overview, metrics.RETRYING_REQUESTS),
        dead=_counts(overview, metrics.NEW_DEAD_LETTERS),
        dead_last_minute=_count(overview, metrics.RECENT_DEAD_LETTERS),
        work=_work(overview),
        queues=_queues(overview),
        workers=_workers(overview),
        sweep_age_seconds=overview.value(metrics.SWEEP_AGE_SECONDS),
        proof=_proof(overview),
        connections=_counts(overview, metrics.DATABASE_CONNECTIONS),
        coupons=None if board is None else [_coupon(coupon, at_ms) for coupon in board.coupons],
    )


def _rate(rate: Rate) -> RateView:
    return RateView(None if rate.now is None else round(rate.now, 1), round(rate.peak, 1))


def _count(overview: Overview, metric: Metric) -> int | None:
    value = overview.value(metric)
    return None if value is None else int(value)


def _counts(overview: Overview, metric: Metric) -> dict[str, int] | None:
    """Render counts by label; None: the part that has them did not answer."""
    if metric not in overview.values:
        return None
    return {label: int(value) for label, value in sorted(overview.by_label(metric).items())}


def _partitions(overview: Overview) -> list[PartitionView] | None:
    """Render the lag of each partition, or None if none is known.

    A partition without undecided records is not behind, however old its watermark is.
    """
    lags, ages = overview.by_label(metrics.UNDECIDED_RECORDS), overview.by_label(metrics.OLDEST_UNDECIDED_AGE)
    found = [
        PartitionView(
            int(partition),
            None if (lag := lags.get(partition)) is None else int(lag),
            0.0 if lag == 0 else None if (age := ages.get(partition)) is None else round(age, 1),
        )
        for partition in sorted({**lags, **ages}, key=int)
    ]
    return found or None


def _proof(overview: Overview) -> ProofView | None:
    if metrics.VERIFICATION_OK not in overview.values:
        return None
    ok, age = (overview.value(metric) for metric in (metrics.VERIFICATION_OK, metrics.VERIFICATION_AGE_SECONDS))
    return ProofView(None, None) if ok is None or age is None else ProofView(ok > 0, round(age, 1))


def _work(overview: Overview) -> list[WorkView] | None:
    if metrics.WORK_ROWS not in overview.values:
        return None
    ages = overview.by_label(metrics.WORK_AGE_SECONDS)
    return [
        WorkView(kind, int(rows), round(ages.get(kind, 0.0), 1))
        for kind, rows in sorted(overview.by_label(metrics.WORK_ROWS).items())
    ]


def _queues(overview: Overview) -> list[QueueView] | None:
    if metrics.CELERY_QUEUE_MESSAGES not in overview.values:
        return None
    ages = overview.by_label(metrics.CELERY_QUEUE_AGE_SECONDS)
    return [
        QueueView(name, int(messages), None if (age := ages.get(name)) is None else round(age, 1))
        for name, messages in sorted(overview.by_label(metrics.CELERY_QUEUE_MESSAGES).items())
    ]


def _workers(overview: Overview) -> list[WorkerView] | None:
    if metrics.CELERY_WORKER_AGE_SECONDS not in overview.values:
        return None
    ages = overview.by_label(metrics.CELERY_WORKER_AGE_SECONDS)
    return [WorkerView(name, round(age, 1)) for name, age in sorted(ages.items())]


def _coupon(coupon: Coupon, at_ms: int) -> OverviewCouponView:
    return OverviewCouponView(
        coupon.id,
        coupon.name,
        coupon.state(at_ms),
        coupon.quantity,
        coupon.remaining,
        coupon.held,
        coupon.standby,
        coupon.issued,
        to_optional_datetime(coupon.opens_at_ms),
    )
