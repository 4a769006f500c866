"""Every metric there is, with its meaning."""

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

#: names the folder where processes that share a port keep their numbers for each other; set before this is imported
MULTIPROCESS_DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

DECISIONS = Counter("coupons_decisions", "Requests decided by the issuer, by state and code", ["state", "code"])
BATCH_RECORDS = Histogram(
    "coupons_issuer_batch_records",
    "Records decided in one transaction",
    buckets=(1, 5, 10, 50, 100, 500, 1000, 2000, 5000),
)
BATCH_DURATION = Histogram("coupons_issuer_batch_duration_seconds", "From a poll's records to their commit, in seconds")
ISSUE_RESPONSES = Counter("coupons_issue_responses", "Answers of the API to requests for a coupon, by code", ["code"])
RECENT_DEAD_LETTERS = Gauge("coupons_dead_letters_last_minute", "Requests and records that died in the last minute")
ALERTS = Gauge("coupons_alert_active", "1 while what it names needs an operator's eyes", ["alert"])


def render() -> bytes:
    """All numbers in Prometheus's text form: this process's, or the sums over all that share its port."""
    if MULTIPROCESS_DIRECTORY_VARIABLE not in os.environ:
        return generate_latest()
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
