"""Records that do not come from the API: one as the report's Spring producer writes it, and some that are malformed."""

import json
import time
from collections.abc import Sequence
from typing import NamedTuple, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from service.stream.topics import Topic

FLUSH_SECONDS = 10.0


class Foreign(NamedTuple):
    """A record to be produced; partition -1: where its key belongs."""

    key: str
    value: bytes | None
    partition: int = -1


def springs(coupon_id: int, user_id: int) -> Foreign:
    """What the report's KafkaTemplate<String, String> sends: JSON under the coupon's id, no headers."""
    payload = {"userId": user_id, "couponId": coupon_id, "requestTimeMillis": int(time.time() * 1000)}
    return Foreign(str(coupon_id), json.dumps(payload).encode())


def malformed(sound: Foreign, elsewhere: int) -> list[Foreign]:
    """Five that can never be issued; `elsewhere` is a partition to which the sound one does not belong."""
    assert sound.value is not None
    return [
        sound._replace(value=b'{"userId": 7, "couponId":'),
        sound._replace(value=None),
        sound._replace(value=sound.value.replace(b'"userId": ', b'"userId": -')),
        sound._replace(key=f"{sound.key}0"),
        sound._replace(partition=elsewhere),
    ]


class Outsider:
    """A producer that is not the API."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._producer = Producer({"bootstrap.servers": bootstrap_servers, "partitioner": "murmur2_random"})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._producer.close()

    def append(self, some: Sequence[Foreign]) -> list[int]:
        """Appends records, gives their partitions; raises KafkaException unless each is acknowledged."""
        partitions: list[int] = []

        def on_delivery(error: KafkaError | None, message: Message) -> None:
            if error is None:
                partitions.append(message.partition() or 0)

        for key, value, partition in some:
            self._producer.produce(Topic.ISSUE_COUPON, value, key, partition, on_delivery=on_delivery)
        self._producer.flush(FLUSH_SECONDS)
        if len(partitions) < len(some):
            raise KafkaException(f"{len(some) - len(partitions)} records were not acknowledged")
        return partitions

    def append_malformed(self, sound: Foreign, home: int) -> int:
        """Appends the malformed copies of a record that lies on partition `home`; how many there are."""
        topics = self._producer.list_topics(Topic.ISSUE_COUPON, FLUSH_SECONDS).topics
        elsewhere = (home + 1) % len(topics[Topic.ISSUE_COUPON].partitions)
        return len(self.append(malformed(sound, elsewhere)))
