"""The closed list of alerts, with the names and words of `ops/prometheus/rules.yml`, from the parts to their users."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple


class Severity(StrEnum):
    """How soon somebody must act."""

    #: now
    PAGE = "page"
    #: today
    TICKET = "ticket"


class AlertName(StrEnum):
    """Every alert of the system that a process of it can find. That no API runs is found by Prometheus alone."""

    DATABASE_DOWN = "CouponsDatabaseDown"
    DATABASE_SLOW = "CouponsDatabaseSlow"
    WRITES_REFUSED = "CouponsWritesRefused"
    KAFKA_DOWN = "CouponsKafkaDown"
    REDIS_DOWN = "CouponsRedisDown"
    BROKER_DOWN = "CouponsBrokerDown"
    ISSUER_FROZEN = "CouponsIssuerFrozen"
    ISSUER_DOWN = "CouponsIssuerDown"
    WORKER_DOWN = "CouponsWorkerDown"
    BEAT_DOWN = "CouponsBeatDown"
    SWEEP_STALE = "CouponsSweepStale"
    WEBHOOK_FAILING = "CouponsWebhookFailing"
    UNDECIDED = "CouponsUndecided"
    DEAD_LETTERS = "CouponsDeadLetters"
    TOPIC_REPLACED = "CouponsTopicReplaced"
    TOPIC_SETTINGS = "CouponsTopicSettings"
    KEY_MISSING = "CouponsKeyMissing"
    KEY_ENDED = "CouponsKeyEnded"
    UNVERIFIED_IDS = "CouponsUnverifiedIds"
    PROOF_FAILED = "CouponsProofFailed"
    BACKLOG_FULL = "CouponsBacklogFull"
    REQUESTS_UNAVAILABLE = "CouponsRequestsUnavailable"
    WORK_STUCK = "CouponsWorkStuck"

    @property
    def runbook(self) -> str:
        """The page that says how to confirm the alert and what to do, as a path in the repository."""
        return f"docs/runbooks/{self}.md"


class AlertText(NamedTuple):
    """What an alert always says. `{subject}` stands for the part or the kind of work that it is about."""

    severity: Severity
    #: what it means for users and operators
    summary: str
    #: what to do
    action: str


class SystemAlert(NamedTuple):
    """An alert that is active."""

    name: AlertName
    severity: Severity
    summary: str
    action: str
    #: what was found, for how long, and the part's own words
    cause: str
    since: datetime


ALERT_TEXTS: Mapping[AlertName, AlertText] = {
    AlertName.DATABASE_DOWN: AlertText(
        Severity.PAGE,
        "PostgreSQL does not answer within a second, so nothing is decided. The gate still accepts requests.",
        "Bring PostgreSQL back; the issuer goes on by itself. The reason is in /readyz of the API. Do not restart API"
        " or issuer, they wait.",
    ),
    AlertName.DATABASE_SLOW: AlertText(
        Severity.PAGE,
        "PostgreSQL answers slowly, so the line moves slowly.",
        "Look for long transactions, locks and a busy disk in pg_stat_activity, and end what does not belong there.",
    ),
    AlertName.WRITES_REFUSED: AlertText(
        Severity.PAGE,
        "{subject} answers and does not do what accepts need. Its disk or memory is full, it only reads, or a right is"
        " missing.",
        "Read the reason in /readyz of the API, then make room, or point the service at the server that can write.",
    ),
    AlertName.KAFKA_DOWN: AlertText(
        Severity.PAGE,
        "Kafka does not acknowledge or does not answer, so every request for a coupon gets 503.",
        "Bring the brokers back; the reason is in /readyz of the API. Users repeat their requests, nothing accepted is"
        " lost.",
    ),
    AlertName.REDIS_DOWN: AlertText(
        Severity.PAGE,
        "Redis does not answer. PostgreSQL admits the requests, at a bounded rate.",
        "Bring Redis back, empty if it must be; the gate fills itself. Do not restore an old copy of its data.",
    ),
    AlertName.BROKER_DOWN: AlertText(
        Severity.PAGE,
        "Celery's broker does not answer, or refuses writes. Retries, notices and forwarded dead letters wait; issuing"
        " goes on.",
        "Bring the broker back, empty if it must be, or make room; the sweep sends the messages again.",
    ),
    AlertName.ISSUER_FROZEN: AlertText(
        Severity.PAGE,
        "The issuer is there and does nothing. Requests are accepted and wait.",
        "Kill it with SIGKILL and start it; it goes on at the offset in the database, and nothing is issued twice.",
    ),
    AlertName.ISSUER_DOWN: AlertText(
        Severity.PAGE,
        "No issuer runs. Requests are accepted and wait.",
        "Look at the log of the issuer for the reason of its end, then start it.",
    ),
    AlertName.WORKER_DOWN: AlertText(
        Severity.PAGE,
        "No Celery worker takes messages. Failed requests are not retried, notices and dead letters wait.",
        "Start the worker; the messages and rows wait for it.",
    ),
    AlertName.BEAT_DOWN: AlertText(
        Severity.TICKET,
        "Celery beat sends nothing. Lost messages are found later, and seats of lost requests stay taken.",
        "Start beat, exactly one.",
    ),
    AlertName.SWEEP_STALE: AlertText(
        Severity.PAGE,
        "The sweep does not run, and the lengths of Celery's queues are not known. Worker or beat is down.",
        "Look which of the two runs, and start the other one.",
    ),
    AlertName.WEBHOOK_FAILING: AlertText(
        Severity.TICKET,
        "The webhook's receiver accepts no notice. They wait and are repeated; issuing goes on.",
        "Ask the receiver's owner. The reason is in GET /alerts, and in Flower, task notify.deliver.",
    ),
    AlertName.UNDECIDED: AlertText(
        Severity.PAGE,
        "Records wait for a decision for longer than UNDECIDED_ALERT_SECONDS, and the line does not get shorter.",
        "/readyz of the issuer says which partitions, who holds them and why.",
    ),
    AlertName.DEAD_LETTERS: AlertText(
        Severity.PAGE,
        "More than DEAD_LETTERS_PER_MINUTE requests or records became dead in the last minute.",
        "Run `coupons dead-letters list` to see why, mend the cause, then replay them.",
    ),
    AlertName.TOPIC_REPLACED: AlertText(
        Severity.PAGE,
        "The topic is not the open log of the database, so nothing is accepted and nothing is decided.",
        "Run `coupons log show`; docs/recovery.md says when to adopt the topic.",
    ),
    AlertName.TOPIC_SETTINGS: AlertText(
        Severity.PAGE,
        "The topic differs from the settings. The service goes on, without what the setting protects.",
        "Run `coupons doctor` to see which setting, then correct the topic or the setting.",
    ),
    AlertName.KEY_MISSING: AlertText(
        Severity.PAGE,
        "The issuer lacks a key of request ids that another process signs with, and decides nothing.",
        "Add the key to REQUEST_ID_KEYS of the issuer and restart it. /readyz of the issuer names it.",
    ),
    AlertName.KEY_ENDED: AlertText(
        Severity.PAGE,
        "A key of request ids is used although it has ended or will end.",
        "Find the process that signs with it, or the person who has it; /readyz of API or issuer names it.",
    ),
    AlertName.UNVERIFIED_IDS: AlertText(
        Severity.TICKET,
        "Records carry a request id that no registered key signed.",
        "Find out who writes to ISSUE_COUPON, then discard or replay their dead letters.",
    ),
    AlertName.PROOF_FAILED: AlertText(
        Severity.PAGE,
        "The last proof of all coupons found a broken promise.",
        "Run `coupons verify` again and read which number is not 0. Change nothing before you know why.",
    ),
    AlertName.BACKLOG_FULL: AlertText(
        Severity.PAGE,
        "More than MAX_UNDECIDED records are undecided, so requests get 503 until the line is shorter.",
        "Look whether the issuer decides; if it does, start another one.",
    ),
    AlertName.REQUESTS_UNAVAILABLE: AlertText(
        Severity.PAGE,
        "More than 5 % of the requests for coupons get 503, and no part is away.",
        "The log of the API says why (api.part_unavailable, `reason`).",
    ),
    AlertName.WORK_STUCK: AlertText(
        Severity.TICKET,
        "Work of kind {subject} waits for longer than a minute although a worker runs.",
        "Look in Flower for the tasks of this kind and their last error.",
    ),
}
