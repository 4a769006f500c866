"""One member of a consumer group, a process that can be killed and frozen: it prints what it is given and reads."""

import json
import signal
import sys
import time
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

_IDLE_SECONDS = 0.2
_RENEW_SECONDS = 1.0

Asked = list[int]
"""The signals that asked it to end."""


def main() -> None:
    """Reads a topic as a member with these settings until SIGTERM; as in the issuer, a failed consumer is replaced."""
    topic, config = json.loads(sys.argv[1])
    asked: Asked = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    while not asked:
        try:
            _follow(topic, config, asked)
        except KafkaException as error:
            _say("failed", str(error))
            time.sleep(_RENEW_SECONDS)


def _follow(topic: str, config: dict[str, Any], asked: Asked) -> None:
    consumer = Consumer(config)
    consumer.subscribe([topic], on_assign=_assigned, on_revoke=_revoked)
    try:
        while not asked:
            _read(consumer.poll(_IDLE_SECONDS))
    finally:
        consumer.close()


def _read(message: Message | None) -> None:
    if message is None:
        return
    error = message.error()
    if error is None:
        _say("read", message.partition(), message.offset(), message.timestamp()[1] / 1000)
    elif error.code() == KafkaError._FATAL:  # noqa: SLF001  # its public name
        raise KafkaException(error)


def _assigned(_: Consumer, partitions: list[TopicPartition]) -> None:
    _say("assigned", *(at.partition for at in partitions))


def _revoked(_: Consumer, partitions: list[TopicPartition]) -> None:
    _say("revoked", *(at.partition for at in partitions))


def _say(what: str, *more: object) -> None:
    """One line of JSON, written whole: when, in seconds since 1970, what, and of what."""
    print(json.dumps([time.time(), what, *more]), flush=True)


if __name__ == "__main__":
    main()
