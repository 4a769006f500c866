"""Partitions that nobody decides: their age, who holds them, and the difference between stalled and busy."""

import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple

import pytest
from celery import Celery
from confluent_kafka import Consumer
from sqlalchemy import Engine, text

from service.config import Settings
from service.domain.coupon import Coupon
from service.resources import Resources
from service.stream import clients
from service.stream.partitioner import partition_of
from service.stream.topics import Topic
from service.usecases import alerts, undecided
from service.usecases.alerts import Alert, DeadLetterCounts
from service.usecases.undecided import UndecidedPartitions, UndecidedReport
from tests.builders import PARTITIONS
from tests.log import Log
from tests.other_clients import NAMED_STRANGER, open_transaction, stranger_in_group
from tests.waiting import eventually
from workers.issuer.health import Health
from workers.issuer.monitor import Monitor

_STALLED_SECONDS = 0.3


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the time after which a partition is stalled; every check queries the database and waits for Kafka."""
    monkeypatch.setattr(undecided, "STALLED_SECONDS", _STALLED_SECONDS)
    monkeypatch.setattr(undecided, "_REUSED_SECONDS", 0.0)
    monkeypatch.setattr(undecided, "_ANSWER_SECONDS", 10.0)


class Sale(NamedTuple):
    """A coupon with two undecided requests, and its partition."""

    coupon: Coupon
    partition: int


@pytest.fixture
def sale(real_log: Log, make_coupon: Callable[..., Coupon], store: Engine) -> Sale:
    """Two undecided requests; all partitions were last decided an hour ago."""
    coupon = make_coupon(quantity=10)
    for user in (1, 2):
        real_log.append_request(coupon.id, user)
    set_watermark_age(store, "1 hour")
    return Sale(coupon, partition_of(coupon.id, PARTITIONS))


@pytest.fixture
def partitions(resources: Resources) -> UndecidedPartitions:
    """The check, as API and issuer use it."""
    return UndecidedPartitions(resources.settings, resources.engine, resources.log_watch)


def set_watermark_age(store: Engine, age: str) -> None:
    """Set the watermark of every partition to that long ago."""
    with store.begin() as tx:
        tx.execute(text("UPDATE offsets SET watermark = clock_timestamp() - CAST(:age AS interval)"), {"age": age})


@contextmanager
def joined(consumer: Consumer) -> Iterator[None]:
    """Let the consumer join the issuers' group and hold every partition during the block."""
    with closing(consumer):
        consumer.subscribe([Topic.ISSUE_COUPON])
        eventually(lambda: consumer.poll(0.1) is None and len(consumer.assignment()) == PARTITIONS)
        yield


def reason(report: UndecidedReport, partition: int) -> str:
    """Return the reason why a partition is late."""
    return next(late.reason for late in report.late if late.partition == partition)


@pytest.mark.usefixtures("positions")
def test_an_idle_system_is_not_late(resources: Resources, store: Engine) -> None:
    """While every watermark is recent, nothing is late, and Kafka is not asked."""
    set_watermark_age(store, "2 seconds")
    away = resources.settings.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1"})

    report = UndecidedPartitions(away, resources.engine, resources.log_watch).check()

    assert not [late for late in report.late if late.age_seconds > 10]
    assert set(report.ages) == set(range(PARTITIONS))
    assert all(2 <= age < 10 for age in report.ages.values())


def test_a_partition_without_a_holder_is_named(partitions: UndecidedPartitions, sale: Sale, settings: Settings) -> None:
    """The alert names the partitions, their age, and that nobody holds them."""
    # a broker that has just started answers that it does not coordinate the group
    partitions.check()
    report = eventually(
        lambda: (
            report
            if "held by nobody" in reason(report := partitions.check(), sale.partition)
            and all(late.stalled for late in report.late)
            else None
        )
    )

    alert = alerts.active_alerts(settings, DeadLetterCounts(0, 0), report)[Alert.UNDECIDED]
    assert re.search(r"partitions 0, 1, 2, 3, 4, 5 for 36\d\d s, held by nobody: group `coupon` has no issuer", alert)


def test_a_stranger_in_the_group_is_named(partitions: UndecidedPartitions, sale: Sale, settings: Settings) -> None:
    """Its client id, host and member id say who it is; control characters in them are escaped."""
    with stranger_in_group(settings.kafka_bootstrap_servers):
        named = reason(partitions.check(), sale.partition)

    assert NAMED_STRANGER in named
    assert "\x1b" not in named
    assert "not an issuer of this service" in named


def test_an_issuer_with_a_backlog_is_late_and_not_stalled(
    partitions: UndecidedPartitions, sale: Sale, settings: Settings, real_log: Log, store: Engine
) -> None:
    """A partition is stalled only if nothing moves, however old its records are."""
    with joined(clients.build_issuer_consumer(settings)):
        partitions.check()
        eventually(lambda: all(late.stalled for late in partitions.check().late))
        real_log.issue()
        set_watermark_age(store, "1 hour")
        real_log.append_request(sale.coupon.id, 3)
        report = partitions.check()

    assert not any(late.stalled for late in report.late)
    assert f"held by client '{clients.issuer_client_id(settings)}'" in reason(report, sale.partition)
    assert "1 records behind" in reason(report, sale.partition)


@pytest.mark.usefixtures("sale")
def test_a_backlog_is_an_alert_only_while_it_does_not_get_shorter(
    partitions: UndecidedPartitions,
    settings: Settings,
    real_log: Log,
    store: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its records are old in any case. It grows while its issuer decides, but fewer records than are appended."""
    monkeypatch.setattr(undecided, "GROWING_SECONDS", 0.5)

    def find_alert() -> str | None:
        """Advance the partition's watermark by a little, as an issuer does, and return the alert."""
        with store.begin() as tx:
            tx.execute(text("UPDATE offsets SET watermark = watermark + interval '1 ms'"))
        return alerts.active_alerts(settings, DeadLetterCounts(0, 0), partitions.check()).get(Alert.UNDECIDED)

    with joined(clients.build_issuer_consumer(settings)):
        assert find_alert() is None
        growing = eventually(find_alert)
        real_log.issue()
        set_watermark_age(store, "1 hour")
        shorter = find_alert()

    assert "2 records behind" in growing
    assert shorter is None


@pytest.mark.parametrize("committed_first", [False, True])
def test_an_open_transaction_is_named(
    partitions: UndecidedPartitions, sale: Sale, settings: Settings, real_log: Log, *, committed_first: bool
) -> None:
    """Also if the marker of an earlier transaction lies between the checkpoint and the open one's first record."""
    with (
        joined(clients.build_issuer_consumer(settings)),
        open_transaction(settings.kafka_bootstrap_servers, sale.coupon.id, committed_first=committed_first),
    ):
        before = reason(partitions.check(), sale.partition)
        real_log.issue()
        hidden_from = real_log.positions[sale.partition] + committed_first
        set_watermark_age(partitions._engine, "1 hour")
        after = reason(partitions.check(), sale.partition)

    assert f"{5 if committed_first else 3} records behind" in before
    assert f"an open transaction of another producer hides the records from offset {hidden_from} on" in after


def test_without_kafka_the_partition_is_late_and_its_holder_unknown(resources: Resources, sale: Sale) -> None:
    """The database alone says that nothing is decided."""
    away = resources.settings.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1"})

    report = UndecidedPartitions(away, resources.engine, resources.log_watch).check()

    assert "its holder is unknown: Kafka is unavailable" in reason(report, sale.partition)


def test_a_report_does_not_wait_for_kafka(resources: Resources, sale: Sale, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readiness has a second for its answer; what Kafka says later is in a later report."""
    monkeypatch.setattr(undecided, "_ANSWER_SECONDS", 0.0)
    away = resources.settings.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1"})
    partitions = UndecidedPartitions(away, resources.engine, resources.log_watch)

    assert "not known yet" in reason(partitions.check(), sale.partition)

    eventually(lambda: "its holder is unknown" in reason(partitions.check(), sale.partition))


def test_a_partition_that_was_never_decided_becomes_late(partitions: UndecidedPartitions) -> None:
    """It has no checkpoint: its age counts from the first check of the process."""
    assert not partitions.check().late

    late = eventually(lambda: partitions.check().late)

    assert {one.partition for one in late} == set(range(PARTITIONS))
    assert all(one.stalled for one in late)


def test_an_issuer_is_unready_for_stalled_partitions_that_no_other_issuer_holds(
    resources: Resources, sale: Sale, settings: Settings
) -> None:
    """A partition of another issuer is reported by that one; a partition of a stranger by every issuer."""
    other = settings.model_copy(update={"issuer_instance": "other"})
    health = Health()
    health.set_ready("issuer")
    monitor = Monitor(resources, Celery(), health)
    subject = f"partition {sale.partition}"
    with joined(clients.build_issuer_consumer(other)):
        eventually(lambda: all(late.stalled for late in monitor._undecided.check().late))
        monitor.check()
        assert subject not in health.reasons
        assert "held by client 'coupons-issuer-other'" in health.alerts[Alert.UNDECIDED]

    with stranger_in_group(settings.kafka_bootstrap_servers):
        monitor.check()
        assert "not an issuer of this service" in health.reasons[subject]
        health.set_unready(subject, "paused")
        assert health.reasons[subject] == "paused"
        health.set_ready(subject)
        set_watermark_age(resources.engine, "1 second")
        monitor.check()

    assert subject not in health.reasons
    assert not health.alerts
