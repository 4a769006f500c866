"""Dead letters in the format of Spring Kafka's DeadLetterPublishingRecoverer, produced and parsed.

Source of header names and encodings: org.springframework.kafka.support.KafkaHeaders (DLT_*) and the recoverer's code:
strings in UTF-8, the partition as 4 bytes, offset and timestamp as 8 bytes, big-endian.
"""

import struct
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer

from service.domain.failures import Failure, FailureClass
from service.domain.record import Headers, RawRecord
from service.domain.request import LogPosition
from service.limits import MAX_ERROR_LENGTH, MAX_TIMESTAMP_MS
from service.log import get_logger
from service.log_events import LogEvent
from service.stream.topics import Group, Topic

_log = get_logger(__name__)
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
    """The log position that a dead letter names as its origin."""

    topic: str
    log_position: LogPosition
    appended_at_ms: int


def spring_headers(raw: RawRecord, kind: str, message: str) -> list[tuple[str, bytes | None]]:
    """Return the record's own headers, followed by its origin and its failure."""
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
    """Return the origin of a dead letter, or None if its headers do not have Spring's format."""
    values = dict(found)
    try:
        origin = Origin(
            (values[SpringHeader.TOPIC] or b"").decode(),
            LogPosition(
                *_INT.unpack(values[SpringHeader.PARTITION] or b""), *_LONG.unpack(values[SpringHeader.OFFSET] or b"")
            ),
            *_LONG.unpack(values[SpringHeader.TIMESTAMP] or b""),
        )
    except (KeyError, struct.error, UnicodeDecodeError):
        return None
    return origin if 0 <= origin.appended_at_ms <= MAX_TIMESTAMP_MS else None


def parse_failure(found: Headers) -> Failure:
    """Return the failure that the headers of another producer's dead letter describe, not longer than ours are."""
    values = dict(found)
    return Failure(
        FailureClass.POISON, _text(values.get(SpringHeader.EXCEPTION)), _text(values.get(SpringHeader.MESSAGE))
    )


class DeadLetterProducer:
    """Produces dead letters to their topic."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer

    def produce(self, dead_letters: Sequence[tuple[int, RawRecord, str, str]], timeout_seconds: float) -> list[int]:
        """Produce dead letters (id, record, error type, message) to their original partition; return acknowledged ids.

        Waits for acknowledgements up to the timeout.
        """
        acknowledged: list[int] = []
        reason = "the broker did not answer in time"

        def report(dead_letter_id: int, error: KafkaError | None) -> None:
            nonlocal reason
            if error is None:
                acknowledged.append(dead_letter_id)
            else:
                reason = f"dead letter {dead_letter_id}: {error}"

        def on_delivery(dead_letter_id: int) -> object:
            return lambda error, _: report(dead_letter_id, error)

        for dead_letter_id, raw, kind, message in dead_letters:
            try:
                self._producer.produce(
                    Topic.DEAD_LETTERS,
                    partition=raw.log_position.partition,
                    key=raw.key,
                    value=raw.value,
                    headers=spring_headers(raw, kind, message),  # type: ignore[arg-type]
                    on_delivery=on_delivery(dead_letter_id),  # type: ignore[arg-type]
                )
            except (BufferError, KafkaException) as error:  # skip this one; the following ones are still produced
                reason = f"dead letter {dead_letter_id}: {error}"
        self._producer.flush(timeout_seconds)
        if waiting := len(dead_letters) - len(acknowledged):
            _log.error(LogEvent.DEAD_LETTERS_NOT_FORWARDED, count=waiting, reason=reason)
        return acknowledged

    def close(self, timeout_seconds: float) -> None:
        """Wait for outstanding delivery reports up to the timeout."""
        self._producer.flush(timeout_seconds)


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace").replace("\x00", "\ufffd")[:MAX_ERROR_LENGTH]
