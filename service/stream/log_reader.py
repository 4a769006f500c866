"""Reads ranges of the log and queries end offsets: for gate fills, the proof, the issuer."""

import random
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from service.config import Settings
from service.domain.errors import Unavailable
from service.domain.record import RawRecord
from service.domain.request import LogPosition
from service.stream import clients
from service.stream.codec import UNREADABLE_HEADERS
from service.stream.connection import Admin
from service.stream.errors import mapped_errors
from service.stream.topics import Topic

_TIMEOUT_SECONDS = 5.0
#: seconds to wait for each leader; after _MAX_SILENT_LEADERS the remaining ones are not queried
_LEADER_TIMEOUT_SECONDS = 1.0
_MAX_SILENT_LEADERS = 3
_BATCH_SIZE = 2000


def offset_range(
    consumer: Consumer, topic: Topic, partition: int, timeout_seconds: float = _TIMEOUT_SECONDS
) -> tuple[int, int]:
    """Return the first offset of the partition and its end offset; raise Unavailable."""
    try:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=timeout_seconds)
    except KafkaException as error:
        raise Unavailable("Kafka", str(error.args[0])) from error
    return low, high


class PartitionRanges(NamedTuple):
    """Offset ranges by partition, and the partitions whose leader did not answer, with the reason."""

    ranges: dict[int, tuple[int, int]]
    errors: dict[int, str]


def offset_ranges(consumer: Consumer, topic: Topic, partitions: Iterable[int]) -> PartitionRanges:
    """Return the ranges of partitions whose leader answers.

    Query the leaders in random order, so that no partition is skipped every time.
    """
    found = PartitionRanges({}, {})
    asked = list(partitions)
    for partition in random.sample(asked, len(asked)):
        try:
            found.ranges[partition] = offset_range(consumer, topic, partition, _LEADER_TIMEOUT_SECONDS)
        except Unavailable as error:
            found.errors[partition] = str(error)
        if len(found.errors) == _MAX_SILENT_LEADERS:
            break
    return found


def first_offset(settings: Settings, topic: Topic, partition: int) -> int:
    """Return the partition's first offset; older records have been deleted. Raises Unavailable."""
    return present_range(settings, topic, partition)[0]


def present_range(settings: Settings, topic: Topic, partition: int) -> tuple[int, int]:
    """Return the partition's first offset and its end offset, by a client of its own. Raises Unavailable."""
    consumer = clients.build_reader(settings)
    try:
        return offset_range(consumer, topic, partition)
    finally:
        consumer.close()


def count_offsets(settings: Settings, topic: Topic, partitions: Iterable[int]) -> int:
    """Return how many offsets the partitions have, from their first one to their end. Raises Unavailable."""
    consumer = clients.build_reader(settings)
    try:
        ranges = [offset_range(consumer, topic, partition) for partition in partitions]
    finally:
        consumer.close()
    return sum(end - first for first, end in ranges)


def last_append_ms(admin: Admin, topic: Topic, partitions: Iterable[int]) -> int | None:
    """Return the latest append time of the partitions' records, or None without records. Raises Unavailable."""
    asked = {TopicPartition(topic, partition): OffsetSpec.max_timestamp() for partition in partitions}  # type: ignore[no-untyped-call]
    with mapped_errors(admin):
        answers = admin.list_offsets(asked, request_timeout=_TIMEOUT_SECONDS)
        times = [answer.result(_TIMEOUT_SECONDS).timestamp for answer in answers.values()]
    return max((at for at in times if at >= 0), default=None)


def read_records(settings: Settings, topic: Topic, partition: int, first: int | None) -> Generator[RawRecord]:
    """Yield the records from `first` (None: the beginning) up to the present end of the partition.

    Raises Unavailable. The last record can lie before the end offset, since transaction markers use offsets too.
    """
    consumer = clients.build_reader(settings)
    try:
        low, stop = offset_range(consumer, topic, partition)
        next_offset = max(low, first or 0)
        if next_offset < stop:
            consumer.assign([TopicPartition(topic, partition, next_offset)])
        while next_offset < stop:
            messages = consumer.consume(_BATCH_SIZE, timeout=0.1) or consumer.consume(1, timeout=_TIMEOUT_SECONDS)
            if not messages:
                raise Unavailable("Kafka", "no record arrived in time")
            for message in messages:
                error = message.error()
                if error and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001  # its public name
                    raise Unavailable("Kafka", error.str())
                if error or (message.offset() or 0) >= stop:
                    return
                yield raw_record(message)
                next_offset = (message.offset() or 0) + 1
    finally:
        consumer.close()


def find_record(settings: Settings, topic: Topic, at: LogPosition) -> RawRecord | None:
    """Return the record at a position, or None if there is none, for example because it was deleted.

    Raises Unavailable.
    """
    with closing(read_records(settings, topic, at.partition, at.offset)) as records:
        found = next(records, None)
    return found if found and found.log_position == at else None


def without_records(settings: Settings, topic: Topic, ranges: Mapping[int, tuple[int, int]]) -> set[int]:
    """Return the partitions in whose range, from its first offset to before its second one, a consumer gets no record.

    Such a range is empty, or has only transaction markers and records of aborted transactions. A partition whose leader
    does not answer within a second is not returned. Raises Unavailable.
    """
    found = {partition for partition, (first, end) in ranges.items() if first >= end}
    unread = ranges.keys() - found
    if not unread:
        return found
    with mapped_errors():
        consumer = clients.build_reader(settings)
    try:
        consumer.assign([TopicPartition(topic, partition, ranges[partition][0]) for partition in sorted(unread)])
        deadline = time.monotonic() + _LEADER_TIMEOUT_SECONDS
        while unread and (message := consumer.poll(max(0.0, deadline - time.monotonic()))):
            at, offset, error = message.partition(), message.offset(), message.error()
            if at not in unread or offset is None:
                continue
            consumer.pause([TopicPartition(topic, at)])
            unread.discard(at)
            reached = error is None or error.code() == KafkaError._PARTITION_EOF  # noqa: SLF001  # its public name
            if reached and offset >= ranges[at][1]:
                found.add(at)
    finally:
        consumer.close()
    return found


def poll_batch(consumer: Consumer, max_messages: int, wait_seconds: float) -> list[Message]:
    """Return the messages available now, at most `max_messages`, or the first one that arrives within wait_seconds."""
    first = consumer.poll(wait_seconds)
    if first is None:
        return []
    return [first, *consumer.consume(max_messages - 1, timeout=0)] if max_messages > 1 else [first]


def raw_record(message: Message) -> RawRecord:
    """Return the record of a message without an error.

    The client fails on header names that are not UTF-8: such headers are lost, and the record is poison.
    """
    try:
        headers: Any = message.headers() or ()
    except (SystemError, UnicodeDecodeError):
        headers = (UNREADABLE_HEADERS,)
    position = LogPosition(message.partition() or 0, message.offset() or 0)
    return RawRecord(position, message.key(), message.value(), tuple(headers), message.timestamp()[1])
