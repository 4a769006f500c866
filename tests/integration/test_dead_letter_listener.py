"""The listener of the dead-letter topic: of letters that cannot be stored together each is stored alone, in order."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Event

import pytest
from confluent_kafka import Producer
from sqlalchemy import Engine

from service.config import Settings
from service.domain.record import RawRecord
from service.resources import Resources
from service.stream import clients
from service.stream.codec import RecordReader
from service.stream.topics import Topic
from service.usecases import dead_letter_topic
from tests.integration.conftest import Ask
from tests.waiting import eventually
from workers.issuer.dead_letter_listener import DeadLetterListener
from workers.issuer.health import Health

_STORED = "SELECT value FROM dead_letters WHERE value IN ('first', 'bad', 'last') ORDER BY dlt_offset"


class Stubborn:
    """Stores letters as the use case does; none of a batch with the bad one in it, until it may."""

    def __init__(self) -> None:
        self._take_in = dead_letter_topic.store_received
        self.may = Event()
        #: how many letters each batch had
        self.batches: list[int] = []

    def __call__(self, engine: Engine, reader: RecordReader, raws: Sequence[RawRecord]) -> None:
        self.batches.append(len(raws))
        if not self.may.is_set() and any(raw.value == b"bad" for raw in raws):
            raise ValueError("this one cannot be stored")
        self._take_in(engine, reader, raws)


@contextmanager
def listening(resources: Resources, settings: Settings) -> Iterator[Health]:
    """The listener runs in a thread of this process; its health."""
    health = Health()
    listener = DeadLetterListener(resources, partial(clients.build_dead_letter_consumer, settings), health)
    listener.start()
    try:
        yield health
    finally:
        listener.close()


def test_a_letter_that_cannot_be_stored_waits_alone(
    resources: Resources, settings: Settings, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step 7: those of its batch before it are stored; it and those behind it are not passed over."""
    stubborn = Stubborn()
    monkeypatch.setattr(dead_letter_topic, "take_in", stubborn)
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers})
    for value in (b"first", b"bad", b"last"):
        producer.produce(Topic.DEAD_LETTERS, value, partition=0)
    producer.flush(10)

    with listening(resources, settings) as health:
        eventually(lambda: [row.value for row in ask(_STORED)] == [b"first"] and stubborn.batches[-2:] == [1, 1])
        assert "dead letters" in health.reasons
        stubborn.may.set()
        eventually(lambda: [row.value for row in ask(_STORED)] == [b"first", b"bad", b"last"])
        eventually(lambda: "dead letters" not in health.reasons)
