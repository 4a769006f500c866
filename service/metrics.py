"""The closed list of metrics. `make metrics` writes it to docs/metrics.md.

Processes count events in counters and histograms. Gauges are values of PostgreSQL, Redis, Kafka or the process, read
when Prometheus asks (service/scrape.py), so that a process that was killed leaves none behind. One cannot be read
there: the open streams of all processes that share a port.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

#: names the folder in which processes that share a port store their metrics; set it before this module is imported
MULTIPROCESS_DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each one, which no expression uses


class Kind(StrEnum):
    """What a metric is in Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Exporter(StrEnum):
    """Which processes export a metric."""

    API = "API"
    ISSUER = "issuer"
    #: both export the same value: aggregate it with max
    SHARED = "API and issuer, the same value"
    #: each exports its own
    EACH = "API and issuer"


class Metric(NamedTuple):
    """A metric as Prometheus sees it."""

    name: str
    kind: Kind
    exporter: Exporter
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


#: values of a metric, by the values of its labels
ByLabels = Mapping[tuple[str, ...], float]
#: values of one scrape
Values = Mapping[Metric, ByLabels]


def by_label(values: Values, metric: Metric) -> Mapping[str, float]:
    """Return the values of a metric with one label, by that label; none if they are not known."""
    return {label: value for (label,), value in values.get(metric, {}).items()}


def single(values: Values, metric: Metric) -> float | None:
    """Return the value of a metric without labels, or None if it is not known."""
    return values.get(metric, {}).get(())


#: every metric, by name
METRICS: dict[str, Metric] = {}


class BatchHistogram(Histogram):
    """A histogram that counts many events with the same value in one call."""

    def observe_many(self, value: float, count: int) -> None:
        """Observe the same value for so many events."""
        self._raise_if_not_observable()  # type: ignore[no-untyped-call]
        self._sum.inc(value * count)
        self._buckets[bisect_left(self._upper_bounds, value)].inc(count)


def _add(metric: Metric) -> Metric:
    assert metric.name not in METRICS
    METRICS[metric.name] = metric
    return metric


def _counter(name: str, exporter: Exporter, help_text: str, *labels: str) -> Counter:
    metric = _add(Metric(name, Kind.COUNTER, exporter, help_text, labels))
    return Counter(metric.name, metric.help, metric.labels)


def _histogram(name: str, exporter: Exporter, help_text: str, buckets: Sequence[float], *labels: str) -> BatchHistogram:
    metric = _add(Metric(name, Kind.HISTOGRAM, exporter, help_text, labels, tuple(buckets)))
    return BatchHistogram(metric.name, metric.help, metric.labels, buckets=buckets)


def _gauge_of_processes(name: str, exporter: Exporter, help_text: str) -> Gauge:
    metric = _add(Metric(name, Kind.GAUGE, exporter, help_text))
    return Gauge(metric.name, metric.help, multiprocess_mode="sum")


def _read_at_scrape(name: str, exporter: Exporter, help_text: str, *labels: str, kind: Kind = Kind.GAUGE) -> Metric:
    return _add(Metric(name, kind, exporter, help_text, labels))


_CALL_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_WAIT_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

# the API's way of a request
ISSUE_RESPONSES = _counter(
    "coupons_issue_responses_total",
    Exporter.API,
    "Responses to POST /coupons/{id}/issuances: accepted, rate_limited, backlog_full, unavailable or the code of the"
    " refusal.",
    "code",
)
ACCEPT_SECONDS = _histogram(
    "coupons_accept_seconds",
    Exporter.API,
    "Seconds from the arrival of an accepted request to the broker's acknowledgement. Measured for the first request of"
    " each gate call, and counted for all that were admitted with it. Requests that waited for a fill of the gate or"
    " were admitted by the database are not counted.",
    _CALL_SECONDS,
)
GATE_CALL_SECONDS = _histogram(
    "coupons_gate_call_seconds", Exporter.API, "Seconds of a call of the gate that Redis answered.", _CALL_SECONDS
)
GATE_CALL_REQUESTS = _histogram(
    "coupons_gate_call_requests",
    Exporter.API,
    "Requests in one call of the gate. A call without requests records offsets only and is not counted.",
    (1, 2, 5, 10, 20, 50, 100, 200, 500),
)
PRODUCE_SECONDS = _histogram(
    "coupons_produce_seconds",
    Exporter.API,
    "Seconds from the gate's answer to the broker's acknowledgement. Measured and counted as coupons_accept_seconds.",
    _CALL_SECONDS,
)
OPEN_STREAMS = _gauge_of_processes(
    "coupons_open_streams",
    Exporter.API,
    "Event streams that are open. With several API processes, one that was killed counts until the last one ends.",
)
STREAM_EVENTS = _counter(
    "coupons_stream_events_total",
    Exporter.API,
    "Events that were written to streams: state, progress, final, unknown; retry where a stream ends early; heartbeat.",
    "event",
)
EVENT_LOOP_DELAY_SECONDS = _histogram(
    "coupons_event_loop_delay_seconds",
    Exporter.API,
    "Seconds by which a timer of the API's event loop was late, twice a second for each process. Every request in"
    " progress waits for so long.",
    (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
)
DATABASE_POOL_USED_RATIO = _histogram(
    "coupons_database_pool_used_ratio",
    Exporter.EACH,
    "Share of the process's database connections that were in use, sampled every half second by the API and every two"
    " seconds by the issuer. 1: a call that needs a connection waits.",
    (0, 0.25, 0.5, 0.75, 0.99, 1),
)

# the issuer's way of a batch
DECISIONS = _counter(
    "coupons_decisions_total",
    Exporter.ISSUER,
    "Requests that the issuer decided, by resulting state and reason code. Records that cannot be decoded, retries and"
    " replays are not counted.",
    "state",
    "code",
)
DECISION_WAIT_SECONDS = _histogram(
    "coupons_decision_wait_seconds",
    Exporter.ISSUER,
    "Seconds from the append of a record, by the broker's clock, to the commit of its decision, by the issuer's clock."
    " At most twenty records of a batch are measured; each counts for its neighbours.",
    _WAIT_SECONDS,
)
BATCH_RECORDS = _histogram(
    "coupons_issuer_batch_records",
    Exporter.ISSUER,
    "Records that the issuer processed in one transaction, those that cannot be decoded included. plain: true for a"
    " plain batch, false for one that needed a statement after the other.",
    (1, 5, 10, 50, 100, 500, 1000, 2000, 5000),
    "plain",
)
BATCH_DURATION = _histogram(
    "coupons_issuer_batch_duration_seconds",
    Exporter.ISSUER,
    "Seconds to decide and commit a batch and to queue its messages.",
    _CALL_SECONDS,
)
DECIDE_SECONDS = _histogram(
    "coupons_issuer_decide_seconds",
    Exporter.ISSUER,
    "Seconds from the beginning of a batch's transaction to its first write: locks, reads and decisions.",
    _CALL_SECONDS,
)
WRITE_SECONDS = _histogram(
    "coupons_issuer_write_seconds",
    Exporter.ISSUER,
    "Seconds from the first write of a batch to the end of its commit. After a failed record this includes the search"
    " for it, and for a plain batch that is issued again the whole second transaction.",
    _CALL_SECONDS,
)
UNVERIFIED_IDS = _counter(
    "coupons_unverified_request_ids_total",
    Exporter.ISSUER,
    "Records that became dead letters because no registered key signed the request id that they carry.",
)
ISSUER_READY = _read_at_scrape(
    "coupons_issuer_ready", Exporter.ISSUER, "1 if the issuer's /readyz answers 200, otherwise 0."
)
ISSUER_ITERATION_AGE_SECONDS = _read_at_scrape(
    "coupons_issuer_iteration_age_seconds",
    Exporter.ISSUER,
    "Seconds since the issuer's loop began its present iteration. It grows while the loop is stuck.",
)
ALERT_ACTIVE = _read_at_scrape(
    "coupons_alert_active",
    Exporter.EACH,
    "1 while the process finds the alert of the service and an operator must act, otherwise 0. Those about keys are"
    " about the process itself. The API exports none while PostgreSQL does not answer or refuses writes.",
    "alert",
)

# the parts
PART_AVAILABLE = _read_at_scrape(
    "coupons_part_available",
    Exporter.EACH,
    "1 if this scrape got an answer from the part within a second, otherwise 0; Celery's broker must take a write as"
    " well. Metrics whose part did not answer are absent.",
    "part",
)
PART_READ_SECONDS = _read_at_scrape(
    "coupons_part_read_seconds",
    Exporter.EACH,
    "Seconds that the part took for the queries of this scrape. Absent if it did not answer.",
    "part",
)
PART_READY = _read_at_scrape(
    "coupons_part_ready",
    Exporter.API,
    "1 if the API's readiness finds that the part does what accepts need, a write included, otherwise 0.",
    "part",
)

# values of the database
ISSUED_REQUESTS = _read_at_scrape(
    "coupons_issued_requests", Exporter.SHARED, "Requests that are issued, all coupons together."
)
HELD_REQUESTS = _read_at_scrape(
    "coupons_held_requests", Exporter.SHARED, "Requests that failed and hold a seat until they are retried."
)
STANDBY_REQUESTS = _read_at_scrape(
    "coupons_standby_requests", Exporter.SHARED, "Requests that wait for the seat of a held request."
)
RETRYING_REQUESTS = _read_at_scrape(
    "coupons_retrying_requests", Exporter.SHARED, "Held requests by the number of attempts that were made.", "attempts"
)
NEW_DEAD_LETTERS = _read_at_scrape(
    "coupons_new_dead_letters",
    Exporter.SHARED,
    "Dead letters that no operator has replayed or discarded, by reason code.",
    "code",
)
RECENT_DEAD_LETTERS = _read_at_scrape(
    "coupons_dead_letters_last_minute", Exporter.SHARED, "Dead letters stored in the last minute."
)
WORK_ROWS = _read_at_scrape(
    "coupons_work_rows",
    Exporter.SHARED,
    "Rows that wait for Celery, by kind of work: held requests (retry), dead letters to forward (dead_letter), entries"
    " of the outbox (notify, gate). An entry covers at most 500 decisions.",
    "work",
)
WORK_AGE_SECONDS = _read_at_scrape(
    "coupons_work_age_seconds",
    Exporter.SHARED,
    "How long the oldest row has waited for Celery, by kind of work as in coupons_work_rows: seconds since the"
    " decision, for held requests since the last attempt; the next one is due one or two seconds later. 0 if there is"
    " none.",
    "work",
)
UNDECIDED_RECORDS = _read_at_scrape(
    "coupons_undecided_records",
    Exporter.SHARED,
    "Lag in offsets: records of a partition after the next offset to decide.",
    "partition",
)
OLDEST_UNDECIDED_AGE = _read_at_scrape(
    "coupons_oldest_undecided_age_seconds",
    Exporter.SHARED,
    "Lag in seconds: age of the oldest record of a partition that may be undecided, which is the time since its"
    " watermark, up to 4 on an idle partition. Absent until its watermark was first advanced.",
    "partition",
)
VERIFICATION_OK = _read_at_scrape(
    "coupons_verification_ok",
    Exporter.SHARED,
    "1 if the last proof of all coupons (`coupons verify`) found no broken promise, otherwise 0. Absent before the"
    " first one.",
)
VERIFICATION_AGE_SECONDS = _read_at_scrape(
    "coupons_verification_age_seconds", Exporter.SHARED, "Seconds since the last proof of all coupons ended."
)

DATABASE_CONNECTIONS = _read_at_scrape(
    "coupons_database_connections",
    Exporter.SHARED,
    "Connections of this service's role to its database, by the name that PostgreSQL shows for them: a process, or a"
    " part of one. Those of a process that has ended are closed, those of one that is frozen are not.",
    "name",
)

# values of Redis
SWEEP_AGE_SECONDS = _read_at_scrape(
    "coupons_sweep_age_seconds",
    Exporter.SHARED,
    "Seconds since a Celery worker last ran the sweep, which beat sends every second. Absent if none ran in the last"
    " minute, or ever.",
)
CELERY_WORKER_AGE_SECONDS = _read_at_scrape(
    "coupons_celery_worker_age_seconds",
    Exporter.SHARED,
    "Seconds since the last heartbeat of a Celery worker, which it sends every two seconds. Absent for one that has"
    " stopped, and for one that has sent none in the last minute.",
    "worker",
)
CELERY_QUEUE_MESSAGES = _read_at_scrape(
    "coupons_celery_queue_messages",
    Exporter.SHARED,
    "Messages in a queue of Celery's broker that no worker has taken. Issuers read it, and the API exports what one of"
    " them published within five seconds. Absent with Kafka as broker.",
    "queue",
)
CELERY_QUEUE_AGE_SECONDS = _read_at_scrape(
    "coupons_celery_queue_age_seconds",
    Exporter.SHARED,
    "Seconds since the oldest message in a queue of Celery's broker that no worker has taken was sent; 0 if there is"
    " none. Read as coupons_celery_queue_messages. Absent for a queue whose oldest message does not say when it was"
    " sent: this service did not send it.",
    "queue",
)
WEBHOOK_ATTEMPTS = _read_at_scrape(
    "coupons_webhook_attempts_total",
    Exporter.SHARED,
    "POST requests to the webhook's receiver: accepted (2xx), rejected (another status), unreachable (no answer in"
    " time). Counted in Redis: a loss of its data resets it.",
    "outcome",
    kind=Kind.COUNTER,
)
RETRY_ATTEMPTS = _read_at_scrape(
    "coupons_retry_attempts_total",
    Exporter.SHARED,
    "Requests that retry tasks attempted again, by the number of the attempt; the issuer makes the first. Counted as"
    " coupons_webhook_attempts_total.",
    "attempt",
    kind=Kind.COUNTER,
)
