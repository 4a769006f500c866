"""One member of a consumer group: a process that prints each assignment, each revocation and each record it reads.

`python -m benchmarks.rebalance.member JSON`, a list of the topic and the consumer's settings.
"""

import json
import signal
import sys
import time
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

_POLL_SECONDS = 0.2
_RECONNECT_SECONDS = 1.0

Signals = list[int]
"""Signals received: the process ends after the first."""


def main() -> None:
    """Read the topic until SIGTERM. A consumer that fails is replaced, as in the issuer."""
    topic, config = json.loads(sys.argv[1])
    signals: Signals = []
    signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    while not signals:
        try:
            _consume(topic, config, signals)
        except KafkaException as error:
            _print_event("failed", str(error))
            time.sleep(_RECONNECT_SECONDS)


def _consume(topic: str, config: dict[str, Any], signals: Signals) -> None:
    def on_assign(_: Consumer, partitions: list[TopicPartition]) -> None:
        _print_event("assigned", *(each.partition for each in partitions))

    def on_revoke(_: Consumer, partitions: list[TopicPartition]) -> None:
        _print_event("revoked", *(each.partition for each in partitions))

    consumer = Consumer(config)
    consumer.subscribe([topic], on_assign=on_assign, on_revoke=on_revoke)
    try:
        while not signals:
            message = consumer.poll(_POLL_SECONDS)
            if message is not None:
                _print_message(message)
    finally:
        consumer.close()


def _print_message(message: Message) -> None:
    """Print a record that was read; raise KafkaException on a fatal error and ignore others."""
    error = message.error()
    if error is None:
        _print_event("read", message.partition(), message.offset(), message.timestamp()[1] / 1000)
    elif error.code() == KafkaError._FATAL:  # noqa: SLF001  # the library's public name for the code
        raise KafkaException(error)


def _print_event(event: str, *details: object) -> None:
    """Print one line of JSON in one write: seconds since 1970, the event, its details."""
    print(json.dumps([time.time(), event, *details]), flush=True)


if __name__ == "__main__":
    main()
