"""The TO-BE consumer in Python: `python -m benchmarks.comparators.to_be_consumer TOPIC LOG_ID`.

One message, one transaction, as in the report. It is a good implementation of that design: one kept connection, every
statement prepared, the coupon locked, duplicate and quantity checked under the lock, the row inserted, committed.
Offsets are committed once per fetch, as Spring Kafka's listener does by default. A refusal is a row too, as in this
project's table.
"""

import os
import signal
import sys
from collections.abc import Sequence
from typing import cast

import msgspec
import psycopg
from confluent_kafka import Consumer, Message, TopicPartition

from service.stream.codec import REQUEST_ID_HEADER, Payload

_MAX_POLL_RECORDS = 500  # the default of Spring Kafka's consumer
_LOCK_COUPON = "SELECT issued, quantity FROM coupons WHERE id = %s FOR NO KEY UPDATE"
_IS_DUPLICATE = (
    "SELECT EXISTS (SELECT FROM requests WHERE coupon_id = %s AND user_id = %s"
    " AND state IN ('issued', 'retrying', 'standby'))"
)
_INSERT = (
    'INSERT INTO requests (log_id, partition, "offset", coupon_id, user_id, request_id, state, code, sequence,'
    " attempts, requested_at, decided_at)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, 1, to_timestamp(%s / 1000.0), clock_timestamp())"
)
_decode = msgspec.json.Decoder(Payload).decode


class Listener:
    """Handles messages one by one until stopped."""

    def __init__(self, database: "psycopg.Connection", log_id: int) -> None:
        self._database = database
        self._log_id = log_id
        self._stopping = False

    def stop(self) -> None:
        """Stop after the current fetch."""
        self._stopping = True

    def run(self, consumer: Consumer) -> None:
        """Poll, handle each message, then commit the offsets."""
        while not self._stopping:
            messages = consumer.consume(_MAX_POLL_RECORDS, timeout=0) or consumer.consume(1, timeout=0.5)
            for message in messages:
                assert not message.error(), message.error()
                self._handle(message)
            if messages:
                consumer.commit(offsets=_next_offsets(messages), asynchronous=True)

    def _handle(self, message: Message) -> None:
        payload = _decode(message.value() or b"")
        with self._database.transaction():
            state, code, sequence = self._decide(payload)
            headers = dict(message.headers() or [])
            row_key = (self._log_id, message.partition(), message.offset(), payload.coupon_id, payload.user_id)
            request_id = cast(bytes, headers[REQUEST_ID_HEADER]).decode()
            self._database.execute(_INSERT, (*row_key, request_id, state, code, sequence, payload.request_time_millis))

    def _decide(self, payload: Payload) -> tuple[str, str | None, int | None]:
        """Lock the coupon and return state, code and sequence."""
        coupon = self._database.execute(_LOCK_COUPON, [payload.coupon_id]).fetchone()
        duplicate = self._database.execute(_IS_DUPLICATE, [payload.coupon_id, payload.user_id]).fetchone()
        assert coupon
        assert duplicate
        issued, quantity = coupon
        if duplicate[0]:
            return "refused", "duplicate", None
        return ("issued", None, issued + 1) if issued < quantity else ("refused", "sold_out", None)


def _next_offsets(messages: Sequence[Message]) -> list[TopicPartition]:
    last = {(message.topic(), message.partition()): message.offset() for message in messages}
    return [TopicPartition(str(topic), partition or 0, (at or 0) + 1) for (topic, partition), at in last.items()]


def main() -> None:
    """Consume the topic from its beginning, in group `to_be`, until SIGTERM or SIGINT."""
    topic, log_id = sys.argv[1], int(sys.argv[2])
    settings = {
        "bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"],
        "group.id": "to_be",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
    consumer = Consumer(settings)
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True, prepare_threshold=0) as database:
        listener = Listener(database, log_id)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: listener.stop())
        consumer.subscribe([topic], on_assign=lambda *_: print("assigned", flush=True))
        listener.run(consumer)
    consumer.close()


if __name__ == "__main__":
    main()
