"""The watermark of idle partitions: it advances to the time of the question where all is decided, else not."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer
from sqlalchemy import Connection, event, text

from service.clock import Shift, now_ms
from service.config import Settings
from service.domain.coupon import Coupon
from service.resources import Resources
from service.store import checkpoints, engine
from service.stream import log_reader
from service.stream.codec import encode_key, encode_value
from service.stream.log_reader import PartitionRanges
from service.stream.partitioner import partition_of
from service.stream.topics import Topic
from tests.builders import PARTITIONS
from tests.log import Log
from tests.waiting import eventually
from workers.issuer.assignment import Assignment
from workers.issuer.health import Health
from workers.issuer.watermark import Watermark


@pytest.fixture
def assignment(real_log: Log) -> Assignment:
    """An assignment that has decided the whole log."""
    assignment = Assignment(Consumer({"group.id": "tests"}), Health(), lambda: None)
    assignment.next_offsets = dict(real_log.positions)
    return assignment


def test_the_watermark_advances_only_where_all_is_decided(
    real_log: Log, make_coupon: Callable[..., Coupon], resources: Resources, assignment: Assignment
) -> None:
    """P6: an undecided record holds the watermark of its partition."""
    coupon = make_coupon(quantity=1)
    real_log.append_request(coupon.id, 1)
    before = now_ms()

    with closing(Watermark(resources, Health())) as watermark:
        advanced = eventually(lambda: _advanced_since(before, watermark, assignment, resources))

    assert advanced == set(range(PARTITIONS)) - {partition_of(coupon.id, PARTITIONS)}


def test_records_behind_an_open_transaction_hold_the_watermark(
    real_log: Log, make_coupon: Callable[..., Coupon], resources: Resources, assignment: Assignment, settings: Settings
) -> None:
    """P6: consumers do not get them before the other producer's transaction ends, but they were accepted."""
    coupon = make_coupon(quantity=1)
    partition = partition_of(coupon.id, PARTITIONS)
    other = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers, "transactional.id": "tests"})
    other.init_transactions(10)
    other.begin_transaction()
    other.produce(Topic.ISSUE_COUPON, key=encode_key(coupon.id), value=b"{}", partition=partition)
    other.flush(10)
    real_log.append_request(coupon.id, 1)
    before = now_ms()

    with closing(Watermark(resources, Health())) as watermark:
        advanced = eventually(lambda: _advanced_since(before, watermark, assignment, resources))
    other.abort_transaction(10)

    assert advanced == set(range(PARTITIONS)) - {partition}


@pytest.mark.parametrize("outcome", ["committed", "aborted"])
def test_the_end_of_a_transaction_does_not_hold_the_watermark(
    real_log: Log,
    make_coupon: Callable[..., Coupon],
    resources: Resources,
    assignment: Assignment,
    settings: Settings,
    outcome: str,
) -> None:
    """Its marker has an offset, and its aborted records have one, but no consumer gets them: nothing is undecided."""
    coupon = make_coupon(quantity=1)
    other = Producer(
        {
            "bootstrap.servers": settings.kafka_bootstrap_servers,
            "partitioner": "murmur2_random",
            "transactional.id": "tests",
        }
    )
    other.init_transactions(10)
    other.begin_transaction()
    other.produce(Topic.ISSUE_COUPON, encode_value(coupon.id, 1, now_ms()), encode_key(coupon.id))
    other.flush(10)
    if outcome == "committed":
        other.commit_transaction(10)
        real_log.issue()
        assignment.next_offsets |= real_log.positions
    else:
        other.abort_transaction(10)
    before = now_ms()

    with closing(Watermark(resources, Health())) as watermark:
        eventually(lambda: _advanced_since(before, watermark, assignment, resources) == set(range(PARTITIONS)))


def test_the_watermark_is_the_time_before_the_question(
    resources: Resources, assignment: Assignment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P6: another record may be appended between the question and its answer."""
    before = now_ms()
    asked_at: list[int] = []
    monkeypatch.setattr(log_reader, "offset_ranges", partial(_ask_slowly, log_reader.offset_ranges, asked_at))

    with closing(Watermark(resources, Health())) as watermark:
        advanced = eventually(lambda: _advanced_since(before, watermark, assignment, resources))

    assert advanced == set(range(PARTITIONS))
    assert not _since(asked_at[0] + 1, resources)


def _ask_slowly(ask: Callable[..., PartitionRanges], asked_at: list[int], *arguments: Any) -> PartitionRanges:
    """Return the broker's answer after a delay."""
    asked_at.append(now_ms())
    found = ask(*arguments)
    eventually(lambda: now_ms() > asked_at[-1] + 50)
    return found


def test_an_absent_database_holds_the_watermark_and_not_the_health_of_the_broker(
    resources: Resources, assignment: Assignment
) -> None:
    """The watermark needs the database's clock; whether the broker answers is reported all the same."""
    away = engine.build(resources.engine.url.set(port=1).render_as_string(hide_password=False), "tests")
    health, before = Health(), now_ms()
    health.set_unready("kafka", "it was away")

    with closing(Watermark(replace(resources, engine=away), health)) as watermark:
        eventually(lambda: _advanced_since(before, watermark, assignment, resources) or "kafka" not in health.reasons)

    assert not _since(before, resources)


def test_a_database_that_only_reads_makes_an_idle_issuer_unready(resources: Resources, assignment: Assignment) -> None:
    """P7: without a record to decide, the watermark is the issuer's only write."""
    url = resources.engine.url.update_query_dict({"target_session_attrs": "any"})
    reading = engine.build(url.render_as_string(hide_password=False), "tests reading")
    event.listen(reading, "begin", _begin_read_only)
    health = Health()

    with closing(Watermark(replace(resources, engine=reading), health)) as watermark:
        eventually(lambda: "read-only transaction" in _reason_after_poll(watermark, assignment, health))
        event.remove(reading, "begin", _begin_read_only)
        eventually(lambda: not _reason_after_poll(watermark, assignment, health))

    reading.dispose()


def _begin_read_only(connection: Connection) -> None:
    connection.execute(text("SET TRANSACTION READ ONLY"))


def _reason_after_poll(watermark: Watermark, assignment: Assignment, health: Health) -> str:
    watermark.poll(assignment)
    return health.reasons.get("postgresql", "")


def test_a_fast_clock_of_the_issuer_does_not_advance_the_watermark_early(
    resources: Resources, assignment: Assignment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P5: a watermark never moves back, and for an hour it would free seats of appends with an unknown outcome."""
    before = now_ms()
    monkeypatch.setattr(Shift, "by_ms", 3_600_000)

    with closing(Watermark(resources, Health())) as watermark:
        advanced = eventually(lambda: _advanced_since(before, watermark, assignment, resources))

    assert advanced == set(range(PARTITIONS))
    monkeypatch.undo()
    assert not _since(now_ms() + 1, resources)


def test_an_absent_broker_holds_the_watermark_and_is_reported(resources: Resources, assignment: Assignment) -> None:
    """The watermark needs the end of the log."""
    away = resources.settings.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1"})
    health, before = Health(), now_ms()

    with closing(Watermark(replace(resources, settings=away), health)) as watermark:
        eventually(lambda: _advanced_since(before, watermark, assignment, resources) or "kafka" in health.reasons)
        assert not _advanced_since(before, watermark, assignment, resources)

    assert "kafka" in health.reasons


def _advanced_since(at_ms: int, watermark: Watermark, assignment: Assignment, resources: Resources) -> set[int]:
    """Poll once; return the partitions whose watermark has reached that time."""
    watermark.poll(assignment)
    return _since(at_ms, resources)


def _since(at_ms: int, resources: Resources) -> set[int]:
    with resources.engine.begin() as tx:
        stored = checkpoints.current_checkpoints(tx, resources.log_id)
    return {partition for partition, checkpoint in stored.items() if checkpoint.watermark_ms >= at_ms}
