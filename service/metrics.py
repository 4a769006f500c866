"""Every metric of the API and the issuer; prometheus_client appends `_total` to the names of counters."""

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

#: names the folder in which processes that share a port store their metrics; set it before this module is imported
MULTIPROCESS_DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

DECISIONS = Counter(
    "coupons_decisions",
    "Requests that the issuer decided, by resulting state and reason code. Records that cannot be decoded, retries and"
    " replays are not counted.",
    ["state", "code"],
)
BATCH_RECORDS = Histogram(
    "coupons_issuer_batch_records",
    "Records that the issuer processed in one transaction, those that cannot be decoded included.",
    buckets=(1, 5, 10, 50, 100, 500, 1000, 2000, 5000),
)
BATCH_DURATION = Histogram(
    "coupons_issuer_batch_duration_seconds",
    "Seconds to decide and commit a batch and to queue its messages.",
)
UNVERIFIED_IDS = Counter(
    "coupons_unverified_request_ids",
    "Records that became dead letters because no registered key signed the request id that they carry.",
)
ISSUE_RESPONSES = Counter(
    "coupons_issue_responses",
    "Responses of the API to POST /coupons/{id}/issuances: accepted, rate_limited, backlog_full, unavailable or the"
    " code of the refusal.",
    ["code"],
)
OPEN_STREAMS = Gauge(
    "coupons_open_streams",
    "Event streams that are open. With several API processes, one that was killed counts until the last one ends.",
    multiprocess_mode="sum",
)
STREAM_EVENTS = Counter(
    "coupons_stream_events",
    "Events that were written to streams: state, progress, final, unknown; retry where a stream ends early; heartbeat.",
    ["event"],
)
RECENT_DEAD_LETTERS = Gauge("coupons_dead_letters_last_minute", "Dead letters stored in the last minute.")
OLDEST_UNDECIDED_AGE = Gauge(
    "coupons_oldest_undecided_age_seconds",
    "Age of the oldest record that may be undecided, by partition: seconds since its watermark, up to 4 on an idle"
    " partition. Every issuer reports every partition, also those of others: aggregate with max by (partition).",
    ["partition"],
)
ALERTS = Gauge("coupons_alert_active", "1 while the alert is active and an operator must act, otherwise 0.", ["alert"])


def render() -> bytes:
    """Return all metrics in Prometheus's text format, summed over the processes that share this port."""
    if MULTIPROCESS_DIRECTORY_VARIABLE not in os.environ:
        return generate_latest()
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
