"""The idle clock: what was read to its end has passed up to the moment of the question, and nothing else has."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer

from service.clock import Shift, now_ms
from service.config import Settings
from service.domain.coupon import Coupon
from service.resources import Resources
from service.store import checkpoints, engine
from service.stream import log_reader
from service.stream.codec import encode_key
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
    """An issuer that has read the whole log to its end."""
    ours = Assignment(Consumer({"group.id": "tests"}), Health(), lambda: None)
    ours.next_offsets = dict(real_log.positions)
    return ours


def test_time_passes_only_where_all_was_read(
    real_log: Log, make_coupon: Callable[..., Coupon], resources: Resources, assignment: Assignment
) -> None:
    """P6: a record that waits keeps the clock of its partition where it was."""
    coupon = make_coupon(quantity=1)
    real_log.ask(coupon.id, 1)
    before = now_ms()

    with closing(Watermark(resources, Health())) as clock:
        passed = eventually(lambda: _passed_since(before, clock, assignment, resources))

    assert passed == set(range(PARTITIONS)) - {partition_of(coupon.id, PARTITIONS)}


def test_what_lies_behind_an_open_transaction_has_not_passed(
    real_log: Log, make_coupon: Callable[..., Coupon], resources: Resources, assignment: Assignment, settings: Settings
) -> None:
    """P6: consumers are not shown it before the other producer's transaction ends; it was accepted all the same."""
    coupon = make_coupon(quantity=1)
    partition = partition_of(coupon.id, PARTITIONS)
    other = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers, "transactional.id": "tests"})
    other.init_transactions(10)
    other.begin_transaction()
    other.produce(Topic.ISSUE_COUPON, key=encode_key(coupon.id), value=b"{}", partition=partition)
    other.flush(10)
    real_log.ask(coupon.id, 1)
    before = now_ms()

    with closing(Watermark(resources, Health())) as clock:
        passed = eventually(lambda: _passed_since(before, clock, assignment, resources))
    other.abort_transaction(10)

    assert passed == set(range(PARTITIONS)) - {partition}


def test_only_what_was_appended_before_the_question_has_passed(
    resources: Resources, assignment: Assignment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P6: between the question and its answer another record could have been appended."""
    before = now_ms()
    asked_at: list[int] = []
    monkeypatch.setattr(log_reader, "look", partial(_look_slowly, log_reader.offset_ranges, asked_at))

    with closing(Watermark(resources, Health())) as clock:
        passed = eventually(lambda: _passed_since(before, clock, assignment, resources))

    assert passed == set(range(PARTITIONS))
    assert not _since(asked_at[0] + 1, resources)


def _look_slowly(look: Callable[..., PartitionRanges], asked_at: list[int], *asked: Any) -> PartitionRanges:
    """The broker's answer takes a while to come back."""
    asked_at.append(now_ms())
    found = look(*asked)
    eventually(lambda: now_ms() > asked_at[-1] + 50)
    return found


def test_a_database_that_is_away_keeps_the_clock_and_the_broker_is_told_of(
    resources: Resources, assignment: Assignment
) -> None:
    """Nothing passes while nobody can say what time it is, and the broker is looked after all the same."""
    away = engine.build(resources.engine.url.set(port=1).render_as_string(hide_password=False), "tests")
    health, before = Health(), now_ms()
    health.set_unready("kafka", "it was away")

    with closing(Watermark(replace(resources, engine=away), health)) as clock:
        eventually(lambda: _passed_since(before, clock, assignment, resources) or "kafka" not in health.reasons)

    assert not _since(before, resources)


def test_an_issuer_whose_clock_is_fast_lets_nothing_pass_early(
    resources: Resources, assignment: Assignment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P5: what has passed never comes back, and seats of unknown outcomes would be freed for an hour to come."""
    before = now_ms()
    monkeypatch.setattr(Shift, "by_ms", 3_600_000)

    with closing(Watermark(resources, Health())) as clock:
        passed = eventually(lambda: _passed_since(before, clock, assignment, resources))

    assert passed == set(range(PARTITIONS))
    monkeypatch.undo()
    assert not _since(now_ms() + 1, resources)


def test_a_broker_that_is_away_keeps_the_clock_and_is_told(resources: Resources, assignment: Assignment) -> None:
    """Nothing passes while nobody can say where the log ends."""
    away = resources.settings.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1"})
    health, before = Health(), now_ms()

    with closing(Watermark(replace(resources, settings=away), health)) as clock:
        eventually(lambda: _passed_since(before, clock, assignment, resources) or "kafka" in health.reasons)
        assert not _passed_since(before, clock, assignment, resources)

    assert "kafka" in health.reasons


def _passed_since(at_ms: int, clock: Watermark, assignment: Assignment, resources: Resources) -> set[int]:
    """Turns the clock once; the partitions whose time has passed that moment."""
    clock.poll(assignment)
    return _since(at_ms, resources)


def _since(at_ms: int, resources: Resources) -> set[int]:
    with resources.engine.begin() as tx:
        known = checkpoints.current_checkpoints(tx, resources.log_id)
    return {partition for partition, position in known.items() if position.watermark_ms >= at_ms}
