"""Reads a stretch of the log by hand and asks where it ends: for the gate's repair, the proof, the issuer."""

import random
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from service.config import Settings
from service.domain.errors import Unavailable
from service.domain.record import RawRecord
from service.domain.request import LogPosition
from service.stream import clients
from service.stream.codec import UNREADABLE_HEADERS
from service.stream.topics import Topic

_TIMEOUT_SECONDS = 5.0
#: a leader that does not answer costs a look so long; after so many the others are not asked
_LOOK_SECONDS = 1.0
_AWAY_MOST = 3
_AT_ONCE = 2000


def offset_range(
    consumer: Consumer, topic: Topic, partition: int, timeout_seconds: float = _TIMEOUT_SECONDS
) -> tuple[int, int]:
    """First offset of the partition and the one after its last, as the broker has them now; raises Unavailable."""
    try:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=timeout_seconds)
    except KafkaException as error:
        raise Unavailable("Kafka", str(error.args[0])) from error
    return low, high


class PartitionRanges(NamedTuple):
    """First offset and the one after the last, by partition, and which leaders did not answer, and why."""

    ranges: dict[int, tuple[int, int]]
    errors: dict[int, str]


def offset_ranges(consumer: Consumer, topic: Topic, partitions: Iterable[int]) -> PartitionRanges:
    """The bounds of those partitions whose leader answers; in any order, so that none is left out time after time."""
    found = PartitionRanges({}, {})
    asked = list(partitions)
    for partition in random.sample(asked, len(asked)):
        try:
            found.ranges[partition] = offset_range(consumer, topic, partition, _LOOK_SECONDS)
        except Unavailable as error:
            found.errors[partition] = str(error)
        if len(found.errors) == _AWAY_MOST:
            break
    return found


def first_offset(settings: Settings, topic: Topic, partition: int) -> int:
    """The partition's first offset; what was before it has been taken away. Raises Unavailable."""
    consumer = clients.build_reader(settings)
    try:
        return offset_range(consumer, topic, partition)[0]
    finally:
        consumer.close()


def read_records(settings: Settings, topic: Topic, partition: int, first: int | None) -> Iterator[RawRecord]:
    """The records from `first` (None: the beginning) up to the partition's end as of now."""
    consumer = clients.build_reader(settings)
    try:
        low, stop = offset_range(consumer, topic, partition)
        start = max(low, first or 0)
        if start < stop:
            consumer.assign([TopicPartition(topic, partition, start)])
            yield from _records(consumer, stop)
    finally:
        consumer.close()


def _records(consumer: Consumer, stop: int) -> Iterator[RawRecord]:
    while True:
        messages = consumer.consume(_AT_ONCE, timeout=0.1) or consumer.consume(1, timeout=_TIMEOUT_SECONDS)
        if not messages:
            raise Unavailable("Kafka", "no record came in time")
        for message in messages:
            if _ended(message, stop):
                return
            yield raw_record(message)
            if (message.offset() or 0) + 1 >= stop:
                return


def _ended(message: Message, stop: int) -> bool:
    """At the end of the partition (which may lie before `stop` where transaction markers take offsets)."""
    error = message.error()
    if error is None:
        return (message.offset() or 0) >= stop
    if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  # its public name
        return True
    raise Unavailable("Kafka", error.str())


def poll_batch(consumer: Consumer, most: int, wait_seconds: float) -> list[Message]:
    """All that is there, at most `most`, or what comes first within a moment: a lone record is not kept waiting."""
    first = consumer.poll(wait_seconds)
    if first is None:
        return []
    return [first, *consumer.consume(most - 1, timeout=0)] if most > 1 else [first]


def raw_record(message: Message) -> RawRecord:
    """The bytes and place of a message that carries no error.

    The client fails on header names that are not UTF-8; such headers are lost, the record is poison.
    """
    try:
        headers: Any = message.headers() or ()
    except (SystemError, UnicodeDecodeError):
        headers = (UNREADABLE_HEADERS,)
    place = LogPosition(message.partition() or 0, message.offset() or 0)
    return RawRecord(place, message.key(), message.value(), tuple(headers), message.timestamp()[1])
