"""Step 7: dead letters as Spring Kafka's DeadLetterPublishingRecoverer writes them, to the topic and back.

Header names and encodings: org.springframework.kafka.support.KafkaHeaders (DLT_*) and the recoverer's source:
strings in UTF-8, the partition as 4 bytes, offset and timestamp as 8 bytes, big-endian.
"""

import logging
import struct
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer

from service.domain.failures import Failure, FailureClass
from service.domain.record import Headers, RawRecord
from service.domain.request import LogPosition
from service.stream.codec import MAX_TIMESTAMP_MS
from service.stream.topics import Group, Topic

_log = logging.getLogger(__name__)
_INT, _LONG = struct.Struct(">i"), struct.Struct(">q")


class SpringHeader(StrEnum):
    """Spring Kafka's names."""

    TOPIC = "kafka_dlt-original-topic"
    PARTITION = "kafka_dlt-original-partition"
    OFFSET = "kafka_dlt-original-offset"
    TIMESTAMP = "kafka_dlt-original-timestamp"
    TIMESTAMP_TYPE = "kafka_dlt-original-timestamp-type"
    GROUP = "kafka_dlt-original-consumer-group"
    EXCEPTION = "kafka_dlt-exception-fqcn"
    MESSAGE = "kafka_dlt-exception-message"


class Origin(NamedTuple):
    """Where a dead letter says it comes from."""

    topic: str
    log_position: LogPosition
    appended_at_ms: int


def spring_headers(raw: RawRecord, kind: str, message: str) -> list[tuple[str, bytes | None]]:
    """The record's own headers, then where it came from and why it is dead."""
    return [
        *raw.headers,
        (SpringHeader.TOPIC, Topic.ISSUE_COUPON.encode()),
        (SpringHeader.PARTITION, _INT.pack(raw.log_position.partition)),
        (SpringHeader.OFFSET, _LONG.pack(raw.log_position.offset)),
        (SpringHeader.TIMESTAMP, _LONG.pack(raw.appended_at_ms)),
        (SpringHeader.TIMESTAMP_TYPE, b"LogAppendTime"),
        (SpringHeader.GROUP, Group.ISSUER.encode()),
        (SpringHeader.EXCEPTION, kind.encode()),
        (SpringHeader.MESSAGE, message.encode()),
    ]


def parse_origin(found: Headers) -> Origin | None:
    """Where the dead letter comes from, or None when its headers do not say so in Spring's form."""
    values = dict(found)
    try:
        said = Origin(
            (values[SpringHeader.TOPIC] or b"").decode(),
            LogPosition(
                *_INT.unpack(values[SpringHeader.PARTITION] or b""), *_LONG.unpack(values[SpringHeader.OFFSET] or b"")
            ),
            *_LONG.unpack(values[SpringHeader.TIMESTAMP] or b""),
        )
    except (KeyError, struct.error, UnicodeDecodeError):
        return None
    return said if 0 <= said.appended_at_ms <= MAX_TIMESTAMP_MS else None


def parse_failure(found: Headers) -> Failure:
    """Why another producer's dead letter is dead, as far as its headers tell."""
    values = dict(found)
    return Failure(
        FailureClass.POISON, _text(values.get(SpringHeader.EXCEPTION)), _text(values.get(SpringHeader.MESSAGE))
    )


def produce_dead_letters(
    producer: Producer, letters: Sequence[tuple[int, RawRecord, str, str]], timeout_seconds: float
) -> list[int]:
    """Produces dead letters (id, raw, kind, message) to the partition they came from; the ids acknowledged."""
    acknowledged: list[int] = []
    why = "the broker has not answered in time"

    def report(letter_id: int, error: KafkaError | None) -> None:
        nonlocal why
        if error is None:
            acknowledged.append(letter_id)
        else:
            why = f"letter {letter_id}: {error}"

    def on_delivery(letter_id: int) -> object:
        return lambda error, _: report(letter_id, error)

    for letter_id, raw, kind, message in letters:
        try:
            producer.produce(
                Topic.DEAD_LETTERS,
                partition=raw.log_position.partition,
                key=raw.key,
                value=raw.value,
                headers=spring_headers(raw, kind, message),  # type: ignore[arg-type]
                on_delivery=on_delivery(letter_id),  # type: ignore[arg-type]
            )
        except (BufferError, KafkaException) as error:  # this one waits, those behind it do not
            why = f"letter {letter_id}: {error}"
    producer.flush(timeout_seconds)
    if waiting := len(letters) - len(acknowledged):
        _log.error("%s dead letters wait to be forwarded: %s", waiting, why)
    return acknowledged


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace").replace("\x00", "\ufffd")
