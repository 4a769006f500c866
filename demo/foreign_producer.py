"""Records that do not come from the API: one as the report's Spring producer writes it, and malformed ones."""

import json
import time
from collections.abc import Sequence
from typing import NamedTuple, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from service.stream.topics import Topic

FLUSH_SECONDS = 10.0


class ForeignRecord(NamedTuple):
    """A record to produce; partition -1 is the partition of its key."""

    key: str
    value: bytes | None
    partition: int = -1


def spring_record(coupon_id: int, user_id: int) -> ForeignRecord:
    """Return what the report's KafkaTemplate<String, String> sends: JSON under the coupon's id, no headers."""
    payload = {"userId": user_id, "couponId": coupon_id, "requestTimeMillis": int(time.time() * 1000)}
    return ForeignRecord(str(coupon_id), json.dumps(payload).encode())


def malformed_records(valid: ForeignRecord, wrong_partition: int) -> list[ForeignRecord]:
    """Return five records that cannot be issued; `wrong_partition` is not the partition of the valid record's key."""
    assert valid.value is not None
    return [
        valid._replace(value=b'{"userId": 7, "couponId":'),
        valid._replace(value=None),
        valid._replace(value=valid.value.replace(b'"userId": ', b'"userId": -')),
        valid._replace(key=f"{valid.key}0"),
        valid._replace(partition=wrong_partition),
    ]


class ForeignProducer:
    """A producer beside the API, with the partitioner of the Java client."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._producer = Producer({"bootstrap.servers": bootstrap_servers, "partitioner": "murmur2_random"})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._producer.close()

    def append(self, records: Sequence[ForeignRecord]) -> list[int]:
        """Append records and return their partitions; raises KafkaException unless each one is acknowledged."""
        partitions: list[int] = []

        def on_delivery(error: KafkaError | None, message: Message) -> None:
            if error is None:
                partitions.append(message.partition() or 0)

        for key, value, partition in records:
            self._producer.produce(Topic.ISSUE_COUPON, value, key, partition, on_delivery=on_delivery)
        self._producer.flush(FLUSH_SECONDS)
        if len(partitions) < len(records):
            raise KafkaException(f"{len(records) - len(partitions)} records were not acknowledged")
        return partitions

    def append_malformed(self, valid: ForeignRecord, partition: int) -> int:
        """Append the malformed copies of a valid record that lies on `partition`; return their number."""
        topics = self._producer.list_topics(Topic.ISSUE_COUPON, FLUSH_SECONDS).topics
        wrong_partition = (partition + 1) % len(topics[Topic.ISSUE_COUPON].partitions)
        return len(self.append(malformed_records(valid, wrong_partition)))
