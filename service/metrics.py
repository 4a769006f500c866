"""Every metric there is, with its meaning."""

from prometheus_client import Counter, Gauge, Histogram

DECISIONS = Counter("coupons_decisions", "Requests decided by the issuer, by state and code", ["state", "code"])
POLL_RECORDS = Histogram(
    "coupons_poll_records", "Records decided in one transaction", buckets=(1, 5, 10, 50, 100, 500, 1000, 2000, 5000)
)
POLL_SECONDS = Histogram("coupons_poll_seconds", "From a poll's records to their commit, in seconds")
ANSWERS = Counter("coupons_answers", "Answers of the API to requests for a coupon, by code", ["code"])
DEAD_LETTERS = Gauge("coupons_dead_letters_last_minute", "Requests and records that died in the last minute")
ALERTS = Gauge("coupons_alert", "1 while what it names needs an operator's eyes", ["alert"])
